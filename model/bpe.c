/* Two ways to run the merges of one run of symbols: a scan for the lowest rank, best for words,
 * and a heap. A long pre-token is cut into windows, so that the scan serves it too.
 *
 * Why windows give the same tokens. Call two neighbouring tokens compatible when encoding the
 * symbols of both gives just these two again.
 * (1) In an encoding all neighbours are compatible, and every prefix of its tokens is the
 *     encoding of the prefix's symbols: no merge ever crossed the boundary, so what happened on
 *     one side did not depend on the other.
 * (2) A sequence of tokens, each an encoding of itself, whose neighbours are all compatible is
 *     the encoding of the whole: the first merge to cross a boundary would have been chosen, at
 *     the same state of the two tokens there, in the encoding of that pair alone.
 * So encode a window, drop the last tokens (what follows could change them), and start the next
 * window at the last token that is left. When it comes out as the first token again, it is
 * compatible with the tokens on both its sides, and (2) holds. When it does not, step back and
 * take a larger window; a window that starts at 0 depends on nothing. */
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

enum {
    SCAN_SYMBOLS = 128,  /* longer runs of symbols take the heap */
    WORD_BYTES = 64,     /* longer pre-tokens take windows; a byte is at most two symbols */
    WINDOW_SYMBOLS = 48, /* the smallest window */
    WINDOW_GROWTH = 4,
};

/* A run of symbols on its way to tokens, in place. */
struct run {
    int32_t *ids;      /* [count] */
    uint32_t *lengths; /* [count] in symbols */
    size_t count;
};

struct bpe_window {
    size_t capacity; /* symbols */
    int32_t *ids;    /* [capacity] */
    uint32_t *lengths;
    /* Of the heap: by the position of the left symbol. */
    uint32_t *previous, *next;
    struct bpe_merge *best; /* the merge with the symbol to the right */
    uint64_t *heap;         /* [3 capacity] rank << 32 | position; stale entries stay in it */
    size_t heap_count;
};

static const struct bpe_merge no_merge = {.rank = BPE_NO_RANK};

