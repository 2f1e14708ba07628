/* One rank of a worker group, from attaching to the coordinator to leaving.
 *
 * Rank 0 talks to the coordinator (control_link.h) and leads the steps (engine.h); the other ranks
 * follow (lockstep.h). Blocks until the group ends. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/status.h"
#include "comm/group.h"

struct worker_options {
    const char *coordinator; /* "host:port"; rank 0's is used */
    const char *secret;      /* the same */
    const char *version;
    int connect_timeout_ms; /* rank 0 tries to reach the coordinator for so long */
    int step_timeout_ms;    /* longest wait for a peer within a step */
};

/* TCA_OK: the coordinator said Stop. Anything else was logged; the group is aborted where ranks
 * may still wait for one another. The caller destroys the group. */
enum tca_status worker_run(struct comm_group *group, const struct worker_options *options);

#endif
