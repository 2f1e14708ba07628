#include "worker/jobs.h"

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

enum tca_status document_create(uint64_t key, int64_t tokens, struct document **document_out)
{
    struct document *document = calloc(1, sizeof(*document));

    if (document == NULL)
        return TCA_ERR_NO_MEMORY;
    *document = (struct document){.key = key, .slot = STEP_SLOT_NONE, .tokens = tokens};
    document->ids = malloc((size_t)tokens * sizeof(*document->ids));
    if (document->ids == NULL) {
        free(document);
        return TCA_ERR_NO_MEMORY;
    }
    *document_out = document;
    return TCA_OK;
}

void document_destroy(struct document *document)
{
    if (document == NULL)
        return;
    free(document->ids);
    free(document);
}

enum tca_status document_receive(struct document *document, const int32_t *ids, int64_t count,
                                 int vocab, struct tca_error *error)
{
    return receive(document->ids, &document->received, document->tokens, ids, count, vocab, error);
}

struct batch_sequence document_sequence(const struct document *document)
{
    return (struct batch_sequence){.kind = BATCH_DOCUMENT,
                                   .slot = document->slot,
                                   .own_rows = document->done,
                                   .pending = document->ids + document->done,
                                   .pending_tokens = document->received - document->done,
                                   .missing_tokens = document->tokens - document->received,
                                   .last_step = document->last_step};
}

bool document_is_ready(const struct document *document)
{
    return document->state == JOB_RUNNING && document->done == document->tokens;
}

void document_advance(struct document *document, int64_t tokens, uint64_t step)
{
    document->done += tokens;
    document->last_step = step;
    if (document->done == document->tokens) {
        free(document->ids);
        document->ids = NULL;
    }
}

enum tca_status question_create(const struct question_params *params, struct document *document,
                                int64_t max_positions, struct question **question_out,
                                struct tca_error *error)
{
    int64_t before = document == NULL ? 0 : document->tokens;
    int64_t room = max_positions - before;
    struct question *question;

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
    *question = (struct question){.params = *params, .slot = STEP_SLOT_NONE, .document = document};
    question->capacity =
        params->max_tokens < room - params->tokens ? params->tokens + params->max_tokens : room;
    question->ids = malloc((size_t)question->capacity * sizeof(*question->ids));
    if (question->ids == NULL) {
        free(question);
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for a question of %lld tokens",
                        (long long)params->tokens);
    }
    sampler_random_seed(&question->random, params->sampling.seed);
    *question_out = question;
    return TCA_OK;
}

void question_destroy(struct question *question)
{
    if (question == NULL)
        return;
    free(question->ids);
    free(question);
}

enum tca_status question_receive(struct question *question, const int32_t *ids, int64_t count,
                                 int vocab, struct tca_error *error)
{
    return receive(question->ids, &question->received, question->params.tokens, ids, count, vocab,
                   error);
}

struct batch_sequence question_sequence(const struct question *question)
{
    const struct sampler_params *sampling = &question->params.sampling;

    return (struct batch_sequence){
        .kind = question->done < question->params.tokens ? BATCH_QUESTION : BATCH_DECODE,
        .slot = question->slot,
        .own_rows = question->done,
        .base_rows = question->document == NULL ? 0 : question->document->tokens,
        .pending = question->ids + question->done,
        .pending_tokens = question->received + question->answered - question->done,
        .missing_tokens = question->params.tokens - question->received,
        .logits = sampler_needs_full_row(sampling) ? STEP_LOGITS_FULL : STEP_LOGITS_TOP,
        .last_step = question->last_step};
}

bool question_is_end_token(const struct question *question, int32_t id)
{
    for (int i = 0; i < question->params.end_tokens; i++)
        if (question->params.end_token[i] == id)
            return true;
    return false;
}

bool question_answer(struct question *question, int32_t id)
{
    int64_t length = question->params.tokens + question->answered;

    /* The last token the model may say has no position left to be run at, and no place in ids. */
    if (length < question->capacity)
        question->ids[length] = id;
    question->answered++;
    return question->answered == question->params.max_tokens || length + 1 > question->capacity;
}
