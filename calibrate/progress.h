/* How far a calibration is, on stderr: a bar that is redrawn on a terminal, else a line now and then. */
#ifndef CALIBRATE_PROGRESS_H
#define CALIBRATE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool is_terminal;
    int64_t start_ms; /* of the work: clock_monotonic_ms() */
    int64_t last_ms;  /* of the last output */
};

enum { PROGRESS_LINE_BYTES = 128 };

/* "131,072 tokens  [####      ]  40 %  ETA 2 min 05 s"; `share` in [0, 1]; the bar on terminals
 * only. Pure. */
void progress_format(const char *what, double share, int64_t elapsed_ms, bool has_bar,
                     char line_out[PROGRESS_LINE_BYTES]);

void progress_start(struct progress *progress);
/* Show it unless the last output is too fresh. */
void progress_show(struct progress *progress, const char *what, double share);
void progress_clear(const struct progress *progress); /* remove the drawn bar */

#endif
