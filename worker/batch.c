#include "worker/batch.h"

#include "base/min.h"

#include <stdbool.h>

/* Whether a is served before b. */
static bool goes_first(const struct batch_sequence *a, const struct batch_sequence *b)
{
    if (a->last_step != b->last_step)
        return a->last_step < b->last_step;
    return a->kind < b->kind;
}

/* Indices of the prefilling sequences, stably sorted: equals keep the caller's order. */
static int order_prefills(const struct batch_sequence *sequences, int count, int *order)
{
    int prefills = 0;

    for (int i = 0; i < count; i++) {
        int place = prefills;

        if (sequences[i].kind == BATCH_DECODE)
            continue;
        for (; place > 0 && goes_first(&sequences[i], &sequences[order[place - 1]]); place--)
            order[place] = order[place - 1];
        order[place] = i;
        prefills++;
    }
    return prefills;
}

/* The most tokens of this sequence that one step may prefill. */
static int64_t piece_of(const struct batch_sequence *sequence, const struct batch_limits *limits,
                        bool has_decodes)
{
    int64_t position = sequence->base_rows + sequence->own_rows;
    int64_t all = sequence->pending_tokens + sequence->missing_tokens;
    int64_t piece = limits->chunk_tokens;
    int64_t shortest = min_i64(BATCH_PIECE_LEAST, piece);

    if (sequence->has_whole_chunks || all <= sequence->tail_tokens)
        return piece;
    if (limits->key_reads > 0 && position > 0)
        piece = min_i64(piece, limits->key_reads / position);
    if (limits->decode_share > 0 && has_decodes)
        piece /= limits->decode_share;
    return piece < shortest ? shortest : piece;
}

/* Whether its whole chunk comes in a later step, for the sake of the answers being written. */
static bool is_held(const struct batch_sequence *sequence, const struct batch_limits *limits,
                    bool has_decodes)
{
    return sequence->has_whole_chunks && has_decodes && limits->whole_chunk_step != 0 &&
           limits->step - limits->whole_chunk_step < (uint64_t)limits->decode_share;
}

/* How many tokens a prefilling sequence takes of what is left of the budget. */
static int64_t share_of(const struct batch_sequence *sequence, int64_t chunk_tokens, int64_t piece,
                        int64_t left)
{
    int64_t all = sequence->pending_tokens + sequence->missing_tokens;

    if (sequence->kind == BATCH_QUESTION) {
        if (all > sequence->tail_tokens)
            return min_i64(min_i64(sequence->pending_tokens, all - sequence->tail_tokens),
                           min_i64(piece, left));
        return all <= left && sequence->missing_tokens == 0 ? all : 0;
    }
    piece = min_i64(piece, chunk_tokens - sequence->own_rows % chunk_tokens);
    piece = min_i64(piece, all);
    return piece <= left && piece <= sequence->pending_tokens ? piece : 0;
}

static void serve(struct batch_sequence *sequence, int64_t tokens, struct step_plan *plan)
{
    bool is_last = tokens == sequence->pending_tokens && sequence->missing_tokens == 0;
    struct step_item item = {.slot = sequence->slot,
                             .tokens = (int32_t)tokens,
                             .own_rows = sequence->own_rows,
                             .logits = is_last ? sequence->logits : STEP_LOGITS_NONE,
                             .selects = is_last && sequence->selects};

    if (tokens > 0 && step_plan_add_item(plan, &item, sequence->pending) == TCA_OK)
        sequence->served_tokens = (int)tokens;
}

void batch_compose(struct batch_sequence *sequences, int count, const struct batch_limits *limits,
                   int *order, struct step_plan *plan)
{
    int prefills = order_prefills(sequences, count, order);
    bool has_decodes = prefills < count;
    int64_t left = limits->chunk_tokens;

    for (int i = 0; i < count; i++) {
        sequences[i].served_tokens = 0;
        if (sequences[i].kind == BATCH_DECODE)
            serve(&sequences[i], 1, plan);
    }
    for (int i = 0; i < prefills && left > 0; i++) {
        struct batch_sequence *sequence = &sequences[order[i]];
        int64_t piece = piece_of(sequence, limits, has_decodes);

        if (is_held(sequence, limits, has_decodes))
            continue;
        left = min_i64(left, piece);
        serve(sequence, share_of(sequence, limits->chunk_tokens, piece, left), plan);
        left -= sequence->served_tokens;
    }
}
