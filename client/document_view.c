#include "client/document_view.h"

#include "base/clock.h"
#include "client/format.h"
#include "client/session.h"
#include "client/table.h"

static const char *state_name(Tca__V1__Document__State state)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&tca__v1__document__state__descriptor, (int)state);

    return value != NULL ? value->name : "UNKNOWN";
}

static void add_field(struct table *table, ProtobufCBinaryData field)
{
    table_add(table, field.data, field.len);
}

enum tca_status document_list_format(struct bytes *out, Tca__V1__Document *const *documents,
                                     size_t count)
{
    static const char *const heading[] = {"ID", "STATE", "TOKENS", "BYTES", "KV", "PINNED", "NAME"};
    struct table table = {.columns = sizeof(heading) / sizeof(*heading)};

    for (size_t i = 0; i < table.columns; i++)
        table_add_text(&table, heading[i]);
    for (size_t i = 0; i < count; i++) {
        const Tca__V1__Document *document = documents[i];

        add_field(&table, document->document_id);
        table_add_text(&table, state_name(document->state));
        table_add_count(&table, document->token_count);
        table_add_count(&table, document->byte_count);
        table_add_size(&table, document->kv_bytes);
        table_add_text(&table, document->pinned ? "yes" : "-");
        add_field(&table, document->display_name);
    }
    return table_finish(&table, out);
}

static void add_time(struct table *table, const char *name, const Google__Protobuf__Timestamp *time)
{
    char text[FORMAT_BYTES];

    format_time(time != NULL ? time->seconds : 0, text);
    table_add_text(table, name);
    table_add_text(table, text);
}

static void add_sha256(struct table *table, ProtobufCBinaryData digest)
{
    char text[2 * 32 + 1] = "-";

    for (size_t i = 0; i < digest.len && i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", digest.data[i]);
    table_add_text(table, "sha256");
    table_add_text(table, text);
}

enum tca_status document_format(struct bytes *out, const Tca__V1__Document *document)
{
    struct table table = {.columns = 2};

    table_add_text(&table, "document_id");
    add_field(&table, document->document_id);
    table_add_text(&table, "display_name");
    add_field(&table, document->display_name);
    table_add_text(&table, "state");
    table_add_text(&table, state_name(document->state));
    table_add_text(&table, "bytes");
    table_add_count(&table, document->byte_count);
    table_add_text(&table, "tokens");
    table_add_count(&table, document->token_count);
    table_add_text(&table, "kv");
    table_add_size(&table, document->kv_bytes);
    table_add_text(&table, "pinned");
    table_add_text(&table, document->pinned ? "yes" : "no");
    add_sha256(&table, document->sha256);
    add_time(&table, "created", document->create_time);
    add_time(&table, "last used", document->last_used_time);
    table_add_text(&table, "model");
    add_field(&table, document->model);
    if (document->error_message.len > 0) {
        table_add_text(&table, "error");
        add_field(&table, document->error_message);
    }
    return table_finish(&table, out);
}

void document_view_free(struct document_view *view)
{
    bytes_free(&view->id);
}

/* Upload progress is measured here: the server cannot know how fast bytes reach it. */
static void upload_progress(const struct document_view *view, uint64_t bytes, int64_t now_ms,
                            struct progress_state *state)
{
    double elapsed_s = (double)(now_ms - view->start_ms) / 1000;

    *state = (struct progress_state){
        .phase = "uploading", .unit = PROGRESS_BYTES, .done = bytes, .total = view->total_bytes};
    if (elapsed_s <= 0 || bytes <= view->resumed_bytes)
        return;
    state->per_s = (double)(bytes - view->resumed_bytes) / elapsed_s;
    if (view->total_bytes > bytes)
        state->eta_ms = (uint64_t)((double)(view->total_bytes - bytes) / state->per_s * 1000);
}

static const char *phase_name(Tca__V1__DocumentEvent__Progress__Phase phase)
{
    switch (phase) {
    case TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__TOKENIZING:
        return "tokenising";
    case TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__WAITING:
        return "waiting";
    case TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__PREFILLING:
        return "prefilling";
    case TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__PHASE_UNSPECIFIED:
    case _TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE_IS_INT_SIZE:
        break;
    }
    return "working"; /* of a newer server */
}

/* What an event says of the progress. False: nothing. */
static bool progress_of(struct document_view *view, const Tca__V1__DocumentEvent *event,
                        int64_t now_ms, struct progress_state *state_out)
{
    const Tca__V1__DocumentEvent__Progress *progress;

    if (event->body_case == TCA__V1__DOCUMENT_EVENT__BODY_COMMITTED) {
        upload_progress(view, event->committed->bytes, now_ms, state_out);
        return true;
    }
    if (event->body_case != TCA__V1__DOCUMENT_EVENT__BODY_PROGRESS)
        return false;
    progress = event->progress;
    *state_out = (struct progress_state){
        .phase = phase_name(progress->phase),
        .unit = PROGRESS_TOKENS,
        .done = progress->tokens_done,
        .total = progress->tokens_total,
        .per_s = progress->tokens_per_s,
        .eta_ms = progress->eta_ms,
    };
    return true;
}

bool document_view_show(struct document_view *view, struct session *session,
                        const Tca__V1__DocumentEvent *event)
{
    const Tca__V1__Document *document = event->document;
    struct progress_state state;
    int64_t now_ms = clock_monotonic_ms();

    if (document != NULL) {
        bytes_clear(&view->id);
        bytes_append(&view->id, document->document_id.data, document->document_id.len);
        view->token_count = document->token_count;
        view->kv_bytes = document->kv_bytes;
        view->is_received = document->state != TCA__V1__DOCUMENT__STATE__UPLOADING;
    }
    if (session->is_json)
        return session_print_json(session, &event->base);
    if (progress_of(view, event, now_ms, &state))
        progress_show(&session->progress, &state, now_ms);
    else if (event->body_case == TCA__V1__DOCUMENT_EVENT__BODY__NOT_SET && document != NULL &&
             document->state == TCA__V1__DOCUMENT__STATE__STORED)
        fprintf(stderr, "stored: it has no KV cache now; a question brings it back\n");
    return true;
}

void document_view_finish(struct document_view *view, struct session *session)
{
    char tokens[FORMAT_BYTES], kv[FORMAT_BYTES], time[FORMAT_BYTES];

    progress_clear(&session->progress);
    if (session->is_json)
        return;
    format_count(view->token_count, tokens);
    format_size(view->kv_bytes, kv);
    format_duration((uint64_t)(clock_monotonic_ms() - view->start_ms), time);
    fprintf(stderr, "ready: %s tokens, %s of KV cache, after %s\n", tokens, kv, time);
    if (bytes_append(&view->id, "\n", 1) == TCA_OK)
        session_print_text(session, view->id.data, view->id.size);
}
