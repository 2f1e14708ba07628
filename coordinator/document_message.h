/* A document and its newest event as messages of the public API. Pure.
 *
 * The structs hold all parts of the message and must stay where they were filled: the message
 * points into them and into the document. */
#ifndef COORDINATOR_DOCUMENT_MESSAGE_H
#define COORDINATOR_DOCUMENT_MESSAGE_H

#include "coordinator/document.h"
#include "tca.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

struct document_facts {
    const char *model;
    int64_t kv_bytes_per_token; /* over all workers */
};

struct document_message {
    Tca__V1__Document document;
    Google__Protobuf__Timestamp create_time, last_used_time;
    uint8_t sha256[SHA256_BYTES];
};

void document_message_fill(struct document_message *message, const struct document *document,
                           const struct document_facts *facts);

struct document_event_message {
    Tca__V1__DocumentEvent event;
    struct document_message document;
    Tca__V1__DocumentEvent__Committed committed;
    Tca__V1__DocumentEvent__Progress progress;
    Tca__V1__DocumentEvent__Heartbeat heartbeat;
};

/* The newest event, or a heartbeat that repeats its sequence. now_ms: monotonic. */
void document_event_message_fill(struct document_event_message *message,
                                 const struct document *document,
                                 const struct document_facts *facts, bool is_heartbeat,
                                 int64_t now_ms);

#endif
