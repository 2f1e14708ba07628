/* What cuDNN's attention reads of a segment from the device, and what it leaves to us. */
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/chain.cuh"

#include <math.h>

static __global__ void sdpa_lists(sdpa_lists_out lists, attention_segment segment, int queries,
                                  int64_t rows, int kv_heads, int group_elements)
{
    chain_let_next_begin();
    chain_wait();
    for (int head = threadIdx.x; head <= kv_heads; head += blockDim.x) {
        lists.q_offsets[head] = (int64_t)head * group_elements;
        lists.kv_offsets[head] = 0;
        if (head == kv_heads)
            break;
        lists.kv_offsets[head] =
            segment.head_offsets ? segment.head_offsets[head] : head * segment.head_stride;
        lists.query_counts[head] = queries;
        lists.key_counts[head] =
            segment.rows_per_head ? segment.rows_per_head[head] : (int32_t)rows;
    }
}

void cuda_launch_sdpa_lists(cudaStream_t stream, const struct sdpa_lists_out *lists,
                            const struct attention_segment *segment, int queries, int64_t rows,
                            const struct attention_shape *shape)
{
    chain_launch(stream, sdpa_lists, 1, 128, 0, *lists, *segment, queries, rows, shape->kv_heads,
                 shape->q_heads / shape->kv_heads * shape->head_dim);
}

enum { FILL_BLOCKS = 256, FILL_THREADS = 128 };

/* Heads without keys are rare: few blocks find out that there are none. */
static __global__ void __launch_bounds__(FILL_THREADS)
    fill_keyless(uint16_t *out, float *lse, const int32_t *key_counts, int queries,
                 attention_shape shape)
{
    const int group = shape.q_heads / shape.kv_heads, dim = shape.head_dim;

    chain_let_next_begin();
    chain_wait();
    for (int kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
        if (key_counts[kv_head] > 0)
            continue;
        for (int row = blockIdx.x; row < queries * group; row += FILL_BLOCKS) {
            const int64_t at =
                (int64_t)(row / group) * shape.q_heads + kv_head * group + row % group;

            for (int i = threadIdx.x; i < dim; i += FILL_THREADS)
                out[at * dim + i] = 0;
            if (threadIdx.x == 0)
                lse[at] = -INFINITY;
        }
    }
}

void cuda_launch_fill_keyless(cudaStream_t stream, uint16_t *out, float *lse,
                              const int32_t *key_counts, int queries,
                              const struct attention_shape *shape)
{
    chain_launch(stream, fill_keyless, FILL_BLOCKS, FILL_THREADS, 0, out, lse, key_counts, queries,
                 *shape);
}
