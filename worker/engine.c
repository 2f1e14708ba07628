#include "worker/engine.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

/* A step prefills whole chunks as long as the device attends to that many keys in seconds, then
 * shorter pieces, for any length of documents. While answers are being written it is an eighth of
 * that, or, where a chunk must stay whole, one step of eight has one. */
enum { DECODE_SHARE = 8 };

struct engine {
    struct engine_options options;
    struct lockstep *lockstep;
    const struct model_shard *shard;
    const struct model_config *config;
    engine_event_fn event;
    void *context;
    struct document_job **document; /* owned [documents], oldest first */
    int documents;
    int document_room;
    struct question_job **question; /* owned [questions], oldest first */
    int questions;
    int question_room;
    bool is_slot_taken[STEP_SLOTS_MAX];
    struct batch_sequence *sequence; /* owned [sequence_room]: what could run in this step */
    int *order;                      /* owned [sequence_room] */
    int sequence_room;
    uint64_t steps;
    uint64_t whole_chunk_step; /* number of the last that ran one; 0: none yet */
    struct step_plan plan;
    struct sampler *sampler;
};

enum tca_status engine_create(const struct engine_options *options, struct lockstep *lockstep,
                              struct model_shard *shard, engine_event_fn event, void *context,
                              struct engine **engine_out)
{
    struct step_limits limits = model_shard_limits(shard);
    struct engine *engine = calloc(1, sizeof(*engine));

    if (engine == NULL)
        return TCA_ERR_NO_MEMORY;
    engine->options = *options;
    engine->lockstep = lockstep;
    engine->shard = shard;
    engine->config = model_shard_config(shard);
    engine->event = event;
    engine->context = context;
    if (step_plan_init(&engine->plan, &limits) != TCA_OK ||
        sampler_create(engine->config->vocab, &engine->sampler) != TCA_OK) {
        engine_destroy(engine);
        return TCA_ERR_NO_MEMORY;
    }
    *engine_out = engine;
    return TCA_OK;
}

void engine_destroy(struct engine *engine)
{
    if (engine == NULL)
        return;
    for (int i = 0; i < engine->questions; i++)
        question_job_destroy(engine->question[i]);
    for (int i = 0; i < engine->documents; i++)
        document_job_destroy(engine->document[i]);
    free(engine->question);
    free(engine->document);
    free(engine->sequence);
    free(engine->order);
    step_plan_deinit(&engine->plan);
    sampler_destroy(engine->sampler);
    free(engine);
}

static struct document_job *find_document(struct engine *engine, uint64_t key)
{
    for (int i = 0; i < engine->documents; i++)
        if (engine->document[i]->key == key)
            return engine->document[i];
    return NULL;
}

static struct question_job *find_question(struct engine *engine, uint64_t key)
{
    for (int i = 0; i < engine->questions; i++)
        if (engine->question[i]->params.key == key)
            return engine->question[i];
    return NULL;
}

static int32_t take_slot(struct engine *engine)
{
    for (int32_t slot = 0; slot < STEP_SLOTS_MAX; slot++) {
        if (!engine->is_slot_taken[slot]) {
            engine->is_slot_taken[slot] = true;
            return slot;
        }
    }
    return STEP_SLOT_NONE;
}

void engine_refuse_document(struct engine *engine, uint64_t key, enum tca_status status,
                            const char *message)
{
    struct engine_event event = {
        .kind = ENGINE_DOCUMENT_FAILED, .key = key, .status = status, .message = message};

    engine->event(engine->context, &event);
}

void engine_refuse_question(struct engine *engine, uint64_t key, enum tca_status status,
                            const char *message)
{
    struct engine_event event = {.kind = ENGINE_QUESTION_DONE,
                                 .key = key,
                                 .status = status,
                                 .message = message,
                                 .end = QUESTION_FAILED};

    engine->event(engine->context, &event);
}

