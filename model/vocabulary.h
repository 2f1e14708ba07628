/* The two-way table of token texts (as tokenizer.json writes them) and ids. Filled once, then
 * read-only. All zeros is the empty table. */
#ifndef MODEL_VOCABULARY_H
#define MODEL_VOCABULARY_H

#include "base/bytes.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { VOCABULARY_IDS_MAX = 1 << 22 };

struct vocabulary_entry {
    uint32_t at;    /* of the text in `texts` */
    uint32_t bytes; /* UINT32_MAX: no token has this id */
};

struct vocabulary {
    struct vocabulary_entry *entries; /* [ids], owned */
    int32_t ids;                      /* one past the largest id */
    int32_t entry_capacity;
    int32_t tokens;     /* entries in use */
    struct bytes texts; /* owned */
    int32_t *slots;     /* [slot_count] hash table of ids, -1 = free; owned */
    uint32_t slot_count;
};

/* TCA_ERR_EXISTS: the text or the id is taken; TCA_ERR_RANGE: id outside [0, VOCABULARY_IDS_MAX);
 * TCA_ERR_NO_MEMORY. */
enum tca_status vocabulary_add(struct vocabulary *vocabulary, const char *text, size_t bytes,
                               int32_t id);
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes);

/* The text of a token, borrowed and not NUL-terminated; NULL for an id without token. */
const char *vocabulary_text(const struct vocabulary *vocabulary, int32_t id, size_t *bytes_out);

void vocabulary_free(struct vocabulary *vocabulary); /* back to all zeros */

#endif
