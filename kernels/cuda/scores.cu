/* What observing queries think of keys, for TCA's selection: one pass over K on the tensor cores
 * (wgmma), nothing of size queries x keys in memory.
 *
 * The observers' heads that share a KV head are rows of one matrix: row r is observer r / group and
 * head r % group. A block has up to ROWS of them in shared memory, and a run of key tiles. Its two
 * teams of warpgroups take the tiles in turns, each with stages of its own; the warpgroups of a
 * team share a tile's products. So some multiply while others reduce. For block scores a product is
 * 64 rows by the tile's 128 keys, two blocks of the selection; for token scores 64 of the tile's
 * keys by 128 rows: either reduction runs along a thread's own sums. */
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tca_launch.h"
#include "kernels/cuda/wgmma.cuh"

#include <math.h>

enum {
    KEYS = 128, /* of a tile */
    TILE_BLOCKS = KEYS / SELECT_BLOCK_TOKENS,
    TEAMS = 2,
    MEMBERS = 2, /* warpgroups of a team */
    TEAM_THREADS = MEMBERS * WGMMA_WARPGROUP,
    THREADS = TEAMS * TEAM_THREADS,
    LANES = 32,
    PIECE = 8, /* elements of 16 bytes */
    PRODUCT_ROWS = 64,
    PRODUCT_COLUMNS = 128,
    PANEL_ALIGNMENT = 1024
};

#define LOG2_E 1.44269504f
/* Further than any score can stand from it: a row that is not there, or sees nothing. */
#define ABSENT 1e30f

/* DIM: head_dim rounded up to what is compiled. */
template <int DIM_, int ROWS_> struct traits {
    static constexpr int DIM = DIM_;
    static constexpr int ROWS = ROWS_;
    static constexpr int PRODUCTS = ROWS / PRODUCT_ROWS / MEMBERS; /* of a tile and warpgroup */
    static constexpr int PIECES = DIM / PIECE;
    static constexpr int STAGES = DIM > 128 ? 1 : 2; /* of a team */
    static constexpr int Q_BYTES = ROWS * DIM * 2;
    static constexpr int STAGE_BYTES = KEYS * DIM * 2;
    static constexpr int SHARED_BYTES =
        PANEL_ALIGNMENT + Q_BYTES + TEAMS * STAGES * STAGE_BYTES + ROWS * (int)sizeof(float);
};

/* What a block works on. */
struct work {
    int kv_head;
    int first_row;
    int rows; /* that exist */
    const uint16_t *k;
    int64_t keys; /* that the head has */
    int64_t first_tile;
    int tiles;
};

/* An operand in shared memory: panels lie panel_bytes apart. */
struct operand {
    const uint8_t *base;
    int panel_bytes;
};

template <class T> static __device__ work find_work(const score_launch &launch)
{
    const attention_segment &keys = launch.keys;
    int group = launch.shape.q_heads / launch.shape.kv_heads;
    int64_t tiles = (keys.rows + KEYS - 1) / KEYS;
    work w;

    w.kv_head = blockIdx.y;
    w.first_row = blockIdx.z * T::ROWS;
    w.rows = min(T::ROWS, launch.count * group - w.first_row);
    w.k =
        keys.k + (keys.head_offsets ? keys.head_offsets[w.kv_head] : w.kv_head * keys.head_stride);
    w.keys = keys.rows_per_head ? keys.rows_per_head[w.kv_head] : keys.rows;
    w.first_tile = tiles * blockIdx.x / gridDim.x;
    w.tiles = (int)(tiles * (blockIdx.x + 1) / gridDim.x - w.first_tile);
    return w;
}

/* Row of a [count, q_heads] array that row `row` of the block stands for. */
static __device__ __forceinline__ int64_t place_of_row(const work &w, const score_launch &launch,
                                                       int row)
{
    int group = launch.shape.q_heads / launch.shape.kv_heads;
    int at = w.first_row + row;

    return (int64_t)(at / group) * launch.shape.q_heads + w.kv_head * group + at % group;
}

template <class T>
static __device__ void load_queries(uint8_t *to, const work &w, const score_launch &launch)
{
    int head_dim = launch.shape.head_dim;
    int q_heads = launch.shape.q_heads;

    for (int i = threadIdx.x; i < T::ROWS * T::PIECES; i += THREADS) {
        int row = i / T::PIECES, piece = i % T::PIECES;
        bool exists = row < w.rows && piece * PIECE < head_dim;
        int64_t place = place_of_row(w, launch, exists ? row : 0);
        int64_t query = launch.observers[place / q_heads];

        copy_async(to + wgmma_place(row, piece, T::ROWS),
                   launch.q + (query * q_heads + place % q_heads) * head_dim +
                       (exists ? piece * PIECE : 0),
                   exists);
    }
}

