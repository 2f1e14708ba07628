/* tca.v1.Documents.Upload: a header, then chunks; each is on disk before the next is read. */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/document_meta.h"
#include "coordinator/reply.h"
#include "coordinator/scheduler.h"
#include "coordinator/services.h"
#include "coordinator/upload.h"
#include "proto/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DISPLAY_NAME_BYTES_MAX = 1024, SYSTEM_BYTES_MAX = 65536 };

/* One call. Guarded by the coordinator's lock, but for `upload` and `sha`, which belong to the
 * call's callbacks: those never overlap, and none runs while a disk task does. */
struct upload_stream {
    struct watcher watcher;    /* its call is NULL once the client is gone */
    struct document *document; /* written to; NULL: none, or no longer */
    struct upload upload;
    struct sha256 *sha; /* owned; of a stream that is compared */
    char announced_sha256[SHA256_HEX_BYTES];
    char compared_id[DOCUMENT_ID_BYTES];
    int64_t compared_create_ms; /* of the document, which may be another when all bytes are here */
    bool has_header;
    bool wants_pin;
    bool is_in_disk_task;
    enum tca_status fault; /* of a stream that waits until its document is gone */
    struct tca_error fault_text;
};

struct upload_task {
    struct task task;
    struct coordinator *coordinator;
    struct upload_stream *stream;
    struct document *document;
    int64_t offset;
    bool is_last;
    struct content_check check; /* after these bytes */
    struct bytes data;          /* owned: of a chunk, or the metadata of a new document */
    char sha256[SHA256_HEX_BYTES];
};

static void stream_free(struct upload_stream *stream)
{
    sha256_destroy(stream->sha);
    free(stream);
}

/* Nothing was acknowledged, or nobody can go on with it. */
static bool leaves_nothing(const struct upload_stream *stream)
{
    const struct document *document = stream->document;

    return document != NULL && document->state == DOCUMENT_UPLOADING &&
           (document->byte_count == 0 || stream->upload.is_too_long);
}

/* The stream, which watches no more, writes no more. What is acknowledged stays, for the next. */
static void release_document(struct coordinator *coordinator, struct upload_stream *stream)
{
    struct document *document = stream->document;
    const bool is_deleted = leaves_nothing(stream);

    stream->document = NULL;
    if (document == NULL)
        return;
    document->is_being_uploaded = false;
    if (is_deleted)
        document_flow_delete(coordinator, document);
    else
        document_flow_go_on_deleting(coordinator, document);
}

static void reply_fault(struct watcher *watcher)
{
    const struct upload_stream *stream = rpc_call_user(watcher->call);

    reply_error(watcher->call, stream->fault, &stream->fault_text);
}

/* End the call for its own fault; one that leaves nothing once its document is gone, so that who
 * hears of it can upload again. With the lock. */
static void stream_fail(struct coordinator *coordinator, struct upload_stream *stream,
                        enum tca_status status, const struct tca_error *error)
{
    struct watcher *watcher = &stream->watcher;

    watcher_remove(watcher);
    if (watcher->call != NULL && leaves_nothing(stream)) {
        stream->fault = status;
        stream->fault_text = *error;
        watcher->gone = reply_fault;
        watcher_add(coordinator, watcher, stream->document);
    } else if (watcher->call != NULL) {
        reply_error(watcher->call, status, error);
    }
    release_document(coordinator, stream);
}

/* Header. */

static enum tca_status read_prefill(const Tca__V1__PrefillOptions *prefill,
                                    struct document_identity *identity, struct tca_error *error)
{
    struct attention_wish wish;

    if (prefill == NULL)
        return TCA_OK;
    TCA_TRY(attention_wish_read("header.prefill", prefill->rule, prefill->keep, 0.0, &wish, error));
    if (wish.rule != NULL)
        snprintf(identity->rule, sizeof(identity->rule), "%s", wish.rule);
    identity->keep = wish.keep;
    return TCA_OK;
}

