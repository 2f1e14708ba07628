#include "coordinator/answer.h"

#include <stdlib.h>
#include <string.h>

void answer_free(struct answer *answer)
{
    stop_text_free(&answer->stop);
    bytes_free(&answer->unsent_text);
    free(answer->unsent);
    *answer = (struct answer){0};
}

static enum tca_status keep_unsent(struct answer *answer, const struct answer_token *token)
{
    if (answer->unsent_count == answer->unsent_capacity) {
        const size_t capacity = answer->unsent_capacity == 0 ? 8 : answer->unsent_capacity * 2;
        struct answer_token *grown = realloc(answer->unsent, capacity * sizeof(*grown));

        if (grown == NULL)
            return TCA_ERR_NO_MEMORY;
        answer->unsent = grown;
        answer->unsent_capacity = capacity;
    }
    answer->unsent[answer->unsent_count++] = *token;
    return TCA_OK;
}

enum tca_status answer_push(struct answer *answer, const struct answer_token *token)
{
    struct bytes text = {0};
    enum tca_status status;

    if (answer->is_stopped)
        return TCA_OK;
    TCA_TRY(keep_unsent(answer, token));
    answer->tokens++;
    status = token_stream_push(&answer->stream, answer->tokenizer, token->chosen.token_id, &text);
    if (status == TCA_OK)
        status = stop_text_push(&answer->stop, text.data, text.size, &answer->unsent_text,
                                &answer->is_stopped);
    bytes_free(&text);
    return status;
}

enum tca_status answer_finish(struct answer *answer)
{
    struct bytes text = {0};
    enum tca_status status;

    if (answer->is_stopped)
        return TCA_OK;
    status = token_stream_finish(&answer->stream, &text);
    if (status == TCA_OK)
        status = stop_text_push(&answer->stop, text.data, text.size, &answer->unsent_text,
                                &answer->is_stopped);
    if (status == TCA_OK && !answer->is_stopped)
        status = stop_text_finish(&answer->stop, &answer->unsent_text);
    bytes_free(&text);
    return status;
}

void answer_sent(struct answer *answer, size_t tokens)
{
    bytes_clear(&answer->unsent_text);
    answer->unsent_count -= tokens;
    memmove(answer->unsent, answer->unsent + tokens,
            answer->unsent_count * sizeof(*answer->unsent));
}