static struct engine_usage usage_of(const struct engine *engine,
                                    const struct question_job *question)
{
    int64_t document = question->document == NULL ? 0 : question->document->tokens;
    int64_t tokens = document + question->params.tokens + question->answered;
    int64_t bytes_per_token = model_config_kv_bytes(engine->config, engine->config->kv_heads);
    struct engine_usage usage = {0};

    if (question->pass_end_ms != 0) {
        usage.question_ms = question->pass_end_ms - question->pass_start_ms;
        usage.first_token_ms = question->pass_end_ms - question->open_ms;
    }
    if (question->last_token_ms != 0)
        usage.decode_ms = question->last_token_ms - question->pass_end_ms;
    usage.full_kv_bytes = tokens * bytes_per_token;
    usage.core_cache_bytes = usage.full_kv_bytes;
    if (question->is_selected)
        usage.core_cache_bytes =
            question->kept_bytes + (tokens - question_job_base_tokens(question)) * bytes_per_token;
    usage.exchanged_bytes = (int64_t)(question->exchanged_bytes + 0.5);
    usage.kept_share = question->kept_share;
    usage.kept_mass_mean = question->kept_mass_mean;
    usage.kept_mass_min = question->kept_mass_min;
    return usage;
}

/* The question is over; its memory goes at the next step. */
static void end_question(struct engine *engine, struct question_job *question,
                         enum question_end end, enum tca_status status, const char *message)
{
    struct engine_event event = {.kind = ENGINE_QUESTION_DONE,
                                 .key = question->params.key,
                                 .status = status,
                                 .message = message,
                                 .end = end,
                                 .usage = usage_of(engine, question)};

    question->state = JOB_CLOSING;
    engine->event(engine->context, &event);
}

/* The document's memory goes: who reads it cannot go on. */
static void end_questions_over(struct engine *engine, const struct document_job *document,
                               const char *why)
{
    for (int i = 0; i < engine->questions; i++) {
        struct question_job *question = engine->question[i];

        if (question->document == document && question->state != JOB_CLOSING)
            end_question(engine, question, QUESTION_FAILED, TCA_ERR_ABORTED, why);
    }
}

static void fail_document(struct engine *engine, struct document_job *document,
                          enum tca_status status, const char *message)
{
    end_questions_over(engine, document, "its document failed");
    document->state = JOB_CLOSING;
    engine_refuse_document(engine, document->key, status, message);
}

/* Whether this group can do what a request's rule asks for. */
static enum tca_status check_sparsity(const struct engine *engine, const struct sparsity *sparsity,
                                      struct tca_error *error)
{
    const struct model_shard_facts *facts = model_shard_facts(engine->shard);
    const bool needs_tca = sparsity->method.rule == SELECT_TCA;

    if (sparsity->method.rule == SELECT_DENSE)
        return TCA_OK;
    if ((sparsity->tau > 0.0 || needs_tca) && facts->profile_id[0] == '\0')
        return tca_fail(error, TCA_ERR_PRECONDITION, "no profile; run tca-calibrate");
    if (needs_tca && !facts->has_tca_profile)
        return tca_fail(error, TCA_ERR_PRECONDITION,
                        "the profile has nothing for the rule tca; run tca-calibrate");
    return TCA_OK;
}

/* Room for one more pointer in a list. */
static bool grow_list(void **list, int count, int *room)
{
    int grown = *room == 0 ? 16 : *room * 2;
    void *moved;

    if (count < *room)
        return true;
    moved = realloc(*list, (size_t)grown * sizeof(void *));
    if (moved == NULL)
        return false;
    *list = moved;
    *room = grown;
    return true;
}

