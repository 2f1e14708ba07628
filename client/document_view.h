/* Documents and their events, as a person reads them. */
#ifndef CLIENT_DOCUMENT_VIEW_H
#define CLIENT_DOCUMENT_VIEW_H

#include "base/bytes.h"
#include "client/progress.h"
#include "tca.pb-c.h"

#include <stddef.h>
#include <stdint.h>

struct session;

/* Append a table with a heading and a line per document. */
enum tca_status document_list_format(struct bytes *out, Tca__V1__Document *const *documents,
                                     size_t count);
/* Append a line per field. */
enum tca_status document_format(struct bytes *out, const Tca__V1__Document *document);

/* The events of one document, from an upload or a watch. */
struct document_view {
    int64_t start_ms;       /* clock_monotonic_ms when the call began */
    uint64_t resumed_bytes; /* were there before */
    uint64_t total_bytes;   /* of the upload; 0: unknown */
    struct bytes id;        /* of the document, from the newest event; owned */
    uint64_t token_count;   /* the same */
    uint64_t kv_bytes;      /* the same */
    bool is_received;       /* the server has every byte */
};

void document_view_free(struct document_view *view);

/* Show an event; false: nobody reads the output any more. */
bool document_view_show(struct document_view *view, struct session *session,
                        const Tca__V1__DocumentEvent *event);

/* The last words: the document's id on stdout, its size and the time on stderr. */
void document_view_finish(struct document_view *view, struct session *session);

#endif