static enum tca_status read_identity(const Tca__V1__UploadHeader *message,
                                     struct document_identity *identity, struct tca_error *error)
{
    if (message->encoding != TCA__V1__UPLOAD_HEADER__ENCODING__TEXT_UTF8 &&
        message->encoding != TCA__V1__UPLOAD_HEADER__ENCODING__TOKEN_IDS_U32LE)
        return tca_fail(error, TCA_ERR_INVALID,
                        "header.encoding: %d, allowed: TEXT_UTF8 or TOKEN_IDS_U32LE",
                        (int)message->encoding);
    identity->encoding = message->encoding == TCA__V1__UPLOAD_HEADER__ENCODING__TEXT_UTF8
                             ? CONTENT_TEXT_UTF8
                             : CONTENT_TOKEN_IDS_U32LE;
    identity->is_raw = message->raw != 0;
    if (message->system.len > 0 &&
        (identity->is_raw || identity->encoding == CONTENT_TOKEN_IDS_U32LE))
        return tca_fail(error, TCA_ERR_INVALID,
                        "header.system: %zu bytes, allowed: 0 with raw or token ids, which have no "
                        "prefix",
                        message->system.len);
    TCA_TRY(message_check_bytes("header.system", message->system.len, 0, SYSTEM_BYTES_MAX, error));
    return bytes_append(&identity->system, message->system.data, message->system.len);
}

static enum tca_status read_sizes(const Tca__V1__UploadHeader *message,
                                  struct upload_header *header, struct tca_error *error)
{
    if (message->total_bytes > INT64_MAX || message->resume_offset > INT64_MAX)
        return tca_fail(error, TCA_ERR_INVALID,
                        "header.total_bytes: %" PRIu64 " and resume_offset %" PRIu64
                        ", allowed: 0 to %" PRId64,
                        message->total_bytes, message->resume_offset, INT64_MAX);
    if (message->sha256.len != 0 && message->sha256.len != SHA256_BYTES)
        return tca_fail(error, TCA_ERR_INVALID, "header.sha256: %zu bytes, allowed: 0 or %d",
                        message->sha256.len, SHA256_BYTES);
    header->total_bytes = (int64_t)message->total_bytes;
    header->resume_offset = (int64_t)message->resume_offset;
    for (size_t i = 0; i < message->sha256.len; i++)
        snprintf(header->sha256 + 2 * i, 3, "%02x", message->sha256.data[i]);
    return TCA_OK;
}

static enum tca_status read_header(const Tca__V1__UploadHeader *message,
                                   struct upload_header *header, struct tca_error *error)
{
    if (message->document_id.len > 0) {
        TCA_TRY(document_id_check("header.document_id", message->document_id.data,
                                  message->document_id.len, error));
        memcpy(header->id, message->document_id.data, message->document_id.len);
    }
    TCA_TRY(message_check_bytes("header.display_name", message->display_name.len, 0,
                                DISPLAY_NAME_BYTES_MAX, error));
    TCA_TRY(read_sizes(message, header, error));
    TCA_TRY(read_identity(message, &header->identity, error));
    TCA_TRY(read_prefill(message->prefill, &header->identity, error));
    header->is_pinned = message->pinned != 0;
    return bytes_append(&header->display_name, message->display_name.data,
                        message->display_name.len);
}

static void make_id(struct coordinator *coordinator, char id_out[DOCUMENT_ID_BYTES])
{
    do
        snprintf(id_out, DOCUMENT_ID_BYTES, "doc-%" PRIu64 "-%" PRIu64,
                 store_epoch(coordinator->store), ++coordinator->made_ids);
    while (document_table_find(&coordinator->documents, id_out) != NULL);
}

static struct upload_task *task_create(struct coordinator *coordinator,
                                       struct upload_stream *stream, void (*run)(struct task *task))
{
    struct upload_task *task = calloc(1, sizeof(*task));

    if (task == NULL)
        return NULL;
    task->task.run = run;
    task->coordinator = coordinator;
    task->stream = stream;
    task->document = stream->document;
    return task;
}

static void task_post(struct upload_task *task)
{
    task->document->disk_tasks++;
    task->stream->is_in_disk_task = true;
    task_queue_post(task->coordinator->disk, &task->task);
}

static void task_free(struct upload_task *task)
{
    bytes_free(&task->data);
    free(task);
}