/* Scratch for one sequence more than there are. */
static bool grow_sequences(struct engine *engine)
{
    int needed = engine->documents + engine->questions + 1;
    int grown = engine->sequence_room == 0 ? 32 : engine->sequence_room * 2;
    struct batch_sequence *sequence;
    int *order;

    if (needed <= engine->sequence_room)
        return true;
    sequence = realloc(engine->sequence, (size_t)grown * sizeof(*sequence));
    if (sequence == NULL)
        return false;
    engine->sequence = sequence;
    order = realloc(engine->order, (size_t)grown * sizeof(*order));
    if (order == NULL)
        return false;
    engine->order = order;
    engine->sequence_room = grown;
    return true;
}

void engine_open_document(struct engine *engine, uint64_t key, int64_t tokens,
                          const struct sparsity *prefill)
{
    void *list = engine->document;
    struct document_job *document;
    char message[TCA_ERROR_TEXT_BYTES];
    struct tca_error error;

    if (tokens < 1 || tokens > engine->options.max_positions) {
        snprintf(message, sizeof(message), "document: %lld tokens, the model takes 1 to %lld",
                 (long long)tokens, (long long)engine->options.max_positions);
        engine_refuse_document(engine, key, TCA_ERR_RANGE, message);
        return;
    }
    if (prefill != NULL && check_sparsity(engine, prefill, &error) != TCA_OK) {
        engine_refuse_document(engine, key, TCA_ERR_PRECONDITION, error.text);
        return;
    }
    if (!grow_list(&list, engine->documents, &engine->document_room))
        goto no_memory;
    engine->document = list;
    if (!grow_sequences(engine) || document_job_create(key, tokens, &document) != TCA_OK)
        goto no_memory;
    document->slot = take_slot(engine);
    if (document->slot == STEP_SLOT_NONE) {
        document_job_destroy(document);
        goto no_memory;
    }
    document->last_step = engine->steps;
    if (prefill != NULL)
        document->prefill = *prefill;
    engine->document[engine->documents++] = document;
    return;
no_memory:
    engine_refuse_document(engine, key, TCA_ERR_NO_MEMORY, "no memory for one more document");
}

void engine_receive_document(struct engine *engine, uint64_t key, const int32_t *ids, int64_t count)
{
    struct document_job *document = find_document(engine, key);
    struct tca_error error;
    enum tca_status status;

    if (document == NULL || document->state == JOB_CLOSING)
        return;
    status = document_job_receive(document, ids, count, engine->config->vocab, &error);
    if (status != TCA_OK)
        fail_document(engine, document, status, error.text);
}

void engine_close_document(struct engine *engine, uint64_t key)
{
    struct document_job *document = find_document(engine, key);

    if (document == NULL || document->state == JOB_CLOSING)
        return;
    end_questions_over(engine, document, "its document was closed");
    document->state = JOB_CLOSING;
    document->is_close_wanted = true;
}

static void free_slots(struct engine *engine, const struct question_job *question)
{
    if (question->slot != STEP_SLOT_NONE)
        engine->is_slot_taken[question->slot] = false;
    if (question->head_slot != STEP_SLOT_NONE)
        engine->is_slot_taken[question->head_slot] = false;
}

static int running_questions(const struct engine *engine)
{
    int running = 0;

    for (int i = 0; i < engine->questions; i++)
        running += engine->question[i]->state != JOB_CLOSING;
    return running;
}

/* The question's document; TCA_ERR_NOT_FOUND or TCA_ERR_PRECONDITION. */
static enum tca_status document_of(struct engine *engine, const struct question_params *params,
                                   struct document_job **document_out, struct tca_error *error)
{
    *document_out = NULL;
    if (params->document_key == 0)
        return TCA_OK;
    *document_out = find_document(engine, params->document_key);
    if (*document_out == NULL)
        return tca_fail(error, TCA_ERR_NOT_FOUND, "the workers do not have this document");
    if (!document_job_is_ready(*document_out))
        return tca_fail(error, TCA_ERR_PRECONDITION, "the document's prefill is not done");
    return TCA_OK;
}

