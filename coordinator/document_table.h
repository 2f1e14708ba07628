/* All documents by id: finds, and lists in pages. Owns them; guarded by the coordinator's lock. */
#ifndef COORDINATOR_DOCUMENT_TABLE_H
#define COORDINATOR_DOCUMENT_TABLE_H

#include "coordinator/document.h"

#include <stddef.h>

struct document_table {
    struct document **rows; /* owned, ascending by id */
    size_t count;
    size_t capacity;
};

void document_table_free(struct document_table *table); /* and every document */

struct document *document_table_find(const struct document_table *table, const char *id);
/* Takes the document. TCA_ERR_EXISTS, TCA_ERR_NO_MEMORY: it stays the caller's. */
enum tca_status document_table_add(struct document_table *table, struct document *document);
void document_table_remove(struct document_table *table, struct document *document); /* destroys */

/* Index of the first row whose id is greater than `id` ("": 0). */
size_t document_table_after(const struct document_table *table, const char *id);

#endif