/* Rows' log-sum-exps in units of log2. */
template <class T>
static __device__ void load_offsets(float *to, const work &w, const score_launch &launch)
{
    for (int row = threadIdx.x; row < T::ROWS; row += THREADS) {
        float lse = row < w.rows ? launch.lse[place_of_row(w, launch, row)] : -INFINITY;

        to[row] = lse == -INFINITY ? ABSENT : lse * LOG2_E;
    }
}

/* Start the copy of the block's tile `index`, unless it is past the last, by the threads of a
 * team; what lies beyond the head's keys, or beyond head_dim, is zero. */
template <class T>
static __device__ __forceinline__ void load_tile(uint8_t *to, const work &w, int index,
                                                 int head_dim)
{
    int64_t first = (w.first_tile + index) * KEYS;
    const uint16_t *from = w.k + first * head_dim;
    int64_t keys = w.keys - first;

    if (index < w.tiles) {
#pragma unroll 4
        for (int i = threadIdx.x % TEAM_THREADS; i < KEYS * T::PIECES; i += TEAM_THREADS) {
            int row = i / T::PIECES, piece = i % T::PIECES;
            bool exists = row < keys && piece * PIECE < head_dim;

            copy_async(to + wgmma_place(row, piece, KEYS),
                       exists ? from + row * head_dim + piece * PIECE : w.k, exists);
        }
    }
    copy_commit();
}

/* Start s = a b^T. */
template <class T>
static __device__ __forceinline__ void multiply(float (&s)[64], operand a, operand b)
{
    constexpr int STEPS = T::DIM / 16, PANEL_STEPS = WGMMA_PANEL_COLUMNS / 16;

    wgmma_begin();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        int panel = step / PANEL_STEPS, within = step % PANEL_STEPS * 32;

        wgmma_64x128x16(s, wgmma_operand(a.base + panel * a.panel_bytes + within),
                        wgmma_operand(b.base + panel * b.panel_bytes + within), step > 0);
    }
    wgmma_commit();
}

/* A sum of exponentials relative to the largest score. */
struct exp_sum {
    float most, sum;
};

static __device__ __forceinline__ float base_of(float most)
{
    return most == -INFINITY ? 0.0f : most; /* no key: exp2(-inf - 0) is 0 */
}

static __device__ __forceinline__ exp_sum add(exp_sum a, exp_sum b, float scale)
{
    float most = fmaxf(a.most, b.most);
    float base = base_of(most);

    return {most, a.sum * fast_exp2((a.most - base) * scale) +
                      b.sum * fast_exp2((b.most - base) * scale)};
}

static __device__ __forceinline__ exp_sum swap_with(exp_sum value, int lane_bit)
{
    return {__shfl_xor_sync(0xffffffffu, value.most, lane_bit),
            __shfl_xor_sync(0xffffffffu, value.sum, lane_bit)};
}

/* Log-sum-exps of a product of 64 rows by 128 keys. Four lanes share two rows of two blocks: each
 * sums its own columns of all four, and ends with one of them. */
static __device__ __forceinline__ float block_lse(const float (&s)[64], float scale, int lane)
{
    exp_sum part[4]; /* 2 * half + block */

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int first = i % 2 * 32 + i / 2 * 2;

        part[i].most = -INFINITY;
#pragma unroll
        for (int n = 0; n < 32; n += 4)
            part[i].most = fmaxf(part[i].most, fmaxf(s[first + n], s[first + n + 1]));
        float base = base_of(part[i].most) * scale * LOG2_E;
        part[i].sum = 0;
#pragma unroll
        for (int n = 0; n < 32; n += 4)
            part[i].sum += fast_exp2(s[first + n] * (scale * LOG2_E) - base) +
                           fast_exp2(s[first + n + 1] * (scale * LOG2_E) - base);
    }
    bool is_upper = lane & 2, is_odd = lane & 1;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        exp_sum own = is_upper ? part[i + 2] : part[i];
        exp_sum others = is_upper ? part[i] : part[i + 2];

        part[i] = add(own, swap_with(others, 2), scale * LOG2_E);
    }
    exp_sum own = is_odd ? part[1] : part[0];
    exp_sum all = add(own, swap_with(is_odd ? part[0] : part[1], 1), scale * LOG2_E);

    return all.sum > 0 ? all.most * scale + __logf(all.sum) : -INFINITY;
}

/* `keys`: of the tile, that exist. */
static __device__ __forceinline__ void mask_columns(float (&s)[64], int64_t keys, int lane)
{
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= keys)
            s[i] = -INFINITY;
}

