/* Texts in columns, built cell by cell. The first failure sticks, so that only printing is
 * checked. Cells are escaped as format_escaped does, line breaks too. */
#ifndef CLIENT_TABLE_H
#define CLIENT_TABLE_H

#include "base/bytes.h"

#include <stddef.h>
#include <stdint.h>

struct table {
    size_t columns; /* set by the user; the rest starts as zeros */
    char **cells;   /* [count], row by row, owned */
    size_t count;
    enum tca_status status;
};

void table_add(struct table *table, const void *text, size_t bytes);
void table_add_text(struct table *table, const char *text);
void table_add_count(struct table *table, uint64_t count); /* 0 is "-" */
void table_add_size(struct table *table, uint64_t bytes);  /* 0 is "-" */

/* Append the rows to *out as left-aligned columns two spaces apart, and empty the table. Widths are
 * counted in characters. */
enum tca_status table_finish(struct table *table, struct bytes *out);

#endif
