/* One prefill chunk's attention, sparse against dense, at growing positions. */
#ifndef BENCH_BENCH_SPARSE_H
#define BENCH_BENCH_SPARSE_H

#include "kernels/backend.h"

#include <stdbool.h>

/* Print a line (or JSON object) for every position, from synthetic K and V: the sparse chunk with
 * its parts, and the dense one. */
void bench_sparse(const struct kernel_backend *backend, struct kernel_queue *queue, int threads,
                  bool is_json);

#endif
