/* How far a pass is, on stderr: a bar that is redrawn on a terminal, else a line now and then. */
#ifndef CALIBRATE_PASS_PROGRESS_H
#define CALIBRATE_PASS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct pass_progress {
    bool is_terminal;
    int64_t start_ms; /* of the work: clock_monotonic_ms() */
    int64_t last_ms;  /* of the last output */
};

enum { PASS_PROGRESS_LINE_BYTES = 128 };

/* "131,072 tokens  [####      ]  40 %  ETA 2 min 05 s"; `share` in [0, 1]; the bar on terminals
 * only. Pure. */
void pass_progress_format(const char *what, double share, int64_t elapsed_ms, bool has_bar,
                          char line_out[PASS_PROGRESS_LINE_BYTES]);

void pass_progress_start(struct pass_progress *progress);
/* Show it unless the last output is too fresh. */
void pass_progress_show(struct pass_progress *progress, const char *what, double share);
void pass_progress_clear(const struct pass_progress *progress); /* remove the drawn bar */

#endif
