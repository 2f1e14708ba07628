#include "client/progress.h"

#include "client/format.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    BAR_CELLS = 24,
    BAR_COLUMNS_MIN = 60, /* narrower terminals show the numbers only */
    REDRAW_MS = 100,
    PLAIN_LINE_MS = 2000,
};

static void format_amount(enum progress_unit unit, uint64_t amount, char text_out[FORMAT_BYTES])
{
    if (unit == PROGRESS_BYTES)
        format_size(amount, text_out);
    else
        format_count(amount, text_out);
}

static void append(char line[PROGRESS_LINE_BYTES], const char *text)
{
    size_t used = strlen(line);

    snprintf(line + used, PROGRESS_LINE_BYTES - used, "%s", text);
}

static void append_bar(char line[PROGRESS_LINE_BYTES], double share)
{
    char bar[BAR_CELLS + 4] = " [";
    int full = (int)(share * BAR_CELLS);

    for (int i = 0; i < BAR_CELLS; i++)
        bar[2 + i] = i < full ? '#' : ' ';
    bar[BAR_CELLS + 2] = ']';
    append(line, bar);
}

static void append_rate(char line[PROGRESS_LINE_BYTES], const struct progress_state *state)
{
    char rate[FORMAT_BYTES], text[FORMAT_BYTES + 16];

    if (!(state->per_s > 0))
        return;
    if (state->unit == PROGRESS_BYTES)
        format_size(state->per_s < 1e18 ? (uint64_t)state->per_s : (uint64_t)1e18, rate);
    else
        format_rate(state->per_s, rate);
    snprintf(text, sizeof(text), state->unit == PROGRESS_BYTES ? "  %s/s" : "  %s tokens/s", rate);
    append(line, text);
}

void progress_format(const struct progress_state *state, int columns,
                     char line_out[PROGRESS_LINE_BYTES])
{
    char done[FORMAT_BYTES], total[FORMAT_BYTES], text[2 * FORMAT_BYTES + 32];
    const char *unit = state->unit == PROGRESS_TOKENS ? " tokens" : "";

    snprintf(line_out, PROGRESS_LINE_BYTES, "%s", state->phase);
    format_amount(state->unit, state->done, done);
    if (state->total > 0) {
        double share = (double)state->done / (double)state->total;

        share = share > 1 ? 1 : share;
        if (columns >= BAR_COLUMNS_MIN)
            append_bar(line_out, share);
        format_amount(state->unit, state->total, total);
        snprintf(text, sizeof(text), "  %d %%  %s of %s%s", (int)(share * 100), done, total, unit);
        append(line_out, text);
    } else if (state->done > 0) {
        snprintf(text, sizeof(text), "  %s%s", done, unit);
        append(line_out, text);
    }
    append_rate(line_out, state);
    if (state->eta_ms > 0) {
        format_duration(state->eta_ms, done);
        append(line_out, "  ETA ");
        append(line_out, done);
    }
    if (columns > 0 && columns < PROGRESS_LINE_BYTES)
        line_out[columns] = '\0';
}

static int terminal_columns(FILE *out)
{
    struct winsize size;

    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col < 2)
        return 80;
    return size.ws_col - 1; /* a full line would wrap */
}

void progress_show(struct progress *progress, const struct progress_state *state, int64_t now_ms)
{
    bool is_new_phase =
        progress->last_phase == NULL || strcmp(progress->last_phase, state->phase) != 0;
    int64_t pause_ms = progress->is_terminal ? REDRAW_MS : PLAIN_LINE_MS;
    char line[PROGRESS_LINE_BYTES];

    if (!is_new_phase && now_ms - progress->last_ms < pause_ms)
        return;
    progress_format(state, progress->is_terminal ? terminal_columns(progress->out) : 0, line);
    if (progress->is_terminal)
        fprintf(progress->out, "\r\x1b[K%s", line);
    else
        fprintf(progress->out, "%s\n", line);
    fflush(progress->out);
    progress->is_line_open = progress->is_terminal;
    progress->last_phase = state->phase;
    progress->last_ms = now_ms;
}

void progress_clear(struct progress *progress)
{
    if (!progress->is_line_open)
        return;
    fprintf(progress->out, "\r\x1b[K");
    fflush(progress->out);
    progress->is_line_open = false;
}