/* Fibonacci hashing: the upper half of the product is mixed best. */
static uint32_t hash_pair(int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    return (uint32_t)(pair * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* The slot of a pair, or the free one where it would go. There are slots, and never all in use. */
static struct bpe_slot *find_slot(const struct bpe *bpe, int32_t left, int32_t right)
{
    const uint32_t hash = hash_pair(left, right), mask = bpe->slot_count - 1;

    for (uint32_t at = (hash >> 8) & mask;; at = (at + 1) & mask) {
        struct bpe_slot *slot = &bpe->slots[at];

        if (slot->merge < 0 || (slot->hash == hash && bpe->merges[slot->merge].left == left &&
                                bpe->merges[slot->merge].right == right))
            return slot;
    }
}

static const struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    const struct bpe_slot *slot;

    if (bpe->slot_count == 0)
        return &no_merge;
    slot = find_slot(bpe, left, right);
    return slot->merge < 0 ? &no_merge : &bpe->merges[slot->merge];
}

/* Twice the slots, and the merges for half of them. */
static enum tca_status grow(struct bpe *bpe)
{
    const uint32_t count = bpe->slot_count == 0 ? 1024 : bpe->slot_count * 2;
    struct bpe_merge *merges = realloc(bpe->merges, count / 2 * sizeof(*merges));
    struct bpe_slot *slots;

    if (merges == NULL)
        return TCA_ERR_NO_MEMORY;
    bpe->merges = merges;
    slots = malloc(count * sizeof(*slots));
    if (slots == NULL)
        return TCA_ERR_NO_MEMORY;
    memset(slots, 0xff, count * sizeof(*slots));
    free(bpe->slots);
    bpe->slots = slots;
    bpe->slot_count = count;
    for (uint32_t i = 0; i < bpe->merge_count; i++)
        *find_slot(bpe, merges[i].left, merges[i].right) =
            (struct bpe_slot){hash_pair(merges[i].left, merges[i].right), (int32_t)i};
    return TCA_OK;
}

enum tca_status bpe_add_merge(struct bpe *bpe, const struct bpe_merge *merge)
{
    struct bpe_slot *slot;

    if (bpe->merge_count >= bpe->slot_count / 2)
        TCA_TRY(grow(bpe));
    slot = find_slot(bpe, merge->left, merge->right);
    if (slot->merge < 0)
        *slot =
            (struct bpe_slot){hash_pair(merge->left, merge->right), (int32_t)bpe->merge_count++};
    bpe->merges[slot->merge] = *merge;
    return TCA_OK;
}

void bpe_free(struct bpe *bpe)
{
    free(bpe->merges);
    free(bpe->slots);
    *bpe = (struct bpe){0};
}

/* The pairs of a short run: what each merges to. */
struct pairs {
    int32_t rank[SCAN_SYMBOLS], merged[SCAN_SYMBOLS];
    size_t count;
};

static void look_up_pair(const struct bpe *bpe, const struct run *run, struct pairs *pairs,
                         size_t left)
{
    const struct bpe_merge *merge = find_merge(bpe, run->ids[left], run->ids[left + 1]);

    pairs->rank[left] = merge->rank;
    pairs->merged[left] = merge->merged;
}

/* The leftmost pair of the lowest rank. In two loops, because the compiler makes vector code of
 * the first. */
static size_t find_best(const struct pairs *pairs)
{
    int32_t lowest = pairs->rank[0];
    size_t best = 0;

    for (size_t i = 1; i < pairs->count; i++)
        lowest = pairs->rank[i] < lowest ? pairs->rank[i] : lowest;
    while (pairs->rank[best] != lowest)
        best++;
    return best;
}

/* Merge by scanning for the lowest rank. 1 to SCAN_SYMBOLS symbols. */
static void merge_by_scan(const struct bpe *bpe, struct run *run)
{
    struct pairs pairs = {.count = run->count - 1};

    for (size_t i = 0; i < pairs.count; i++)
        look_up_pair(bpe, run, &pairs, i);
    while (pairs.count > 0) {
        const size_t best = find_best(&pairs), behind = pairs.count - best - 1;

        if (pairs.rank[best] == BPE_NO_RANK)
            break;
        run->ids[best] = pairs.merged[best];
        run->lengths[best] += run->lengths[best + 1];
        memmove(run->ids + best + 1, run->ids + best + 2, behind * sizeof(*run->ids));
        memmove(run->lengths + best + 1, run->lengths + best + 2, behind * sizeof(*run->lengths));
        memmove(pairs.rank + best, pairs.rank + best + 1, behind * sizeof(*pairs.rank));
        memmove(pairs.merged + best, pairs.merged + best + 1, behind * sizeof(*pairs.merged));
        pairs.count--;
        if (best > 0)
            look_up_pair(bpe, run, &pairs, best - 1);
        if (best < pairs.count)
            look_up_pair(bpe, run, &pairs, best);
    }
    run->count = pairs.count + 1;
}

static void heap_push(struct bpe_window *window, int32_t rank, uint32_t position)
{
    const uint64_t entry = (uint64_t)(uint32_t)rank << 32 | position;
    size_t at = window->heap_count++;

    for (; at > 0 && window->heap[(at - 1) / 2] > entry; at = (at - 1) / 2)
        window->heap[at] = window->heap[(at - 1) / 2];
    window->heap[at] = entry;
}

static uint64_t heap_pop(struct bpe_window *window)
{
    const uint64_t top = window->heap[0], entry = window->heap[--window->heap_count];
    size_t at = 0;

    for (size_t child = 1; child < window->heap_count; child = 2 * at + 1) {
        if (child + 1 < window->heap_count && window->heap[child + 1] < window->heap[child])
            child++;
        if (window->heap[child] >= entry)
            break;
        window->heap[at] = window->heap[child];
        at = child;
    }
    window->heap[at] = entry;
    return top;
}

/* Look up the pair that starts at `left`, and queue it. `end` = no symbol. */
static void queue_pair(const struct bpe *bpe, struct bpe_window *window, const struct run *run,
                       uint32_t left, uint32_t end)
{
    const uint32_t right = window->next[left];

    window->best[left] =
        right == end ? no_merge : *find_merge(bpe, run->ids[left], run->ids[right]);
    if (window->best[left].rank != BPE_NO_RANK)
        heap_push(window, window->best[left].rank, left);
}

/* Merge with a heap over a linked list. `window` has room for the run. */
static void merge_by_heap(const struct bpe *bpe, struct bpe_window *window, struct run *run)
{
    const uint32_t end = (uint32_t)run->count;
    uint32_t used = 0;

    window->heap_count = 0;
    for (uint32_t i = 0; i < end; i++) {
        window->previous[i] = i == 0 ? end : i - 1;
        window->next[i] = i + 1;
    }
    for (uint32_t i = 0; i < end; i++)
        queue_pair(bpe, window, run, i, end);
    while (window->heap_count > 0) {
        const uint64_t entry = heap_pop(window);
        const uint32_t left = (uint32_t)entry, right = window->next[left];

        /* Stale: the pair has changed since, or its left symbol is gone. */
        if (run->lengths[left] == 0 || (uint32_t)window->best[left].rank != entry >> 32)
            continue;
        run->ids[left] = window->best[left].merged;
        run->lengths[left] += run->lengths[right];
        run->lengths[right] = 0;
        window->next[left] = window->next[right];
        if (window->next[left] != end)
            window->previous[window->next[left]] = left;
        queue_pair(bpe, window, run, left, end);
        if (window->previous[left] != end)
            queue_pair(bpe, window, run, window->previous[left], end);
    }
    for (uint32_t i = 0; i != end; i = window->next[i], used++) {
        run->ids[used] = run->ids[i];
        run->lengths[used] = run->lengths[i];
    }
    run->count = used;
}

/* What the bytes are before any merge; returns the symbols written. `symbols` has
 * room for one more. */
static size_t write_symbols(const struct bpe *bpe, const char *text, size_t bytes, int32_t *symbols)
{
    bool was_unknown = false;
    size_t count = 0;

    for (size_t i = 0; i < bytes; i++) {
        const struct bpe_byte *byte = &bpe->bytes[(uint8_t)text[i]];
        const bool is_fused = byte->is_unknown && was_unknown && bpe->fuse_unknown;

        symbols[count] = byte->ids[0];
        if (byte->count == 2)
            symbols[count + 1] = byte->ids[1];
        count += is_fused ? 0 : (size_t)byte->count;
        was_unknown = byte->is_unknown || (was_unknown && byte->count == 0);
    }
    return count;
}

static enum tca_status encode_word(const struct bpe *bpe, const char *text, size_t bytes,
                                   struct token_ids *ids_out)
{
    int32_t ids[2 * WORD_BYTES + 1];
    uint32_t lengths[2 * WORD_BYTES + 1];
    struct run run = {ids, lengths, write_symbols(bpe, text, bytes, ids)};

    if (run.count == 0)
        return TCA_OK;
    for (size_t i = 0; i < run.count; i++)
        lengths[i] = 1;
    merge_by_scan(bpe, &run);
    return token_ids_append(ids_out, run.ids, run.count);
}

static void window_free(struct bpe_window *window)
{
    if (window == NULL)
        return;
    free(window->ids);
    free(window->lengths);
    free(window->previous);
    free(window->next);
    free(window->best);
    free(window->heap);
    free(window);
}

static struct bpe_window *window_create(size_t capacity)
{
    struct bpe_window *window = calloc(1, sizeof(*window));

    if (window == NULL)
        return NULL;
    window->capacity = capacity;
    window->ids = malloc(capacity * sizeof(*window->ids));
    window->lengths = malloc(capacity * sizeof(*window->lengths));
    window->previous = malloc(capacity * sizeof(*window->previous));
    window->next = malloc(capacity * sizeof(*window->next));
    window->best = malloc(capacity * sizeof(*window->best));
    window->heap = malloc(3 * capacity * sizeof(*window->heap));
    if (window->ids == NULL || window->lengths == NULL || window->previous == NULL ||
        window->next == NULL || window->best == NULL || window->heap == NULL) {
        window_free(window);
        return NULL;
    }
    return window;
}

static enum tca_status scratch_grow_window(struct bpe_scratch *scratch, size_t symbols)
{
    struct bpe_window *window = window_create(symbols);

    if (window == NULL)
        return TCA_ERR_NO_MEMORY;
    window_free(scratch->window);
    scratch->window = window;
    return TCA_OK;
}

static enum tca_status scratch_reserve_symbols(struct bpe_scratch *scratch, size_t symbols)
{
    int32_t *grown_symbols;
    uint32_t *grown_lengths;

    if (scratch->symbol_capacity >= symbols)
        return TCA_OK;
    grown_symbols = malloc(symbols * sizeof(*grown_symbols));
    grown_lengths = malloc(symbols * sizeof(*grown_lengths));
    if (grown_symbols == NULL || grown_lengths == NULL) {
        free(grown_symbols);
        free(grown_lengths);
        return TCA_ERR_NO_MEMORY;
    }
    free(scratch->symbols);
    free(scratch->lengths);
    scratch->symbols = grown_symbols;
    scratch->lengths = grown_lengths;
    scratch->symbol_capacity = symbols;
    return TCA_OK;
}

void bpe_scratch_free(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->lengths);
    window_free(scratch->window);
    *scratch = (struct bpe_scratch){0};
}

