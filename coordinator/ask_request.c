#include "coordinator/ask_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ROLE_BYTES_MAX = 64 };

static bool equals(ProtobufCBinaryData text, const char *wanted)
{
    return text.len == strlen(wanted) && memcmp(text.data, wanted, text.len) == 0;
}

static enum tca_status read_attention(const Tca__V1__AttentionOptions *options, bool has_document,
                                      struct attention_wish *wish, struct tca_error *error)
{
    if (options == NULL)
        return TCA_OK;
    TCA_TRY(
        attention_wish_read("attention", options->rule, options->keep, options->tau, wish, error));
    wish->evicts = options->evict != 0;
    wish->reports_selection = options->report_selection != 0;
    return attention_wish_check(wish, has_document, error);
}

static enum tca_status check_real(const char *field, double value, double min, double max,
                                  struct tca_error *error)
{
    if (value >= min && value <= max)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_INVALID, "%s: %g, allowed: %g to %g", field, value, min, max);
}

static enum tca_status read_sampling(const Tca__V1__SamplingParams *params,
                                     struct sampling *sampling, struct tca_error *error)
{
    *sampling = (struct sampling){.top_p = 1.0, .repetition_penalty = 1.0};
    if (params == NULL)
        return TCA_OK;
    TCA_TRY(check_real("sampling.temperature", params->temperature, 0.0, 100.0, error));
    TCA_TRY(check_real("sampling.top_p", params->top_p, 0.0, 1.0, error));
    TCA_TRY(check_real("sampling.min_p", params->min_p, 0.0, 1.0, error));
    TCA_TRY(
        check_real("sampling.repetition_penalty", params->repetition_penalty, 0.0, 100.0, error));
    if (params->top_k < 0)
        return tca_fail(error, TCA_ERR_INVALID, "sampling.top_k: %" PRId32 ", allowed: 0 or more",
                        params->top_k);
    sampling->temperature = params->temperature;
    sampling->top_k = (uint32_t)params->top_k;
    sampling->min_p = params->min_p;
    sampling->seed = params->seed;
    if (params->top_p != 0.0)
        sampling->top_p = params->top_p;
    if (params->repetition_penalty != 0.0)
        sampling->repetition_penalty = params->repetition_penalty;
    return TCA_OK;
}

static enum tca_status check_history(const Tca__V1__AskRequest *message, struct tca_error *error)
{
    if (message->n_history > ASK_HISTORY_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "history: %zu turns, allowed: 0 to %d",
                        message->n_history, ASK_HISTORY_MAX);
    if (message->n_history > 0 && message->raw)
        return tca_fail(error, TCA_ERR_INVALID,
                        "history: %zu turns, allowed: 0 with raw, which has no turns",
                        message->n_history);
    for (size_t i = 0; i < message->n_history; i++) {
        const char *wanted = i % 2 == 0 ? "user" : "assistant";
        const ProtobufCBinaryData role = message->history[i]->role;

        if (role.len > ROLE_BYTES_MAX) /* the text would leave no room for what is allowed */
            return tca_fail(error, TCA_ERR_INVALID, "history[%zu].role: %zu bytes, allowed: %s", i,
                            role.len, wanted);
        if (!equals(role, wanted))
            return tca_fail(error, TCA_ERR_INVALID,
                            "history[%zu].role: \"%.*s\", allowed: %s (turns alternate, the first "
                            "is the user's)",
                            i, (int)role.len, (const char *)role.data, wanted);
    }
    if (message->n_history % 2 != 0)
        return tca_fail(error, TCA_ERR_INVALID,
                        "history: %zu turns, allowed: an even number, the last is the assistant's",
                        message->n_history);
    return TCA_OK;
}

static enum tca_status check_stops(const Tca__V1__AskRequest *message, struct tca_error *error)
{
    if (message->n_stop > ASK_STOPS_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "stop: %zu texts, allowed: 0 to %d",
                        message->n_stop, ASK_STOPS_MAX);
    for (size_t i = 0; i < message->n_stop; i++)
        if (message->stop[i].len == 0 || message->stop[i].len > ASK_STOP_BYTES_MAX)
            return tca_fail(error, TCA_ERR_INVALID, "stop[%zu]: %zu bytes, allowed: 1 to %d", i,
                            message->stop[i].len, ASK_STOP_BYTES_MAX);
    return TCA_OK;
}

static enum tca_status read_source(const Tca__V1__AskRequest *message, struct ask_request *request,
                                   struct tca_error *error)
{
    switch (message->source_case) {
    case TCA__V1__ASK_REQUEST__SOURCE_DOCUMENT_ID:
        TCA_TRY(document_id_check("document_id", message->document_id.data,
                                  message->document_id.len, error));
        memcpy(request->document_id, message->document_id.data, message->document_id.len);
        request->has_document = true;
        if (message->question.len == 0)
            return tca_fail(error, TCA_ERR_INVALID, "question: is empty, allowed: some text");
        return TCA_OK;
    case TCA__V1__ASK_REQUEST__SOURCE_PROMPT:
        if (message->prompt.len == 0)
            return tca_fail(error, TCA_ERR_INVALID, "prompt: is empty, allowed: some text");
        if (message->question.len > 0)
            return tca_fail(error, TCA_ERR_INVALID,
                            "question: %zu bytes, allowed: none with prompt",
                            message->question.len);
        return TCA_OK;
    case TCA__V1__ASK_REQUEST__SOURCE__NOT_SET:
    case _TCA__V1__ASK_REQUEST__SOURCE__CASE_IS_INT_SIZE:
        break;
    }
    return tca_fail(error, TCA_ERR_INVALID, "source: is not set, allowed: document_id or prompt");
}

enum tca_status ask_request_read(const Tca__V1__AskRequest *message,
                                 struct ask_request *request_out, struct tca_error *error)
{
    struct ask_request request = {.message = message};

    if (message->request_id.len > 0) {
        TCA_TRY(document_id_check("request_id", message->request_id.data, message->request_id.len,
                                  error));
        memcpy(request.request_id, message->request_id.data, message->request_id.len);
    }
    TCA_TRY(read_source(message, &request, error));
    TCA_TRY(check_history(message, error));
    TCA_TRY(read_sampling(message->sampling, &request.sampling, error));
    TCA_TRY(check_stops(message, error));
    if (message->max_tokens < 0)
        return tca_fail(error, TCA_ERR_INVALID, "max_tokens: %" PRId32 ", allowed: 0 or more",
                        message->max_tokens);
    if (message->logprobs < 0 || message->logprobs > ASK_LOGPROBS_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "logprobs: %" PRId32 ", allowed: 0 to %d",
                        message->logprobs, ASK_LOGPROBS_MAX);
    TCA_TRY(read_attention(message->attention, request.has_document, &request.attention, error));
    request.max_tokens = message->max_tokens;
    request.logprobs = message->logprobs;
    *request_out = request;
    return TCA_OK;
}
