/* The algorithm for each shape: cuBLASLt's choice, asked for once, or the fastest of trials. Owned
 * by a queue. */
#ifndef KERNELS_CUDA_ALGORITHM_CACHE_H
#define KERNELS_CUDA_ALGORITHM_CACHE_H

#include "base/status.h"
#include "kernels/backend.h"

#include <cublasLt.h>

#include <stdbool.h>

/* What an algorithm depends on. */
struct matmul_shape {
    int rows, in, out;
    enum kernel_dtype out_dtype;
    bool has_bias;
    int alignment; /* bytes; of the least aligned operand, at most 256 */
};

struct algorithm_cache;

enum tca_status algorithm_cache_create(struct algorithm_cache **cache_out);
void algorithm_cache_destroy(struct algorithm_cache *cache); /* NULL is a no-op */

/* The algorithm found before, or NULL. */
const cublasLtMatmulAlgo_t *algorithm_cache_find(const struct algorithm_cache *cache,
                                                 const struct matmul_shape *shape);
/* Keep a copy; may push out that of another shape, though none that was tried while its place is
 * not full of them: shapes come and go with every step's rows, trials are
 * made at the start alone. */
void algorithm_cache_keep(struct algorithm_cache *cache, const struct matmul_shape *shape,
                          const cublasLtMatmulAlgo_t *algorithm, bool was_tried);

#endif