/* The tokens that stand so far, and the window at the last of them. */
struct long_word {
    const int32_t *symbols;
    size_t count;        /* of symbols */
    size_t end;          /* of the tokens that stand, in symbols */
    size_t window;       /* symbols */
    size_t furthest;     /* where a window failed last; no small one before it is passed */
    size_t tokens;       /* that stand */
    uint32_t *lengths;   /* [tokens] */
    size_t first_output; /* ids_out->ids[first_output + tokens] are theirs */
    /* The window that was merged last, because text without words often repeats itself. */
    size_t known_start, known_count; /* symbols; count 0: none */
    size_t known_tokens;
};

/* Of the last token that stands; 0 when there is none. */
static size_t last_length(const struct long_word *word)
{
    return word->tokens == 0 ? 0 : word->lengths[word->tokens - 1];
}

/* Encode `count` symbols from `start` into the arrays of `window`; returns the tokens. */
static size_t merge_window(const struct bpe *bpe, struct bpe_window *window, struct long_word *word,
                           size_t start, size_t count)
{
    const int32_t *symbols = word->symbols + start;
    struct run run = {window->ids, window->lengths, count};

    if (word->known_count == count &&
        memcmp(word->symbols + word->known_start, symbols, count * sizeof(*symbols)) == 0)
        return word->known_tokens;
    memcpy(run.ids, symbols, count * sizeof(*symbols));
    for (size_t i = 0; i < count; i++)
        run.lengths[i] = 1;
    if (count <= SCAN_SYMBOLS)
        merge_by_scan(bpe, &run);
    else
        merge_by_heap(bpe, window, &run);
    word->known_start = start;
    word->known_count = count;
    word->known_tokens = run.count;
    return run.count;
}

