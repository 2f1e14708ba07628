/* Tokens of the pre-tokens that one encode call has met: natural text repeats its words. A bounded
 * table in which a newer word replaces an older; long words are never kept. Owned by one thread. */
#ifndef MODEL_WORD_CACHE_H
#define MODEL_WORD_CACHE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORD_CACHE_BYTES = 24, WORD_CACHE_IDS = 8 };

struct word_cache_slot {
    uint64_t text[WORD_CACHE_BYTES / 8]; /* zeros behind it */
    int32_t ids[WORD_CACHE_IDS];
    uint8_t bytes; /* 0: free */
    uint8_t count;
};

struct word_cache {
    struct word_cache_slot *slots; /* [slot_count], owned */
    size_t slot_count;             /* a power of two */
};

/* Sized for a text of `text_bytes`. TCA_ERR_NO_MEMORY. */
enum tca_status word_cache_init(struct word_cache *cache, size_t text_bytes);
void word_cache_deinit(struct word_cache *cache);

/* The slot of a word of 1 to WORD_CACHE_BYTES bytes: *is_hit_out says whether its tokens are in
 * it, else the word is now written there with count 0 and word_cache_fill must follow. */
struct word_cache_slot *word_cache_find(struct word_cache *cache, const char *word, size_t bytes,
                                        bool *is_hit_out);

/* Keep the word's tokens, or free the slot when they are too many. */
void word_cache_fill(struct word_cache_slot *slot, const int32_t *ids, size_t count);

#endif
