/* Attention tiles with bf16 dot products (vdpbf16ps): each instruction adds the products of two
 * bf16 pairs a lane, so packed arrays hold pairs along the summed dimension: queries
 * [head_dim / 2, lane, 2], weights [keys / 2, lane, 2], values [keys / 2, head_dim, 2]. */
#include "kernels/cpu/attention_tile.h"

#include <immintrin.h>
#include <string.h>

enum {
    LANES = ATTENTION_LANES,
    VECTOR = 16,   /* floats, or bf16 pairs, of a register */
    BLOCK_ROWS = 4 /* keys or dims of a register block: 4 x 4 accumulators, 4 columns, 1 pair */
};

#define INLINE static inline __attribute__((always_inline))

static __m512i load_pairs(const void *from)
{
    return _mm512_loadu_si512(from);
}

INLINE __m512i broadcast_pair(const void *from)
{
    int32_t pair;
    memcpy(&pair, from, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

INLINE __m512 dot_add(__m512 sum, __m512i a, __m512i b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
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

/* Scores of keys key .. key + rows - 1 (past the tile's end the last key stands in). */
INLINE void score_rows(float *scores, __m512 *most, const int32_t *limit, const uint32_t *q,
                       const uint16_t *const *k, int key, int head_dim, int vectors)
{
    __m512 acc[BLOCK_ROWS][4];
#pragma GCC unroll 4
    for (int row = 0; row < BLOCK_ROWS; row++)
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            acc[row][col] = _mm512_setzero_ps();
    for (int pair = 0; pair < head_dim / 2; pair++) {
        __m512i columns[4];
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            columns[col] = load_pairs(q + pair * LANES + col * VECTOR);
#pragma GCC unroll 4
        for (int row = 0; row < BLOCK_ROWS; row++) {
            __m512i values = broadcast_pair(k[row] + 2 * pair);
#pragma GCC unroll 4
            for (int col = 0; col < vectors; col++)
                acc[row][col] = dot_add(acc[row][col], columns[col], values);
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < BLOCK_ROWS; row++)
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++) {
            __m512 score = acc[row][col];
            if (limit) {
                __mmask16 seen = _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(limit + col * VECTOR),
                                                         _mm512_set1_epi32(key + row));
                score = _mm512_mask_mov_ps(_mm512_set1_ps(ATTENTION_MASKED), seen, score);
            }
            most[col] = _mm512_max_ps(most[col], score);
            _mm512_storeu_ps(scores + (key + row) * LANES + col * VECTOR, score);
        }
}

INLINE void score_tile(float *scores, struct attention_block *block, const uint32_t *q,
                       const uint16_t *k, int keys, int head_dim, int vectors, bool is_masked)
{
    __m512 most[4];
#pragma GCC unroll 4
    for (int col = 0; col < vectors; col++)
        most[col] = _mm512_set1_ps(ATTENTION_MASKED);
    for (int key = 0; key < keys; key += BLOCK_ROWS) {
        const uint16_t *rows[BLOCK_ROWS];
#pragma GCC unroll 4
        for (int row = 0; row < BLOCK_ROWS; row++) {
            int index = key + row < keys ? key + row : keys - 1;
            rows[row] = k + (size_t)index * (size_t)head_dim;
        }
        score_rows(scores, most, is_masked ? block->limit : NULL, q, rows, key, head_dim, vectors);
    }
#pragma GCC unroll 4
    for (int col = 0; col < vectors; col++)
        _mm512_storeu_ps(block->tile_most + col * VECTOR, most[col]);
}

#define DISPATCH_LANES(call)                                                                       \
    switch (lanes / VECTOR) {                                                                      \
    case 1:                                                                                        \
        call(1);                                                                                   \
        break;                                                                                     \
    case 2:                                                                                        \
        call(2);                                                                                   \
        break;                                                                                     \
    case 3:                                                                                        \
        call(3);                                                                                   \
        break;                                                                                     \
    default:                                                                                       \
        call(4);                                                                                   \
        break;                                                                                     \
    }

static void scores(float *out, struct attention_block *block, const void *q, const uint16_t *k,
                   int keys, int head_dim, int lanes, bool is_masked)
{
#define SCORES(vectors)                                                                            \
    if (is_masked)                                                                                 \
        score_tile(out, block, q, k, keys, head_dim, vectors, true);                               \
    else                                                                                           \
        score_tile(out, block, q, k, keys, head_dim, vectors, false)
    DISPATCH_LANES(SCORES)
#undef SCORES
}

/* 2^x for x <= 0, relative error under 5e-6: an integer power times a polynomial of the rest. */
INLINE __m512 exp2_fast(__m512 x)
{
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(9.6181291e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
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
                    int keys, int lanes)
{
    uint32_t *pairs = weights;
    const __m512 scales = _mm512_set1_ps(scale);
    for (int col = 0; col < lanes; col += VECTOR) {
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
                       int pairs, int head_dim, int vectors)
{
    __m512 sums[BLOCK_ROWS][4];
#pragma GCC unroll 4
    for (int col = 0; col < vectors; col++) {
        __m512 factor = _mm512_loadu_ps(rescale + col * VECTOR);
#pragma GCC unroll 4
        for (int row = 0; row < BLOCK_ROWS; row++)
            sums[row][col] =
                _mm512_mul_ps(_mm512_loadu_ps(acc + row * LANES + col * VECTOR), factor);
    }
    for (int pair = 0; pair < pairs; pair++) {
        __m512i columns[4];
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            columns[col] = load_pairs(weights + pair * LANES + col * VECTOR);
#pragma GCC unroll 4
        for (int row = 0; row < BLOCK_ROWS; row++) {
            __m512i values = broadcast_pair(v + (size_t)pair * (size_t)head_dim + row);
#pragma GCC unroll 4
            for (int col = 0; col < vectors; col++)
                sums[row][col] = dot_add(sums[row][col], columns[col], values);
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < BLOCK_ROWS; row++)
#pragma GCC unroll 4
        for (int col = 0; col < vectors; col++)
            _mm512_storeu_ps(acc + row * LANES + col * VECTOR, sums[row][col]);
}

static void values(float *acc, const struct attention_block *block, const void *weights,
                   const void *v, int keys, int head_dim, int lanes)
{
    const uint32_t *pairs = v;
#define VALUES(vectors)                                                                            \
    for (int dim = 0; dim < head_dim; dim += BLOCK_ROWS)                                           \
    value_rows(acc + dim * LANES, block->rescale, weights, pairs + dim, (keys + 1) / 2, head_dim,  \
               vectors)
    DISPATCH_LANES(VALUES)
#undef VALUES
}

const struct attention_tile_ops attention_tile_avx512 = {.pack_queries = pack_queries,
                                                         .pack_values = pack_values,
                                                         .scores = scores,
                                                         .softmax = softmax,
                                                         .values = values};