static enum tca_status add_question(struct engine *engine, const struct question_params *params,
                                    struct tca_error *error)
{
    const struct question_limits limits = {.max_positions = engine->options.max_positions,
                                           .chunk_tokens = engine->options.chunk_tokens};
    struct document_job *document;
    struct question_job *question;
    void *list = engine->question;

    if (running_questions(engine) >= engine->options.max_sequences)
        return tca_fail(error, TCA_ERR_BUSY, "%d questions run already",
                        engine->options.max_sequences);
    TCA_TRY(document_of(engine, params, &document, error));
    if (!grow_list(&list, engine->questions, &engine->question_room))
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for one more question");
    engine->question = list;
    if (!grow_sequences(engine))
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for one more question");
    TCA_TRY(check_sparsity(engine, &params->sparsity, error));
    TCA_TRY(question_job_create(params, document, &limits, &question, error));
    question->slot = take_slot(engine);
    if (question->head_tokens > 0)
        question->head_slot = take_slot(engine);
    if (question->slot == STEP_SLOT_NONE ||
        (question->head_tokens > 0 && question->head_slot == STEP_SLOT_NONE)) {
        free_slots(engine, question);
        question_job_destroy(question);
        return tca_fail(error, TCA_ERR_BUSY, "no slot for one more question");
    }
    question->open_ms = clock_monotonic_ms();
    question->last_step = engine->steps;
    engine->question[engine->questions++] = question;
    return TCA_OK;
}

void engine_open_question(struct engine *engine, const struct question_params *params)
{
    struct tca_error error;
    enum tca_status status = add_question(engine, params, &error);

    if (status != TCA_OK)
        engine_refuse_question(engine, params->key, status, error.text);
}

void engine_receive_question(struct engine *engine, uint64_t key, const int32_t *ids, int64_t count)
{
    struct question_job *question = find_question(engine, key);
    struct tca_error error;
    enum tca_status status;

    if (question == NULL || question->state == JOB_CLOSING)
        return;
    status = question_job_receive(question, ids, count, engine->config->vocab, &error);
    if (status != TCA_OK)
        end_question(engine, question, QUESTION_FAILED, status, error.text);
}

void engine_cancel_question(struct engine *engine, uint64_t key)
{
    struct question_job *question = find_question(engine, key);

    if (question != NULL && question->state != JOB_CLOSING)
        end_question(engine, question, QUESTION_CANCELLED, TCA_ERR_CANCELLED, "");
}

/* Questions before documents: a document's memory must outlive its readers'. What ended before the
 * ranks heard of it needs no close. */
static void plan_closes(struct engine *engine)
{
    for (int i = 0; i < engine->questions; i++) {
        struct question_job *question = engine->question[i];

        if (question->state == JOB_CLOSING && question->is_on_ranks) {
            if (step_plan_add_close(&engine->plan, question->slot) != TCA_OK)
                return;
            question->is_on_ranks = false;
        }
        if ((question->state == JOB_CLOSING || question->is_head_leaving) &&
            question->is_head_on_ranks) {
            if (step_plan_add_close(&engine->plan, question->head_slot) != TCA_OK)
                return;
            question->is_head_on_ranks = false;
        }
    }
    for (int i = 0; i < engine->documents; i++) {
        struct document_job *document = engine->document[i];

        if (document->state != JOB_CLOSING || !document->is_on_ranks)
            continue;
        if (step_plan_add_close(&engine->plan, document->slot) != TCA_OK)
            return;
        document->is_on_ranks = false;
    }
}

