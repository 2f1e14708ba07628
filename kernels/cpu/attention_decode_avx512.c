/* Attention for a few columns, as decoding has them, with bf16 dot products. Too few to fill
 * vectors with columns: here lanes are keys for scores and weights, dims for values, so nothing
 * is computed for absent columns and keys and values are read once, as stored.
 *
 * Formats: queries [column, HEAD_DIM_MOST] bf16, scores [column, key] f32, weights [column, key]
 * bf16, values as stored, sums of values [column, HEAD_DIM_MOST]. */
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/attention_vectors_avx512.h"

enum {
    COLUMNS_MOST = 8,
    COLUMNS_AT_ONCE = 4,
    KEYS = ATTENTION_KEYS,
    LANES = 16,
    CHUNK = 32, /* dims of a register of bf16 */
    STRIDE = ATTENTION_HEAD_DIM_MOST
};

/* Fetch what stands a tile further: decoding waits for memory, and the hardware's prefetchers
 * stop at every page. Harmless past the end. */
INLINE void prefetch_next_tile(const uint16_t *row, int head_dim)
{
    const char *next = (const char *)row + (size_t)(KEYS * head_dim) * sizeof(*row);
    _mm_prefetch(next, _MM_HINT_T1);
}

/* Lanes of the chunk at `dim` that hold dims. */
INLINE __mmask32 dims_mask(int head_dim, int dim)
{
    int left = head_dim - dim;
    return left >= CHUNK ? 0xffffffffu : (1u << left) - 1u;
}

static void pack_queries(void *packed, const uint16_t *const *rows, int columns, int head_dim)
{
    uint16_t(*q)[STRIDE] = packed;
    for (int column = 0; column < columns; column++) {
        memset(q[column], 0, sizeof(q[column]));
        memcpy(q[column], rows[column], (size_t)head_dim * sizeof(uint16_t));
    }
}

/* Scores of the 16 keys from `key` on; past the tile's end the last key stands in. */
INLINE __m512 score_keys(const uint16_t *query, const uint16_t *k, int key, int keys, int head_dim,
                         bool is_first_reader)
{
    __m512 sums[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        sums[i] = _mm512_setzero_ps();
    for (int dim = 0; dim < head_dim; dim += CHUNK) {
        __m512i chunk = _mm512_loadu_si512(query + dim);
        __mmask32 mask = dims_mask(head_dim, dim);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            int index = key + i < keys ? key + i : keys - 1;
            const uint16_t *row = k + (size_t)index * (size_t)head_dim + dim;
            if (is_first_reader)
                prefetch_next_tile(row, head_dim);
            sums[i] = dot_add(sums[i], chunk, _mm512_maskz_loadu_epi16(mask, row));
        }
    }
    return fold_lanes(sums, true);
}

static void scores(float *out, struct attention_block *block, const void *q, const uint16_t *k,
                   int keys, int head_dim, int columns, bool is_masked)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int column = 0; column < columns; column++) {
        const uint16_t *query = (const uint16_t *)q + column * STRIDE;
        int limit = is_masked ? block->limit[column] : keys;
        __m512 most = _mm512_set1_ps(ATTENTION_MASKED);
        for (int key = 0; key < keys; key += LANES) {
            __m512 score = column == 0 ? score_keys(query, k, key, keys, head_dim, true)
                                       : score_keys(query, k, key, keys, head_dim, false);
            __mmask16 seen = _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(limit - key), lane);
            score = _mm512_mask_mov_ps(_mm512_set1_ps(ATTENTION_MASKED), seen, score);
            most = _mm512_max_ps(most, score);
            _mm512_storeu_ps(out + column * KEYS + key, score);
        }
        block->tile_most[column] = _mm512_reduce_max_ps(most);
    }
}

static void softmax(void *weights, struct attention_block *block, const float *score, float scale,
                    int keys, int columns)
{
    uint16_t *out = weights;
    for (int column = 0; column < columns; column++) {
        float before = block->most[column];
        float tile = block->tile_most[column] * scale;
        float most = tile > before ? tile : before;
        __m512 sum = _mm512_setzero_ps();
        for (int key = 0; key < keys; key += LANES) {
            __m512 x = _mm512_loadu_ps(score + column * KEYS + key);
            __m512 p = exp2_fast(_mm512_fmsub_ps(x, _mm512_set1_ps(scale), _mm512_set1_ps(most)));
            sum = _mm512_add_ps(sum, p);
            _mm256_storeu_si256((__m256i *)(out + column * KEYS + key),
                                (__m256i)_mm512_cvtneps_pbh(p));
        }
        float rescale = _mm512_cvtss_f32(exp2_fast(_mm512_set1_ps(before - most)));
        block->most[column] = most;
        block->rescale[column] = rescale;
        block->sum[column] = block->sum[column] * rescale + _mm512_reduce_add_ps(sum);
    }
}

