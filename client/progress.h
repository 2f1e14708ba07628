/* How far a long operation is: one line that is redrawn on a terminal, plain lines otherwise. */
#ifndef CLIENT_PROGRESS_H
#define CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum progress_unit { PROGRESS_BYTES, PROGRESS_TOKENS };

struct progress_state {
    const char *phase; /* "uploading", "waiting"; a literal: phases are told apart by it */
    enum progress_unit unit;
    uint64_t done;
    uint64_t total;  /* 0: unknown */
    double per_s;    /* 0: unknown */
    uint64_t eta_ms; /* 0: unknown */
};

enum { PROGRESS_LINE_BYTES = 256 };

/* "prefilling [#####     ]  50 %  8,192 of 16,384 tokens  1,234 tokens/s  ETA 6.6 s", without the
 * bar if `columns` is 0 (plain lines) or too few, cut to `columns`. Pure. */
void progress_format(const struct progress_state *state, int columns,
                     char line_out[PROGRESS_LINE_BYTES]);

/* Where a progress goes; all zeros beside `out` and `is_terminal` at first. */
struct progress {
    FILE *out;
    bool is_terminal;
    bool is_line_open;      /* a line is drawn that the next one must replace */
    const char *last_phase; /* of the last line */
    int64_t last_ms;
};

/* Show a state, if it is news: at most ten times a second on a terminal, else once in two seconds
 * and whenever the phase changes. `now_ms`: a monotonic clock. */
void progress_show(struct progress *progress, const struct progress_state *state, int64_t now_ms);
void progress_clear(struct progress *progress); /* remove the drawn line, if any */

#endif
