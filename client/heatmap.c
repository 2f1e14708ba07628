#include "client/heatmap.h"

#include "base/utf8.h"
#include "client/format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { /* pixels */
       LEFT = 66,
       RIGHT = 66,
       TOP = 86,
       BOTTOM = 104,
       COLUMN = 4,
       PLOT_WIDTH = HEATMAP_COLUMNS * COLUMN,
       PLOT_HEIGHT_WANTED = 640,
       ROW_LEAST = 2,
       ROW_MOST = 15,
       LABEL_HEIGHT = 11, /* least distance of two labels of rows */
       QUESTION_CHARACTERS = 84,
       TICKS_MOST = 8,
};

/* Few tokens are kept in most columns, so the steps are finer there. */
static const struct level {
    double most; /* share of a column's tokens */
    const char *colour;
} levels[] = {
    {0.0, "#eef0f3"},  {0.01, "#e4f2b4"}, {0.05, "#b5e0b6"}, {0.10, "#71c8bd"}, {0.20, "#35a9c2"},
    {0.40, "#2180b8"}, {0.60, "#2657a2"}, {0.80, "#232f7f"}, {1.0, "#0b1547"},
};

enum { LEVELS = sizeof(levels) / sizeof(*levels) };

static enum tca_status rows_reserve(struct heatmap *map, struct tca_error *error)
{
    const size_t capacity = map->capacity > 0 ? 2 * map->capacity : 64;
    struct heatmap_row *rows;

