/* tca.v1.Documents but for Upload: Watch, Get, List, Update, Delete. */
#include "base/clock.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/reply.h"
#include "coordinator/scheduler.h"
#include "coordinator/services.h"
#include "proto/message.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_SIZE_DEFAULT = 100, PAGE_SIZE_MAX = 1000, DISPLAY_NAME_BYTES_MAX = 1024 };

/* The document of a request, or NULL after the call has been refused. With the lock. */
static struct document *find_document(struct coordinator *coordinator, struct rpc_call *call,
                                      ProtobufCBinaryData id)
{
    struct document *document;
    char text[DOCUMENT_ID_BYTES] = "";
    struct tca_error error = {{0}};
    enum tca_status status = document_id_check("document_id", id.data, id.len, &error);

    if (status != TCA_OK) {
        reply_error(call, status, &error);
        return NULL;
    }
    memcpy(text, id.data, id.len);
    document = document_table_find(&coordinator->documents, text);
    if (document == NULL) {
        tca_fail(&error, TCA_ERR_NOT_FOUND, "document_id: there is no document \"%s\"", text);
        reply_error(call, TCA_ERR_NOT_FOUND, &error);
    }
    return document;
}

static void *unpack(struct rpc_call *call, const ProtobufCMessageDescriptor *type,
                    const uint8_t *data, size_t bytes)
{
    struct tca_error error = {{0}};
    void *request = NULL;
    const enum tca_status status = message_unpack(type, data, bytes, &request, &error);

    if (status == TCA_OK)
        return request;
    reply_error(call, status, &error);
    return NULL;
}

/* Watch, and Delete, which watches for the end. */

static struct watcher *make_watcher(struct rpc_call *call)
{
    struct watcher *watcher = calloc(1, sizeof(*watcher));

    if (watcher == NULL) {
        reply_code(call, RPC_RESOURCE_EXHAUSTED, "no memory for the call");
        return NULL;
    }
    watcher->call = call;
    rpc_call_set_user(call, watcher);
    return watcher;
}

static void on_watcher_closed(struct rpc_call *call, void *context)
{
    struct coordinator *coordinator = context;
    struct watcher *watcher = rpc_call_user(call);

    if (watcher == NULL)
        return;
    pthread_mutex_lock(&coordinator->lock);
    watcher_remove(watcher);
    pthread_mutex_unlock(&coordinator->lock);
    free(watcher);
}

static void on_watch(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__WatchRequest *request = unpack(call, &tca__v1__watch_request__descriptor, data, bytes);
    struct watcher *watcher = request == NULL ? NULL : make_watcher(call);
    struct tca_error error = {{0}};
    enum tca_status status;

    if (watcher != NULL) {
        struct document *document;

        pthread_mutex_lock(&coordinator->lock);
        status = coordinator_check_open(coordinator, false, &error);
        document = status == TCA_OK ? find_document(coordinator, call, request->document_id) : NULL;
        if (status != TCA_OK) {
            reply_error(call, status, &error);
        } else if (document != NULL && document->state == DOCUMENT_DELETING) {
            reply_code(call, RPC_ABORTED, "the document is being deleted");
        } else if (document != NULL) {
            watcher->sent_sequence = request->from_sequence;
            watcher_add(coordinator, watcher, document);
        }
        pthread_mutex_unlock(&coordinator->lock);
    }
    message_free(request);
}

static void reply_deleted(struct watcher *watcher)
{
    const struct document *document = watcher->document;
    Tca__V1__DeleteDocumentResponse response;

    tca__v1__delete_document_response__init(&response);
    if (document->failure == RPC_OK)
        rpc_call_reply(watcher->call, &response);
    else
        reply_code(watcher->call, document->failure, document->failure_text);
}

static void on_delete(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__DeleteDocumentRequest *request =
        unpack(call, &tca__v1__delete_document_request__descriptor, data, bytes);
    struct watcher *watcher = request == NULL ? NULL : make_watcher(call);

    if (watcher != NULL) {
        struct document *document;

        pthread_mutex_lock(&coordinator->lock);
        document = find_document(coordinator, call, request->document_id);
        if (document != NULL) {
            watcher->gone = reply_deleted;
            watcher_add(coordinator, watcher, document);
            document_flow_delete(coordinator, document);
        }
        pthread_mutex_unlock(&coordinator->lock);
    }
    message_free(request);
}

/* Get, List, Update. */

static void on_get(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__GetDocumentRequest *request =
        unpack(call, &tca__v1__get_document_request__descriptor, data, bytes);

    if (request != NULL) {
        const struct document *document;

        pthread_mutex_lock(&coordinator->lock);
        document = find_document(coordinator, call, request->document_id);
        if (document != NULL)
            document_flow_reply(coordinator, call, document);
        pthread_mutex_unlock(&coordinator->lock);
    }
    message_free(request);
}

static enum tca_status update(struct document *document,
                              const Tca__V1__UpdateDocumentRequest *request,
                              struct tca_error *error)
{
    struct bytes name = {0};