/* The end of a disk task, with the lock: take what it did, ask for more. */
static void task_done(struct upload_task *task, enum tca_status status,
                      const struct tca_error *error)
{
    struct coordinator *coordinator = task->coordinator;
    struct upload_stream *stream = task->stream;
    struct document *document = task->document;

    stream->is_in_disk_task = false;
    if (status != TCA_OK)
        log_warn("document %s: %s", document->id, error->text);
    if (status != TCA_OK && stream->document != NULL)
        stream_fail(coordinator, stream, status, error);
    else if (stream->watcher.call == NULL)
        release_document(coordinator, stream); /* the client is gone */
    else if (document->state == DOCUMENT_DELETING)
        reply_code(stream->watcher.call, RPC_ABORTED, "the document was deleted");
    else
        rpc_call_read_next(stream->watcher.call);
    document->disk_tasks--; /* until here it kept the document */
    document_flow_go_on_deleting(coordinator, document);
    if (stream->watcher.call == NULL)
        stream_free(stream);
}

static void run_create(struct task *base)
{
    struct upload_task *task = (struct upload_task *)base;
    struct coordinator *coordinator = task->coordinator;
    struct tca_error error = {{0}};
    const enum tca_status status =
        store_create(coordinator->store, task->document->id, &task->data, &error);

    pthread_mutex_lock(&coordinator->lock);
    if (status == TCA_OK && task->stream->watcher.call != NULL &&
        task->document->state == DOCUMENT_UPLOADING)
        watcher_add(coordinator, &task->stream->watcher, task->document);
    task_done(task, status, &error);
    pthread_mutex_unlock(&coordinator->lock);
    task_free(task);
}

static enum tca_status fill_document(struct document *document, struct upload_header *header,
                                     int32_t vocab, uint64_t sequence)
{
    document->display_name = header->display_name;
    document->identity = header->identity;
    header->display_name = (struct bytes){0};
    header->identity = (struct document_identity){.encoding = CONTENT_TEXT_UTF8};
    document->is_pinned = header->is_pinned;
    document->expected_bytes = header->total_bytes;
    snprintf(document->expected_sha256, sizeof(document->expected_sha256), "%s", header->sha256);
    document->create_time_ms = document->last_used_ms = clock_unix_ms();
    document->check =
        (struct content_check){.encoding = document->identity.encoding, .vocab = vocab};
    document->is_being_uploaded = true;
    document_report(document, DOCUMENT_NEWS_COMMITTED, 0, 0, 0, sequence);
    return sha256_create(&document->sha);
}

static enum tca_status start_new(struct coordinator *coordinator, struct upload_stream *stream,
                                 struct upload_header *header, struct tca_error *error)
{
    struct document *document;
    struct upload_task *task = NULL;
    enum tca_status status;

    if ((int64_t)coordinator->documents.count >= coordinator->options->max_documents)
        return tca_fail(error, TCA_ERR_BUSY, "there are %zu documents, allowed: up to %" PRId64,
                        coordinator->documents.count, coordinator->options->max_documents);
    document = document_make(header->id);
    if (document == NULL)
        return TCA_ERR_NO_MEMORY;
    status =
        fill_document(document, header, coordinator->vocab, coordinator_next_sequence(coordinator));
    stream->document = document;
    if (status == TCA_OK) {
        task = task_create(coordinator, stream, run_create);
        status = task == NULL ? TCA_ERR_NO_MEMORY : document_meta_write(document, &task->data);
    }
    if (status == TCA_OK)
        status = document_table_add(&coordinator->documents, document);
    if (status != TCA_OK) {
        stream->document = NULL;
        document_free(document);
        if (task != NULL)
            task_free(task);
        return status;
    }
    task_post(task);
    return TCA_OK;
}

static void start_resumed(struct coordinator *coordinator, struct upload_stream *stream,
                          struct document *document)
{
    stream->document = document;
    document->is_being_uploaded = true;
    document->sequence = coordinator_next_sequence(coordinator);
    watcher_add(coordinator, &stream->watcher, document);
    rpc_call_read_next(stream->watcher.call);
}

/* The same document again: tell how it stands; pin it and bring it back where that is wanted. The
 * scheduler may end the call, and so comes last. */
static void join_same(struct coordinator *coordinator, struct upload_stream *stream,
                      struct document *document)
{
    document->is_restored = document->is_recalled = false; /* somebody wants it now */
    if (stream->wants_pin && !document->is_pinned) {
        document->is_pinned = true;
        document_flow_save(coordinator, document);
    }
    if (document->state == DOCUMENT_STORED)
        document_flow_queue(coordinator, document);
    watcher_add(coordinator, &stream->watcher, document);
    scheduler_run(coordinator);
}

