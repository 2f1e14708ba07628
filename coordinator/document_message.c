#include "coordinator/document_message.h"

#include "proto/message.h"

static void fill_time(Google__Protobuf__Timestamp *time, int64_t unix_ms)
{
    google__protobuf__timestamp__init(time);
    time->seconds = unix_ms / 1000;
    time->nanos = (int32_t)(unix_ms % 1000) * 1000000;
}

static uint8_t hex_digit(char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

static Tca__V1__Document__State state_of(enum document_state state)
{
    switch (state) {
    case DOCUMENT_UPLOADING:
        return TCA__V1__DOCUMENT__STATE__UPLOADING;
    case DOCUMENT_QUEUED:
        return TCA__V1__DOCUMENT__STATE__QUEUED;
    case DOCUMENT_PREFILLING:
        return TCA__V1__DOCUMENT__STATE__PREFILLING;
    case DOCUMENT_READY:
        return TCA__V1__DOCUMENT__STATE__READY;
    case DOCUMENT_STORED:
        return TCA__V1__DOCUMENT__STATE__STORED;
    case DOCUMENT_FAILED:
        return TCA__V1__DOCUMENT__STATE__FAILED;
    case DOCUMENT_DELETING:
        return TCA__V1__DOCUMENT__STATE__DELETING;
    }
    return TCA__V1__DOCUMENT__STATE__STATE_UNSPECIFIED;
}

void document_message_fill(struct document_message *message, const struct document *document,
                           const struct document_facts *facts)
{
    Tca__V1__Document *out = &message->document;

    tca__v1__document__init(out);
    out->document_id = message_text(document->id);
    out->display_name.data = document->display_name.data;
    out->display_name.len = document->display_name.size;
    out->state = state_of(document->state);
    out->byte_count = (uint64_t)document->byte_count;
    out->token_count = (uint64_t)document->token_count;
    out->kv_bytes = (uint64_t)(document->kv_tokens * facts->kv_bytes_per_token);
    if (document->sha256[0] != '\0') {
        for (size_t i = 0; i < SHA256_BYTES; i++)
            message->sha256[i] = (uint8_t)(hex_digit(document->sha256[2 * i]) << 4 |
                                           hex_digit(document->sha256[2 * i + 1]));
        out->sha256 = (ProtobufCBinaryData){.len = SHA256_BYTES, .data = message->sha256};
    }
    out->pinned = document->is_pinned;
    fill_time(&message->create_time, document->create_time_ms);
    fill_time(&message->last_used_time, document->last_used_ms);
    out->create_time = &message->create_time;
    out->last_used_time = &message->last_used_time;
    out->model = message_text(facts->model);
    if (document->state == DOCUMENT_FAILED)
        out->error_message = message_text(document->failure_text);
}

static void fill_progress(Tca__V1__DocumentEvent__Progress *progress,
                          const struct document *document, int64_t now_ms)
{
    tca__v1__document_event__progress__init(progress);
    progress->tokens_total = (uint64_t)document->token_count;
    if (document->news == DOCUMENT_NEWS_STATE) {
        progress->phase = document->state == DOCUMENT_PREFILLING
                              ? TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__PREFILLING
                              : TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__WAITING;
        return;
    }
    progress->elapsed_ms = (uint64_t)(now_ms - document->work_started_ms);
    progress->eta_ms = (uint64_t)document_work_left_ms(document, now_ms);
    if (document->news == DOCUMENT_NEWS_TOKENIZED) {
        progress->phase = TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__TOKENIZING;
        return;
    }
    progress->phase = TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__PREFILLING;
    progress->tokens_done = (uint64_t)document->work_done;
    progress->tokens_per_s = document_work_rate(document, now_ms);
}

void document_event_message_fill(struct document_event_message *message,
                                 const struct document *document,
                                 const struct document_facts *facts, bool is_heartbeat,
                                 int64_t now_ms)
{
    Tca__V1__DocumentEvent *event = &message->event;
    const bool has_progress =
        document->state == DOCUMENT_QUEUED || document->state == DOCUMENT_PREFILLING;

    tca__v1__document_event__init(event);
    document_message_fill(&message->document, document, facts);
    event->sequence = document->sequence;
    event->document = &message->document.document;
    if (is_heartbeat) {
        tca__v1__document_event__heartbeat__init(&message->heartbeat);
        event->heartbeat = &message->heartbeat;
        event->body_case = TCA__V1__DOCUMENT_EVENT__BODY_HEARTBEAT;
    } else if (document->news == DOCUMENT_NEWS_COMMITTED) {
        tca__v1__document_event__committed__init(&message->committed);
        message->committed.bytes = (uint64_t)document->byte_count;
        event->committed = &message->committed;
        event->body_case = TCA__V1__DOCUMENT_EVENT__BODY_COMMITTED;
    } else if (has_progress) {
        fill_progress(&message->progress, document, now_ms);
        event->progress = &message->progress;
        event->body_case = TCA__V1__DOCUMENT_EVENT__BODY_PROGRESS;
    }
}
