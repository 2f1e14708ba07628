/* Attention tiles with bf16 dot products (vdpbf16ps): each instruction adds the products of two
 * bf16 pairs a lane, so packed arrays hold pairs along the summed dimension: queries
 * [head_dim / 2, lane, 2], weights [keys / 2, lane, 2], values [keys / 2, head_dim, 2]; scores are
 * [key, lane] and sums of values [head_dim, lane] f32. A lane is a column. */
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/attention_vectors_avx512.h"

enum {
    LANES = ATTENTION_LANES,
    VECTOR = 16,     /* floats, or bf16 pairs, of a register */
    VECTORS_MOST = 4 /* registers of columns in a block */
};

/* A register block is `rows` keys (or dims) x `vectors` columns, summed in `chains` independent
 * chains: about 16 accumulators hide the latency of vdpbf16ps and leave room for operands. */
enum { ROWS_MOST = 8 };

INLINE __m512i load_pairs(const void *from)
{
    return _mm512_loadu_si512(from);
}

static void pack_queries(void *packed, const uint16_t *const *rows, int columns, int head_dim)
{
    uint32_t(*pairs)[LANES] = packed;
    for (int pair = 0; pair < head_dim / 2; pair++)
        for (int column = columns; column < LANES; column++)
            pairs[pair][column] = 0;
    for (int column = 0; column < columns; column++)
        for (int pair = 0; pair < head_dim / 2; pair++)
            memcpy(&pairs[pair][column], rows[column] + 2 * pair, sizeof(uint32_t));
}

static void pack_values(void *packed, const uint16_t *v, int keys, int head_dim)
{
    uint32_t *pairs = packed;
    for (int key = 0; key < keys; key += 2) {
        const uint16_t *even = v + (size_t)key * (size_t)head_dim;
        const uint16_t *odd = even + head_dim;
        uint32_t *out = pairs + (size_t)(key / 2) * (size_t)head_dim;
        for (int dim = 0; dim < head_dim; dim += 8) {
            __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(even + dim)));
            __m256i high = _mm256_setzero_si256();
            if (key + 1 < keys) /* an odd last key is paired with zeros */
                high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(odd + dim)));
            _mm256_storeu_si256((__m256i *)(out + dim),
                                _mm256_or_si256(low, _mm256_slli_epi32(high, 16)));
        }
    }
}

/* acc[row][col] = sum over `pairs` of columns[pair, col] . row's pairs, which are `pair_stride`
 * apart; rows[row] points at the first. */
INLINE void dot_block(__m512 acc[ROWS_MOST][VECTORS_MOST], const uint32_t *columns,
                      const uint32_t *const *rows_of, size_t pair_stride, int pairs, int rows,
                      int vectors, int chains)
{
    __m512 chain[ROWS_MOST][VECTORS_MOST];
    if (chains == 2) {
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
            chain[row][0] = _mm512_setzero_ps();
    }
    int pair = 0;
    for (; pair + chains <= pairs; pair += chains) {
        __m512i values[VECTORS_MOST];
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            values[col] = load_pairs(columns + pair * LANES + col * VECTOR);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            __m512i one = broadcast_pair(rows_of[row] + (size_t)pair * pair_stride);
#pragma GCC unroll 4
            for (int col = 0; col < vectors; col++)
                acc[row][col] = dot_add(acc[row][col], values[col], one);
        }
        if (chains == 2) {
            __m512i second = load_pairs(columns + (pair + 1) * LANES);
#pragma GCC unroll 8
            for (int row = 0; row < rows; row++)
                chain[row][0] =
                    dot_add(chain[row][0], second,
                            broadcast_pair(rows_of[row] + (size_t)(pair + 1) * pair_stride));
        }
    }
    if (chains == 1)
        return;
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) {
        if (pair < pairs)
            acc[row][0] = dot_add(acc[row][0], load_pairs(columns + pair * LANES),
                                  broadcast_pair(rows_of[row] + (size_t)pair * pair_stride));
        acc[row][0] = _mm512_add_ps(acc[row][0], chain[row][0]);
    }
}