static enum tca_status start_stream(struct coordinator *coordinator, struct upload_stream *stream,
                                    struct upload_header *header, struct tca_error *error)
{
    const struct attention_defaults defaults = coordinator_prefill_defaults(coordinator);
    struct upload *upload = &stream->upload;
    struct attention attention;
    struct document *existing;

    TCA_TRY(coordinator_check_open(coordinator, false, error));
    TCA_TRY(document_attention(&header->identity, &defaults, &attention, error));
    if (header->id[0] == '\0')
        make_id(coordinator, header->id);
    existing = document_table_find(&coordinator->documents, header->id);
    TCA_TRY(upload_classify(header, existing, &upload->kind, error));
    upload->offset = header->resume_offset;
    upload->total_bytes = header->total_bytes;
    upload->max_bytes = coordinator->options->max_document_bytes;
    if (header->total_bytes > upload->max_bytes)
        return tca_fail(error, TCA_ERR_RANGE,
                        "header.total_bytes: %" PRId64 ", allowed: 0 to %" PRId64
                        " (the server's max-document-bytes)",
                        header->total_bytes, upload->max_bytes);
    upload->check =
        (struct content_check){.encoding = header->identity.encoding, .vocab = coordinator->vocab};
    memcpy(stream->announced_sha256, header->sha256, sizeof(header->sha256));
    stream->wants_pin = header->is_pinned;
    switch (upload->kind) {
    case UPLOAD_NEW:
        return start_new(coordinator, stream, header, error);
    case UPLOAD_RESUME:
        upload->check = existing->check;
        if (upload->total_bytes == 0)
            upload->total_bytes = existing->expected_bytes;
        if (stream->announced_sha256[0] == '\0')
            memcpy(stream->announced_sha256, existing->expected_sha256, SHA256_HEX_BYTES);
        start_resumed(coordinator, stream, existing);
        return TCA_OK;
    case UPLOAD_COMPARE:
        TCA_TRY(sha256_create(&stream->sha));
        memcpy(stream->compared_id, header->id, sizeof(header->id));
        stream->compared_create_ms = existing->create_time_ms;
        rpc_call_read_next(stream->watcher.call);
        return TCA_OK;
    case UPLOAD_SAME:
        join_same(coordinator, stream, existing);
        rpc_call_read_next(stream->watcher.call);
        return TCA_OK;
    }
    return TCA_OK;
}

static void on_header(struct coordinator *coordinator, struct upload_stream *stream,
                      const Tca__V1__UploadHeader *message)
{
    struct upload_header header = {0};
    struct tca_error error = {{0}};
    enum tca_status status = read_header(message, &header, &error);

    pthread_mutex_lock(&coordinator->lock);
    stream->has_header = true;
    if (status == TCA_OK)
        status = start_stream(coordinator, stream, &header, &error);
    if (status != TCA_OK)
        stream_fail(coordinator, stream, status, &error);
    pthread_mutex_unlock(&coordinator->lock);
    upload_header_free(&header);
}

/* Chunks. */

/* All bytes are on disk. With the lock. */
static void complete(struct upload_task *task)
{
    struct coordinator *coordinator = task->coordinator;
    struct document *document = task->document;
    struct tca_error error = {{0}};

    document->is_being_uploaded = false;
    task->stream->document = NULL;
    snprintf(document->sha256, sizeof(document->sha256), "%s", task->sha256);
    sha256_destroy(document->sha);
    document->sha = NULL;
    if (upload_check_digest(task->stream->announced_sha256, document->sha256, &error) != TCA_OK) {
        document_flow_fail(coordinator, document, RPC_INVALID_ARGUMENT, error.text);
        return;
    }
    log_info("document %s: %" PRId64 " bytes have arrived", document->id, document->byte_count);
    document_flow_queue(coordinator, document);
    scheduler_run(coordinator);
}

/* Before anybody hears that all bytes are here: what a restart needs to know it too. */
static enum tca_status save_complete(const struct upload_task *task, struct tca_error *error)
{
    struct coordinator *coordinator = task->coordinator;
    struct bytes meta = {0};
    struct document complete;
    enum tca_status status;