/* A question, after the head that it may have: both in one plan. */
static bool plan_question_open(struct engine *engine, const struct question_job *question)
{
    const bool has_head = question->head_tokens > 0;
    const struct step_open head = {.slot = question->head_slot,
                                   .base_slot = STEP_SLOT_NONE,
                                   .capacity = question->head_tokens};
    struct step_open open = {.slot = question->slot,
                             .base_slot = STEP_SLOT_NONE,
                             .capacity = question->capacity,
                             .base_tokens = question_job_base_tokens(question),
                             .is_base_leaving = has_head,
                             .reports_selection = question->params.reports_selection};

    if (question->document != NULL)
        open.base_slot = question->document->slot;
    if (has_head)
        open.base_slot = question->head_slot;
    if (question->observers > 0)
        open.sparsity = question->params.sparsity;
    if (engine->plan.opens + 1 + has_head > STEP_OPENS_MAX)
        return false;
    return (!has_head || step_plan_add_open(&engine->plan, &head) == TCA_OK) &&
           step_plan_add_open(&engine->plan, &open) == TCA_OK;
}

static void plan_opens(struct engine *engine)
{
    for (int i = 0; i < engine->documents; i++) {
        const struct document_job *document = engine->document[i];
        struct step_open open = {.slot = document->slot,
                                 .base_slot = STEP_SLOT_NONE,
                                 .capacity = document->tokens,
                                 .sparsity = document->prefill};

        if (document->state == JOB_OPENING && step_plan_add_open(&engine->plan, &open) != TCA_OK)
            return;
    }
    for (int i = 0; i < engine->questions; i++)
        if (engine->question[i]->state == JOB_OPENING &&
            !plan_question_open(engine, engine->question[i]))
            return;
}

/* Lists what could run: questions first, then documents. Returns how many. */
static int list_sequences(struct engine *engine)
{
    int count = 0;

    for (int i = 0; i < engine->questions; i++) {
        const struct question_job *question = engine->question[i];
        const int candidates = sampler_candidates(&question->params.sampling);

        if (question->state != JOB_RUNNING)
            continue;
        engine->sequence[count] = question_job_sequence(question);
        if (engine->sequence[count].pending_tokens == 0)
            continue;
        if (candidates > engine->plan.top_count)
            engine->plan.top_count = candidates;
        count++;
    }
    for (int i = 0; i < engine->documents; i++) {
        const struct document_job *document = engine->document[i];

        if (document->state != JOB_RUNNING || document->received == document->done)
            continue;
        engine->sequence[count++] = document_job_sequence(document, engine->options.chunk_tokens);
    }
    return count;
}

static struct question_job *question_in_slot(struct engine *engine, int32_t slot)
{
    for (int i = 0; i < engine->questions; i++)
        if (engine->question[i]->slot == slot || engine->question[i]->head_slot == slot)
            return engine->question[i];
    return NULL;
}

static struct document_job *document_in_slot(struct engine *engine, int32_t slot)
{
    for (int i = 0; i < engine->documents; i++)
        if (engine->document[i]->slot == slot)
            return engine->document[i];
    return NULL;
}

/* A row of logits has come: choose the question's next token while the row is there. */
static void choose_token(void *context, int token, int item, const struct logits_row *row)
{
    struct engine *engine = context;
    struct question_job *question = question_in_slot(engine, engine->plan.item[item].slot);

    (void)token;
    question->sampled =
        sampler_choose(engine->sampler, &question->params.sampling, row, question->ids,
                       (size_t)(question->params.tokens + question->answered), &question->random);
    question->has_sampled = true;
}

/* Forget what has ended and is on no rank any more, keeping the order of the rest. */
static void settle_closes(struct engine *engine)
{
    int kept = 0;

    for (int i = 0; i < engine->questions; i++) {
        struct question_job *question = engine->question[i];

        if (question->state != JOB_CLOSING || question->is_on_ranks || question->is_head_on_ranks) {
            engine->question[kept++] = question;
            continue;
        }
        free_slots(engine, question);
        question_job_destroy(question);
    }
    engine->questions = kept;
    kept = 0;
    for (int i = 0; i < engine->documents; i++) {
        struct document_job *document = engine->document[i];
        struct engine_event event = {.kind = ENGINE_DOCUMENT_CLOSED, .key = document->key};

        if (document->state != JOB_CLOSING || document->is_on_ranks) {
            engine->document[kept++] = document;
            continue;
        }
        engine->is_slot_taken[document->slot] = false;
        if (document->is_close_wanted)
            engine->event(engine->context, &event);
        document_job_destroy(document);
    }
    engine->documents = kept;
}

