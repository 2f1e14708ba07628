/* Softmax attention on the tensor cores (mma.sync, bf16 in, f32 sums), online over tiles of keys.
 *
 * A block is a tile of rows (attention_plan.h) against a range of keys. Its warps share the rows
 * (tiles of 64 and 128) or, where there are at most 16 rows, each tile's keys, and then merge what
 * each found. Keys and values arrive by cp.async in two stages: one is computed on while the other
 * fills. Columns of shared memory are swizzled in pieces of 16 bytes, so that ldmatrix meets no
 * bank twice. */
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/mma.cuh"

#include <math.h>

enum {
    KEYS = ATTENTION_KEY_TILE,
    SEGMENTS = ATTENTION_SEGMENTS_MAX,
    LANES = 32,
    PIECE = 8 /* elements of 16 bytes */
};

/* DIM: head_dim rounded up to what is compiled; ROW_TILES: of 16 rows, of a warp; ROW_WARPS share
 * the rows, KEY_WARPS the keys of a tile. */
template <int DIM_, int ROW_TILES_, int ROW_WARPS_, int KEY_WARPS_> struct traits {
    static constexpr int DIM = DIM_;
    static constexpr int ROW_TILES = ROW_TILES_;
    static constexpr int ROW_WARPS = ROW_WARPS_;
    static constexpr int KEY_WARPS = KEY_WARPS_;
    static constexpr int ROWS = 16 * ROW_TILES * ROW_WARPS;
    static constexpr int THREADS = LANES * ROW_WARPS * KEY_WARPS;
    static constexpr int WARP_KEYS = KEYS / KEY_WARPS;
    static constexpr int KEY_FRAGMENTS = WARP_KEYS / 8; /* columns of 8 keys of the scores */
    static constexpr int DIM_FRAGMENTS = DIM / 8;
    static constexpr int PIECES = DIM / PIECE;
    static constexpr int TILE = KEYS * DIM; /* elements of one stage's K, or V */
    /* Few rows are bound by memory: more of it is asked for ahead. */
    static constexpr int STAGES = KEY_WARPS > 1 ? 3 : 2;
    static constexpr int SHARED_BYTES = (ROWS * DIM + STAGES * 2 * TILE) * 2;
    static constexpr int MERGE_BYTES = KEY_WARPS * 16 * (DIM + 2) * 4;
    static_assert(MERGE_BYTES <= STAGES * 2 * TILE * 2, "the merge reuses the stages");
};

/* What a block works on. */
struct work {
    const attention_unit *unit;
    int kv_head;
    int first_row;
    int rows; /* of the tile that exist */
    int split;
    int tile;
    int64_t begin[SEGMENTS], end[SEGMENTS]; /* keys of each segment */
    int tiles[SEGMENTS];                    /* of keys */
};

/* A tile of keys: which segment's, and its first key there. */
struct key_tile {
    int segment;
    int64_t first;
};

static __device__ __forceinline__ int64_t visible_rows(const attention_unit &unit, int segment,
                                                       int kv_head, int query)
{
    const attention_unit_segment &s = unit.segment[segment];

    if (s.rows_per_head != NULL)
        return s.rows_per_head[kv_head];
    if (!s.causal)
        return s.rows;
    int64_t rows = s.rows - unit.queries + query + 1;
    return rows > 0 ? rows : 0;
}

