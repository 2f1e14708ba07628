/* The process's log: one line an event on stderr, `2026-01-31T12:00:00.000Z level who: text`.
 * The only global state of the code base. Thread-safe: a line is written by one write(2). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Name this process in its lines ("coordinator", "worker 0"); copied, cut at 31 bytes. Lines
 * above `level` are dropped. Call before threads start. */
void log_init(const char *who, enum log_level level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
