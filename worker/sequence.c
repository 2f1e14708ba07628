#include "worker/sequence.h"

/* What the question keeps of its base; nothing where that is everything, read in place. */
static enum tca_status open_core(struct sequence *sequence, const struct sequence_host *host,
                                 const struct step_open *open)
{
    const struct core_cache_options options = {
        .q_heads = host->shard->q_heads,
        .held_tokens = shard_plan_rows(host->shard, open->base_tokens),
        .tau = open->sparsity.tau,
        .room_rows = open->sparsity.core_tokens,
        .copies_all = open->is_base_leaving,
        .refresh_every = open->is_base_leaving ? 0 : host->refresh_every,
        .has_bins = open->reports_selection};
    struct head_budgets budgets;
    enum tca_status status;

    TCA_TRY(head_budgets_init(&budgets, &host->source, &open->sparsity.method));
    status = head_budgets_fill(&budgets, &host->source, &open->sparsity, PROFILE_QUESTION,
                               open->base_tokens);
    if (status == TCA_OK && (open->is_base_leaving || !head_budgets_are_whole(&budgets)))
        return core_cache_open(host->kv, &budgets, &options, &sequence->core);
    head_budgets_deinit(&budgets);
    return status;
}

enum tca_status sequence_open(struct sequence *sequence, const struct sequence_host *host,
                              const struct step_open *open)
{
    const bool is_sparse = open->sparsity.method.rule != SELECT_DENSE;
    const int64_t held = shard_plan_rows(host->shard, open->capacity);

    *sequence = (struct sequence){.is_open = true,
                                  .base_slot = open->base_slot,
                                  .base_tokens = open->base_tokens,
                                  .reports_selection = open->reports_selection,
                                  .sparsity = open->sparsity};
    if (held > 0)
        TCA_TRY(kv_cache_take(host->kv, held, &sequence->kv));
    sequence->capacity = open->capacity;
    if (is_sparse && open->base_slot == STEP_SLOT_NONE)
        return head_budgets_init(&sequence->chunk, &host->source, &open->sparsity.method);
    if (is_sparse && open->base_tokens > 0)
        return open_core(sequence, host, open);
    return TCA_OK;
}

void sequence_close(struct sequence *sequence, const struct sequence_host *host)
{
    core_cache_close(host->kv, sequence->core);
    head_budgets_deinit(&sequence->chunk);
    kv_cache_give_back(host->kv, &sequence->kv);
    *sequence = (struct sequence){0};
}

/* A document's chunk: what it may keep of the rows before it. */
static enum tca_status place_chunk(struct sequence *sequence, const struct sequence_host *host,
                                   struct forward_item *placed)
{
    if (sequence->chunk.rows == NULL ||
        !sparsity_applies(&sequence->sparsity, sequence->rows, host->chunk_tokens))
        return TCA_OK;
    if (sequence->rows % host->chunk_tokens != 0)
        return TCA_ERR_INVALID;
    TCA_TRY(head_budgets_fill(&sequence->chunk, &host->source, &sequence->sparsity, PROFILE_PREFILL,
                              sequence->rows));
    if (!head_budgets_are_whole(&sequence->chunk))
        placed->chunk = &sequence->chunk;
    return TCA_OK;
}

/* A question's rows: they read the base and may select from it, or read what was kept. */
static void place_question(struct sequence *sequence, const struct sequence_host *host,
                           const struct step_item *item, struct forward_item *placed)
{
    const int64_t every = host->refresh_every;
    const int64_t turn = every > 0 ? sequence->answered % every : 0;

    placed->core = sequence->core;
    placed->selects = sequence->core != NULL && item->selects;
    if (sequence->core == NULL || !sequence->core->is_selected || sequence->core->queries == NULL)
        return;
    placed->records = turn >= every - CORE_CACHE_QUERIES;
    placed->refreshes = turn == every - 1;
}

enum tca_status sequence_place(struct sequence *sequence, const struct sequence_host *host,
                               const struct sequence *base, const struct step_item *item,
                               struct forward_item *placed_out)
{
    const bool is_selected = sequence->core != NULL && sequence->core->is_selected;

    if (sequence->rows != item->own_rows || item->tokens > sequence->capacity - sequence->rows)
        return TCA_ERR_INVALID;
    if (sequence->base_slot != STEP_SLOT_NONE && base == NULL &&
        !(is_selected && sequence->core->options.copies_all))
        return TCA_ERR_INVALID;
    if (base != NULL && base->rows != sequence->base_tokens)
        return TCA_ERR_INVALID;
    *placed_out =
        (struct forward_item){.rows = item->tokens,
                              .own = &sequence->kv,
                              .own_rows = sequence->rows,
                              .base = base == NULL ? NULL : &base->kv,
                              .base_rows = sequence->base_tokens,
                              .wants_output = item->logits != STEP_LOGITS_NONE || item->selects};
    TCA_TRY(place_chunk(sequence, host, placed_out));
    place_question(sequence, host, item, placed_out);
    sequence->rows += item->tokens;
    return TCA_OK;
}

void sequence_advance(struct sequence *sequence, const struct step_item *item)
{
    if (sequence->core == NULL)
        return;
    if (sequence->core->is_selected)
        sequence->answered += item->tokens;
    if (item->selects)
        sequence->core->is_selected = true;
}
