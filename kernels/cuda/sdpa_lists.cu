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

/* One block a query: its heads without keys get zeros and -inf. */
static __global__ void fill_keyless(uint16_t *out, float *lse, const int32_t *key_counts,
                                    int q_heads, int group, int head_dim)
{
    chain_let_next_begin();
    chain_wait();
    for (int head = threadIdx.x / 32; head < q_heads; head += blockDim.x / 32) {
        int64_t at = (int64_t)blockIdx.x * q_heads + head;

        if (key_counts[head / group] > 0)
            continue;
        for (int i = threadIdx.x % 32; i < head_dim; i += 32)
            out[at * head_dim + i] = 0;
        if (threadIdx.x % 32 == 0)
            lse[at] = -INFINITY;
    }
}

void cuda_launch_fill_keyless(cudaStream_t stream, uint16_t *out, float *lse,
                              const int32_t *key_counts, int queries,
                              const struct attention_shape *shape)
{
    chain_launch(stream, fill_keyless, queries, 128, 0, out, lse, key_counts, shape->q_heads,
                 shape->q_heads / shape->kv_heads, shape->head_dim);
}
