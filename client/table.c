#include "client/table.h"

#include "client/format.h"

#include <stdlib.h>
#include <string.h>

static enum tca_status add(struct table *table, const void *text, size_t bytes)
{
    char **cells = realloc(table->cells, (table->count + 1) * sizeof(*cells));
    struct bytes cell = {0};
    enum tca_status status;

    if (cells == NULL)
        return TCA_ERR_NO_MEMORY;
    table->cells = cells;
    status = format_escaped(&cell, text, bytes, FORMAT_ESCAPE_BREAKS);
    if (status == TCA_OK)
        status = bytes_append(&cell, "", 1); /* ends the text */
    if (status != TCA_OK) {
        bytes_free(&cell);
        return status;
    }
    table->cells[table->count++] = (char *)cell.data;
    return TCA_OK;
}

void table_add(struct table *table, const void *text, size_t bytes)
{
    if (table->status == TCA_OK)
        table->status = add(table, text, bytes);
}

void table_add_text(struct table *table, const char *text)
{
    table_add(table, text, strlen(text));
}

void table_add_count(struct table *table, uint64_t count)
{
    char text[FORMAT_BYTES] = "-";

    if (count > 0)
        format_count(count, text);
    table_add_text(table, text);
}

void table_add_size(struct table *table, uint64_t bytes)
{
    char text[FORMAT_BYTES] = "-";

    if (bytes > 0)
        format_size(bytes, text);
    table_add_text(table, text);
}

static size_t characters(const char *text)
{
    size_t count = 0;

    for (; *text != '\0'; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = 0;

    for (size_t i = column; i < table->count; i += table->columns) {
        size_t length = characters(table->cells[i]);

        width = length > width ? length : width;
    }
    return width;
}

static enum tca_status append_spaces(struct bytes *out, size_t count)
{
    for (; count > 0; count--)
        TCA_TRY(bytes_append(out, " ", 1));
    return TCA_OK;
}

static enum tca_status append_row(const struct table *table, size_t first, const size_t *widths,
                                  struct bytes *out)
{
    size_t owed = 0; /* spaces before the next text; a line does not end with them */

    for (size_t column = 0; column < table->columns && first + column < table->count; column++) {
        const char *cell = table->cells[first + column];

        if (cell[0] != '\0') {
            TCA_TRY(append_spaces(out, owed));
            TCA_TRY(bytes_append_text(out, cell));
            owed = 0;
        }
        owed += widths[column] - characters(cell) + 2;
    }
    return bytes_append(out, "\n", 1);
}

static enum tca_status append_rows(const struct table *table, struct bytes *out)
{
    size_t *widths = calloc(table->columns, sizeof(*widths));
    enum tca_status status = widths != NULL ? TCA_OK : TCA_ERR_NO_MEMORY;

    for (size_t column = 0; status == TCA_OK && column < table->columns; column++)
        widths[column] = column_width(table, column);
    for (size_t i = 0; status == TCA_OK && i < table->count; i += table->columns)
        status = append_row(table, i, widths, out);
    free(widths);
    return status;
}

enum tca_status table_finish(struct table *table, struct bytes *out)
{
    enum tca_status status = table->status;

    if (status == TCA_OK)
        status = append_rows(table, out);
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){.columns = table->columns};
    return status;
}