    if (upload_check_digest(task->stream->announced_sha256, task->sha256, NULL) != TCA_OK)
        return TCA_OK; /* it is not what it should be: complete() fails it */
    pthread_mutex_lock(&coordinator->lock);
    complete = *task->document; /* borrows its texts until the lock goes */
    complete.byte_count = task->offset + (int64_t)task->data.size;
    snprintf(complete.sha256, sizeof(complete.sha256), "%s", task->sha256);
    status = document_meta_write(&complete, &meta);
    pthread_mutex_unlock(&coordinator->lock);
    if (status == TCA_OK)
        status = store_save(coordinator->store, task->document->id, &meta, error);
    else
        tca_fail(error, status, "no memory to save the document's metadata");
    bytes_free(&meta);
    return status;
}

static void run_append(struct task *base)
{
    struct upload_task *task = (struct upload_task *)base;
    struct coordinator *coordinator = task->coordinator;
    struct document *document = task->document;
    struct tca_error error = {{0}};
    enum tca_status status = TCA_OK, saved = TCA_OK;

    if (task->data.size > 0)
        status = store_append(coordinator->store, document->id, task->offset, task->data.data,
                              task->data.size, &error);
    if (status == TCA_OK)
        status = sha256_update(document->sha, task->data.data, task->data.size);
    if (status == TCA_OK && task->is_last)
        status = sha256_hex(document->sha, task->sha256);
    if (status == TCA_OK && task->is_last)
        saved = save_complete(task, &error);

    pthread_mutex_lock(&coordinator->lock);
    if (status == TCA_OK && document->state == DOCUMENT_UPLOADING) {
        document->byte_count = task->offset + (int64_t)task->data.size;
        document->check = task->check;
        document_report(document, DOCUMENT_NEWS_COMMITTED, 0, 0, 0,
                        coordinator_next_sequence(coordinator));
        document_flow_publish(coordinator, document);
        if (task->is_last && saved == TCA_OK)
            complete(task);
    }
    task_done(task, status == TCA_OK ? saved : status, &error);
    pthread_mutex_unlock(&coordinator->lock);
    task_free(task);
}

/* With the lock. */
static enum tca_status append_chunk(struct coordinator *coordinator, struct upload_stream *stream,
                                    int64_t offset, const Tca__V1__UploadChunk *chunk)
{
    struct upload_task *task = task_create(coordinator, stream, run_append);

    if (task == NULL)
        return TCA_ERR_NO_MEMORY;
    task->offset = offset;
    task->is_last = chunk->last != 0;
    task->check = stream->upload.check;
    if (bytes_append(&task->data, chunk->data.data, chunk->data.len) != TCA_OK) {
        task_free(task);
        return TCA_ERR_NO_MEMORY;
    }
    task_post(task);
    return TCA_OK;
}

/* The stream is compared and complete. With the lock. */
static enum tca_status finish_compared(struct coordinator *coordinator,
                                       struct upload_stream *stream, struct tca_error *error)
{
    const char *id = stream->compared_id;
    struct document *document = document_table_find(&coordinator->documents, id);
    char sha256[SHA256_HEX_BYTES];

    TCA_TRY(sha256_hex(stream->sha, sha256));
    if (document == NULL || document->state == DOCUMENT_DELETING ||
        document->create_time_ms != stream->compared_create_ms)
        return tca_fail(error, TCA_ERR_ABORTED, "the document was deleted");
    if (strcmp(sha256, document->sha256) != 0)
        return tca_fail(error, TCA_ERR_EXISTS, "document_id: \"%s\" exists with other bytes", id);
    join_same(coordinator, stream, document);
    return TCA_OK;
}

static void on_chunk(struct coordinator *coordinator, struct upload_stream *stream,
                     const Tca__V1__UploadChunk *chunk)
{
    const int64_t offset = stream->upload.offset;
    struct tca_error error = {{0}};
    enum tca_status status = TCA_OK;
    bool reads_on = stream->upload.kind == UPLOAD_SAME;

    if (!reads_on) {
        status =
            chunk->offset > INT64_MAX
                ? tca_fail(&error, TCA_ERR_RANGE, "chunk.offset: %" PRIu64 ", allowed: %" PRId64,
                           chunk->offset, offset)
                : upload_accept(&stream->upload, (int64_t)chunk->offset, chunk->data.data,
                                chunk->data.len, chunk->last != 0, &error);
        if (status == TCA_OK && stream->upload.kind == UPLOAD_COMPARE) {
            reads_on = true;
            status = sha256_update(stream->sha, chunk->data.data, chunk->data.len);
        }
    }
    pthread_mutex_lock(&coordinator->lock);
    if (status == TCA_OK && stream->upload.kind == UPLOAD_COMPARE && chunk->last)
        status = finish_compared(coordinator, stream, &error);
    else if (status == TCA_OK && !reads_on && stream->document != NULL &&
             stream->document->state == DOCUMENT_UPLOADING)
        status = append_chunk(coordinator, stream, offset, chunk);
    if (status != TCA_OK)
        stream_fail(coordinator, stream, status, &error);
    else if (reads_on)
        rpc_call_read_next(stream->watcher.call);
    pthread_mutex_unlock(&coordinator->lock);
}