/* Where a lane writes what block_lse gives it: its row of the output, or NULL. */
static __device__ float *block_row(const work &w, const score_launch &launch, int product)
{
    int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES % 4;
    int row = product * PRODUCT_ROWS + warp * 16 + lane / 4 + lane % 4 / 2 * 8;

    if (row >= w.rows)
        return NULL;
    int64_t blocks = (launch.keys.rows + SELECT_BLOCK_TOKENS - 1) / SELECT_BLOCK_TOKENS;
    return launch.out + place_of_row(w, launch, row) * blocks;
}

static __device__ __forceinline__ void write_blocks(float (&s)[64], float *row, const work &w,
                                                    const score_launch &launch, int tile)
{
    int lane = threadIdx.x % LANES;
    int64_t first = (w.first_tile + tile) * KEYS;
    int64_t block = (w.first_tile + tile) * TILE_BLOCKS + lane % 2;

    if (first + KEYS > w.keys)
        mask_columns(s, w.keys - first, lane);
    float lse = block_lse(s, launch.shape.scale, lane);
    if (row != NULL && block * SELECT_BLOCK_TOKENS < launch.keys.rows)
        row[block] = lse;
}

/* A product of 64 keys by 128 rows raises what a lane knows of its two keys. */
static __device__ __forceinline__ void raise_tokens(float (&most)[2], const float (&s)[64],
                                                    const float *offsets, float scale, int lane)
{
#pragma unroll
    for (int n = 0; n < 16; n++) {
        float2 offset = *(const float2 *)(offsets + n * 8 + lane % 4 * 2);

#pragma unroll
        for (int half = 0; half < 2; half++)
            most[half] = fmaxf(most[half], fmaxf(s[4 * n + 2 * half] * scale - offset.x,
                                                 s[4 * n + 2 * half + 1] * scale - offset.y));
    }
}

/* Non-negative floats order as their bits do: blocks of other rows may write the same tokens. */
static __device__ __forceinline__ void write_tokens(const float (&most)[2], const work &w,
                                                    const score_launch &launch, int tile,
                                                    int half_tile)
{
    int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES % 4;
    float value[2];

#pragma unroll
    for (int half = 0; half < 2; half++) {
        value[half] = fmaxf(most[half], __shfl_xor_sync(0xffffffffu, most[half], 1));
        value[half] = fmaxf(value[half], __shfl_xor_sync(0xffffffffu, value[half], 2));
    }
    int half = lane % 4;
    int64_t key =
        (w.first_tile + tile) * KEYS + half_tile * PRODUCT_ROWS + warp * 16 + lane / 4 + half * 8;
    if (half > 1 || key >= launch.keys.rows)
        return;
    float score = key < w.keys ? fast_exp2(half ? value[1] : value[0]) : 0.0f;
    float *out = launch.out + w.kv_head * launch.keys.rows + key;
    if (gridDim.z == 1)
        *out = score;
    else
        atomicMax((int *)out, __float_as_int(score));
}

/* The threads of the own team wait for each other. */
static __device__ __forceinline__ void team_barrier()
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.x / TEAM_THREADS), "n"((int)TEAM_THREADS)
                 : "memory");
}

/* Start product `index` of a tile: of 64 rows with all its keys or, for tokens, of 64 of its keys
 * with 128 rows. */
template <class T, bool TOKENS>
static __device__ __forceinline__ void start_product(float (&s)[64], const uint8_t *q,
                                                     const uint8_t *keys, int index)
{
    constexpr int Q_PANEL = T::ROWS * WGMMA_PANEL_ROW_BYTES;
    constexpr int KEY_PANEL = KEYS * WGMMA_PANEL_ROW_BYTES;
    constexpr int STEP = PRODUCT_ROWS * WGMMA_PANEL_ROW_BYTES;
    constexpr int ROW_HALVES = T::ROWS / PRODUCT_COLUMNS;

    if (TOKENS)
        multiply<T>(s, {keys + index / ROW_HALVES * STEP, KEY_PANEL},
                    {q + index % ROW_HALVES * 2 * STEP, Q_PANEL});
    else
        multiply<T>(s, {q + index * STEP, Q_PANEL}, {keys, KEY_PANEL});
}

/* The warpgroup's products of a tile. */
template <class T, bool TOKENS>
static __device__ __forceinline__ void
work_on_tile(const work &w, const score_launch &launch, const uint8_t *q, const uint8_t *keys,
             const float *offsets, float *const (&out_row)[T::PRODUCTS], int tile)
{
    constexpr int ROW_HALVES = T::ROWS / PRODUCT_COLUMNS;
    const int lane = threadIdx.x % LANES;
    const int member = threadIdx.x / WGMMA_WARPGROUP % MEMBERS;
    float s[64];
    float most[2] = {-INFINITY, -INFINITY};

#pragma unroll
    for (int i = 0; i < T::PRODUCTS; i++) {
        start_product<T, TOKENS>(s, q, keys, member * T::PRODUCTS + i);
        wgmma_wait<0>();
        wgmma_hold(s);
        if (TOKENS) {
            raise_tokens(most, s, offsets + i * PRODUCT_COLUMNS, launch.shape.scale * LOG2_E, lane);
            if (i == ROW_HALVES - 1)
                write_tokens(most, w, launch, tile, member);
        } else {
            write_blocks(s, out_row[i], w, launch, tile);
        }
    }
}

