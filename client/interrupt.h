/* Ctrl-C (and SIGTERM, SIGHUP): cancels the call in progress, so that the server stops its work.
 * A second signal, or one while no call is open, ends the process at once with exit code 130. */
#ifndef CLIENT_INTERRUPT_H
#define CLIENT_INTERRUPT_H

#include "base/status.h"

#include <stdbool.h>

struct interrupt;
struct rpc_stream;

/* Call before any other thread starts: they inherit that these signals are left to ours. */
enum tca_status interrupt_start(struct interrupt **interrupt_out);
void interrupt_stop(struct interrupt *interrupt); /* NULL is a no-op */

/* The call that a signal cancels; NULL: none. Borrowed until the next call of this function. */
void interrupt_watch(struct interrupt *interrupt, struct rpc_stream *stream);
bool interrupt_seen(struct interrupt *interrupt);

#endif