/* acc[column, dim .. dim + CHUNK - 1] of `columns` columns. */
INLINE void value_chunk(float *acc, const float *rescale, const uint16_t *weights,
                        const uint16_t *v, int keys, int head_dim, __mmask32 mask, int columns)
{
    const __m512i low_pairs =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                         37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high_pairs = _mm512_add_epi16(low_pairs, _mm512_set1_epi16(16));
    __m512 sums[COLUMNS_AT_ONCE][2];
#pragma GCC unroll 4
    for (int column = 0; column < columns; column++) {
        __m512 factor = _mm512_set1_ps(rescale[column]);
        const float *from = acc + column * STRIDE;
        sums[column][0] = _mm512_mul_ps(_mm512_loadu_ps(from), factor);
        sums[column][1] = _mm512_mul_ps(_mm512_loadu_ps(from + LANES), factor);
    }
    for (int key = 0; key < keys; key += 2) {
        const uint16_t *row = v + (size_t)key * (size_t)head_dim;
        __m512i even = _mm512_maskz_loadu_epi16(mask, row);
        __m512i odd = _mm512_setzero_si512();
        prefetch_next_tile(row, head_dim);
        if (key + 1 < keys) {
            prefetch_next_tile(row + head_dim, head_dim);
            odd = _mm512_maskz_loadu_epi16(mask, row + head_dim);
        }
        __m512i low = _mm512_permutex2var_epi16(even, low_pairs, odd);
        __m512i high = _mm512_permutex2var_epi16(even, high_pairs, odd);
#pragma GCC unroll 4
        for (int column = 0; column < columns; column++) {
            __m512i pair = broadcast_pair(weights + column * KEYS + key);
            sums[column][0] = dot_add(sums[column][0], low, pair);
            sums[column][1] = dot_add(sums[column][1], high, pair);
        }
    }
#pragma GCC unroll 4
    for (int column = 0; column < columns; column++) {
        _mm512_storeu_ps(acc + column * STRIDE, sums[column][0]);
        _mm512_storeu_ps(acc + column * STRIDE + LANES, sums[column][1]);
    }
}

static void values(float *acc, const struct attention_block *block, const void *weights,
                   const void *v, int keys, int head_dim, int columns)
{
    for (int first = 0; first < columns; first += COLUMNS_AT_ONCE) {
        const uint16_t *column_weights = (const uint16_t *)weights + first * KEYS;
        const float *rescale = block->rescale + first;
        for (int dim = 0; dim < head_dim; dim += CHUNK) {
            float *sums = acc + first * STRIDE + dim;
            const uint16_t *from = (const uint16_t *)v + dim;
            __mmask32 mask = dims_mask(head_dim, dim);
            switch (columns - first) {
            case 1:
                value_chunk(sums, rescale, column_weights, from, keys, head_dim, mask, 1);
                break;
            case 2:
                value_chunk(sums, rescale, column_weights, from, keys, head_dim, mask, 2);
                break;
            case 3:
                value_chunk(sums, rescale, column_weights, from, keys, head_dim, mask, 3);
                break;
            default:
                value_chunk(sums, rescale, column_weights, from, keys, head_dim, mask, 4);
                break;
            }
        }
    }
}

static void log_sum(float *lse, const struct attention_block *block, const float *score,
                    float scale, int keys, int columns)
{
    for (int column = 0; column < columns; column++) {
        float most = block->tile_most[column] * scale;
        __m512 sum = _mm512_setzero_ps();
        for (int key = 0; key < keys; key += LANES) { /* past the end: masked, far under most */
            __m512 x = _mm512_loadu_ps(score + column * KEYS + key);
            x = _mm512_fmsub_ps(x, _mm512_set1_ps(scale), _mm512_set1_ps(most));
            sum = _mm512_add_ps(sum, exp2_fast(x));
        }
        lse[column] = most * 0.693147181f +
                      _mm512_cvtss_f32(log_fast(_mm512_set1_ps(_mm512_reduce_add_ps(sum))));
    }
}

static void peaks(float *out, const float *score, const float *offset, float scale, int keys,
                  int columns)
{
    for (int key = 0; key < keys; key += LANES) {
        __m512 most = _mm512_loadu_ps(out + key);
        for (int column = 0; column < columns; column++) {
            __m512 x = _mm512_loadu_ps(score + column * KEYS + key);
            most = _mm512_max_ps(
                most, _mm512_fmsub_ps(x, _mm512_set1_ps(scale), _mm512_set1_ps(offset[column])));
        }
        _mm512_storeu_ps(out + key, most);
    }
}

const struct attention_tile_ops attention_decode_avx512 = {.columns_most = COLUMNS_MOST,
                                                           .dim_stride = 1,
                                                           .column_stride = STRIDE,
                                                           .pack_queries = pack_queries,
                                                           .scores = scores,
                                                           .softmax = softmax,
                                                           .values = values,
                                                           .log_sum = log_sum,
                                                           .peaks = peaks};