/* failure: NULL when there is memory. The question's slot is opened after its head's. */
static void settle_question_open(struct engine *engine, struct question_job *question, int32_t slot,
                                 const char *failure)
{
    if (slot == question->head_slot) {
        question->is_head_on_ranks = true;
    } else {
        question->is_on_ranks = true;
        if (question->state == JOB_OPENING)
            question->state = JOB_RUNNING;
    }
    if (failure != NULL && question->state != JOB_CLOSING)
        end_question(engine, question, QUESTION_FAILED, TCA_ERR_BUSY, failure);
}

static void settle_opens(struct engine *engine, uint64_t failed)
{
    for (int i = 0; i < engine->plan.opens; i++) {
        struct question_job *question = question_in_slot(engine, engine->plan.open[i].slot);
        struct document_job *document = document_in_slot(engine, engine->plan.open[i].slot);
        bool is_failed = (failed >> i & 1) != 0;
        char message[TCA_ERROR_TEXT_BYTES];

        snprintf(message, sizeof(message), "the workers have no KV memory for %lld tokens now",
                 (long long)engine->plan.open[i].capacity);
        if (question != NULL)
            settle_question_open(engine, question, engine->plan.open[i].slot,
                                 is_failed ? message : NULL);
        if (document != NULL) {
            document->state = JOB_RUNNING;
            document->is_on_ranks = true;
            if (is_failed)
                fail_document(engine, document, TCA_ERR_BUSY, message);
        }
    }
}

/* The question's pass is done, or one decode step: report the token, and the end if it is one. */
static void advance_answer(struct engine *engine, struct question_job *question, int64_t now_ms)
{
    struct engine_event event = {
        .kind = ENGINE_QUESTION_TOKEN, .key = question->params.key, .token = &question->sampled};

    question->has_sampled = false;
    if (question->pass_end_ms == 0)
        question->pass_end_ms = now_ms;
    question->last_token_ms = now_ms;
    if (question_job_is_end_token(question, question->sampled.chosen.id)) {
        end_question(engine, question, QUESTION_EOS, TCA_OK, "");
        return;
    }
    engine->event(engine->context, &event);
    if (question_job_answer(question, question->sampled.chosen.id))
        end_question(engine, question, QUESTION_LENGTH, TCA_OK, "");
}

static void settle_question(struct engine *engine, struct question_job *question, int tokens,
                            int64_t start_ms)
{
    struct engine_event event = {.kind = ENGINE_QUESTION_PROGRESS, .key = question->params.key};

    if (question->pass_start_ms == 0)
        question->pass_start_ms = start_ms;
    question->last_step = engine->steps;
    question->done += tokens;
    event.tokens_done = question->done;
    if (question->done <= question->params.tokens)
        engine->event(engine->context, &event);
    if (question->has_sampled)
        advance_answer(engine, question, clock_monotonic_ms());
}

static void report_bins(struct engine *engine, const struct question_job *question,
                        const uint32_t *bins)
{
    for (int layer = 0; layer < engine->config->layers; layer++)
        for (int head = 0; head < engine->config->kv_heads; head++) {
            struct engine_event event = {.kind = ENGINE_QUESTION_SELECTION,
                                         .key = question->params.key,
                                         .layer = layer,
                                         .kv_head = head,
                                         .bins = bins};

            engine->event(engine->context, &event);
            bins += ENGINE_SELECTION_BINS;
        }
}

