#include "calibrate/pass.h"

#include "base/log.h"
#include "calibrate/measure.h"
#include "calibrate/pass_progress.h"

#include <inttypes.h>
#include <stdio.h>

enum { DOCUMENT_SLOT = 0, QUESTION_SLOT = 1 };

/* Multiplications of a layer. */
struct costs {
    double token;    /* linear layers */
    double key_read; /* one token's attention to one key */
};

struct leader {
    const struct pass *pass;
    const struct group_run *run;
    struct step_plan plan;
    int next; /* sample */
    struct costs costs;
    double done, total; /* multiplications */
    struct pass_progress progress;
    char what[64];
};

static struct costs costs_of(const struct model_config *config)
{
    const double dim = config->head_dim;

    return (struct costs){
        .token = (double)config->hidden *
                 (2.0 * dim * (config->q_heads + config->kv_heads) + 3.0 * (double)config->ffn),
        .key_read = 2.0 * dim * config->q_heads};
}

static double rows_cost(const struct costs *costs, int64_t before, int rows)
{
    return rows * (costs->token + costs->key_read * ((double)before + rows / 2.0));
}

static double sample_cost(const struct costs *costs, const struct sample *sample)
{
    return costs->key_read * (double)sample->earlier * sample->judged * measure_passes(sample);
}

static double total_cost(const struct leader *leader)
{
    const struct pass *pass = leader->pass;
    double total = 0.0;

    for (int i = 0; i < pass->documents->count; i++)
        total += rows_cost(&leader->costs, 0, (int)pass->documents->list[i].ids.count);
    for (int i = 0; i < pass->sample_count; i++) {
        total += sample_cost(&leader->costs, &pass->samples[i]);
        if (pass->samples[i].is_question)
            total += rows_cost(&leader->costs, pass->samples[i].earlier, pass->samples[i].rows);
    }
    return total;
}

/* The next sample when it is of this document, or NULL. */
static const struct sample *next_sample(const struct leader *leader, int document)
{
    const struct sample *sample = &leader->pass->samples[leader->next];

    return leader->next < leader->pass->sample_count && sample->length == document ? sample : NULL;
}

static enum tca_status lead(struct leader *leader, uint64_t *failed_opens_out)
{
    return lockstep_lead(leader->run->lockstep, &leader->plan, NULL, NULL, failed_opens_out);
}

static void next_plan(struct leader *leader)
{
    step_plan_clear(&leader->plan, leader->plan.number + 1);
}

static enum tca_status open_slot(struct leader *leader, int32_t slot, int32_t base_slot,
                                 int64_t base_tokens, int64_t tokens)
{
    const struct step_open open = {
        .slot = slot, .base_slot = base_slot, .base_tokens = base_tokens, .capacity = tokens};
    uint64_t failed_opens;

    next_plan(leader);
    TCA_TRY(step_plan_add_open(&leader->plan, &open));
    TCA_TRY(lead(leader, &failed_opens));
    if (failed_opens == 0)
        return TCA_OK;
    log_error("no KV memory for %" PRId64 " tokens (rank 0 has room for %" PRId64
              "): give more --kv-memory, or a smaller --longest",
              tokens, model_shard_facts(leader->run->shard)->kv_capacity_tokens);
    return TCA_ERR_NO_MEMORY;
}

static enum tca_status close_slot(struct leader *leader, int32_t slot)
{
    uint64_t failed_opens;

    next_plan(leader);
    TCA_TRY(step_plan_add_close(&leader->plan, slot));
    return lead(leader, &failed_opens);
}

/* One step of one sequence; `before`: keys that its first row sees. */
static enum tca_status run_rows(struct leader *leader, const struct step_item *item,
                                const int32_t *ids, int64_t before, const struct sample *sample)
{
    uint64_t failed_opens;

    next_plan(leader);
    TCA_TRY(step_plan_add_item(&leader->plan, item, ids));
    TCA_TRY(lead(leader, &failed_opens));
    leader->done += rows_cost(&leader->costs, before, item->tokens);
    if (sample != NULL) {
        leader->done += sample_cost(&leader->costs, sample);
        leader->next++;
    }
    pass_progress_show(&leader->progress, leader->what, leader->done / leader->total);
    return TCA_OK;
}

static enum tca_status prefill(struct leader *leader, int document)
{
    const struct token_ids *ids = &leader->pass->documents->list[document].ids;
    const int64_t tokens = (int64_t)ids->count;
    int64_t at = 0;

    while (at < tokens) {
        const struct sample *sample = next_sample(leader, document);
        const int64_t end = sample == NULL || sample->is_question ? tokens : sample->earlier;
        const bool is_sampled = end == at;
        const int64_t left = is_sampled ? sample->rows : end - at;
        const struct step_item item = {
            .slot = DOCUMENT_SLOT,
            .tokens =
                (int32_t)(left < leader->pass->chunk_tokens ? left : leader->pass->chunk_tokens),
            .own_rows = at};

        TCA_TRY(run_rows(leader, &item, ids->ids + at, at, is_sampled ? sample : NULL));
        at += item.tokens;
    }
    return TCA_OK;
}

static enum tca_status ask(struct leader *leader, const struct calibration_question *question,
                           const struct sample *sample)
{
    const struct step_item item = {.slot = QUESTION_SLOT, .tokens = sample->rows};

    TCA_TRY(open_slot(leader, QUESTION_SLOT, DOCUMENT_SLOT, sample->earlier, sample->rows));
    TCA_TRY(run_rows(leader, &item, question->ids.ids, sample->earlier, sample));
    return close_slot(leader, QUESTION_SLOT);
}

static enum tca_status run_document(struct leader *leader, int index)
{
    const struct calibration_document *document = &leader->pass->documents->list[index];

    snprintf(leader->what, sizeof(leader->what), "calibrating, %zu tokens", document->ids.count);
    TCA_TRY(open_slot(leader, DOCUMENT_SLOT, STEP_SLOT_NONE, 0, (int64_t)document->ids.count));
    TCA_TRY(prefill(leader, index));
    for (int i = 0; i < document->questions; i++)
        TCA_TRY(ask(leader, &document->question[i], next_sample(leader, index)));
    return close_slot(leader, DOCUMENT_SLOT);
}

enum tca_status pass_run(const struct pass *pass, const struct group_run *run)
{
    struct leader leader = {
        .pass = pass, .run = run, .costs = costs_of(model_shard_config(run->shard))};
    const struct step_limits limits = model_shard_limits(run->shard);
    enum tca_status status = TCA_OK;

    leader.total = total_cost(&leader);
    TCA_TRY(step_plan_init(&leader.plan, &limits));
    pass_progress_start(&leader.progress);
    for (int i = 0; i < pass->documents->count && status == TCA_OK; i++)
        status = run_document(&leader, i);
    pass_progress_clear(&leader.progress);
    step_plan_deinit(&leader.plan);
    return status;
}