template <class T> static __device__ work find_work(const attention_launch &launch)
{
    work w;
    int which = 0;
    int block = blockIdx.x;

    while (which + 1 < launch.count && block >= launch.unit[which + 1].first_block)
        which++;
    w.unit = &launch.unit[which];
    block -= w.unit->first_block;
    w.kv_head = block % launch.shape.kv_heads;
    block /= launch.shape.kv_heads;
    w.split = block % w.unit->splits;
    /* The last rows see the most keys: they start first. */
    w.tile = w.unit->tiles - 1 - block / w.unit->splits;
    w.first_row = w.tile * T::ROWS;
    w.rows = min(T::ROWS, w.unit->queries * launch.group - w.first_row);

    int last_query = (w.first_row + w.rows - 1) / launch.group;
    int64_t begin = w.split * w.unit->split_keys;
    int64_t end = begin + w.unit->split_keys;
    int64_t before = 0; /* keys of the segments already seen */
#pragma unroll
    for (int s = 0; s < SEGMENTS; s++) {
        w.begin[s] = w.end[s] = 0;
        w.tiles[s] = 0;
        if (s >= w.unit->segments)
            continue;
        w.begin[s] = max(begin - before, (int64_t)0);
        w.end[s] = min(end - before, visible_rows(*w.unit, s, w.kv_head, last_query));
        if (w.end[s] > w.begin[s])
            w.tiles[s] = (int)((w.end[s] - w.begin[s] + KEYS - 1) / KEYS);
        before += w.unit->segment[s].rows;
    }
    return w;
}

/* Tile `index` of the block's range, whose segments are put end to end. */
static __device__ __forceinline__ key_tile find_tile(const work &w, int index)
{
    key_tile tile = {0, w.begin[0]};

#pragma unroll
    for (int s = 1; s < SEGMENTS; s++)
        if (index >= w.tiles[s - 1] && tile.segment == s - 1) {
            index -= w.tiles[s - 1];
            tile = {s, w.begin[s]};
        }
    tile.first += (int64_t)index * KEYS;
    return tile;
}

static __device__ __forceinline__ int64_t segment_end(const work &w, int segment)
{
    int64_t end = w.end[0];

#pragma unroll
    for (int s = 1; s < SEGMENTS; s++)
        end = segment == s ? w.end[s] : end;
    return end;
}

/* Where piece `piece` of row `row` lies in a swizzled tile of DIM columns. */
template <int DIM> static __device__ __forceinline__ int place_of(int row, int piece)
{
    return row * DIM + ((piece ^ (row & 7)) * PIECE);
}

/* Copy `rows` rows of head_dim into a tile; what lies beyond them, or beyond head_dim, is zero. */
template <class T>
static __device__ __forceinline__ void load_keys(uint16_t *tile, const uint16_t *from, int rows,
                                                 int head_dim)
{
    for (int i = threadIdx.x; i < KEYS * T::PIECES; i += T::THREADS) {
        int row = i / T::PIECES, piece = i % T::PIECES;
        bool exists = row < rows && piece * PIECE < head_dim;

        copy_async(tile + place_of<T::DIM>(row, piece),
                   from + (exists ? (int64_t)row * head_dim + piece * PIECE : 0), exists);
    }
}

template <class T>
static __device__ void load_queries(uint16_t *tile, const work &w, const attention_launch &launch,
                                    const uint16_t *q)
{
    for (int i = threadIdx.x; i < T::ROWS * T::PIECES; i += T::THREADS) {
        int row = i / T::PIECES, piece = i % T::PIECES;
        bool exists = row < w.rows && piece * PIECE < launch.shape.head_dim;
        int at = w.first_row + (exists ? row : 0);
        int64_t query = w.unit->first_query + at / launch.group;
        int64_t head = w.kv_head * launch.group + at % launch.group;

        copy_async(tile + place_of<T::DIM>(row, piece),
                   q + (query * launch.shape.q_heads + head) * launch.shape.head_dim +
                       (exists ? piece * PIECE : 0),
                   exists);
    }
}

/* Start the copy of a tile of keys. */
template <class T>
static __device__ __forceinline__ void load_stage(uint16_t *stage, const work &w,
                                                  const key_tile &tile, int head_dim)
{
    const attention_unit_segment &segment = w.unit->segment[tile.segment];
    int rows = (int)min(segment_end(w, tile.segment) - tile.first, (int64_t)KEYS);
    int64_t head =
        segment.head_offsets ? segment.head_offsets[w.kv_head] : w.kv_head * segment.head_stride;
    int64_t at = head + tile.first * head_dim;

    load_keys<T>(stage, segment.k + at, rows, head_dim);
    load_keys<T>(stage + T::TILE, segment.v + at, rows, head_dim);
}

