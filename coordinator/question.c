#include "coordinator/question.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static enum tca_status copy_stops(struct question *question, const Tca__V1__AskRequest *message)
{
    for (size_t i = 0; i < message->n_stop; i++)
        TCA_TRY(stop_text_add(&question->answer.stop, message->stop[i].data, message->stop[i].len));
    return TCA_OK;
}

struct question *question_make(const struct ask_request *request, int64_t now_ms)
{
    struct question *question = calloc(1, sizeof(*question));

    if (question == NULL)
        return NULL;
    snprintf(question->request_id, sizeof(question->request_id), "%s", request->request_id);
    question->sampling = request->sampling;
    question->wish = request->attention;
    question->max_tokens = request->max_tokens;
    question->logprobs = request->logprobs;
    question->ignores_eos = request->message->ignore_eos != 0;
    question->no_wait = request->message->no_wait != 0;
    question->asked_ms = question->last_sent_ms = now_ms;
    if (copy_stops(question, request->message) != TCA_OK) {
        question_free(question);
        return NULL;
    }
    return question;
}

void question_free(struct question *question)
{
    if (question == NULL)
        return;
    token_ids_free(&question->tokens);
    answer_free(&question->answer);
    free(question);
}

/* The default, less where less fits; at least 1, which may still be too much. */
static int64_t default_max_tokens(int64_t left)
{
    if (left > ASK_MAX_TOKENS_DEFAULT)
        return ASK_MAX_TOKENS_DEFAULT;
    return left < 1 ? 1 : left;
}

/* It needs more than all questions together have: say what. */
static enum tca_status fail_of_memory(int64_t question_tokens, int64_t max_tokens, int64_t core,
                                      bool evicts, int64_t pool, struct tca_error *error)
{
    char kept[96] = "";

    if (core > 0)
        snprintf(kept, sizeof(kept), ", with %" PRId64 " kept of the %s", core,
                 evicts ? "prompt and the answer's once more," : "document,");
    return tca_fail(error, TCA_ERR_RANGE,
                    "max_tokens: question %" PRId64 " and answer %" PRId64
                    " tokens%s are together over %" PRId64
                    ", the KV memory that all questions have",
                    question_tokens, max_tokens, kept, pool);
}

enum tca_status question_measure(struct question *question, struct token_ids *tokens,
                                 int64_t document_tokens, const struct admission *admission,
                                 struct tca_error *error)
{
    const int64_t question_tokens = (int64_t)tokens->count;
    const bool evicts = question->attention.evicts;
    const int64_t core = admission_core_tokens(admission, &question->attention,
                                               evicts ? question_tokens : document_tokens);
    const int64_t left = admission->max_tokens - document_tokens - question_tokens;
    const int64_t room = admission_answer_tokens(admission, evicts, question_tokens, core);
    int64_t max_tokens = question->max_tokens;
    int64_t kv_tokens;

    if (question_tokens == 0)
        return tca_fail(error, TCA_ERR_INVALID, "question: has no tokens, allowed: 1 or more");
    if (max_tokens == 0)
        max_tokens = default_max_tokens(left < room ? left : room);
    if (max_tokens > left)
        return tca_fail(error, TCA_ERR_RANGE,
                        "max_tokens: document %" PRId64 ", question %" PRId64 " and answer %" PRId64
                        " tokens are together over %" PRId64 ", the longest sequence",
                        document_tokens, question_tokens, max_tokens, admission->max_tokens);
    kv_tokens = admission_question_tokens(admission, evicts, question_tokens, max_tokens, core);
    if (kv_tokens > admission->question_pool)
        return fail_of_memory(question_tokens, max_tokens, core, evicts, admission->question_pool,
                              error);
    question->is_measured = true;
    question->tokens = *tokens;
    *tokens = (struct token_ids){0};
    question->question_tokens = question_tokens;
    question->document_tokens = document_tokens;
    question->max_tokens = max_tokens;
    question->kv_tokens = kv_tokens;
    question->core_tokens = core;
    return TCA_OK;
}