INLINE void score_tile(float *scores, struct attention_block *block, const uint32_t *q,
                       const uint16_t *k, int keys, int head_dim, int rows, int vectors,
                       bool is_masked)
{
    __m512 most[VECTORS_MOST];
#pragma GCC unroll 4
    for (int col = 0; col < vectors; col++)
        most[col] = _mm512_set1_ps(ATTENTION_MASKED);
    for (int key = 0; key < keys; key += rows) {
        const uint32_t *rows_of[ROWS_MOST];
        __m512 acc[ROWS_MOST][VECTORS_MOST];
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            /* Past the tile's end the last key stands in: its scores go to unused rows. */
            int index = key + row < keys ? key + row : keys - 1;
            rows_of[row] = (const uint32_t *)(const void *)(k + (size_t)index * (size_t)head_dim);
#pragma GCC unroll 4
            for (int col = 0; col < vectors; col++)
                acc[row][col] = _mm512_setzero_ps();
        }
        dot_block(acc, q, rows_of, 1, head_dim / 2, rows, vectors, vectors == 1 ? 2 : 1);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
#pragma GCC unroll 4
            for (int col = 0; col < vectors; col++) {
                __m512 score = acc[row][col];
                if (is_masked) {
                    __m512i limit = _mm512_loadu_si512(block->limit + col * VECTOR);
                    __mmask16 seen = _mm512_cmpgt_epi32_mask(limit, _mm512_set1_epi32(key + row));
                    score = _mm512_mask_mov_ps(_mm512_set1_ps(ATTENTION_MASKED), seen, score);
                }
                most[col] = _mm512_max_ps(most[col], score);
                _mm512_storeu_ps(scores + (key + row) * LANES + col * VECTOR, score);
            }
    }
#pragma GCC unroll 4
    for (int col = 0; col < vectors; col++)
        _mm512_storeu_ps(block->tile_most + col * VECTOR, most[col]);
}

/* call(rows, vectors): the register block for as many columns. */
#define DISPATCH_COLUMNS(call)                                                                     \
    switch ((columns + VECTOR - 1) / VECTOR) {                                                     \
    case 1:                                                                                        \
        call(8, 1);                                                                                \
        break;                                                                                     \
    case 2:                                                                                        \
        call(8, 2);                                                                                \
        break;                                                                                     \
    case 3:                                                                                        \
        call(4, 3);                                                                                \
        break;                                                                                     \
    default:                                                                                       \
        call(4, 4);                                                                                \
        break;                                                                                     \
    }

static void scores(float *out, struct attention_block *block, const void *q, const uint16_t *k,
                   int keys, int head_dim, int columns, bool is_masked)
{
#define SCORES(rows, vectors)                                                                      \
    if (is_masked)                                                                                 \
        score_tile(out, block, q, k, keys, head_dim, rows, vectors, true);                         \
    else                                                                                           \
        score_tile(out, block, q, k, keys, head_dim, rows, vectors, false)
    DISPATCH_COLUMNS(SCORES)
#undef SCORES
}

/* (even, odd) rounded to bf16 and interleaved to pairs. */
INLINE __m512i to_pairs(__m512 even, __m512 odd)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

static void softmax(void *weights, struct attention_block *block, const float *score, float scale,
                    int keys, int columns)
{
    uint32_t *pairs = weights;
    const __m512 scales = _mm512_set1_ps(scale);
    for (int col = 0; col < columns; col += VECTOR) {
        __m512 before = _mm512_loadu_ps(block->most + col);
        __m512 tile = _mm512_mul_ps(_mm512_loadu_ps(block->tile_most + col), scales);
        __m512 most = _mm512_max_ps(before, tile);
        __m512 rescale = exp2_fast(_mm512_sub_ps(before, most));
        __m512 even_sum = _mm512_setzero_ps();
        __m512 odd_sum = _mm512_setzero_ps();
        for (int key = 0; key < keys; key += 2) {
            const float *row = score + key * LANES + col;
            __m512 even = exp2_fast(_mm512_fmsub_ps(_mm512_loadu_ps(row), scales, most));
            __m512 odd = _mm512_setzero_ps();
            if (key + 1 < keys)
                odd = exp2_fast(_mm512_fmsub_ps(_mm512_loadu_ps(row + LANES), scales, most));
            even_sum = _mm512_add_ps(even_sum, even);
            odd_sum = _mm512_add_ps(odd_sum, odd);
            _mm512_storeu_si512(pairs + key / 2 * LANES + col, to_pairs(even, odd));
        }
        __m512 sum = _mm512_fmadd_ps(_mm512_loadu_ps(block->sum + col), rescale,
                                     _mm512_add_ps(even_sum, odd_sum));
        _mm512_storeu_ps(block->most + col, most);
        _mm512_storeu_ps(block->rescale + col, rescale);
        _mm512_storeu_ps(block->sum + col, sum);
    }
}

