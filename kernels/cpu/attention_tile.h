/* The inner loops of attention over one tile: up to 64 columns (queries of heads that share a KV
 * head) against up to 64 keys.
 *
 * In the tile kernels a column is a vector lane, in every array the fastest index: maximum, sum
 * and rescaling need no reduction across lanes, keys are read as stored, and a group's heads
 * share every key load. The decode kernels, for a few columns, use lanes otherwise. Packed
 * formats belong to each table. Buffers are 64-byte aligned. */
#ifndef KERNELS_CPU_ATTENTION_TILE_H
#define KERNELS_CPU_ATTENTION_TILE_H

#include "kernels/cpu/cpu_queue.h"

#include <stddef.h>
#include <stdint.h>

enum { ATTENTION_LANES = 64, ATTENTION_KEYS = 64, ATTENTION_HEAD_DIM_MOST = 256 };

/* Scores stay in units of log2 after scaling. A column that has seen no key has this maximum, far
 * under any score, and a masked score is far under it: differences of both stay finite. */
#define ATTENTION_LEAST  (-1e30f)
#define ATTENTION_MASKED (-1e37f)

/* The running softmax of a block of columns. */
struct attention_block {
    _Alignas(
        64) float most[ATTENTION_LANES]; /* largest scaled score so far, at least ATTENTION_LEAST */
    float sum[ATTENTION_LANES];          /* of exp2(score - most) */
    float rescale[ATTENTION_LANES];      /* what this tile multiplied earlier sums by */
    float tile_most[ATTENTION_LANES];    /* largest unscaled score of this tile */
    int32_t limit[ATTENTION_LANES];      /* keys of this tile that the column sees, when masked */
};

struct attention_tile_ops {
    int columns_most;  /* of a block */
    int dim_stride;    /* of acc, in floats */
    int column_stride; /* of acc */

    /* rows[columns]: queries of head_dim bf16. */
    void (*pack_queries)(void *packed, const uint16_t *const *rows, int columns, int head_dim);
    /* v: [keys, head_dim] bf16. NULL: `values` reads them as stored. */
    void (*pack_values)(void *packed, const uint16_t *v, int keys, int head_dim);
    /* scores of k . q, masked beyond block->limit if is_masked; fills tile_most. */
    void (*scores)(float *scores, struct attention_block *block, const void *q, const uint16_t *k,
                   int keys, int head_dim, int columns, bool is_masked);
    /* weights = exp2(scores * scale - most); updates most, sum and rescale. */
    void (*softmax)(void *weights, struct attention_block *block, const float *scores, float scale,
                    int keys, int columns);
    /* acc[dim, column] = acc * rescale + sum over keys of v * weights. */
    void (*values)(float *acc, const struct attention_block *block, const void *weights,
                   const void *v, int keys, int head_dim, int columns);
    /* lse[column] = log of the sum over keys of exp(scores * scale), from block->tile_most; scale
     * is in units of log2, lse in natural ones. Unmasked scores. */
    void (*log_sum)(float *lse, const struct attention_block *block, const float *scores,
                    float scale, int keys, int columns);
    /* peaks[key] = max(itself, scores * scale - offset[column] over the columns). peaks:
     * [ATTENTION_KEYS], also past `keys`; offset: [ATTENTION_LANES], huge for absent columns. */
    void (*peaks)(float *peaks, const float *scores, const float *offset, float scale, int keys,
                  int columns);
};

/* Bytes of packed queries, of packed values and of acc; of scores and of weights. */
size_t attention_head_bytes(int head_dim);
enum { ATTENTION_TILE_BYTES = ATTENTION_KEYS * ATTENTION_LANES * 4 };

/* The kernels for as many columns of an item and a KV head. */
const struct attention_tile_ops *attention_tile_ops(enum cpu_isa isa, int columns);

extern const struct attention_tile_ops attention_tile_portable;
#if defined(__x86_64__)
extern const struct attention_tile_ops attention_tile_avx2;
extern const struct attention_tile_ops attention_tile_avx512;
extern const struct attention_tile_ops attention_decode_avx512;
#endif

#endif
