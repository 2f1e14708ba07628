/* Copying kept K and V rows together: a warp has some rows of a head, pieces of 16 bytes over its
 * lanes, and all its loads under way before the first store. */
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/tca_launch.h"

enum {
    LANES = 32,
    WARPS = 4,
    PIECE = 8,      /* elements of 16 bytes */
    STEPS = 4,      /* rows of a group of lanes */
    TAIL_ROWS = 128 /* matrix kernels read whole tiles: 0 x NaN would be NaN */
};

/* LANES_A_ROW: a power of two of at least head_dim / PIECE. */
template <int LANES_A_ROW>
static __global__ void __launch_bounds__(LANES *WARPS)
    gather(const kv_copy copy, const attention_segment keys, const int32_t *kept,
           int64_t kept_stride, const int32_t *counts, int head_dim)
{
    constexpr int AT_ONCE = LANES / LANES_A_ROW;
    const int head = blockIdx.y;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int piece = lane % LANES_A_ROW;

    chain_let_next_begin();
    chain_wait();
    const int64_t count = counts[head];
    const int64_t with_tail = (count + TAIL_ROWS - 1) / TAIL_ROWS * TAIL_ROWS;
    const int64_t end = with_tail < copy.rows ? with_tail : copy.rows;
    const int64_t first =
        ((int64_t)blockIdx.x * WARPS + warp) * (STEPS * AT_ONCE) + lane / LANES_A_ROW;
    const int64_t from = keys.head_offsets ? keys.head_offsets[head] : head * keys.head_stride;
    const int64_t to = copy.head_offsets ? copy.head_offsets[head] : head * copy.head_stride;
    uint4 k[STEPS], v[STEPS];

    if (piece * PIECE >= head_dim)
        return;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        int64_t row = first + i * AT_ONCE;

        k[i] = v[i] = make_uint4(0, 0, 0, 0);
        if (row < count) {
            int64_t at = from + (int64_t)kept[head * kept_stride + row] * head_dim + piece * PIECE;

            k[i] = __ldg((const uint4 *)(keys.k + at));
            v[i] = __ldg((const uint4 *)(keys.v + at));
        }
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        int64_t row = first + i * AT_ONCE;

        if (row < end) {
            *(uint4 *)(copy.k + to + row * head_dim + piece * PIECE) = k[i];
            *(uint4 *)(copy.v + to + row * head_dim + piece * PIECE) = v[i];
        }
    }
}

template <int LANES_A_ROW>
static void start(cudaStream_t stream, const struct kv_copy *copy,
                  const struct attention_segment *keys, const int32_t *kept, int64_t kept_stride,
                  const int32_t *counts, const struct attention_shape *shape)
{
    constexpr int AT_ONCE = LANES / LANES_A_ROW;
    constexpr int BLOCK_ROWS = WARPS * STEPS * AT_ONCE;
    dim3 grid((unsigned)((copy->rows + BLOCK_ROWS - 1) / BLOCK_ROWS), shape->kv_heads);

    chain_launch(stream, gather<LANES_A_ROW>, grid, LANES * WARPS, 0, *copy, *keys, kept,
                 kept_stride, counts, shape->head_dim);
}

void cuda_launch_gather(cudaStream_t stream, const struct kv_copy *copy,
                        const struct attention_segment *keys, const int32_t *kept,
                        int64_t kept_stride, const int32_t *counts,
                        const struct attention_shape *shape)
{
    if (shape->head_dim <= 4 * PIECE)
        start<4>(stream, copy, keys, kept, kept_stride, counts, shape);
    else if (shape->head_dim <= 8 * PIECE)
        start<8>(stream, copy, keys, kept, kept_stride, counts, shape);
    else if (shape->head_dim <= 16 * PIECE)
        start<16>(stream, copy, keys, kept, kept_stride, counts, shape);
    else
        start<32>(stream, copy, keys, kept, kept_stride, counts, shape);
}
