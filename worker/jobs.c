#include "worker/jobs.h"

#include "base/min.h"

#include <stdlib.h>
#include <string.h>

/* Copy arrived ids behind `received` of `expected`, all or none. */
static enum tca_status receive(int32_t *to, int64_t *received, int64_t expected, const int32_t *ids,
                               int64_t count, int vocab, struct tca_error *error)
{
    if (count > expected - *received)
        return tca_fail(error, TCA_ERR_RANGE,
                        "tokens: %lld announced, %lld had arrived, and %lld more",
                        (long long)expected, (long long)*received, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        long long index = *received + i;

        if (ids[i] < 0 || ids[i] >= vocab)
            return tca_fail(error, TCA_ERR_RANGE, "token %lld: id %d is not in 0..%d", index,
                            ids[i], vocab - 1);
    }
    memcpy(to + *received, ids, (size_t)count * sizeof(*ids));
    *received += count;
    return TCA_OK;
}

enum tca_status document_job_create(uint64_t key, int64_t tokens,
                                    struct document_job **document_out)
{
    struct document_job *document = calloc(1, sizeof(*document));

    if (document == NULL)
        return TCA_ERR_NO_MEMORY;
    *document = (struct document_job){.key = key, .slot = STEP_SLOT_NONE, .tokens = tokens};
    document->ids = malloc((size_t)tokens * sizeof(*document->ids));
    if (document->ids == NULL) {
        free(document);
        return TCA_ERR_NO_MEMORY;
    }
    *document_out = document;
    return TCA_OK;
}

void document_job_destroy(struct document_job *document)
{
    if (document == NULL)
        return;
    free(document->ids);
    free(document);
}

enum tca_status document_job_receive(struct document_job *document, const int32_t *ids,
                                     int64_t count, int vocab, struct tca_error *error)
{
    return receive(document->ids, &document->received, document->tokens, ids, count, vocab, error);
}

struct batch_sequence document_job_sequence(const struct document_job *document, int chunk_tokens)
{
    return (struct batch_sequence){
        .kind = BATCH_DOCUMENT,
        .slot = document->slot,
        .own_rows = document->done,
        .pending = document->ids + document->done,
        .pending_tokens = document->received - document->done,
        .missing_tokens = document->tokens - document->received,
        .has_whole_chunks = sparsity_applies(&document->prefill, document->done, chunk_tokens),
        .last_step = document->last_step};
}

bool document_job_is_ready(const struct document_job *document)
{
    return document->state == JOB_RUNNING && document->done == document->tokens;
}

void document_job_advance(struct document_job *document, int64_t tokens, uint64_t step)
{
    document->done += tokens;
    document->last_step = step;
    if (document->done == document->tokens) {
        free(document->ids);
        document->ids = NULL;
    }
}

/* What of it selects, and what of a prompt is its head. */
static void plan_selection(struct question_job *question, int chunk_tokens)
{
    const struct question_params *params = &question->params;
    const int64_t observers =
        min_i64(params->tokens, min_i64(QUESTION_OBSERVERS_MAX, chunk_tokens));

    if (params->sparsity.method.rule == SELECT_DENSE)
        return;
    if (question->document == NULL && params->evicts)
        question->head_tokens = params->tokens - observers;
    if (question_job_base_tokens(question) > 0)
        question->observers = observers;
}

enum tca_status question_job_create(const struct question_params *params,
                                    struct document_job *document,
                                    const struct question_limits *limits,
                                    struct question_job **question_out, struct tca_error *error)
{
    int64_t before = document == NULL ? 0 : document->tokens;
    int64_t room = limits->max_positions - before;
    int64_t length;
    struct question_job *question;

    TCA_TRY(sampler_params_check(&params->sampling, error));
    if (params->tokens < 1 || params->tokens > room)
        return tca_fail(error, TCA_ERR_RANGE,
                        "question: %lld tokens after %lld, the model takes 1 to %lld",
                        (long long)params->tokens, (long long)before, (long long)room);
    if (params->max_tokens < 1)
        return tca_fail(error, TCA_ERR_INVALID, "max_tokens: %lld is less than 1",
                        (long long)params->max_tokens);
    question = calloc(1, sizeof(*question));
    if (question == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a question");
    *question = (struct question_job){.params = *params,
                                      .slot = STEP_SLOT_NONE,
                                      .head_slot = STEP_SLOT_NONE,
                                      .document = document,
                                      .kept_share = 1.0,
                                      .kept_mass_mean = 1.0,
                                      .kept_mass_min = 1.0};
    plan_selection(question, limits->chunk_tokens);
    length =
        params->max_tokens < room - params->tokens ? params->tokens + params->max_tokens : room;
    question->capacity = length - question->head_tokens;
    question->ids = malloc((size_t)length * sizeof(*question->ids));
    if (question->ids == NULL) {
        free(question);
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a question of %lld tokens",
                        (long long)params->tokens);
    }
    sampler_random_seed(&question->random, params->sampling.seed);
    *question_out = question;
    return TCA_OK;
}

void question_job_destroy(struct question_job *question)
{
    if (question == NULL)
        return;
    free(question->ids);
    free(question);
}

enum tca_status question_job_receive(struct question_job *question, const int32_t *ids,
                                     int64_t count, int vocab, struct tca_error *error)
{
    return receive(question->ids, &question->received, question->params.tokens, ids, count, vocab,
                   error);
}

int64_t question_job_base_tokens(const struct question_job *question)
{
    return question->document == NULL ? question->head_tokens : question->document->tokens;
}

/* The head of an evicting prompt, run like a document. */
static struct batch_sequence head_sequence(const struct question_job *question)
{
    const int64_t received = min_i64(question->received, question->head_tokens);

    return (struct batch_sequence){.kind = BATCH_QUESTION,
                                   .slot = question->head_slot,
                                   .own_rows = question->done,
                                   .pending = question->ids + question->done,
                                   .pending_tokens = received - question->done,
                                   .missing_tokens = question->head_tokens - received,
                                   .last_step = question->last_step};
}

struct batch_sequence question_job_sequence(const struct question_job *question)
{
    const struct question_params *params = &question->params;
    const bool is_decode = question->done >= params->tokens;
    struct batch_sequence sequence = {
        .kind = is_decode ? BATCH_DECODE : BATCH_QUESTION,
        .slot = question->slot,
        .own_rows = question->done - question->head_tokens,
        .base_rows = question->is_selected ? 0 : question_job_base_tokens(question),
        .pending = question->ids + question->done,
        .pending_tokens = question->received + question->answered - question->done,
        .missing_tokens = params->tokens - question->received,
        .logits = sampler_candidates(&params->sampling) == 0 ? STEP_LOGITS_FULL : STEP_LOGITS_TOP,
        .last_step = question->last_step};

    if (question->done < question->head_tokens)
        return head_sequence(question);
    if (question->observers > 0 && !is_decode) {
        sequence.tail_tokens = question->observers;
        sequence.selects = true;
    }
    return sequence;
}

bool question_job_is_end_token(const struct question_job *question, int32_t id)
{
    for (int i = 0; i < question->params.end_tokens; i++)
        if (question->params.end_token[i] == id)
            return true;
    return false;
}

bool question_job_answer(struct question_job *question, int32_t id)
{
    const int64_t room = question->head_tokens + question->capacity;
    int64_t length = question->params.tokens + question->answered;

    /* The last token the model may say has no position left to be run at, and no place in ids. */
    if (length < room)
        question->ids[length] = id;
    question->answered++;
    return question->answered == question->params.max_tokens || length + 1 > room;
}
