/* Sums that go through the peers' memory in place of NCCL: small ones over up to PEERS_MOST GPUs of
 * one host (one_shot.h), larger ones over two (pair_sum.h). Used by the group's thread, but for
 * has_failed() and abort(). */
#ifndef COMM_NCCL_PEER_SUMS_H
#define COMM_NCCL_PEER_SUMS_H

#include "comm/group.h"

#include <cuda_runtime_api.h>

#include <stdbool.h>
#include <stddef.h>

struct peer_sums;

/* Collective over `control`, as peer_memory_create() is. *sums_out: owned; NULL on all ranks where
 * no sum can go this way. */
enum tca_status peer_sums_create(struct comm_group *control, int timeout_ms,
                                 struct peer_sums **sums_out);

/* Whether all_reduce_sum and begun sums of so many bytes in `buf`, which begins alike on all ranks,
 * go this way. NULL: none does. */
bool peer_sums_takes(const struct peer_sums *sums, const void *buf, size_t bytes);
bool peer_sums_takes_begun(const struct peer_sums *sums, const void *buf, size_t bytes);

/* Enqueue, as comm/group.h has it; sums are rounded once. */
cudaError_t peer_sums_sum(struct peer_sums *sums, void *buf, size_t count, enum kernel_dtype dtype,
                          cudaStream_t stream);
cudaError_t peer_sums_begin(struct peer_sums *sums, int slot, void *buf, size_t count,
                            enum kernel_dtype dtype, cudaStream_t stream);
cudaError_t peer_sums_await(struct peer_sums *sums, int slot, cudaStream_t stream,
                            const void **rest_out);

/* What goes this way, for the log. */
const char *peer_sums_text(const struct peer_sums *sums);

/* By any thread; see peer_memory.h. NULL: no; a no-op. */
bool peer_sums_has_failed(const struct peer_sums *sums);
void peer_sums_abort(struct peer_sums *sums);
void peer_sums_destroy(struct peer_sums *sums);

#endif