/* Take back tokens, half a new window's worth, and make the window larger. */
static void step_back(struct long_word *word)
{
    size_t back = 0;

    word->furthest = word->end > word->furthest ? word->end : word->furthest;
    word->window *= WINDOW_GROWTH;
    while (word->tokens > 0 && back < word->window / 2)
        back += word->lengths[--word->tokens];
    word->end -= back;
}

/* A smaller window where tokens are short, once the place of the last failure is passed. */
static void shrink_window(struct long_word *word)
{
    while (word->end > word->furthest && word->window > WINDOW_SYMBOLS &&
           word->window / WINDOW_GROWTH >= 4 * last_length(word))
        word->window /= WINDOW_GROWTH;
}

/* How many of the window's tokens may stand: all at the end of the word, else those that end in
 * its first three quarters. */
static size_t count_standing(const struct run *run, size_t symbols, bool is_end)
{
    size_t count = 0, end = 0;

    if (is_end)
        return run->count;
    while (count < run->count && end + run->lengths[count] <= symbols - symbols / 4)
        end += run->lengths[count++];
    return count;
}

/* Let the tokens [first, end) of `run` stand. */
static enum tca_status append_tokens(struct long_word *word, const struct run *run, size_t first,
                                     size_t end, struct token_ids *ids_out)
{
    ids_out->count = word->first_output + word->tokens;
    TCA_TRY(token_ids_append(ids_out, run->ids + first, end - first));
    for (size_t i = first; i < end; i++) {
        word->lengths[word->tokens++] = run->lengths[i];
        word->end += run->lengths[i];
    }
    return TCA_OK;
}

static enum tca_status encode_window(const struct bpe *bpe, struct bpe_scratch *scratch,
                                     struct long_word *word, struct token_ids *ids_out)
{
    const size_t overlap = last_length(word), start = word->end - overlap;
    const size_t left = word->count - start;
    const size_t symbols = word->window < left ? word->window : left;
    const size_t first = overlap > 0 ? 1 : 0;
    struct run run;
    size_t standing;

    if (scratch->window == NULL || scratch->window->capacity < symbols) {
        TCA_TRY(scratch_grow_window(scratch, symbols));
        word->known_count = 0;
    }
    run = (struct run){scratch->window->ids, scratch->window->lengths, 0};
    run.count = merge_window(bpe, scratch->window, word, start, symbols);
    standing = count_standing(&run, symbols, symbols == left);
    if (standing <= first && symbols < left) {
        word->window *= WINDOW_GROWTH;
        return TCA_OK;
    }
    if (overlap > 0 && run.lengths[0] != overlap) {
        step_back(word);
        return TCA_OK;
    }
    TCA_TRY(append_tokens(word, &run, first, standing, ids_out));
    shrink_window(word);
    return TCA_OK;
}

enum tca_status bpe_encode(const struct bpe *bpe, const char *text, size_t bytes,
                           struct bpe_scratch *scratch, struct token_ids *ids_out)
{
    struct long_word word = {.window = WINDOW_SYMBOLS, .first_output = ids_out->count};

    if (bytes <= WORD_BYTES)
        return encode_word(bpe, text, bytes, ids_out);
    TCA_TRY(scratch_reserve_symbols(scratch, bpe->symbols_per_byte * bytes + 1));
    word.symbols = scratch->symbols;
    word.lengths = scratch->lengths;
    word.count = write_symbols(bpe, text, bytes, scratch->symbols);
    while (word.end < word.count)
        TCA_TRY(encode_window(bpe, scratch, &word, ids_out));
    return TCA_OK;
}
