#include "model/word_cache.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_MIN = 64, SLOTS_MAX = 1 << 15, TEXT_BYTES_PER_SLOT = 16 };

enum tca_status word_cache_init(struct word_cache *cache, size_t text_bytes)
{
    size_t count = SLOTS_MIN;

    while (count < SLOTS_MAX && count < text_bytes / TEXT_BYTES_PER_SLOT)
        count *= 2;
    cache->slots = calloc(count, sizeof(*cache->slots));
    cache->slot_count = count;
    return cache->slots == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
}

void word_cache_deinit(struct word_cache *cache)
{
    free(cache->slots);
    *cache = (struct word_cache){0};
}

struct word_cache_slot *word_cache_find(struct word_cache *cache, const char *word, size_t bytes,
                                        bool *is_hit_out)
{
    uint64_t text[WORD_CACHE_BYTES / 8] = {0};
    struct word_cache_slot *slot;
    uint64_t hash;

    memcpy(text, word, bytes);
    hash = hash_mix(text[0] ^ (uint64_t)bytes << 59 ^ hash_mix(text[1] ^ text[2] << 1));
    slot = &cache->slots[hash & (cache->slot_count - 1)];
    *is_hit_out = slot->bytes == bytes && slot->text[0] == text[0] && slot->text[1] == text[1] &&
                  slot->text[2] == text[2];
    if (!*is_hit_out) {
        memcpy(slot->text, text, sizeof(text));
        slot->bytes = (uint8_t)bytes;
        slot->count = 0;
    }
    return slot;
}

void word_cache_fill(struct word_cache_slot *slot, const int32_t *ids, size_t count)
{
    if (count > WORD_CACHE_IDS) {
        slot->bytes = 0;
        return;
    }
    if (count > 0) /* none: its bytes are no tokens, and there may be no array yet */
        memcpy(slot->ids, ids, count * sizeof(*ids));
    slot->count = (uint8_t)count;
}
