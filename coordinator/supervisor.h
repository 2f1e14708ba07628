/* The life of the program tca-coordinator: a coordinator and the worker group it starts. */
#ifndef COORDINATOR_SUPERVISOR_H
#define COORDINATOR_SUPERVISOR_H

#include "coordinator/options.h"

struct supervisor_end {
    int64_t served_ms; /* for so long questions had been answered; 0: they never were */
    bool is_wanted;    /* somebody told it to end, however it then ended */
};

/* Run until drained (SIGTERM, SIGINT or Admin.Drain), until the group is lost, or, after a drain,
 * because a listener is; before any thread is started. Meanwhile the soft limit of descriptors is
 * the hard one. Prints to stdout `listening on ADDR:PORT`, with --no-launch `workers connect to
 * ADDR:PORT`, and `ready` once questions are answered. A second signal ends without waiting.
 * TCA_OK: drained as asked. Anything else was logged. */
enum tca_status supervisor_run(const struct coordinator_options *options,
                               struct supervisor_end *end_out);

#endif