/* Callbacks. */

static struct upload_stream *stream_of(struct rpc_call *call)
{
    struct upload_stream *stream = rpc_call_user(call);

    if (stream != NULL)
        return stream;
    stream = calloc(1, sizeof(*stream));
    if (stream == NULL) {
        reply_code(call, RPC_RESOURCE_EXHAUSTED, "no memory for an upload");
        return NULL;
    }
    stream->watcher.call = call;
    rpc_call_set_user(call, stream);
    return stream;
}

static void on_message(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    struct upload_stream *stream = stream_of(call);
    Tca__V1__UploadRequest *request = NULL;
    struct tca_error error = {{0}};
    enum tca_status status;

    if (stream == NULL)
        return;
    status = message_unpack(&tca__v1__upload_request__descriptor, data, bytes, (void **)&request,
                            &error);
    if (status == TCA_OK &&
        (request->body_case == TCA__V1__UPLOAD_REQUEST__BODY_HEADER) == stream->has_header)
        status = tca_fail(&error, TCA_ERR_INVALID,
                          stream->has_header ? "header: comes twice, allowed: once"
                                             : "header: is missing, allowed: first of all");
    if (status == TCA_OK && request->body_case == TCA__V1__UPLOAD_REQUEST__BODY__NOT_SET)
        status = tca_fail(&error, TCA_ERR_INVALID, "body: is not set, allowed: header or chunk");
    if (status != TCA_OK) {
        pthread_mutex_lock(&coordinator->lock);
        stream_fail(coordinator, stream, status, &error);
        pthread_mutex_unlock(&coordinator->lock);
    } else if (request->body_case == TCA__V1__UPLOAD_REQUEST__BODY_HEADER) {
        on_header(coordinator, stream, request->header);
    } else {
        on_chunk(coordinator, stream, request->chunk);
    }
    message_free(request);
}

static void on_half_close(struct rpc_call *call, void *context)
{
    struct coordinator *coordinator = context;
    struct upload_stream *stream = stream_of(call);
    struct tca_error error;

    if (stream == NULL || stream->upload.is_complete || stream->upload.kind == UPLOAD_SAME)
        return;
    tca_fail(&error, TCA_ERR_INVALID,
             stream->has_header ? "chunk.last: the stream ended before a chunk with it"
                                : "header: is missing, allowed: first of all");
    pthread_mutex_lock(&coordinator->lock);
    stream_fail(coordinator, stream, TCA_ERR_INVALID, &error);
    pthread_mutex_unlock(&coordinator->lock);
}

static void on_closed(struct rpc_call *call, void *context)
{
    struct coordinator *coordinator = context;
    struct upload_stream *stream = rpc_call_user(call);
    bool is_in_disk_task;

    if (stream == NULL)
        return;
    pthread_mutex_lock(&coordinator->lock);
    watcher_remove(&stream->watcher);
    stream->watcher.call = NULL;
    is_in_disk_task = stream->is_in_disk_task;
    if (!is_in_disk_task)
        release_document(coordinator, stream);
    pthread_mutex_unlock(&coordinator->lock);
    if (!is_in_disk_task)
        stream_free(stream); /* otherwise the task does */
}

size_t service_upload_methods(struct coordinator *coordinator, struct rpc_method *methods_out)
{
    methods_out[0] = (struct rpc_method){.path = "/tca.v1.Documents/Upload",
                                         .client_streams = true,
                                         .context = coordinator,
                                         .message = on_message,
                                         .half_close = on_half_close,
                                         .closed = on_closed};
    return 1;
}
