/* Rank 0's connection to the coordinator: one gRPC stream, a thread that reads it into a bounded
 * queue, and a thread that sends what is queued and, once a second, that the group is alive.
 *
 * The engine's thread uses it; only these two threads ever wait for the network. */
#ifndef WORKER_CONTROL_LINK_H
#define WORKER_CONTROL_LINK_H

#include "base/bytes.h"
#include "base/error.h"
#include "worker/control_message.h"

#include <stdint.h>

struct control_link;

struct control_link_options {
    const char *coordinator; /* "host:port" */
    const char *secret;
    const char *version;
    int ranks;
    int connect_timeout_ms; /* tries again until then while nobody answers */
};

/* Connect, say Hello, wait for Welcome, start the threads. TCA_ERR_UNAVAILABLE: nobody answers;
 * others: the coordinator's refusal, with its words. */
enum tca_status control_link_open(const struct control_link_options *options,
                                  struct control_link **link_out,
                                  struct group_settings *settings_out, struct tca_error *error);

/* The next message; replaces *message. TCA_ERR_DEADLINE: none within timeout_ms;
 * TCA_ERR_NOT_FOUND: the coordinator is gone. */
enum tca_status control_link_receive(struct control_link *link, int64_t timeout_ms,
                                     struct bytes *message);

/* Queue a message (copied). TCA_ERR_CANCELLED, TCA_ERR_DEADLINE: the coordinator is gone or has
 * taken nothing for a long time. */
enum tca_status control_link_send(struct control_link *link, const struct bytes *message);

/* Every rank has just answered; the first call starts the sign of life. */
void control_link_answered(struct control_link *link, uint64_t steps);

/* Send what is queued (for a few seconds at most), end the stream, free. NULL is a no-op. */
void control_link_close(struct control_link *link);

#endif
