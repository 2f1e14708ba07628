/* `tca ls`, `get`, `watch`, `pin`, `unpin`, `rm`. */
#include "base/clock.h"
#include "client/commands.h"
#include "client/document_view.h"
#include "client/session.h"
#include "proto/message.h"

#include <stdlib.h>

/* Short entries take up to some 200 bytes more than 4 times their wire size: so many stay within
 * what message_unpack allows. */
enum { PAGE_DOCUMENTS = 250 };

/* All pages of the list; what the array's elements point to is in `pages`. */
struct listing {
    void **pages; /* owned, as are the messages */
    size_t page_count;
    Tca__V1__Document **documents; /* [document_count], owned; borrowed from the pages */
    size_t document_count;
};

static void listing_free(struct listing *listing)
{
    for (size_t i = 0; i < listing->page_count; i++)
        message_free(listing->pages[i]);
    free(listing->pages);
    free(listing->documents);
}

/* Takes the page, also on failure. */
static enum tca_status listing_add(struct listing *listing, void *page)
{
    const Tca__V1__ListDocumentsResponse *response = page;
    void **pages = realloc(listing->pages, (listing->page_count + 1) * sizeof(*pages));
    Tca__V1__Document **documents;

    if (pages == NULL) {
        message_free(page);
        return TCA_ERR_NO_MEMORY;
    }
    listing->pages = pages;
    pages[listing->page_count++] = page;
    documents = realloc(listing->documents, (listing->document_count + response->n_documents + 1) *
                                                sizeof(Tca__V1__Document *));
    if (documents == NULL)
        return TCA_ERR_NO_MEMORY;
    listing->documents = documents;
    for (size_t i = 0; i < response->n_documents; i++)
        documents[listing->document_count++] = response->documents[i];
    return TCA_OK;
}

/* Fetch the next page; *token is its place in, and out, of the list, borrowed from the listing. */
static int listing_fetch(struct listing *listing, struct session *session,
                         ProtobufCBinaryData *token)
{
    Tca__V1__ListDocumentsRequest request = TCA__V1__LIST_DOCUMENTS_REQUEST__INIT;
    const Tca__V1__ListDocumentsResponse *response;
    void *page;
    int code;

    request.page_size = PAGE_DOCUMENTS;
    request.page_token = *token;
    code = call_unary(session, "/tca.v1.Documents/List", &request.base,
                      &tca__v1__list_documents_response__descriptor, &page);
    if (code != EXIT_DONE)
        return code;
    response = page;
    *token = response->next_page_token;
    if (session->is_json && !session_print_json(session, page))
        code = EXIT_REFUSED;
    if (listing_add(listing, page) != TCA_OK)
        return session_fail_here(session, tca_status_text(TCA_ERR_NO_MEMORY));
    return code;
}

COMMAND_FUNCTION(ls)
{
    struct listing listing = {0};
    ProtobufCBinaryData token = {0};
    struct bytes text = {0};
    int code;

    (void)options, (void)arguments;
    do
        code = listing_fetch(&listing, session, &token);
    while (code == EXIT_DONE && token.len > 0);
    if (code == EXIT_DONE && !session->is_json) {
        enum tca_status built =
            document_list_format(&text, listing.documents, listing.document_count);

        code = session_print_built(session, built, &text);
    }
    listing_free(&listing);
    return code;
}

COMMAND_FUNCTION(get)
{
    Tca__V1__GetDocumentRequest request = TCA__V1__GET_DOCUMENT_REQUEST__INIT;
    void *response;
    struct bytes text = {0};
    int code;

    (void)options;
    request.document_id = message_text(arguments[0]);
    code = call_unary(session, "/tca.v1.Documents/Get", &request.base,
                      &tca__v1__document__descriptor, &response);
    if (code != EXIT_DONE)
        return code;
    return session_print_response(session, response, document_format(&text, response), &text);
}

COMMAND_FUNCTION(watch)
{
    Tca__V1__WatchRequest request = TCA__V1__WATCH_REQUEST__INIT;
    struct document_view view = {.start_ms = clock_monotonic_ms()};
    void *event;
    bool is_heard = true;
    struct call call;
    int code;

    (void)options;
    request.document_id = message_text(arguments[0]);
    if (!call_request(&call, session, "/tca.v1.Documents/Watch", &request.base))
        return EXIT_REFUSED;
    while ((event = call_receive(&call, &tca__v1__document_event__descriptor)) != NULL) {
        if (is_heard)
            is_heard = document_view_show(&view, session, event);
        if (!is_heard)
            call_cancel(&call);
        message_free(event);
    }
    code = call_finish(&call);
    if (code == EXIT_DONE)
        document_view_finish(&view, session);
    document_view_free(&view);
    return code;
}

/* A call whose response is only printed as JSON. */
static int run_quietly(struct session *session, const char *path, const ProtobufCMessage *request,
                       const ProtobufCMessageDescriptor *descriptor)
{
    struct bytes nothing = {0};
    void *response;
    int code = call_unary(session, path, request, descriptor, &response);

    return code == EXIT_DONE ? session_print_response(session, response, TCA_OK, &nothing) : code;
}

static int set_pinned(struct session *session, const char *id, bool is_pinned)
{
    Tca__V1__UpdateDocumentRequest request = TCA__V1__UPDATE_DOCUMENT_REQUEST__INIT;

    request.document_id = message_text(id);
    request.pinned = is_pinned;
    return run_quietly(session, "/tca.v1.Documents/Update", &request.base,
                       &tca__v1__document__descriptor);
}

COMMAND_FUNCTION(pin)
{
    (void)options;
    return set_pinned(session, arguments[0], true);
}

COMMAND_FUNCTION(unpin)
{
    (void)options;
    return set_pinned(session, arguments[0], false);
}

COMMAND_FUNCTION(rm)
{
    Tca__V1__DeleteDocumentRequest request = TCA__V1__DELETE_DOCUMENT_REQUEST__INIT;

    (void)options;
    request.document_id = message_text(arguments[0]);
    return run_quietly(session, "/tca.v1.Documents/Delete", &request.base,
                       &tca__v1__delete_document_response__descriptor);
}
