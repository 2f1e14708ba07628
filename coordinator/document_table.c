#include "coordinator/document_table.h"

#include <stdlib.h>
#include <string.h>

void document_table_free(struct document_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        document_free(table->rows[i]);
    free(table->rows);
    *table = (struct document_table){0};
}

size_t document_table_after(const struct document_table *table, const char *id)
{
    size_t low = 0;
    size_t high = table->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (strcmp(table->rows[middle]->id, id) > 0)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct document *document_table_find(const struct document_table *table, const char *id)
{
    const size_t after = document_table_after(table, id);

    return after > 0 && strcmp(table->rows[after - 1]->id, id) == 0 ? table->rows[after - 1] : NULL;
}

enum tca_status document_table_add(struct document_table *table, struct document *document)
{
    const size_t at = document_table_after(table, document->id);

    if (at > 0 && strcmp(table->rows[at - 1]->id, document->id) == 0)
        return TCA_ERR_EXISTS;
    if (table->count == table->capacity) {
        const size_t capacity = table->capacity == 0 ? 16 : table->capacity * 2;
        struct document **grown = realloc(table->rows, capacity * sizeof(struct document *));

        if (grown == NULL)
            return TCA_ERR_NO_MEMORY;
        table->rows = grown;
        table->capacity = capacity;
    }
    memmove(table->rows + at + 1, table->rows + at,
            (table->count - at) * sizeof(struct document *));
    table->rows[at] = document;
    table->count++;
    return TCA_OK;
}

void document_table_remove(struct document_table *table, struct document *document)
{
    const size_t at = document_table_after(table, document->id) - 1;

    memmove(table->rows + at, table->rows + at + 1,
            (table->count - at - 1) * sizeof(struct document *));
    table->count--;
    document_free(document);
}
