/* The best candidates and the log-sum-exp of each row of logits: one block a row, which finds the
 * count-th largest value by its digits from the top (radix selection), collects what is larger and
 * the first of what is equal, and sorts those few. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/launch.h"

#include <math.h>

enum { THREADS = 1024, WARPS = THREADS / 32, DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

struct candidate {
    uint32_t key;
    int32_t id;
};

/* Floats in the order of unsigned numbers. */
static __device__ uint32_t key_of(float value)
{
    uint32_t bits = __float_as_uint(value + 0.0f); /* -0 equals 0 */

    return bits ^ ((bits >> 31) ? 0xffffffffu : 0x80000000u);
}

static __device__ float value_of(uint32_t key)
{
    return __uint_as_float(key ^ ((key >> 31) ? 0x80000000u : 0xffffffffu));
}

static __device__ float log_sum_exp(const float *row, int cols, float *shared)
{
    float most = -INFINITY, sum = 0;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    for (int i = threadIdx.x; i < cols; i += THREADS)
        most = fmaxf(most, row[i]);
    most = warp_max(most);
    if (lane == 0)
        shared[warp] = most;
    __syncthreads();
    most = warp_max(shared[lane]);
    __syncthreads();
    for (int i = threadIdx.x; i < cols; i += THREADS)
        sum += __expf(row[i] - most);
    sum = warp_sum(sum);
    if (lane == 0)
        shared[warp] = sum;
    __syncthreads();
    return most + logf(warp_sum(shared[lane]));
}

/* The key of the wanted-th largest; *equal_out: how many of that key are among the wanted. */
static __device__ uint32_t select_key(const float *row, int cols, int wanted, int *histogram,
                                      uint32_t *prefix_shared, int *left_shared, int *equal_out)
{
    uint32_t prefix = 0, mask = 0;
    int left = wanted;

    for (int shift = 32 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        for (int i = threadIdx.x; i < DIGITS; i += THREADS)
            histogram[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < cols; i += THREADS) {
            uint32_t key = key_of(row[i]);

            if ((key & mask) == prefix)
                atomicAdd(&histogram[(key >> shift) % DIGITS], 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;

            while (digit > 0 && histogram[digit] < left)
                left -= histogram[digit--];
            *prefix_shared = prefix | (uint32_t)digit << shift;
            *left_shared = left;
        }
        __syncthreads();
        prefix = *prefix_shared;
        left = *left_shared;
        mask |= (uint32_t)(DIGITS - 1) << shift;
    }
    *equal_out = left;
    return prefix;
}

static __device__ bool is_before(const candidate &a, const candidate &b)
{
    return a.key != b.key ? a.key > b.key : a.id < b.id;
}

/* Of the keys equal to `key`, the `count` lowest ids, in order. */
static __device__ void collect_equal(const float *row, int cols, uint32_t key, int count,
                                     candidate *out, int *warp_counts)
{
    int found = 0;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    for (int first = 0; first < cols && found < count; first += THREADS) {
        int id = first + (int)threadIdx.x;
        bool is_equal = id < cols && key_of(row[id]) == key;
        unsigned votes = __ballot_sync(0xffffffffu, is_equal);
        int before = __popc(votes & ((1u << lane) - 1));
        int all = 0;

        if (lane == 0)
            warp_counts[warp] = __popc(votes);
        __syncthreads();
        for (int i = 0; i < WARPS; i++) {
            before += i < warp ? warp_counts[i] : 0;
            all += warp_counts[i];
        }
        if (is_equal && found + before < count)
            out[found + before] = {key, id};
        found += all;
        __syncthreads();
    }
}

static __global__ void __launch_bounds__(THREADS)
    logits_top(float *values, int32_t *ids, float *lse, const float *logits, int cols, int count)
{
    __shared__ candidate found[TOP_COUNT_MAX];
    __shared__ int histogram[DIGITS];
    __shared__ float sums[WARPS];
    __shared__ uint32_t prefix;
    __shared__ int left, larger;
    const float *row = logits + (int64_t)blockIdx.x * cols;
    int wanted = count < cols ? count : cols;
    int64_t to = (int64_t)blockIdx.x * count;
    int equal;

    float row_lse = log_sum_exp(row, cols, sums);
    if (threadIdx.x == 0) {
        lse[blockIdx.x] = row_lse;
        larger = 0;
    }
    uint32_t key = select_key(row, cols, wanted, histogram, &prefix, &left, &equal);
    for (int i = threadIdx.x; i < cols; i += THREADS) {
        uint32_t own = key_of(row[i]);

        if (own > key)
            found[atomicAdd(&larger, 1)] = {own, i};
    }
    collect_equal(row, cols, key, equal, found + wanted - equal, histogram);
    __syncthreads();
    /* Few enough to count, for each, how many come before it. */
    for (int i = threadIdx.x; i < wanted; i += THREADS) {
        int place = 0;

        for (int j = 0; j < wanted; j++)
            place += is_before(found[j], found[i]);
        values[to + place] = value_of(found[i].key);
        ids[to + place] = found[i].id;
    }
    for (int i = wanted + threadIdx.x; i < count; i += THREADS) {
        values[to + i] = -INFINITY;
        ids[to + i] = -1;
    }
}

void cuda_launch_logits_top(cudaStream_t stream, float *values, int32_t *ids, float *lse,
                            const float *logits, int rows, int cols, int count)
{
    logits_top<<<rows, THREADS, 0, stream>>>(values, ids, lse, logits, cols, count);
}
