/* Byte pair encoding of one pre-token: the merge with the lowest rank first, the leftmost of
 * equals, until none is left (Sennrich et al., arXiv 1508.07909), as `tokenizers` does it. */
#ifndef MODEL_BPE_H
#define MODEL_BPE_H

#include "base/status.h"
#include "base/token_ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BPE_NO_RANK = INT32_MAX };

struct bpe_merge {
    int32_t left, right;
    int32_t rank; /* BPE_NO_RANK: the pair does not merge */
    int32_t merged;
};

/* Small, so that looking for a pair that does not merge seldom leaves the processor's cache; the
 * merges that are used most come first in their array and stay there as well. */
struct bpe_slot {
    uint32_t hash; /* of the pair */
    int32_t merge; /* index, -1: a free slot */
};

/* What a byte starts as: its own token, two tokens (byte fallback of a character of two bytes),
 * the unknown token, or nothing at all. */
struct bpe_byte {
    int32_t ids[2];
    int count;
    bool is_unknown;
};

/* Filled once, then read-only. All zeros is empty. */
struct bpe {
    struct bpe_merge *merges; /* [merge_count], owned */
    struct bpe_slot *slots;   /* [slot_count] hash table, owned */
    uint32_t merge_count, slot_count;
    struct bpe_byte bytes[256];
    size_t symbols_per_byte; /* the largest count in `bytes` */
    bool fuse_unknown;       /* a run of unknown bytes is one unknown token */
};

/* A later merge of the same pair replaces the earlier. TCA_ERR_NO_MEMORY. */
enum tca_status bpe_add_merge(struct bpe *bpe, const struct bpe_merge *merge);
void bpe_free(struct bpe *bpe); /* back to all zeros */

/* Scratch memory of one thread, for pre-tokens that are long. All zeros to begin with. */
struct bpe_scratch {
    int32_t *symbols;  /* [symbol_capacity] the pre-token before any merge */
    uint32_t *lengths; /* [symbol_capacity] of the tokens written, in symbols */
    size_t symbol_capacity;
    struct bpe_window *window;
};
void bpe_scratch_free(struct bpe_scratch *scratch);

/* Append the tokens of a pre-token of less than 2^31 bytes. The time is that of short pre-tokens
 * for any length of natural text, n log n at worst. TCA_ERR_NO_MEMORY. */
enum tca_status bpe_encode(const struct bpe *bpe, const char *text, size_t bytes,
                           struct bpe_scratch *scratch, struct token_ids *ids_out);

#endif