/* A warp's running sums. Lane l holds rows l / 4 and l / 4 + 8 of each row tile. */
template <class T> struct sums {
    float value[T::ROW_TILES][T::DIM_FRAGMENTS][4];
    float most[T::ROW_TILES][2]; /* in units of log2 */
    float sum[T::ROW_TILES][2];  /* this lane's columns only, until finish() */
};

template <class T>
static __device__ __forceinline__ void score(float (&s)[T::ROW_TILES][T::KEY_FRAGMENTS][4],
                                             const uint16_t *q, const uint16_t *k, int row_warp,
                                             int key_warp, int lane)
{
#pragma unroll
    for (int piece = 0; piece < T::PIECES; piece += 2) {
        uint32_t a[T::ROW_TILES][4];

#pragma unroll
        for (int m = 0; m < T::ROW_TILES; m++) {
            int row = (row_warp * T::ROW_TILES + m) * 16 + lane % 16;

            load_matrix_x4(a[m], q + place_of<T::DIM>(row, piece + lane / 16));
        }
#pragma unroll
        for (int n = 0; n < T::KEY_FRAGMENTS; n += 2) {
            uint32_t b[4];
            int key = key_warp * T::WARP_KEYS + n * 8 + lane / 16 * 8 + lane % 8;

            load_matrix_x4(b, k + place_of<T::DIM>(key, piece + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < T::ROW_TILES; m++) {
                mma_bf16(s[m][n], a[m], b[0], b[1]);
                mma_bf16(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Scores outside a row's keys become -inf. */
template <class T>
static __device__ __forceinline__ void mask(float (&s)[T::ROW_TILES][T::KEY_FRAGMENTS][4],
                                            const work &w, const key_tile &tile, int group,
                                            int row_warp, int key_warp, int lane)
{
    int64_t end = segment_end(w, tile.segment);

#pragma unroll
    for (int m = 0; m < T::ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = (row_warp * T::ROW_TILES + m) * 16 + lane / 4 + 8 * half;
            int query = (w.first_row + min(row, w.rows - 1)) / group;
            int64_t limit = min(visible_rows(*w.unit, tile.segment, w.kv_head, query), end);
            int keys = (int)max(min(limit - tile.first, (int64_t)KEYS), (int64_t)0);

#pragma unroll
            for (int n = 0; n < T::KEY_FRAGMENTS; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int key = key_warp * T::WARP_KEYS + n * 8 + lane % 4 * 2 + i;

                    if (key >= keys)
                        s[m][n][2 * half + i] = -INFINITY;
                }
        }
}

/* Scores become weights, exp2 of their distance to the running maximum. */
template <class T>
static __device__ __forceinline__ void soften(float (&s)[T::ROW_TILES][T::KEY_FRAGMENTS][4],
                                              sums<T> &acc, float scale)
{
#pragma unroll
    for (int m = 0; m < T::ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY, sum = 0;

#pragma unroll
            for (int n = 0; n < T::KEY_FRAGMENTS; n++)
                most = fmaxf(most, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            most = fmaxf(acc.most[m][half], most * scale);
            float base = most == -INFINITY ? 0.0f : most; /* no key so far */
            float shrink = fast_exp2(acc.most[m][half] - base);

            acc.most[m][half] = most;
#pragma unroll
            for (int n = 0; n < T::KEY_FRAGMENTS; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float weight = fast_exp2(s[m][n][2 * half + i] * scale - base);

                    s[m][n][2 * half + i] = weight;
                    sum += weight;
                }
            acc.sum[m][half] = acc.sum[m][half] * shrink + sum;
#pragma unroll
            for (int d = 0; d < T::DIM_FRAGMENTS; d++) {
                acc.value[m][d][2 * half] *= shrink;
                acc.value[m][d][2 * half + 1] *= shrink;
            }
        }
}

template <class T>
static __device__ __forceinline__ void
add_values(sums<T> &acc, const float (&s)[T::ROW_TILES][T::KEY_FRAGMENTS][4], const uint16_t *v,
           int key_warp, int lane)
{
#pragma unroll
    for (int n = 0; n < T::KEY_FRAGMENTS; n += 2) {
        uint32_t a[T::ROW_TILES][4];
        int key = key_warp * T::WARP_KEYS + n * 8 + lane % 16;

#pragma unroll
        for (int m = 0; m < T::ROW_TILES; m++) {
            a[m][0] = bf16_pair(s[m][n][0], s[m][n][1]);
            a[m][1] = bf16_pair(s[m][n][2], s[m][n][3]);
            a[m][2] = bf16_pair(s[m][n + 1][0], s[m][n + 1][1]);
            a[m][3] = bf16_pair(s[m][n + 1][2], s[m][n + 1][3]);
        }
#pragma unroll
        for (int d = 0; d < T::DIM_FRAGMENTS; d += 2) {
            uint32_t b[4];

            load_matrix_x4_transposed(b, v + place_of<T::DIM>(key, d + lane / 16));
#pragma unroll
            for (int m = 0; m < T::ROW_TILES; m++) {
                mma_bf16(acc.value[m][d], a[m], b[0], b[1]);
                mma_bf16(acc.value[m][d + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* One row's result, or its part of it. value: this lane's columns, DIM_FRAGMENTS x 2. */
template <class T>
static __device__ __forceinline__ void
write_row(const work &w, const attention_launch &launch, const attention_tensors &tensors, int row,
          const float *value, int value_stride, float most, float sum, int lane)
{
    int head_dim = launch.shape.head_dim;
    bool has_keys = most != -INFINITY;

    if (row >= w.rows)
        return;
    if (w.unit->splits > 1) {
        int64_t tile = ((int64_t)w.kv_head * w.unit->tiles + w.tile) * w.unit->splits + w.split;
        float *partial = tensors.partials + (w.unit->first_partial + tile * T::ROWS + row) *
                                                (head_dim + ATTENTION_PARTIAL_EXTRA);
#pragma unroll
        for (int d = 0; d < T::DIM_FRAGMENTS; d++)
            if (d * 8 < head_dim) {
                float2 two = make_float2(value[d * value_stride], value[d * value_stride + 1]);
                *(float2 *)(partial + d * 8 + lane % 4 * 2) = two;
            }
        if (lane % 4 == 0) {
            partial[head_dim] = most;
            partial[head_dim + 1] = sum;
        }
        return;
    }
    int at = w.first_row + row;
    int64_t query = w.unit->first_query + at / launch.group;
    int64_t place = query * launch.shape.q_heads + w.kv_head * launch.group + at % launch.group;
    uint16_t *out = tensors.out + place * head_dim;
    float scale = has_keys ? 1.0f / sum : 0.0f;

#pragma unroll
    for (int d = 0; d < T::DIM_FRAGMENTS; d++)
        if (d * 8 < head_dim)
            *(uint32_t *)(out + d * 8 + lane % 4 * 2) =
                bf16_pair(value[d * value_stride] * scale, value[d * value_stride + 1] * scale);
    if (tensors.lse != NULL && lane % 4 == 0)
        tensors.lse[place] = has_keys ? most * 0.693147181f + logf(sum) : -INFINITY;
}

/* Warps that shared the keys bring their sums together in warp 0's registers. */
template <class T>
static __device__ void merge_warps(sums<T> &acc, float *shared, int warp, int lane)
{
    constexpr int STRIDE = T::DIM + 2;

    __syncthreads(); /* the stages are free */
    for (int half = 0; half < 2; half++) {
        float *row = shared + (warp * 16 + lane / 4 + 8 * half) * STRIDE;

        for (int d = 0; d < T::DIM_FRAGMENTS; d++) {
            row[d * 8 + lane % 4 * 2] = acc.value[0][d][2 * half];
            row[d * 8 + lane % 4 * 2 + 1] = acc.value[0][d][2 * half + 1];
        }
        row[T::DIM] = acc.most[0][half];
        row[T::DIM + 1] = acc.sum[0][half];
    }
    __syncthreads();
    if (warp != 0)
        return;
    for (int half = 0; half < 2; half++) {
        float most = acc.most[0][half];

        for (int other = 1; other < T::KEY_WARPS; other++)
            most = fmaxf(most, shared[(other * 16 + lane / 4 + 8 * half) * STRIDE + T::DIM]);
        float base = most == -INFINITY ? 0.0f : most;
        float shrink = fast_exp2(acc.most[0][half] - base);

        acc.sum[0][half] *= shrink;
        for (int d = 0; d < T::DIM_FRAGMENTS; d++) {
            acc.value[0][d][2 * half] *= shrink;
            acc.value[0][d][2 * half + 1] *= shrink;
        }
        for (int other = 1; other < T::KEY_WARPS; other++) {
            const float *row = shared + (other * 16 + lane / 4 + 8 * half) * STRIDE;

            shrink = fast_exp2(row[T::DIM] - base);
            acc.sum[0][half] += row[T::DIM + 1] * shrink;
            for (int d = 0; d < T::DIM_FRAGMENTS; d++) {
                acc.value[0][d][2 * half] += row[d * 8 + lane % 4 * 2] * shrink;
                acc.value[0][d][2 * half + 1] += row[d * 8 + lane % 4 * 2 + 1] * shrink;
            }
        }
        acc.most[0][half] = most;
    }
}

template <class T>
static __device__ void finish(const work &w, const attention_launch &launch,
                              const attention_tensors &tensors, sums<T> &acc, float *shared,
                              int lane)
{
    int warp = threadIdx.x / LANES;

#pragma unroll
    for (int m = 0; m < T::ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            acc.sum[m][half] += __shfl_xor_sync(0xffffffffu, acc.sum[m][half], 1);
            acc.sum[m][half] += __shfl_xor_sync(0xffffffffu, acc.sum[m][half], 2);
        }
    if (T::KEY_WARPS > 1) {
        merge_warps<T>(acc, shared, warp, lane);
        if (warp != 0)
            return;
    }
#pragma unroll
    for (int m = 0; m < T::ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            write_row<T>(w, launch, tensors,
                         (warp % T::ROW_WARPS * T::ROW_TILES + m) * 16 + lane / 4 + 8 * half,
                         &acc.value[m][0][2 * half], 4, acc.most[m][half], acc.sum[m][half], lane);
}

template <class T>
static __global__ void __launch_bounds__(T::THREADS)
    attention(const __grid_constant__ attention_launch launch, const attention_tensors tensors)
{
    extern __shared__ __align__(128) uint16_t shared[];
    uint16_t *q = shared;
    uint16_t *stages = shared + T::ROWS * T::DIM;

    chain_let_next_begin();
    chain_wait(); /* counts of rows are results too */
    const work w = find_work<T>(launch);
    const int tiles = w.tiles[0] + w.tiles[1] + w.tiles[2];
    const int head_dim = launch.shape.head_dim;
    const int lane = threadIdx.x % LANES;
    const int row_warp = threadIdx.x / LANES % T::ROW_WARPS;
    const int key_warp = threadIdx.x / LANES / T::ROW_WARPS;
    const float scale = launch.shape.scale * 1.44269504f; /* exp2, not exp */
    sums<T> acc;

#pragma unroll
    for (int m = 0; m < T::ROW_TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            acc.most[m][half] = -INFINITY;
            acc.sum[m][half] = 0;
        }
#pragma unroll
        for (int d = 0; d < T::DIM_FRAGMENTS; d++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                acc.value[m][d][i] = 0;
    }
    load_queries<T>(q, w, launch, tensors.q);
#pragma unroll
    for (int tile = 0; tile < T::STAGES - 1; tile++) {
        if (tile < tiles)
            load_stage<T>(stages + tile * 2 * T::TILE, w, find_tile(w, tile), head_dim);
        copy_commit();
    }
    for (int tile = 0; tile < tiles; tile++) {
        const uint16_t *stage = stages + tile % T::STAGES * 2 * T::TILE;
        const int next = tile + T::STAGES - 1;
        float s[T::ROW_TILES][T::KEY_FRAGMENTS][4] = {};

        copy_wait<T::STAGES - 2>();
        __syncthreads(); /* the tile is there for all, and all have left the one before */
        if (next < tiles)
            load_stage<T>(stages + next % T::STAGES * 2 * T::TILE, w, find_tile(w, next), head_dim);
        copy_commit();
        score<T>(s, q, stage, row_warp, key_warp, lane);
        key_tile at = find_tile(w, tile);
        int64_t least = visible_rows(*w.unit, at.segment, w.kv_head, w.first_row / launch.group);
        if (at.first + KEYS > min(least, segment_end(w, at.segment)))
            mask<T>(s, w, at, launch.group, row_warp, key_warp, lane);
        soften<T>(s, acc, scale);
        add_values<T>(acc, s, stage + T::TILE, key_warp, lane);
    }
    copy_wait<0>();
    finish<T>(w, launch, tensors, acc, (float *)stages, lane);
}

enum {
    MERGE_PARTS = 4, /* of a row's splits, beside one another */
    SPLITS_MOST = ATTENTION_SPLITS_MAX,
    SPLITS_A_LANE = SPLITS_MOST / LANES,
};

static_assert((int)SPLITS_MOST % (int)LANES == 0, "every lane as many splits");

/* How much each split counts, and the row's sum of weights: every warp works it out for itself. */
struct merge_shares {
    float most, sum;
    float factor[SPLITS_A_LANE]; /* of splits lane, lane + LANES, .. */

    __device__ merge_shares(const float *partial, int64_t split_stride, int splits, int head_dim,
                            int lane)
    {
        float mosts[SPLITS_A_LANE], sums[SPLITS_A_LANE];

#pragma unroll
        for (int i = 0; i < SPLITS_A_LANE; i++) {
            const int split = lane + i * LANES;
            const float *own = partial + split * split_stride + head_dim;

            mosts[i] = split < splits ? own[0] : -INFINITY;
            sums[i] = split < splits ? own[1] : 0.0f;
        }
        most = mosts[0];
#pragma unroll
        for (int i = 1; i < SPLITS_A_LANE; i++)
            most = fmaxf(most, mosts[i]);
        most = warp_max(most);
        sum = 0;
#pragma unroll
        for (int i = 0; i < SPLITS_A_LANE; i++) {
            factor[i] = fast_exp2(mosts[i] - (most == -INFINITY ? 0.0f : most));
            sum += sums[i] * factor[i];
        }
        sum = warp_sum(sum);
    }

    __device__ float factor_of(int split) const
    {
        float own = factor[0];

#pragma unroll
        for (int i = 1; i < SPLITS_A_LANE; i++)
            own = split / LANES == i ? factor[i] : own;
        return __shfl_sync(0xffffffffu, own, split % LANES);
    }
};

/* Bring the splits of a row together: one block a row, a thread a column of some of its splits, so
 * that many loads are under way. */
template <int COLUMNS>
static __global__ void __launch_bounds__(COLUMNS *MERGE_PARTS)
    merge(const __grid_constant__ attention_launch launch, const attention_tensors tensors,
          int tile_rows)
{
    __shared__ float values[MERGE_PARTS][COLUMNS];
    int which = 0;
    int tile = blockIdx.x; /* over all units' tiles and KV heads */
    const int head_dim = launch.shape.head_dim;
    const int stride = head_dim + ATTENTION_PARTIAL_EXTRA;

    chain_let_next_begin();
    chain_wait();
    while (tile >= launch.unit[which].tiles * launch.shape.kv_heads)
        tile -= launch.unit[which++].tiles * launch.shape.kv_heads;
    const attention_unit &unit = launch.unit[which];
    const int kv_head = tile / unit.tiles;
    const int row = tile % unit.tiles * tile_rows + blockIdx.y;

    if (unit.splits == 1 || row >= unit.queries * launch.group)
        return;
    const int64_t split_stride = (int64_t)tile_rows * stride;
    const float *partial =
        tensors.partials +
        (unit.first_partial + (int64_t)tile * unit.splits * tile_rows + blockIdx.y) * stride;
    const int64_t place = (int64_t)(unit.first_query + row / launch.group) * launch.shape.q_heads +
                          kv_head * launch.group + row % launch.group;
    const merge_shares shares(partial, split_stride, unit.splits, head_dim, threadIdx.x % LANES);
    const int column = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    float value = 0;

#pragma unroll 8
    for (int split = part; split < unit.splits; split += MERGE_PARTS) {
        const float factor = shares.factor_of(split);

        if (column < head_dim)
            value += partial[split * split_stride + column] * factor;
    }
    values[part][column] = value;
    __syncthreads();
    if (part > 0 || column >= head_dim)
        return;
#pragma unroll
    for (int other = 1; other < MERGE_PARTS; other++)
        value += values[other][column];
    tensors.out[place * head_dim + column] =
        bf16_of_float(shares.sum > 0 ? value / shares.sum : 0.0f);
    if (tensors.lse != NULL && column == 0)
        tensors.lse[place] =
            shares.sum > 0 ? shares.most * 0.693147181f + logf(shares.sum) : -INFINITY;
}

template <class T>
static void start(cudaStream_t stream, const attention_launch *launch,
                  const attention_tensors *tensors)
{
    /* Beyond 48 KiB only on request; a repeated request costs next to nothing. */
    cudaFuncSetAttribute(attention<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         T::SHARED_BYTES);
    chain_launch(stream, attention<T>, launch->blocks, T::THREADS, T::SHARED_BYTES, *launch,
                 *tensors);
}

template <int DIM>
static void start_for_tile(cudaStream_t stream, const attention_launch *launch,
                           const attention_tensors *tensors)
{
    switch (launch->tile) {
    case ATTENTION_TILE_16:
        start<traits<DIM, 1, 1, 4>>(stream, launch, tensors);
        break;
    case ATTENTION_TILE_64:
        start<traits<DIM, 1, 4, 1>>(stream, launch, tensors);
        break;
    case ATTENTION_TILE_128:
        if constexpr (DIM <= 128)
            start<traits<DIM, 2, 4, 1>>(stream, launch, tensors);
        break;
    case ATTENTION_TILES:
        break;
    }
}

void cuda_launch_attention(cudaStream_t stream, const struct attention_launch *launch,
                           const struct attention_tensors *tensors)
{
    if (launch->shape.head_dim <= 64)
        start_for_tile<64>(stream, launch, tensors);
    else if (launch->shape.head_dim <= 128)
        start_for_tile<128>(stream, launch, tensors);
    else
        start_for_tile<256>(stream, launch, tensors);
}

void cuda_launch_attention_merge(cudaStream_t stream, const struct attention_launch *launch,
                                 const struct attention_tensors *tensors)
{
    int tiles = 0;

    for (int i = 0; i < launch->count; i++)
        tiles += launch->unit[i].tiles * launch->shape.kv_heads;
    int rows = attention_tile_rows(launch->tile);
    const dim3 grid(tiles, rows);

    if (launch->shape.head_dim <= 64)
        chain_launch(stream, merge<64>, grid, 64 * MERGE_PARTS, 0, *launch, *tensors, rows);
    else if (launch->shape.head_dim <= 128)
        chain_launch(stream, merge<128>, grid, 128 * MERGE_PARTS, 0, *launch, *tensors, rows);
    else
        chain_launch(stream, merge<256>, grid, 256 * MERGE_PARTS, 0, *launch, *tensors, rows);
}
