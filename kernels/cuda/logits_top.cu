/* The best candidates and the log-sum-exp of each row of logits. A block finds the count-th largest
 * value of its columns by their digits from the top (radix selection), collects what is larger and
 * the first of what is equal, and sorts those few. Long rows are cut into pieces, a block each; a
 * last block a row does the same with the pieces' candidates, whose order keeps that of equal
 * values' ids. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/launch.h"

#include <math.h>

enum {
    THREADS = 1024,
    WARPS = THREADS / 32,
    DIGIT_BITS = 8,
    DIGITS = 1 << DIGIT_BITS,
    PIECE_COLS = 4096,
};

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
    const float base = most == -INFINITY ? 0.0f : most;
    for (int i = threadIdx.x; i < cols; i += THREADS)
        sum += __expf(row[i] - base);
    sum = warp_sum(sum);
    if (lane == 0)
        shared[warp] = sum;
    __syncthreads();
    return base + logf(warp_sum(shared[lane]));
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

/* Rows of `cols` values, each cut into pieces of `piece_cols` (the last one
 * shorter), a block each. */
struct top_args {
    const float *values;
    const int32_t *ids; /* of the values; NULL: their columns */
    const float
        *piece_lse; /* of a row's values, if they are not the logits themselves: [pieces_in] */
    int pieces_in;
    int cols, pieces, piece_cols, count;
    float *values_out; /* [rows, pieces, count] */
    int32_t *ids_out;
    float *lse_out; /* [rows, pieces] */
};

static __global__ void __launch_bounds__(THREADS) logits_top(const top_args args)
{
    __shared__ candidate found[TOP_COUNT_MAX];
    __shared__ int histogram[DIGITS];
    __shared__ float sums[WARPS];
    __shared__ uint32_t prefix;
    __shared__ int left, larger;
    const int row = (int)blockIdx.x / args.pieces;
    const int first = (int)blockIdx.x % args.pieces * args.piece_cols;
    const int64_t from = (int64_t)row * args.cols + first;
    const float *values = args.values + from;
    const int cols = min(args.piece_cols, args.cols - first);
    const int wanted = min(args.count, cols);
    const int64_t to = (int64_t)blockIdx.x * args.count;
    int equal;

    const float own_lse =
        args.piece_lse == NULL
            ? log_sum_exp(values, cols, sums)
            : log_sum_exp(args.piece_lse + (int64_t)row * args.pieces_in, args.pieces_in, sums);
    if (threadIdx.x == 0) {
        args.lse_out[blockIdx.x] = own_lse;
        larger = 0;
    }
    uint32_t key = select_key(values, cols, wanted, histogram, &prefix, &left, &equal);
    for (int i = threadIdx.x; i < cols; i += THREADS) {
        uint32_t own = key_of(values[i]);

        if (own > key)
            found[atomicAdd(&larger, 1)] = {own, i};
    }
    collect_equal(values, cols, key, equal, found + wanted - equal, histogram);
    __syncthreads();
    /* Few enough to count, for each, how many come before it. */
    for (int i = threadIdx.x; i < wanted; i += THREADS) {
        int place = 0;

        for (int j = 0; j < wanted; j++)
            place += is_before(found[j], found[i]);
        args.values_out[to + place] = value_of(found[i].key);
        args.ids_out[to + place] =
            args.ids == NULL ? first + found[i].id : args.ids[from + found[i].id];
    }
    for (int i = wanted + threadIdx.x; i < args.count; i += THREADS) {
        args.values_out[to + i] = -INFINITY;
        args.ids_out[to + i] = -1;
    }
}

void cuda_launch_logits_top(cudaStream_t stream, const struct logits_top_out *out,
                            const float *logits, int rows, int cols, int count, void *scratch,
                            size_t scratch_bytes)
{
    const int pieces = (cols + PIECE_COLS - 1) / PIECE_COLS;
    const size_t candidates = (size_t)rows * pieces * count, lses = (size_t)rows * pieces;
    top_args whole = {logits, NULL, NULL, 0, cols, 1, cols, count, out->values, out->ids, out->lse};

    if (pieces > 1 && (2 * candidates + lses) * sizeof(float) <= scratch_bytes) {
        float *values = (float *)scratch, *lse = values + candidates;
        int32_t *ids = (int32_t *)(lse + lses);
        const top_args parts = {logits,     NULL,  NULL,   0,   cols, pieces,
                                PIECE_COLS, count, values, ids, lse};

        logits_top<<<(unsigned)lses, THREADS, 0, stream>>>(parts);
        whole.values = values;
        whole.ids = ids;
        whole.piece_lse = lse;
        whole.pieces_in = pieces;
        whole.cols = whole.piece_cols = pieces * count;
    }
    logits_top<<<(unsigned)rows, THREADS, 0, stream>>>(whole);
}
