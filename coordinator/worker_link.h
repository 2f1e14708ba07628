/* The coordinator's end of the control link (proto/control.proto): admits one worker group, tells
 * it what to do, and hands what it says to group_flow.h.
 *
 * With the coordinator's lock held, but for the method's callbacks. Sending never blocks: what the
 * connection does not take at once waits here and is sent by worker_link_tick. */
#ifndef COORDINATOR_WORKER_LINK_H
#define COORDINATOR_WORKER_LINK_H

#include "base/token_ids.h"
#include "control.pb-c.h"
#include "proto/rpc_server.h"

#include <stdint.h>

struct coordinator;
struct attention;
struct question;
struct outgoing_message;

enum worker_link_state {
    WORKER_LINK_NONE,    /* nobody has come */
    WORKER_LINK_GREETED, /* a group loads its weights */
    WORKER_LINK_READY,
    WORKER_LINK_GONE, /* it came and went: there is no second one */
};

struct worker_link {
    enum worker_link_state state;
    struct rpc_call *call; /* NULL: none */
    struct outgoing_message *first, *last;
    int64_t heard_ms, ticked_ms;    /* monotonic; the last message, the last tick */
    Tca__Control__V1__Ready *ready; /* owned; what the group is */
};

struct rpc_method worker_link_method(struct coordinator *coordinator);
void worker_link_free(struct worker_link *link);

/* Copies the tokens; messages of at most 65,536. */
void worker_link_open_document(struct worker_link *link, uint64_t key,
                               const struct token_ids *tokens, const struct attention *attention);
void worker_link_close_document(struct worker_link *link, uint64_t key);
void worker_link_open_question(struct coordinator *coordinator, const struct question *question);
void worker_link_cancel_question(struct worker_link *link, uint64_t key);
void worker_link_stop(struct worker_link *link); /* the group leaves */

/* Send what waits; a group that has not spoken for long, while this process ran, is lost. */
void worker_link_tick(struct coordinator *coordinator, int64_t now_ms);

#endif
