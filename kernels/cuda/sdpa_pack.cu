/* Copies and merges around cuDNN's attention over packed queries; see sdpa_plan.h. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/sdpa_pack.h"

#include <math.h>

enum { THREADS = 256, PIECE = 8 /* elements of 16 bytes */ };

static __device__ void list_head(const sdpa_lists_out &lists, const sdpa_pack &pack, int head,
                                 int64_t head_stride)
{
    const int dim = pack.shape.head_dim, split = head % pack.splits;
    const int64_t left = pack.keys - split * pack.split_keys;

    lists.q_offsets[head] = (int64_t)head * dim;
    lists.kv_offsets[head] =
        left > 0 ? head / pack.splits * head_stride + split * pack.split_keys * dim : 0;
    lists.query_counts[head] = pack.queries * (pack.shape.q_heads / pack.shape.kv_heads);
    lists.key_counts[head] = (int32_t)(left < 0 ? 0 : min(left, pack.split_keys));
}

/* One block a row, whose queries are copied for every split. */
static __global__ void __launch_bounds__(THREADS)
    pack_queries(uint16_t *packed_out, sdpa_lists_out lists, sdpa_pack pack, const uint16_t *q,
                 int64_t head_stride)
{
    const int group = pack.shape.q_heads / pack.shape.kv_heads, dim = pack.shape.head_dim;
    const int pieces = dim / PIECE, row = blockIdx.x;
    const int64_t from = (int64_t)(row / group) * pack.shape.q_heads + row % group;

    chain_let_next_begin();
    chain_wait();
    if (row == 0)
        for (int head = threadIdx.x; head < pack.heads; head += THREADS)
            list_head(lists, pack, head, head_stride);
    for (int i = threadIdx.x; i < pack.heads * pieces; i += THREADS) {
        const int head = i / pieces, at = i % pieces * PIECE;
        const int64_t source = from + head / pack.splits * group;

        *(uint4 *)(packed_out + ((int64_t)row * pack.heads + head) * dim + at) =
            *(const uint4 *)(q + source * dim + at);
    }
}

void cuda_launch_sdpa_pack(cudaStream_t stream, uint16_t *packed_out,
                           const struct sdpa_lists_out *lists, const struct sdpa_pack *pack,
                           const uint16_t *q, int64_t head_stride)
{
    const int rows = pack->queries * (pack->shape.q_heads / pack->shape.kv_heads);

    chain_launch(stream, pack_queries, rows, THREADS, 0, packed_out, *lists, *pack, q, head_stride);
}

/* 2^lane_bits lanes have a query's head, a piece of 16 bytes each. */
static __global__ void __launch_bounds__(THREADS)
    unpack(uint16_t *out, float *lse, sdpa_pack pack, const uint16_t *packed,
           const float *packed_lse, int lane_bits)
{
    const int group = pack.shape.q_heads / pack.shape.kv_heads, dim = pack.shape.head_dim;
    const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int64_t result = thread >> lane_bits;
    const int at = (int)(thread - (result << lane_bits)) * PIECE;
    const int64_t query = result / pack.shape.q_heads;
    const int head = (int)(result % pack.shape.q_heads);
    const int64_t first = (query * group + head % group) * pack.heads + head / group * pack.splits;
    const int used = (int)((pack.keys + pack.split_keys - 1) / pack.split_keys);
    float most = -INFINITY, sum = 0, values[PIECE] = {};

    chain_let_next_begin();
    chain_wait();
    if (query >= pack.queries || at >= dim)
        return;
    for (int split = 0; split < used; split++)
        most = fmaxf(most, packed_lse[first + split]);
    for (int split = 0; split < used; split++) {
        const float share = __expf(packed_lse[first + split] - most);
        const uint4 piece = *(const uint4 *)(packed + (first + split) * dim + at);
        const uint32_t pairs[PIECE / 2] = {piece.x, piece.y, piece.z, piece.w};

        sum += share;
#pragma unroll
        for (int i = 0; i < PIECE / 2; i++) {
            const float2 pair = floats_of_pair(pairs[i]);

            values[2 * i] += share * pair.x;
            values[2 * i + 1] += share * pair.y;
        }
    }
    const float scale = 1.0f / sum;
    *(uint4 *)(out + result * dim + at) =
        make_uint4(bf16_pair(values[0] * scale, values[1] * scale),
                   bf16_pair(values[2] * scale, values[3] * scale),
                   bf16_pair(values[4] * scale, values[5] * scale),
                   bf16_pair(values[6] * scale, values[7] * scale));
    if (lse != NULL && at == 0)
        lse[result] = most + logf(sum);
}

void cuda_launch_sdpa_unpack(cudaStream_t stream, uint16_t *out, float *lse,
                             const struct sdpa_pack *pack, const uint16_t *packed,
                             const float *packed_lse)
{
    const int64_t results = (int64_t)pack->queries * pack->shape.q_heads;
    int lane_bits = 0;

    while ((PIECE << lane_bits) < pack->shape.head_dim)
        lane_bits++;
    chain_launch(stream, unpack, (unsigned)(((results << lane_bits) + THREADS - 1) / THREADS),
                 THREADS, 0, out, lse, *pack, packed, packed_lse, lane_bits);
}