    TCA_TRY(message_check_bytes("display_name", request->display_name.len, 0,
                                DISPLAY_NAME_BYTES_MAX, error));
    if (document->state == DOCUMENT_DELETING)
        return tca_fail(error, TCA_ERR_ABORTED, "the document is being deleted");
    if (request->display_name.len > 0) {
        TCA_TRY(bytes_append(&name, request->display_name.data, request->display_name.len));
        bytes_free(&document->display_name);
        document->display_name = name;
    }
    document->is_pinned = request->pinned != 0;
    return TCA_OK;
}

static void reply_updated(struct coordinator *coordinator, struct rpc_call *call,
                          struct document *document)
{
    /* A damaged entry keeps what is left of it on disk. */
    if (document->state == DOCUMENT_FAILED && document->failure == RPC_DATA_LOSS)
        document_flow_reply(coordinator, call, document);
    else
        document_flow_save_and_reply(coordinator, document, call);
    scheduler_run(coordinator); /* without its pin it may make room */
}

static void on_update(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__UpdateDocumentRequest *request =
        unpack(call, &tca__v1__update_document_request__descriptor, data, bytes);

    if (request != NULL) {
        struct tca_error error = {{0}};
        struct document *document;

        pthread_mutex_lock(&coordinator->lock);
        document = find_document(coordinator, call, request->document_id);
        if (document != NULL) {
            const enum tca_status status = update(document, request, &error);

            if (status == TCA_OK)
                reply_updated(coordinator, call, document);
            else
                reply_error(call, status, &error);
        }
        pthread_mutex_unlock(&coordinator->lock);
    }
    message_free(request);
}

/* Fill one page from row `first` on and send it. With the lock. */
static void reply_page(struct coordinator *coordinator, struct rpc_call *call, size_t first,
                       size_t page)
{
    const struct document_table *table = &coordinator->documents;
    const struct document_facts facts = coordinator_facts(coordinator);
    const size_t left = table->count - first;
    const size_t count = left < page ? left : page;
    struct document_message *messages = calloc(count + 1, sizeof(*messages));
    Tca__V1__Document **list = calloc(count + 1, sizeof(Tca__V1__Document *));
    Tca__V1__ListDocumentsResponse response = TCA__V1__LIST_DOCUMENTS_RESPONSE__INIT;

    if (messages == NULL || list == NULL) {
        reply_code(call, RPC_RESOURCE_EXHAUSTED, "no memory for the list");
    } else {
        for (size_t i = 0; i < count; i++) {
            document_message_fill(&messages[i], table->rows[first + i], &facts);
            list[i] = &messages[i].document;
        }
        response.n_documents = count;
        response.documents = list;
        if (count < left) /* the last id of this page: documents come and go between pages */
            response.next_page_token = message_text(table->rows[first + count - 1]->id);
        rpc_call_reply(call, &response);
    }
    free(list);
    free(messages);
}

static void on_list(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__ListDocumentsRequest *request =
        unpack(call, &tca__v1__list_documents_request__descriptor, data, bytes);
    char after[DOCUMENT_ID_BYTES] = "";
    struct tca_error error = {{0}};
    enum tca_status status = TCA_OK;

    if (request == NULL)
        return;
    if (request->page_size < 0 || request->page_size > PAGE_SIZE_MAX)
        status = tca_fail(&error, TCA_ERR_INVALID, "page_size: %" PRId32 ", allowed: 0 to %d",
                          request->page_size, PAGE_SIZE_MAX);
    else if (request->page_token.len > 0)
        status = document_id_check("page_token", request->page_token.data, request->page_token.len,
                                   &error);
    if (status != TCA_OK) {
        reply_error(call, status, &error);
    } else {
        const size_t page =
            request->page_size == 0 ? PAGE_SIZE_DEFAULT : (size_t)request->page_size;

        if (request->page_token.len > 0)
            memcpy(after, request->page_token.data, request->page_token.len);
        pthread_mutex_lock(&coordinator->lock);
        reply_page(coordinator, call, document_table_after(&coordinator->documents, after), page);
        pthread_mutex_unlock(&coordinator->lock);
    }
    message_free(request);
}

size_t service_documents_methods(struct coordinator *coordinator, struct rpc_method *methods_out)
{
    const struct rpc_method methods[] = {
        {.path = "/tca.v1.Documents/Watch", .message = on_watch, .closed = on_watcher_closed},
        {.path = "/tca.v1.Documents/Get", .message = on_get},
        {.path = "/tca.v1.Documents/List", .message = on_list},
        {.path = "/tca.v1.Documents/Update", .message = on_update},
        {.path = "/tca.v1.Documents/Delete", .message = on_delete, .closed = on_watcher_closed},
    };
    const size_t count = sizeof(methods) / sizeof(*methods);

    for (size_t i = 0; i < count; i++) {
        methods_out[i] = methods[i];
        methods_out[i].context = coordinator;
    }
    return count;
}
