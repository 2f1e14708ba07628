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
 * So encode a window, drop the last tokens (what follows could change them), go on at the
 * boundary that is left, and check the one pair at the junction. When it is not compatible, step
 * back and take a larger window; a window that starts at 0 has no junction. */
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

enum {
    SCAN_SYMBOLS = 128,  /* longer runs of symbols take the heap */
    WORD_BYTES = 64,     /* longer pre-tokens take windows; a byte is at most two symbols */
    WINDOW_SYMBOLS = 64, /* the smallest window */
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
    int32_t *pair_ids; /* [capacity]: the two tokens at a junction */
    uint32_t *pair_lengths;
    /* Of the heap: by the position of the left symbol. */
    uint32_t *previous, *next;
    struct bpe_merge *best; /* the merge with the symbol to the right */
    uint64_t *heap;         /* [3 capacity] rank << 32 | position; stale entries stay in it */
    size_t heap_count;
};

static const struct bpe_merge no_merge = {.rank = BPE_NO_RANK};

static uint32_t first_slot(const struct bpe *bpe, int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    /* Fibonacci hashing: the upper bits of the product are mixed best. */
    return (uint32_t)(pair * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (bpe->slot_count - 1);
}

static const struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    if (bpe->slot_count == 0)
        return &no_merge;
    for (uint32_t slot = first_slot(bpe, left, right);; slot = (slot + 1) & (bpe->slot_count - 1)) {
        const struct bpe_merge *merge = &bpe->slots[slot];

        if (merge->left == left && merge->right == right)
            return merge;
        if (merge->left < 0)
            return &no_merge;
    }
}

static void put_merge(struct bpe *bpe, const struct bpe_merge *merge)
{
    uint32_t slot = first_slot(bpe, merge->left, merge->right);

    while (bpe->slots[slot].left >= 0 &&
           (bpe->slots[slot].left != merge->left || bpe->slots[slot].right != merge->right))
        slot = (slot + 1) & (bpe->slot_count - 1);
    bpe->merges += bpe->slots[slot].left < 0;
    bpe->slots[slot] = *merge;
}

enum tca_status bpe_add_merge(struct bpe *bpe, const struct bpe_merge *merge)
{
    if (bpe->merges >= bpe->slot_count / 2) {
        struct bpe grown = *bpe;

        grown.slot_count = bpe->slot_count == 0 ? 1024 : bpe->slot_count * 2;
        grown.merges = 0;
        grown.slots = malloc(grown.slot_count * sizeof(*grown.slots));
        if (grown.slots == NULL)
            return TCA_ERR_NO_MEMORY;
        memset(grown.slots, 0xff, grown.slot_count * sizeof(*grown.slots));
        for (uint32_t i = 0; i < bpe->slot_count; i++)
            if (bpe->slots[i].left >= 0)
                put_merge(&grown, &bpe->slots[i]);
        free(bpe->slots);
        *bpe = grown;
    }
    put_merge(bpe, merge);
    return TCA_OK;
}

void bpe_free(struct bpe *bpe)
{
    free(bpe->slots);
    *bpe = (struct bpe){0};
}

