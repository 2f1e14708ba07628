/* cuBLASLt's choice of algorithm for each shape, asked for once. Owned by a queue. */
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
/* Keep a copy; may push out that of another shape. */
void algorithm_cache_keep(struct algorithm_cache *cache, const struct matmul_shape *shape,
                          const cublasLtMatmulAlgo_t *algorithm);

#endif
