/* A group whose ranks are the processes of MPI_COMM_WORLD, and how a process learns its rank.
 *
 * Waits spin for a moment, because a decode step is short, and then sleep in steps of up to 1 ms,
 * because idle ranks should not burn a core. A rank that dies is noticed by mpirun, which ends the
 * others; a rank that is stuck ends in TCA_ERR_COMM after the deadline. After an error the process
 * should exit with a failure and without calling MPI again: mpirun then ends the rest. */
#ifndef COMM_MPI_COMM_MPI_H
#define COMM_MPI_COMM_MPI_H

#include "base/status.h"
#include "comm/group.h"

/* Start MPI and make the group; once a process, waits for all ranks. Any thread may use the group
 * afterwards, one at a time; this one destroys it. `backend` (borrowed, CPU memory) waits for a
 * collective's queue; NULL: buffers are always ready. timeout_ms: how long a tensor collective
 * waits for peers. A message holds at most 2^31 - 1 bytes (TCA_ERR_INVALID).
 * destroy() waits for all ranks, then ends MPI; abort() ends all ranks' processes, this one too. */
enum tca_status comm_mpi_create(const struct kernel_backend *backend, int timeout_ms,
                                struct comm_group **group_out);

#endif
