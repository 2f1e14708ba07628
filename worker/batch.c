#include "worker/batch.h"

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

/* How many tokens a prefilling sequence takes of what is left of the budget. */
static int64_t share_of(const struct batch_sequence *sequence, int64_t chunk_tokens, int64_t left)
{
    int64_t all = sequence->pending_tokens + sequence->missing_tokens;
    int64_t chunk = chunk_tokens - sequence->own_rows % chunk_tokens;

    if (sequence->kind == BATCH_QUESTION)
        return sequence->pending_tokens < left ? sequence->pending_tokens : left;
    chunk = chunk < all ? chunk : all;
    return chunk <= left && chunk <= sequence->pending_tokens ? chunk : 0;
}

static void serve(struct batch_sequence *sequence, int64_t tokens, struct step_plan *plan)
{
    bool is_last = tokens == sequence->pending_tokens && sequence->missing_tokens == 0;
    struct step_item item = {.slot = sequence->slot,
                             .tokens = (int32_t)tokens,
                             .own_rows = sequence->own_rows,
                             .logits = is_last ? sequence->logits : STEP_LOGITS_NONE};

    if (tokens > 0 && step_plan_add_item(plan, &item, sequence->pending) == TCA_OK)
        sequence->served_tokens = (int)tokens;
}

void batch_compose(struct batch_sequence *sequences, int count, int chunk_tokens, int *order,
                   struct step_plan *plan)
{
    int prefills = order_prefills(sequences, count, order);
    int64_t left = chunk_tokens;

    for (int i = 0; i < count; i++) {
        sequences[i].served_tokens = 0;
        if (sequences[i].kind == BATCH_DECODE)
            serve(&sequences[i], 1, plan);
    }
    for (int i = 0; i < prefills && left > 0; i++) {
        struct batch_sequence *sequence = &sequences[order[i]];

        serve(sequence, share_of(sequence, chunk_tokens, left), plan);
        left -= sequence->served_tokens;
    }
}
