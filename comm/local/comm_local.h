/* A group whose ranks are threads of one process: for tests, and for a coordinator test with its
 * workers inside. Sums in the same order as comm/mpi, so both give the same bits. A begun sum is
 * made when it is awaited; a slot that is begun twice, or awaited without, is TCA_ERR_INVALID. */
#ifndef COMM_LOCAL_COMM_LOCAL_H
#define COMM_LOCAL_COMM_LOCAL_H

#include "base/status.h"
#include "comm/group.h"

/* Make `ranks` groups (1 to 256), groups_out[i] for the thread that is rank i. Each is destroyed
 * by its own thread, in any order. `backend` (borrowed, CPU memory) waits for a collective's
 * queue; NULL: buffers are always ready. timeout_ms: how long a tensor collective waits for peers.
 * TCA_ERR_INVALID, TCA_ERR_NO_MEMORY: nothing was made. */
enum tca_status comm_local_create(const struct kernel_backend *backend, int ranks, int timeout_ms,
                                  struct comm_group **groups_out);

#endif