/* Merge by scanning for the lowest rank. At most SCAN_SYMBOLS symbols. */
static void merge_by_scan(const struct bpe *bpe, struct run *run)
{
    int32_t rank[SCAN_SYMBOLS], merged[SCAN_SYMBOLS];
    size_t pairs = run->count - 1; /* the run is never empty */

    for (size_t i = 0; i < pairs; i++) {
        const struct bpe_merge *merge = find_merge(bpe, run->ids[i], run->ids[i + 1]);

        rank[i] = merge->rank;
        merged[i] = merge->merged;
    }
    while (pairs > 0) {
        size_t best = 0;

        for (size_t i = 1; i < pairs; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == BPE_NO_RANK)
            break;
        run->ids[best] = merged[best];
        run->lengths[best] += run->lengths[best + 1];
        pairs--;
        for (size_t i = best + 1; i <= pairs; i++) {
            run->ids[i] = run->ids[i + 1];
            run->lengths[i] = run->lengths[i + 1];
            rank[i - 1] = rank[i]; /* the pair at best is looked up anew below */
            merged[i - 1] = merged[i];
        }
        for (size_t i = best == 0 ? 0 : best - 1; i <= best && i < pairs; i++) {
            const struct bpe_merge *merge = find_merge(bpe, run->ids[i], run->ids[i + 1]);

            rank[i] = merge->rank;
            merged[i] = merge->merged;
        }
    }
    run->count = pairs + 1;
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

static void merge_run(const struct bpe *bpe, struct bpe_window *window, struct run *run)
{
    if (run->count <= SCAN_SYMBOLS)
        merge_by_scan(bpe, run);
    else
        merge_by_heap(bpe, window, run);
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
    free(window->pair_ids);
    free(window->pair_lengths);
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
    window->pair_ids = malloc(capacity * sizeof(*window->pair_ids));
    window->pair_lengths = malloc(capacity * sizeof(*window->pair_lengths));
    window->previous = malloc(capacity * sizeof(*window->previous));
    window->next = malloc(capacity * sizeof(*window->next));
    window->best = malloc(capacity * sizeof(*window->best));
    window->heap = malloc(3 * capacity * sizeof(*window->heap));
    if (window->ids == NULL || window->lengths == NULL || window->pair_ids == NULL ||
        window->pair_lengths == NULL || window->previous == NULL || window->next == NULL ||
        window->best == NULL || window->heap == NULL) {
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

/* Encode `count` symbols into run_out, whose arrays have room for them. */
static void encode_symbols(const struct bpe *bpe, struct bpe_window *window, const int32_t *symbols,
                           size_t count, struct run *run_out)
{
    memcpy(run_out->ids, symbols, count * sizeof(*symbols));
    for (size_t i = 0; i < count; i++)
        run_out->lengths[i] = 1;
    run_out->count = count;
    merge_run(bpe, window, run_out);
}

/* Symbols that were merged last, because text without words often repeats itself. */
struct memory {
    size_t start, count; /* of long_word.symbols; count 0: none */
    size_t tokens;       /* that they became */
};

/* The tokens that stand so far, and the window behind them. */
struct long_word {
    const int32_t *symbols;
    size_t count;        /* of symbols */
    size_t start;        /* of the window: symbols behind which tokens stand */
    size_t window;       /* symbols */
    size_t furthest;     /* where a junction failed last; no small window before it is passed */
    size_t tokens;       /* that stand */
    uint32_t *lengths;   /* [tokens] */
    size_t first_output; /* ids_out->ids[first_output + tokens] are theirs */
    struct memory last_window, last_pair;
    uint32_t last_pair_length; /* of the pair's first token */
};

static bool is_remembered(const struct long_word *word, const struct memory *memory, size_t start,
                          size_t count)
{
    return memory->count == count && memcmp(word->symbols + memory->start, word->symbols + start,
                                            count * sizeof(*word->symbols)) == 0;
}

/* Whether the last token that stands and one of `next_length` symbols after it stay apart. */
static bool is_compatible(const struct bpe *bpe, struct bpe_window *window, struct long_word *word,
                          uint32_t next_length)
{
    const uint32_t last_length = word->lengths[word->tokens - 1];
    const size_t start = word->start - last_length, count = (size_t)last_length + next_length;
    struct run pair = {window->pair_ids, window->pair_lengths, 0};

    if (word->last_pair_length == last_length &&
        is_remembered(word, &word->last_pair, start, count))
        return true;
    encode_symbols(bpe, window, word->symbols + start, count, &pair);
    if (pair.count != 2 || pair.lengths[0] != last_length)
        return false;
    word->last_pair = (struct memory){start, count, 2};
    word->last_pair_length = last_length;
    return true;
}

/* Encode the window into the arrays of `window`; returns the tokens. */
static size_t merge_window(const struct bpe *bpe, struct bpe_window *window, struct long_word *word,
                           size_t symbols)
{
    struct run run = {window->ids, window->lengths, 0};

    if (is_remembered(word, &word->last_window, word->start, symbols))
        return word->last_window.tokens;
    encode_symbols(bpe, window, word->symbols + word->start, symbols, &run);
    word->last_window = (struct memory){word->start, symbols, run.count};
    return run.count;
}

/* Take back tokens, half a new window's worth, and make the window larger. */
static void step_back(struct long_word *word)
{
    size_t back = 0;

    word->furthest = word->start > word->furthest ? word->start : word->furthest;
    word->window *= WINDOW_GROWTH;
    while (word->tokens > 0 && back < word->window / 2)
        back += word->lengths[--word->tokens];
    word->start -= back;
}

/* How many of the window's tokens will stand: all at the end of the word, else those that end in
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

/* Let the first `count` tokens of `run` stand. */
static enum tca_status append_tokens(struct long_word *word, const struct run *run, size_t count,
                                     struct token_ids *ids_out)
{
    ids_out->count = word->first_output + word->tokens;
    TCA_TRY(token_ids_append(ids_out, run->ids, count));
    for (size_t i = 0; i < count; i++) {
        word->lengths[word->tokens++] = run->lengths[i];
        word->start += run->lengths[i];
    }
    return TCA_OK;
}

/* A smaller window where tokens are short, once the place of the last failure is passed. */
static void shrink_window(struct long_word *word)
{
    const size_t longest = 2 * (size_t)word->lengths[word->tokens - 1];

    while (word->start > word->furthest && word->window > WINDOW_SYMBOLS &&
           word->window / WINDOW_GROWTH >= longest)
        word->window /= WINDOW_GROWTH;
}

static enum tca_status encode_window(const struct bpe *bpe, struct bpe_scratch *scratch,
                                     struct long_word *word, struct token_ids *ids_out)
{
    const size_t left = word->count - word->start;
    const size_t symbols = word->window < left ? word->window : left;
    const size_t last_length = word->tokens == 0 ? 0 : word->lengths[word->tokens - 1];
    struct run run;
    size_t standing;

    if (scratch->window == NULL || scratch->window->capacity < last_length + symbols) {
        TCA_TRY(scratch_grow_window(scratch, last_length + symbols));
        word->last_window.count = 0;
    }
    run = (struct run){scratch->window->ids, scratch->window->lengths,
                       merge_window(bpe, scratch->window, word, symbols)};
    standing = count_standing(&run, symbols, symbols == left);
    if (standing == 0) {
        word->window *= WINDOW_GROWTH;
        return TCA_OK;
    }
    if (word->tokens > 0 && !is_compatible(bpe, scratch->window, word, run.lengths[0])) {
        step_back(word);
        return TCA_OK;
    }
    TCA_TRY(append_tokens(word, &run, standing, ids_out));
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
    while (word.start < word.count)
        TCA_TRY(encode_window(bpe, scratch, &word, ids_out));
    return TCA_OK;
}
