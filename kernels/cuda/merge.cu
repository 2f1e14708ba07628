/* Arithmetic on log-sum-exps: what blocks of keys weigh, the union of two attentions, and what is
 * kept of one. All of it is bound by reading its inputs once. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tca_launch.h"

#include <math.h>

enum { LANES = 32, THREADS = 256, WARPS = THREADS / LANES, PIECE = 8 /* elements of 16 bytes */ };

#define LOG2_E 1.44269504f

static __device__ __forceinline__ float log_add_exp(float a, float b)
{
    float most = fmaxf(a, b);

    if (most == -INFINITY)
        return most;
    return most + log1pf(__expf(fminf(a, b) - most));
}

/* One block a row (an observer's head): threads keep running sums of what they read. */
static __global__ void __launch_bounds__(THREADS)
    observer_lse(float *lse_out, const float *scores, const float *lse_own,
                 const int32_t *observers, int q_heads, int64_t blocks)
{
    __shared__ float mosts[WARPS], sums[WARPS];
    const int64_t row = blockIdx.x;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    float most = -INFINITY, sum = 0;

    chain_let_next_begin();
    chain_wait();
#pragma unroll 4
    for (int64_t j = threadIdx.x; j < blocks; j += THREADS) {
        float score = scores[row * blocks + j];
        float larger = fmaxf(most, score);
        float base = larger == -INFINITY ? 0.0f : larger;

        sum = sum * fast_exp2((most - base) * LOG2_E) + fast_exp2((score - base) * LOG2_E);
        most = larger;
    }
    float all = warp_max(most);
    float base = all == -INFINITY ? 0.0f : all;
    sum = warp_sum(sum * fast_exp2((most - base) * LOG2_E));
    if (lane == 0) {
        mosts[warp] = all;
        sums[warp] = sum;
    }
    __syncthreads();
    if (warp != 0)
        return;
    most = lane < WARPS ? mosts[lane] : -INFINITY;
    all = warp_max(most);
    base = all == -INFINITY ? 0.0f : all;
    sum = warp_sum(lane < WARPS ? sums[lane] * fast_exp2((most - base) * LOG2_E) : 0.0f);
    if (lane == 0) {
        float own = lse_own[(int64_t)observers[row / q_heads] * q_heads + row % q_heads];

        lse_out[row] = log_add_exp(own, sum > 0 ? all + logf(sum) : -INFINITY);
    }
}

void cuda_launch_observer_lse(cudaStream_t stream, float *lse_out, const float *scores,
                              const float *lse_own, const int32_t *observers, int count,
                              int q_heads, int64_t blocks)
{
    chain_launch(stream, observer_lse, count * q_heads, THREADS, 0, lse_out, scores, lse_own,
                 observers, q_heads, blocks);
}

/* LANES blocks of a KV head by one block of threads, whose warps share the rows. */
static __global__ void __launch_bounds__(THREADS)
    block_masses(float *masses_out, const float *scores, const float *lse, int count, int q_heads,
                 int group, int64_t blocks)
{
    __shared__ float mosts[WARPS][LANES];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int64_t j = (int64_t)blockIdx.x * LANES + lane;
    float most = -INFINITY;

    chain_let_next_begin();
    chain_wait();
    if (j < blocks)
#pragma unroll 8
        for (int row = warp; row < count * group; row += WARPS) {
            int64_t at = (int64_t)(row / group) * q_heads + blockIdx.y * group + row % group;
            float own = lse[at];

            if (own != -INFINITY)
                most = fmaxf(most, scores[at * blocks + j] - own);
        }
    mosts[warp][lane] = most;
    __syncthreads();
    if (warp != 0 || j >= blocks)
        return;
    for (int other = 1; other < WARPS; other++)
        most = fmaxf(most, mosts[other][lane]);
    masses_out[blockIdx.y * blocks + j] = fast_exp2(most * LOG2_E);
}

void cuda_launch_block_masses(cudaStream_t stream, float *masses_out, const float *scores,
                              const float *lse, int count, const struct attention_shape *shape,
                              int64_t blocks)
{
    dim3 grid((unsigned)((blocks + LANES - 1) / LANES), shape->kv_heads);

    chain_launch(stream, block_masses, grid, THREADS, 0, masses_out, scores, lse, count,
                 shape->q_heads, shape->q_heads / shape->kv_heads, blocks);
}