/* An evicted prompt's rest: what a head keeps on average, its own rows and the answer's. */
static int64_t kv_tokens_after_eviction(const struct engine *engine,
                                        const struct question_job *question)
{
    return model_shard_kv_tokens(
        engine->shard, question->capacity,
        (int64_t)(question->kept_share * (double)question->head_tokens + 0.5));
}

/* What the questions of this step keep from now on. */
static void settle_selections(struct engine *engine)
{
    int count;
    const struct step_selected *selected = model_shard_selected(engine->shard, &count);
    const int64_t row_bytes = model_config_kv_bytes(engine->config, 1) / engine->config->layers;

    for (int i = 0; i < count; i++) {
        const struct selection_report *report = &selected[i].report;
        struct question_job *question =
            question_in_slot(engine, engine->plan.item[selected[i].item].slot);
        const double heads = (double)report->heads;
        struct engine_event event = {.kind = ENGINE_QUESTION_EVICTED, .key = question->params.key};

        question->is_selected = true;
        question->kept_share =
            (double)report->kept_rows / heads / (double)question_job_base_tokens(question);
        question->kept_mass_mean = report->mass_sum / heads;
        question->kept_mass_min = report->mass_min;
        question->kept_bytes = report->kept_rows * row_bytes;
        if (selected[i].bins != NULL)
            report_bins(engine, question, selected[i].bins);
        if (question->head_tokens == 0)
            continue;
        question->is_head_leaving = true;
        event.kv_tokens = kv_tokens_after_eviction(engine, question);
        engine->event(engine->context, &event);
    }
}

static void settle_document(struct engine *engine, struct document_job *document, int tokens)
{
    struct engine_event event = {.kind = ENGINE_DOCUMENT_PROGRESS, .key = document->key};

    document_job_advance(document, tokens, engine->steps);
    event.tokens_done = document->done;
    engine->event(engine->context, &event);
    if (!document_job_is_ready(document))
        return;
    event.kind = ENGINE_DOCUMENT_READY;
    engine->event(engine->context, &event);
}

static void settle_items(struct engine *engine, int64_t start_ms)
{
    const double sent_bytes = (double)lockstep_sent_bytes(engine->lockstep);

    for (int i = 0; i < engine->plan.items; i++) {
        const struct step_item *item = &engine->plan.item[i];
        struct question_job *question = question_in_slot(engine, item->slot);

        if (question != NULL)
            question->exchanged_bytes += sent_bytes * item->tokens / engine->plan.tokens;
        if (question != NULL)
            settle_question(engine, question, item->tokens, start_ms);
        else
            settle_document(engine, document_in_slot(engine, item->slot), item->tokens);
    }
}

enum tca_status engine_step(struct engine *engine, bool *was_busy_out)
{
    struct batch_limits limits = {.chunk_tokens = engine->options.chunk_tokens,
                                  .key_reads = model_shard_facts(engine->shard)->step_key_reads,
                                  .decode_share = DECODE_SHARE,
                                  .step = engine->steps + 1,
                                  .whole_chunk_step = engine->whole_chunk_step};
    int64_t start_ms = clock_monotonic_ms();
    uint64_t failed_opens;
    int count;

    step_plan_clear(&engine->plan, ++engine->steps);
    plan_closes(engine);
    plan_opens(engine);
    count = list_sequences(engine);
    batch_compose(engine->sequence, count, &limits, engine->order, &engine->plan);
    for (int i = 0; i < count; i++)
        if (engine->sequence[i].has_whole_chunks && engine->sequence[i].served_tokens > 0)
            engine->whole_chunk_step = engine->steps;
    TCA_TRY(lockstep_lead(engine->lockstep, &engine->plan, choose_token, engine, &failed_opens));
    *was_busy_out = engine->plan.closes + engine->plan.opens + engine->plan.items > 0;
    settle_selections(engine);
    settle_items(engine, start_ms);
    settle_opens(engine, failed_opens);
    settle_closes(engine);
    return TCA_OK;
}
