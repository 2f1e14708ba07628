#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct {
    char who[32];
    enum log_level level;
} sink = {.who = "tca", .level = LOG_LEVEL_INFO};

void log_init(const char *who, enum log_level level)
{
    snprintf(sink.who, sizeof(sink.who), "%s", who);
    sink.level = level;
}

static size_t write_head(char *line, size_t bytes, enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    struct timespec now;
    struct tm utc;
    size_t used;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    used = strftime(line, bytes, "%Y-%m-%dT%H:%M:%S", &utc);
    return used + (size_t)snprintf(line + used, bytes - used,
                                   ".%03ldZ %s %s: ", now.tv_nsec / 1000000, names[level],
                                   sink.who);
}

void log_write(enum log_level level, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    size_t used;
    int wanted;

    if (level > sink.level)
        return;
    used = write_head(line, sizeof(line) - 1, level);
    va_start(arguments, format);
    wanted = vsnprintf(line + used, sizeof(line) - 1 - used, format, arguments);
    va_end(arguments);
    if (wanted > 0)
        used += (size_t)wanted < sizeof(line) - 1 - used ? (size_t)wanted : sizeof(line) - 2 - used;
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0)
        return; /* nowhere left to report it */
}
