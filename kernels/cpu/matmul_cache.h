/* oneDNN's matrix products of bf16, compiled once for each size and kept.
 *
 * A matmul is x [rows, in] times the transpose of `out` consecutive rows of a WEIGHT_BLOCKS
 * weight, plus bias, to a dense [rows, out] (a row stride would cost oneDNN's fast code). Lookups
 * belong to the queue's thread; any of its threads may run what was found, several at once. */
#ifndef KERNELS_CPU_MATMUL_CACHE_H
#define KERNELS_CPU_MATMUL_CACHE_H

#include "base/status.h"
#include "kernels/backend.h"

#include <stddef.h>
#include <stdint.h>

struct matmul_cache;
struct matmul;

struct matmul_shape {
    int rows, in, out;
    int out_dtype; /* enum kernel_dtype */
    int has_bias;
};

struct matmul_operands {
    const uint16_t *x;
    const uint16_t *weight;
    const float *bias;
    void *out;
    void *scratch; /* matmul_scratch_bytes(), 64-byte aligned */
};

/* For as many threads. TCA_ERR_NO_MEMORY, TCA_ERR_DEVICE. */
enum tca_status matmul_cache_create(int threads, struct matmul_cache **cache_out);
void matmul_cache_destroy(struct matmul_cache *cache); /* NULL is a no-op */

/* Make room for `count` finds whose results stay valid together, until the next call. */
void matmul_cache_reserve(struct matmul_cache *cache, int count);

/* Compiles what it has not met. TCA_ERR_DEVICE: oneDNN cannot. */
enum tca_status matmul_cache_find(struct matmul_cache *cache, const struct matmul_shape *shape,
                                  const struct matmul **matmul_out);

size_t matmul_scratch_bytes(const struct matmul *matmul);
enum tca_status matmul_run(const struct matmul_cache *cache, const struct matmul *matmul,
                           const struct matmul_operands *operands, int thread);

#endif
