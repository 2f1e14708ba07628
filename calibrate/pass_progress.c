#include "calibrate/pass_progress.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_CELLS = 24, REDRAW_MS = 100, PLAIN_LINE_MS = 10000, ETA_AFTER_MS = 1000 };

static void append_eta(char line[PASS_PROGRESS_LINE_BYTES], double share, int64_t elapsed_ms)
{
    const size_t used = strlen(line);
    const double left_s = (double)elapsed_ms / 1000.0 * (1.0 - share) / share;
    const int seconds = left_s < 1e6 ? (int)(left_s + 0.5) : 1000000;

    if (seconds < 60)
        snprintf(line + used, PASS_PROGRESS_LINE_BYTES - used, "  ETA %d s", seconds);
    else
        snprintf(line + used, PASS_PROGRESS_LINE_BYTES - used, "  ETA %d min %02d s", seconds / 60,
                 seconds % 60);
}

void pass_progress_format(const char *what, double share, int64_t elapsed_ms, bool has_bar,
                          char line_out[PASS_PROGRESS_LINE_BYTES])
{
    char bar[BAR_CELLS + 1];

    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = (double)i < share * BAR_CELLS ? '#' : ' ';
    bar[BAR_CELLS] = '\0';
    if (has_bar)
        snprintf(line_out, PASS_PROGRESS_LINE_BYTES, "%.60s  [%s]  %d %%", what, bar,
                 (int)(share * 100.0));
    else
        snprintf(line_out, PASS_PROGRESS_LINE_BYTES, "%.60s  %d %%", what, (int)(share * 100.0));
    if (share > 0.0 && elapsed_ms >= ETA_AFTER_MS)
        append_eta(line_out, share, elapsed_ms);
}

void pass_progress_start(struct pass_progress *progress)
{
    *progress = (struct pass_progress){.is_terminal = isatty(STDERR_FILENO) != 0,
                                       .start_ms = clock_monotonic_ms()};
}

void pass_progress_show(struct pass_progress *progress, const char *what, double share)
{
    const int64_t now_ms = clock_monotonic_ms();
    char line[PASS_PROGRESS_LINE_BYTES];

    if (progress->last_ms != 0 &&
        now_ms - progress->last_ms < (progress->is_terminal ? REDRAW_MS : PLAIN_LINE_MS))
        return;
    pass_progress_format(what, share, now_ms - progress->start_ms, progress->is_terminal, line);
    if (progress->is_terminal)
        fprintf(stderr, "\r\x1b[K%s", line);
    else
        fprintf(stderr, "%s\n", line);
    progress->last_ms = now_ms;
}

void pass_progress_clear(const struct pass_progress *progress)
{
    if (progress->is_terminal && progress->last_ms != 0)
        fprintf(stderr, "\r\x1b[K");
}