INLINE void value_rows(float *acc, const float *rescale, const uint32_t *weights, const uint32_t *v,
                       int pairs, int head_dim, int rows, int vectors)
{
    __m512 sums[ROWS_MOST][VECTORS_MOST];
    const uint32_t *rows_of[ROWS_MOST];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) {
        rows_of[row] = v + row;
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            sums[row][col] = _mm512_mul_ps(_mm512_loadu_ps(acc + row * LANES + col * VECTOR),
                                           _mm512_loadu_ps(rescale + col * VECTOR));
    }
    dot_block(sums, weights, rows_of, (size_t)head_dim, pairs, rows, vectors, vectors == 1 ? 2 : 1);
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            _mm512_storeu_ps(acc + row * LANES + col * VECTOR, sums[row][col]);
}

static void values(float *acc, const struct attention_block *block, const void *weights,
                   const void *v, int keys, int head_dim, int columns)
{
    const uint32_t *pairs = v;
#define VALUES(rows, vectors)                                                                      \
    for (int dim = 0; dim < head_dim; dim += (rows))                                               \
    value_rows(acc + dim * LANES, block->rescale, weights, pairs + dim, (keys + 1) / 2, head_dim,  \
               rows, vectors)
    DISPATCH_COLUMNS(VALUES)
#undef VALUES
}

static void log_sum(float *lse, const struct attention_block *block, const float *score,
                    float scale, int keys, int columns)
{
    const __m512 scales = _mm512_set1_ps(scale);
    for (int col = 0; col < columns; col += VECTOR) {
        __m512 most = _mm512_mul_ps(_mm512_loadu_ps(block->tile_most + col), scales);
        __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        const float *row = score + col;
        int key = 0;
        for (; key + 2 <= keys; key += 2, row += 2 * LANES)
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                __m512 x = _mm512_loadu_ps(row + i * LANES);
                sums[i] = _mm512_add_ps(sums[i], exp2_fast(_mm512_fmsub_ps(x, scales, most)));
            }
        if (key < keys) {
            __m512 x = _mm512_loadu_ps(row);
            sums[0] = _mm512_add_ps(sums[0], exp2_fast(_mm512_fmsub_ps(x, scales, most)));
        }
        __m512 log = log_fast(_mm512_add_ps(sums[0], sums[1]));
        _mm512_storeu_ps(lse + col, _mm512_fmadd_ps(most, _mm512_set1_ps(0.693147181f), log));
    }
}

static void peaks(float *out, const float *score, const float *offset, float scale, int keys,
                  int columns)
{
    const __m512 scales = _mm512_set1_ps(scale);
    for (int key = 0; key < keys; key += VECTOR) {
        __m512 most[VECTOR];
#pragma GCC unroll 16
        for (int i = 0; i < VECTOR; i++) {
            /* Past the tile's end the last key stands in. */
            const float *row = score + (key + i < keys ? key + i : keys - 1) * LANES;
            most[i] = _mm512_set1_ps(ATTENTION_LEAST);
            for (int col = 0; col < columns; col += VECTOR)
                most[i] = _mm512_max_ps(most[i], _mm512_fmsub_ps(_mm512_loadu_ps(row + col), scales,
                                                                 _mm512_loadu_ps(offset + col)));
        }
        __m512 peak = fold_lanes(most, false);
        _mm512_storeu_ps(out + key, _mm512_max_ps(_mm512_loadu_ps(out + key), peak));
    }
}

const struct attention_tile_ops attention_tile_avx512 = {.columns_most = LANES,
                                                         .dim_stride = LANES,
                                                         .column_stride = 1,
                                                         .pack_queries = pack_queries,
                                                         .pack_values = pack_values,
                                                         .scores = scores,
                                                         .softmax = softmax,
                                                         .values = values,
                                                         .log_sum = log_sum,
                                                         .peaks = peaks};