template <class T, bool TOKENS>
static __global__ void __launch_bounds__(THREADS, 1)
    scores(const __grid_constant__ score_launch launch)
{
    extern __shared__ uint8_t raw[];
    uint8_t *q =
        (uint8_t *)(((uintptr_t)raw + PANEL_ALIGNMENT - 1) / PANEL_ALIGNMENT * PANEL_ALIGNMENT);
    const int team = threadIdx.x / TEAM_THREADS;
    const int member = threadIdx.x / WGMMA_WARPGROUP % MEMBERS;
    uint8_t *stages = q + T::Q_BYTES + team * T::STAGES * T::STAGE_BYTES;
    float *offsets = (float *)(q + T::Q_BYTES + TEAMS * T::STAGES * T::STAGE_BYTES);
    chain_let_next_begin();
    chain_wait(); /* counts of rows and observers are results too */
    const work w = find_work<T>(launch);
    const int head_dim = launch.shape.head_dim;
    float *out_row[T::PRODUCTS];

#pragma unroll
    for (int i = 0; i < T::PRODUCTS; i++)
        out_row[i] = TOKENS ? NULL : block_row(w, launch, member * T::PRODUCTS + i);
    load_queries<T>(q, w, launch);
    load_tile<T>(stages, w, team, head_dim);
    if (TOKENS)
        load_offsets<T>(offsets, w, launch);
    copy_wait<0>();
    wgmma_publish();
    __syncthreads();
    for (int tile = team, turn = 0; tile < w.tiles; tile += TEAMS, turn++) {
        const uint8_t *keys = stages + turn % T::STAGES * T::STAGE_BYTES;
        uint8_t *next = stages + (turn + 1) % T::STAGES * T::STAGE_BYTES;

        if (T::STAGES > 1)
            load_tile<T>(next, w, tile + TEAMS, head_dim);
        work_on_tile<T, TOKENS>(w, launch, q, keys, offsets, out_row, tile);
        if (T::STAGES == 1) {
            team_barrier(); /* the tile is done with */
            load_tile<T>(next, w, tile + TEAMS, head_dim);
        }
        copy_wait<0>();
        wgmma_publish();
        team_barrier();
    }
}

template <class T, bool TOKENS> static void start(cudaStream_t stream, const score_launch *launch)
{
    int group = launch->shape.q_heads / launch->shape.kv_heads;
    int chunks = (launch->count * group + T::ROWS - 1) / T::ROWS;
    int64_t tiles = (launch->keys.rows + KEYS - 1) / KEYS;
    int64_t splits = launch->multiprocessors / (launch->shape.kv_heads * chunks);

    splits = splits < 1 ? 1 : splits > tiles ? tiles : splits;
    if (TOKENS && chunks > 1)
        cudaMemsetAsync(launch->out, 0,
                        (size_t)(launch->shape.kv_heads * launch->keys.rows) * sizeof(float),
                        stream);
    /* Beyond 48 KiB only on request; a repeated request costs next to nothing. */
    cudaFuncSetAttribute(scores<T, TOKENS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         T::SHARED_BYTES);
    chain_launch(stream, scores<T, TOKENS>, dim3((unsigned)splits, launch->shape.kv_heads, chunks),
                 THREADS, T::SHARED_BYTES, *launch);
}

template <bool TOKENS> static void start_any(cudaStream_t stream, const score_launch *launch)
{
    int rows = launch->count * (launch->shape.q_heads / launch->shape.kv_heads);
    bool is_few = rows <= 128;

    if (launch->shape.head_dim > 128)
        start<traits<256, 128>, TOKENS>(stream, launch);
    else if (launch->shape.head_dim > 64)
        is_few ? start<traits<128, 128>, TOKENS>(stream, launch)
               : start<traits<128, 256>, TOKENS>(stream, launch);
    else
        is_few ? start<traits<64, 128>, TOKENS>(stream, launch)
               : start<traits<64, 256>, TOKENS>(stream, launch);
}

void cuda_launch_block_scores(cudaStream_t stream, const struct score_launch *launch)
{
    start_any<false>(stream, launch);
}

void cuda_launch_token_scores(cudaStream_t stream, const struct score_launch *launch)
{
    start_any<true>(stream, launch);
}