    if (map->count < map->capacity)
        return TCA_OK;
    rows = realloc(map->rows, capacity * sizeof(*rows));
    if (rows == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
    map->rows = rows;
    map->capacity = capacity;
    return TCA_OK;
}

static int compare(const struct heatmap_row *row, uint32_t layer, uint32_t kv_head)
{
    if (row->layer != layer)
        return row->layer < layer ? -1 : 1;
    return row->kv_head < kv_head ? -1 : row->kv_head > kv_head;
}

enum tca_status heatmap_add(struct heatmap *map, uint32_t layer, uint32_t kv_head,
                            const uint32_t *kept, size_t columns, struct tca_error *error)
{
    size_t at = map->count;

    if (columns != HEATMAP_COLUMNS)
        return tca_fail(error, TCA_ERR_INVALID,
                        "selection of layer %" PRIu32 ", head %" PRIu32 ": %zu bins, allowed: %d",
                        layer, kv_head, columns, HEATMAP_COLUMNS);
    /* Rows mostly come in order. */
    while (at > 0 && compare(&map->rows[at - 1], layer, kv_head) > 0)
        at--;
    if (at == 0 || compare(&map->rows[at - 1], layer, kv_head) != 0) {
        if (map->count == HEATMAP_ROWS_MAX)
            return tca_fail(error, TCA_ERR_RANGE, "selections of over %d heads, allowed: %d",
                            HEATMAP_ROWS_MAX, HEATMAP_ROWS_MAX);
        TCA_TRY(rows_reserve(map, error));
        memmove(&map->rows[at + 1], &map->rows[at], (map->count - at) * sizeof(*map->rows));
        map->count++;
        at++;
    }
    map->rows[at - 1].layer = layer;
    map->rows[at - 1].kv_head = kv_head;
    memcpy(map->rows[at - 1].kept, kept, sizeof(map->rows[at - 1].kept));
    return TCA_OK;
}

void heatmap_free(struct heatmap *map)
{
    free(map->rows);
    *map = (struct heatmap){0};
}

/* Tokens before column j, without overflow. */
static uint64_t column_start(uint64_t tokens, uint64_t column)
{
    return column * (tokens / HEATMAP_COLUMNS) +
           (column * (tokens % HEATMAP_COLUMNS) + HEATMAP_COLUMNS - 1) / HEATMAP_COLUMNS;
}

static int level_of(const struct heatmap *map, const struct heatmap_row *row, size_t column)
{
    const uint64_t tokens =
        column_start(map->document_tokens, column + 1) - column_start(map->document_tokens, column);
    const double share = tokens > 0 ? (double)row->kept[column] / (double)tokens : 0;
    int level = 0;

    while (level + 1 < LEVELS && share > levels[level].most)
        level++;
    return level;
}

static double row_share(const struct heatmap *map, const struct heatmap_row *row)
{
    uint64_t kept = 0;

    for (size_t column = 0; column < HEATMAP_COLUMNS; column++)
        kept += row->kept[column];
    return map->document_tokens > 0 ? (double)kept / (double)map->document_tokens : 0;
}

/* The picture under way; the first failure stays. */
struct drawing {
    const struct heatmap *map;
    struct bytes *out;
    enum tca_status status;
    int row_height;
};

static void put(struct drawing *drawing, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct drawing *drawing, const char *format, ...)
{
    char text[512];
    va_list values;

    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    if (drawing->status == TCA_OK)
        drawing->status = bytes_append_text(drawing->out, text);
}

/* XML has no way to write most control characters and U+FFFE, U+FFFF. */
static enum tca_status append_character(struct bytes *out, const char *at, size_t length)
{
    switch (at[0]) {
    case '&':
        return bytes_append_text(out, "&amp;");
    case '<':
        return bytes_append_text(out, "&lt;");
    case '>':
        return bytes_append_text(out, "&gt;");
    default:
        break;
    }
    if (length == 3 && (memcmp(at, "\xef\xbf\xbe", 3) == 0 || memcmp(at, "\xef\xbf\xbf", 3) == 0))
        return bytes_append_text(out, "\xef\xbf\xbd");
    return bytes_append(out, at, length);
}

/* Append `text` for an element's content: white space as one space, control characters escaped as
 * for a terminal, cut with an ellipsis after `characters`. */
static enum tca_status append_line(struct bytes *out, const void *text, size_t bytes,
                                   size_t characters)
{
    struct bytes line = {0};
    enum tca_status status = format_escaped(&line, text, bytes, FORMAT_KEEP_BREAKS);
    const char *at = (const char *)line.data, *end = at + line.size;
    bool is_space = true; /* at the start */

    for (; status == TCA_OK && at < end; characters--) {
        const size_t length = utf8_character_bytes(at, (size_t)(end - at));
        const bool was_space = is_space;

        is_space = strchr(" \n\t", at[0]) != NULL;
        if (is_space && was_space) {
            characters++; /* does not count */
        } else if (characters == 0) {
            status = bytes_append_text(out, "\xe2\x80\xa6");
            break;
        } else if (is_space) {
            status = bytes_append(out, " ", 1);
        } else {
            status = append_character(out, at, length);
        }
        at += length;
    }
    bytes_free(&line);
    return status;
}

static void put_line(struct drawing *drawing, const void *text, size_t bytes)
{
    if (drawing->status == TCA_OK)
        drawing->status = append_line(drawing->out, text, bytes, QUESTION_CHARACTERS);
}

static void put_head(struct drawing *drawing, const struct heatmap_caption *caption)
{
    const struct heatmap *map = drawing->map;
    double sum = 0, least = 1, most = 0;
    char tokens[FORMAT_BYTES];

    for (size_t i = 0; i < map->count; i++) {
        const double share = row_share(map, &map->rows[i]);

        sum += share;
        least = share < least ? share : least;
        most = share > most ? share : most;
    }
    format_count(map->document_tokens, tokens);
    put(drawing, "<text x=\"%d\" y=\"32\" font-size=\"16\" font-weight=\"600\">", LEFT);
    put_line(drawing, caption->question, caption->question_bytes);
    put(drawing, "</text>\n<text x=\"%d\" y=\"54\" font-size=\"13\" fill=\"#57606a\">", LEFT);
    put_line(drawing, caption->document_id, strlen(caption->document_id));
    put(drawing, ", %s tokens", tokens);
    if (caption->rule != NULL && caption->rule[0] != '\0') {
        put(drawing, ", rule ");
        put_line(drawing, caption->rule, strlen(caption->rule));
    }
    if (map->count > 0)
        put(drawing, ": kept %.1f %% (a head %.1f to %.1f %%)", 100 * sum / (double)map->count,
            100 * least, 100 * most);
    put(drawing, "</text>\n");
}

/* One path a colour, of a rectangle for each run of equal columns, in units of columns and rows. */
static void put_cells(struct drawing *drawing)
{
    const struct heatmap *map = drawing->map;

    put(drawing, "<g transform=\"translate(%d %d) scale(%d %d)\" shape-rendering=\"crispEdges\">\n",
        LEFT, TOP, COLUMN, drawing->row_height);
    put(drawing, "<rect width=\"%d\" height=\"%zu\" fill=\"%s\"/>\n", HEATMAP_COLUMNS, map->count,
        levels[0].colour);
    for (int level = 1; level < LEVELS; level++) {
        bool is_open = false;

        for (size_t i = 0; i < map->count; i++) {
            for (size_t column = 0, end; column < HEATMAP_COLUMNS; column = end) {
                end = column + 1;
                if (level_of(map, &map->rows[i], column) != level)
                    continue;
                while (end < HEATMAP_COLUMNS && level_of(map, &map->rows[i], end) == level)
                    end++;
                if (!is_open)
                    put(drawing, "<path fill=\"%s\" d=\"", levels[level].colour);
                is_open = true;
                put(drawing, "M%zu %zuh%zuv1h-%zuz", column, i, end - column, end - column);
            }
        }
        if (is_open)
            put(drawing, "\"/>\n");
    }
    put(drawing, "</g>\n");
}

/* A line between layers; for each row its name and kept share, as text where there is room and as a
 * tip under the pointer. */
static void put_rows(struct drawing *drawing)
{
    const struct heatmap *map = drawing->map;
    int label_end = 0;

    put(drawing,
        "<g font-size=\"10\" fill=\"#57606a\">\n"
        "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">layer.head</text>\n"
        "<text x=\"%d\" y=\"%d\">kept</text>\n",
        LEFT - 8, TOP - 8, LEFT + PLOT_WIDTH + 8, TOP - 8);
    for (size_t i = 0; i < map->count; i++) {
        const struct heatmap_row *row = &map->rows[i];
        const int y = TOP + (int)i * drawing->row_height;
        const bool is_first = i == 0 || map->rows[i - 1].layer != row->layer;
        const double share = 100 * row_share(map, row);

        if (is_first && i > 0)
            put(drawing, "<path d=\"M%d %dh%d\" stroke=\"#ffffff\"/>\n", LEFT, y, PLOT_WIDTH);
        put(drawing,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill-opacity=\"0\"><title>layer "
            "%" PRIu32 ", head %" PRIu32 ": kept %.2f %%</title></rect>\n",
            LEFT, y, PLOT_WIDTH, drawing->row_height, row->layer, row->kv_head, share);
        /* Where not every row has room, those that begin a layer are named. */
        if (y < label_end || (drawing->row_height < LABEL_HEIGHT && !is_first))
            continue;
        label_end = y + LABEL_HEIGHT;
        put(drawing,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%" PRIu32 ".%" PRIu32 "</text>"
            "<text x=\"%d\" y=\"%d\">%.1f %%</text>\n",
            LEFT - 8, y + drawing->row_height / 2 + 4, row->layer, row->kv_head,
            LEFT + PLOT_WIDTH + 8, y + drawing->row_height / 2 + 4, share);
    }
    put(drawing, "</g>\n");
}

/* 1, 2 or 5 times a power of ten, so that a few ticks cover the tokens. */
static uint64_t tick_step(uint64_t tokens)
{
    static const uint64_t factors[] = {1, 2, 5};

    for (uint64_t power = 1; power <= UINT64_MAX / 50; power *= 10)
        for (size_t i = 0; i < sizeof(factors) / sizeof(*factors); i++)
            if (tokens / (power * factors[i]) <= TICKS_MOST)
                return power * factors[i];
    return UINT64_MAX;
}

static void put_axis(struct drawing *drawing, int y)
{
    const uint64_t tokens = drawing->map->document_tokens, step = tick_step(tokens);

    put(drawing, "<g font-size=\"11\" text-anchor=\"middle\" stroke-width=\"1\">\n");
    for (uint64_t at = 0; at <= tokens && tokens > 0; at += step) {
        const double x = LEFT + PLOT_WIDTH * ((double)at / (double)tokens);
        char text[FORMAT_BYTES];

        format_count(at, text);
        put(drawing,
            "<path d=\"M%.1f %dv5\" stroke=\"#57606a\"/><text x=\"%.1f\" y=\"%d\">%s</text>\n", x,
            y, x, y + 18, text);
        if (at > UINT64_MAX - step)
            break;
    }
    put(drawing,
        "<text x=\"%d\" y=\"%d\" fill=\"#57606a\">position in the document, tokens</text>\n",
        LEFT + PLOT_WIDTH / 2, y + 36);
    put(drawing, "</g>\n");
}

static void put_legend(struct drawing *drawing, int y)
{
    const int swatch = 26, step = 80;
    char tokens[FORMAT_BYTES];
    int x = LEFT + PLOT_WIDTH - LEVELS * step;

    format_count((drawing->map->document_tokens + HEATMAP_COLUMNS / 2) / HEATMAP_COLUMNS, tokens);
    put(drawing,
        "<g font-size=\"11\">\n<text x=\"%d\" y=\"%d\">kept of a column's %s tokens</text>\n", LEFT,
        y + 10, tokens);
    for (int level = 0; level < LEVELS; level++, x += step) {
        put(drawing,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"12\" fill=\"%s\" stroke=\"#c8ccd1\" "
            "stroke-width=\"0.5\"/><text x=\"%d\" y=\"%d\">%s%.0f %%</text>\n",
            x, y, swatch, levels[level].colour, x + swatch + 5, y + 10,
            level == 0 ? "" : "\xe2\x89\xa4 ", 100 * levels[level].most);
    }
    put(drawing, "</g>\n");
}

enum tca_status heatmap_draw(const struct heatmap *map, const struct heatmap_caption *caption,
                             struct bytes *svg_out)
{
    struct drawing drawing = {.map = map, .out = svg_out, .row_height = ROW_MOST};
    const int width = LEFT + PLOT_WIDTH + RIGHT;
    int bottom, height;

    if (map->count > 0 && PLOT_HEIGHT_WANTED / map->count < ROW_MOST)
        drawing.row_height = (int)(PLOT_HEIGHT_WANTED / map->count);
    if (drawing.row_height < ROW_LEAST)
        drawing.row_height = ROW_LEAST;
    bottom = TOP + (int)map->count * drawing.row_height;
    height = bottom + BOTTOM;
    put(&drawing,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
        "viewBox=\"0 0 %d %d\" role=\"img\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" "
        "fill=\"#1f2328\">\n<title>",
        width, height, width, height);
    put_line(&drawing, caption->question, caption->question_bytes);
    /* Its own background: what it stands on may be dark. */
    put(&drawing, "</title>\n<rect width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#ffffff\"/>\n", width,
        height);
    put_head(&drawing, caption);
    put_cells(&drawing);
    put_rows(&drawing);
    put_axis(&drawing, bottom);
    put_legend(&drawing, bottom + 66);
    put(&drawing, "</svg>\n");
    return drawing.status;
}
