/* What happens to documents: their events reach the calls that watch them, their bytes become
 * tokens, they fail, are stored and removed. With the coordinator's lock held. */
#ifndef COORDINATOR_DOCUMENT_FLOW_H
#define COORDINATOR_DOCUMENT_FLOW_H

#include "coordinator/document.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stdint.h>

struct coordinator;
struct rpc_call;

/* A call that waits for something of a document: events (Upload, Watch), or that it is gone
 * (Delete, an Upload that left nothing). Owned by the call's method, which removes it in `closed`.
 * All zeros but call and gone, then watcher_add. */
struct watcher {
    struct watcher *next;
    struct rpc_call *call;
    struct document *document; /* NULL: the call has been finished */
    /* Set: no events, and this ends the call; the document's failure says what of it stays. */
    void (*gone)(struct watcher *watcher);
    uint64_t sent_sequence;
    int64_t last_sent_ms; /* monotonic */
};

/* Attach and send the newest event if it is newer than sent_sequence. */
void watcher_add(struct coordinator *coordinator, struct watcher *watcher,
                 struct document *document);
void watcher_remove(struct watcher *watcher); /* no longer attached: no-op */
/* Send what could not be sent before, or a heartbeat when it is time. */
void watcher_tick(struct coordinator *coordinator, struct watcher *watcher, int64_t now_ms);

/* The document has a new event: tell its watchers; READY and FAILED end their calls. */
void document_flow_publish(struct coordinator *coordinator, struct document *document);
/* End the calls of all who watch, for a reason that is not the document's state. */
void document_flow_end_watchers(struct coordinator *coordinator, struct document *document,
                                enum rpc_code code, const char *text);

/* Write the metadata, soon. */
void document_flow_save(struct coordinator *coordinator, struct document *document);
/* The same for a call that changed it: answered once that is durable, or with why it is not. */
void document_flow_save_and_reply(struct coordinator *coordinator, struct document *document,
                                  struct rpc_call *call);
/* Answer the call with the document. */
void document_flow_reply(struct coordinator *coordinator, struct rpc_call *call,
                         const struct document *document);
/* All bytes are here, or are put again: QUEUED, and tokenised when its turn nears. */
void document_flow_queue(struct coordinator *coordinator, struct document *document);
/* The same for a question; without any left it is STORED again. */
void document_flow_recall(struct coordinator *coordinator, struct document *document);
void document_flow_tokenize(struct coordinator *coordinator, struct document *document);
/* The group had no memory for it: QUEUED, in its old turn, until something has been freed. */
void document_flow_wait_again(struct coordinator *coordinator, struct document *document);
/* FAILED; its questions end too. */
void document_flow_fail(struct coordinator *coordinator, struct document *document,
                        enum rpc_code code, const char *text);
/* There is no memory for a QUEUED one now: STORED, and who wants it now is told why. */
void document_flow_give_up(struct coordinator *coordinator, struct document *document,
                           const char *reason);
/* STORED; what KV it has is freed. */
void document_flow_store(struct coordinator *coordinator, struct document *document);
/* DELETING: its questions end ABORTED, KV and files go, then Delete's calls end OK. */
void document_flow_delete(struct coordinator *coordinator, struct document *document);
/* Take the next step of a deletion that something held up. */
void document_flow_go_on_deleting(struct coordinator *coordinator, struct document *document);

#endif
