#include "model/vocabulary.h"

#include "base/hash.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_text_of(const struct vocabulary *vocabulary, int32_t id, const char *text,
                       size_t bytes)
{
    const struct vocabulary_entry *entry = &vocabulary->entries[id];

    return entry->bytes == bytes &&
           (bytes == 0 || memcmp(vocabulary->texts.data + entry->at, text, bytes) == 0);
}

/* The slot that holds `text`, or the free one where it would go. The table is never full. */
static uint32_t find_slot(const struct vocabulary *vocabulary, const char *text, size_t bytes)
{
    const uint32_t mask = vocabulary->slot_count - 1;
    uint32_t slot = (uint32_t)hash_bytes(text, bytes) & mask;

    while (vocabulary->slots[slot] >= 0 &&
           !is_text_of(vocabulary, vocabulary->slots[slot], text, bytes))
        slot = (slot + 1) & mask;
    return slot;
}

static enum tca_status grow_slots(struct vocabulary *vocabulary)
{
    const uint32_t count = vocabulary->slot_count == 0 ? 1024 : vocabulary->slot_count * 2;
    int32_t *slots = malloc(count * sizeof(*slots));

    if (slots == NULL)
        return TCA_ERR_NO_MEMORY;
    memset(slots, 0xff, count * sizeof(*slots));
    free(vocabulary->slots);
    vocabulary->slots = slots;
    vocabulary->slot_count = count;
    for (int32_t id = 0; id < vocabulary->ids; id++) {
        const struct vocabulary_entry *entry = &vocabulary->entries[id];

        if (entry->bytes != UINT32_MAX)
            slots[find_slot(vocabulary, (const char *)vocabulary->texts.data + entry->at,
                            entry->bytes)] = id;
    }
    return TCA_OK;
}

/* Make entries[id] exist; ids between are without token. */
static enum tca_status grow_entries(struct vocabulary *vocabulary, int32_t id)
{
    int32_t capacity = vocabulary->entry_capacity;
    struct vocabulary_entry *entries;

    if (id >= capacity) {
        while (id >= capacity)
            capacity = capacity == 0 ? 1024 : capacity * 2;
        entries = realloc(vocabulary->entries, (size_t)capacity * sizeof(*entries));
        if (entries == NULL)
            return TCA_ERR_NO_MEMORY;
        vocabulary->entries = entries;
        vocabulary->entry_capacity = capacity;
    }
    for (; vocabulary->ids <= id; vocabulary->ids++)
        vocabulary->entries[vocabulary->ids] = (struct vocabulary_entry){.bytes = UINT32_MAX};
    return TCA_OK;
}

enum tca_status vocabulary_add(struct vocabulary *vocabulary, const char *text, size_t bytes,
                               int32_t id)
{
    uint32_t slot;

    if (id < 0 || id >= VOCABULARY_IDS_MAX)
        return TCA_ERR_RANGE;
    if ((uint32_t)vocabulary->tokens >= vocabulary->slot_count / 2)
        TCA_TRY(grow_slots(vocabulary));
    TCA_TRY(grow_entries(vocabulary, id));
    slot = find_slot(vocabulary, text, bytes);
    if (vocabulary->slots[slot] >= 0 || vocabulary->entries[id].bytes != UINT32_MAX)
        return TCA_ERR_EXISTS;
    if (bytes >= UINT32_MAX - vocabulary->texts.size)
        return TCA_ERR_NO_MEMORY;
    const uint32_t at = (uint32_t)vocabulary->texts.size;
    TCA_TRY(bytes_append(&vocabulary->texts, text, bytes));
    vocabulary->entries[id] = (struct vocabulary_entry){.at = at, .bytes = (uint32_t)bytes};
    vocabulary->slots[slot] = id;
    vocabulary->tokens++;
    return TCA_OK;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes)
{
    return vocabulary->slot_count == 0 ? -1 : vocabulary->slots[find_slot(vocabulary, text, bytes)];
}

const char *vocabulary_text(const struct vocabulary *vocabulary, int32_t id, size_t *bytes_out)
{
    if (id < 0 || id >= vocabulary->ids || vocabulary->entries[id].bytes == UINT32_MAX)
        return NULL;
    *bytes_out = vocabulary->entries[id].bytes;
    return (const char *)vocabulary->texts.data + vocabulary->entries[id].at;
}

void vocabulary_free(struct vocabulary *vocabulary)
{
    free(vocabulary->entries);
    free(vocabulary->slots);
    bytes_free(&vocabulary->texts);
    *vocabulary = (struct vocabulary){0};
}
