#include "coordinator/document.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct document *document_make(const char *id)
{
    struct document *document = calloc(1, sizeof(*document));

    if (document == NULL)
        return NULL;
    snprintf(document->id, sizeof(document->id), "%s", id);
    return document;
}

void document_free(struct document *document)
{
    if (document == NULL)
        return;
    bytes_free(&document->display_name);
    document_identity_free(&document->identity);
    sha256_destroy(document->sha);
    token_ids_free(&document->tokens);
    free(document);
}

static bool is_transition(enum document_state from, enum document_state to)
{
#define TO(state) (1u << DOCUMENT_##state)
    static const unsigned allowed[DOCUMENT_STATES] = {
        [DOCUMENT_UPLOADING] = TO(QUEUED) | TO(FAILED) | TO(DELETING),
        [DOCUMENT_QUEUED] = TO(PREFILLING) | TO(STORED) | TO(FAILED) | TO(DELETING),
        [DOCUMENT_PREFILLING] = TO(READY) | TO(QUEUED) | TO(FAILED) | TO(DELETING),
        [DOCUMENT_READY] = TO(STORED) | TO(QUEUED) | TO(FAILED) | TO(DELETING),
        [DOCUMENT_STORED] = TO(QUEUED) | TO(FAILED) | TO(DELETING),
        [DOCUMENT_FAILED] = TO(DELETING),
        [DOCUMENT_DELETING] = 0,
    };
#undef TO
    return (allowed[from] >> to & 1u) != 0;
}

enum tca_status document_move(struct document *document, enum document_state state,
                              uint64_t sequence)
{
    if (!is_transition(document->state, state))
        return TCA_ERR_PRECONDITION;
    document->state = state;
    document->news = DOCUMENT_NEWS_STATE;
    document->work_done = document->work_total = 0;
    document->sequence = sequence;
    return TCA_OK;
}

enum tca_status document_fail(struct document *document, enum rpc_code code, const char *text,
                              uint64_t sequence)
{
    TCA_TRY(document_move(document, DOCUMENT_FAILED, sequence));
    document->failure = code;
    snprintf(document->failure_text, sizeof(document->failure_text), "%s", text);
    return TCA_OK;
}

void document_report(struct document *document, enum document_news news, int64_t done,
                     int64_t total, int64_t now_ms, uint64_t sequence)
{
    if (document->news != news)
        document->work_started_ms = now_ms;
    document->news = news;
    document->work_done = done;
    document->work_total = total;
    document->sequence = sequence;
}

double document_work_rate(const struct document *document, int64_t now_ms)
{
    const int64_t elapsed_ms = now_ms - document->work_started_ms;

    return elapsed_ms <= 0 ? 0.0 : (double)document->work_done * 1000.0 / (double)elapsed_ms;
}

int64_t document_work_left_ms(const struct document *document, int64_t now_ms)
{
    const double rate = document_work_rate(document, now_ms);
    const double left = (double)(document->work_total - document->work_done);

    return rate <= 0.0 ? 0 : (int64_t)(left / rate * 1000.0);
}

static const char *const state_names[DOCUMENT_STATES] = {
    "UPLOADING", "QUEUED", "PREFILLING", "READY", "STORED", "FAILED", "DELETING",
};

const char *document_state_name(enum document_state state)
{
    return state_names[state];
}

static bool is_id_character(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

enum tca_status document_id_check(const char *field, const void *id, size_t bytes,
                                  struct tca_error *error)
{
    static const char allowed[] = "allowed: 1 to 128 of A-Z a-z 0-9 . _ -, but not \".\" or \"..\"";
    const char *text = id;

    if (bytes == 0)
        return tca_fail(error, TCA_ERR_INVALID, "%s: is empty, %s", field, allowed);
    if (bytes >= DOCUMENT_ID_BYTES)
        return tca_fail(error, TCA_ERR_INVALID, "%s: %zu characters, %s", field, bytes, allowed);
    for (size_t i = 0; i < bytes; i++)
        if (!is_id_character(text[i]))
            return tca_fail(error, TCA_ERR_INVALID, "%s: \"%.*s\", %s", field, (int)bytes, text,
                            allowed);
    if (text[0] == '.' && (bytes == 1 || (bytes == 2 && text[1] == '.')))
        return tca_fail(error, TCA_ERR_INVALID, "%s: \"%.*s\", %s", field, (int)bytes, text,
                        allowed);
    return TCA_OK;
}

enum tca_status document_attention(const struct document_identity *identity,
                                   const struct attention_defaults *defaults,
                                   struct attention *attention_out, struct tca_error *error)
{
    const struct attention_wish wish = {
        .rule = attention_rule_find(identity->rule, strlen(identity->rule)),
        .keep = identity->keep,
    };

    return attention_of_prefill(&wish, defaults, attention_out, error);
}

const char *document_identity_difference(const struct document_identity *one,
                                         const struct document_identity *other)
{
    if (one->encoding != other->encoding)
        return "encoding";
    if (one->is_raw != other->is_raw)
        return "raw";
    if (one->system.size != other->system.size ||
        (one->system.size > 0 &&
         memcmp(one->system.data, other->system.data, one->system.size) != 0))
        return "system";
    if (strcmp(one->rule, other->rule) != 0)
        return "prefill.rule";
    if (one->keep != other->keep)
        return "prefill.keep";
    return NULL;
}

void document_identity_free(struct document_identity *identity)
{
    bytes_free(&identity->system);
}