static __device__ __forceinline__ uint32_t blend_pair(uint32_t a, float a_share, uint32_t b,
                                                      float b_share)
{
    const float2 of_a = floats_of_pair(a), of_b = floats_of_pair(b);

    return bf16_pair(a_share * of_a.x + b_share * of_b.x, a_share * of_a.y + b_share * of_b.y);
}

/* 2^lane_bits lanes have a row (a query's head), a piece of 16 bytes each. */
static __global__ void __launch_bounds__(THREADS)
    attention_merge(uint16_t *out, float *lse, const uint16_t *out_other, const float *lse_other,
                    int64_t rows, int head_dim, int lane_bits)
{
    int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t row = thread >> lane_bits;
    int piece = (int)(thread - (row << lane_bits));
    int64_t at = row * head_dim + piece * PIECE;
    bool exists = row < rows && piece * PIECE < head_dim;

    chain_let_next_begin();
    chain_wait();
    float own = row < rows ? lse[row] : -INFINITY;
    float other = row < rows ? lse_other[row] : -INFINITY;
    float both = log_add_exp(own, other);

    __syncwarp(); /* the row's lanes have read lse */
    if (exists && piece == 0)
        lse[row] = both;
    if (!exists || (other == -INFINITY && own != -INFINITY))
        return;
    uint4 merged = make_uint4(0, 0, 0, 0);
    if (other != -INFINITY)
        merged = *(const uint4 *)(out_other + at);
    if (other != -INFINITY && own != -INFINITY) {
        const uint4 mine = *(const uint4 *)(out + at);
        float share = __expf(own - both), others = __expf(other - both);

        merged.x = blend_pair(mine.x, share, merged.x, others);
        merged.y = blend_pair(mine.y, share, merged.y, others);
        merged.z = blend_pair(mine.z, share, merged.z, others);
        merged.w = blend_pair(mine.w, share, merged.w, others);
    }
    *(uint4 *)(out + at) = merged;
}

void cuda_launch_attention_merge_lse(cudaStream_t stream, uint16_t *out, float *lse,
                                     const uint16_t *out_other, const float *lse_other, int rows,
                                     const struct attention_shape *shape)
{
    int64_t all = (int64_t)rows * shape->q_heads;
    int lane_bits = 0;

    while ((PIECE << lane_bits) < shape->head_dim)
        lane_bits++;
    chain_launch(stream, attention_merge, (unsigned)(((all << lane_bits) + THREADS - 1) / THREADS),
                 THREADS, 0, out, lse, out_other, lse_other, all, shape->head_dim, lane_bits);
}

enum { KEPT_THREADS = 1024 };

/* One block a KV head. */
static __global__ void __launch_bounds__(KEPT_THREADS)
    kept_masses(float *masses_out, const float *lse_kept, const float *lse, int rows, int q_heads,
                int group)
{
    __shared__ double sums[KEPT_THREADS / LANES];
    __shared__ float leasts[KEPT_THREADS / LANES];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    double sum = 0;
    float least = 1;

    chain_let_next_begin();
    chain_wait();
    for (int i = threadIdx.x; i < rows * group; i += KEPT_THREADS) {
        int64_t at = (int64_t)(i / group) * q_heads + blockIdx.x * group + i % group;
        float all = lse[at];
        float mass = all == -INFINITY ? 1.0f : fminf(1.0f, __expf(lse_kept[at] - all));

        sum += (double)mass;
        least = fminf(least, mass);
    }
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        least = fminf(least, __shfl_xor_sync(0xffffffffu, least, offset));
    }
    if (lane == 0) {
        sums[warp] = sum;
        leasts[warp] = least;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < KEPT_THREADS / LANES; i++) {
        sum += sums[i];
        least = fminf(least, leasts[i]);
    }
    masses_out[2 * blockIdx.x] = (float)sum;
    masses_out[2 * blockIdx.x + 1] = least;
}

void cuda_launch_kept_masses(cudaStream_t stream, float *masses_out, const float *lse_kept,
                             const float *lse, int rows, const struct attention_shape *shape)
{
    chain_launch(stream, kept_masses, shape->kv_heads, KEPT_THREADS, 0, masses_out, lse_kept, lse,
                 rows, shape->q_heads, shape->q_heads / shape->kv_heads);
}
