/* Attention tiles in C for any instruction set, in f32. A file that is compiled for one defines
 * ATTENTION_TILE_TABLE and includes this.
 *
 * Lanes are columns, in vectors of 8 that the compiler maps to what the processor has. Packed
 * arrays hold floats: queries [head_dim, lane], weights [key, lane], values [key, head_dim];
 * scores are [key, lane] and sums of values [head_dim, lane]. */
#include "base/bf16.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/exp_fast.h"

enum {
    LANES = ATTENTION_LANES,
    VECTOR = 8,
    VECTORS = LANES / VECTOR, /* of a row of lanes */
    ROWS = 8                  /* keys or dims of a register block: 8 accumulators */
};

typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), may_alias));

static int used_vectors(int columns)
{
    return (columns + VECTOR - 1) / VECTOR;
}

static void pack_queries(void *packed, const uint16_t *const *rows, int columns, int head_dim)
{
    float(*q)[LANES] = packed;
    for (int dim = 0; dim < head_dim; dim++)
        for (int column = 0; column < LANES; column++)
            q[dim][column] = column < columns ? bf16_to_float(rows[column][dim]) : 0.0f;
}

static void pack_values(void *packed, const uint16_t *v, int keys, int head_dim)
{
    float *out = packed;
    for (int i = 0; i < keys * head_dim; i++)
        out[i] = bf16_to_float(v[i]);
}

static void scores(float *out, struct attention_block *block, const void *q, const uint16_t *k,
                   int keys, int head_dim, int columns, bool is_masked)
{
    vector *scores_out = (vector *)out;
    for (int col = 0; col < used_vectors(columns); col++) {
        const vector *lanes = (const vector *)q + col;
        for (int key = 0; key < keys; key += ROWS) {
            vector acc[ROWS] = {{0}};
            const uint16_t *rows[ROWS];
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++) /* the last key stands in past the end */
                rows[row] =
                    k + (size_t)(key + row < keys ? key + row : keys - 1) * (size_t)head_dim;
            for (int dim = 0; dim < head_dim; dim++)
#pragma GCC unroll 8
                for (int row = 0; row < ROWS; row++)
                    acc[row] += lanes[dim * VECTORS] * bf16_to_float(rows[row][dim]);
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++)
                scores_out[(key + row) * VECTORS + col] = acc[row];
        }
    }
    int used = used_vectors(columns) * VECTOR;
    for (int lane = 0; lane < used; lane++)
        block->tile_most[lane] = ATTENTION_MASKED;
    for (int key = 0; key < keys; key++)
        for (int lane = 0; lane < used; lane++) {
            bool is_seen = !is_masked || key < block->limit[lane];
            float score = is_seen ? out[key * LANES + lane] : ATTENTION_MASKED;
            float most = block->tile_most[lane];
            block->tile_most[lane] = score > most ? score : most;
            out[key * LANES + lane] = score;
        }
}

static void softmax(void *weights, struct attention_block *block, const float *score, float scale,
                    int keys, int columns)
{
    float *restrict out = weights;
    float most[LANES];
    float sum[LANES];
    int used = used_vectors(columns) * VECTOR;
    for (int lane = 0; lane < used; lane++) {
        float before = block->most[lane];
        float tile = block->tile_most[lane] * scale;
        most[lane] = tile > before ? tile : before;
        block->rescale[lane] = exp2_fast(before - most[lane]);
        sum[lane] = block->sum[lane] * block->rescale[lane];
    }
    for (int key = 0; key < keys; key++)
        for (int lane = 0; lane < used; lane++) {
            float p = exp2_fast(score[key * LANES + lane] * scale - most[lane]);
            out[key * LANES + lane] = p;
            sum[lane] += p;
        }
    for (int lane = 0; lane < used; lane++) {
        block->most[lane] = most[lane];
        block->sum[lane] = sum[lane];
    }
}

static void values(float *acc, const struct attention_block *block, const void *weights,
                   const void *v, int keys, int head_dim, int columns)
{
    const float *all = v;
    for (int col = 0; col < used_vectors(columns); col++) {
        const vector *lanes = (const vector *)weights + col;
        vector rescale = ((const vector *)block->rescale)[col];
        for (int dim = 0; dim < head_dim; dim += ROWS) {
            vector *out = (vector *)acc + dim * VECTORS + col;
            vector sums[ROWS];
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++)
                sums[row] = out[row * VECTORS] * rescale;
            for (int key = 0; key < keys; key++)
#pragma GCC unroll 8
                for (int row = 0; row < ROWS; row++)
                    sums[row] += lanes[key * VECTORS] * all[key * head_dim + dim + row];
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++)
                out[row * VECTORS] = sums[row];
        }
    }
}

static void log_sum(float *lse, const struct attention_block *block, const float *score,
                    float scale, int keys, int columns)
{
    float most[LANES];
    float sum[LANES] = {0};
    int used = used_vectors(columns) * VECTOR;
    for (int lane = 0; lane < used; lane++)
        most[lane] = block->tile_most[lane] * scale;
    for (int key = 0; key < keys; key++)
        for (int lane = 0; lane < used; lane++)
            sum[lane] += exp2_fast(score[key * LANES + lane] * scale - most[lane]);
    for (int lane = 0; lane < used; lane++)
        lse[lane] = most[lane] * 0.693147181f + log_fast(sum[lane]);
}

static void peaks(float *out, const float *score, const float *offset, float scale, int keys,
                  int columns)
{
    int used = used_vectors(columns) * VECTOR;
    for (int key = 0; key < keys; key++) {
        const float *row = score + key * LANES;
        float most[VECTOR];
        for (int lane = 0; lane < VECTOR; lane++)
            most[lane] = out[key];
        for (int col = 0; col < used; col += VECTOR)
            for (int lane = 0; lane < VECTOR; lane++) {
                float value = row[col + lane] * scale - offset[col + lane];
                most[lane] = value > most[lane] ? value : most[lane];
            }
        for (int lane = 0; lane < VECTOR; lane++)
            out[key] = most[lane] > out[key] ? most[lane] : out[key];
    }
}

const struct attention_tile_ops ATTENTION_TILE_TABLE = {.columns_most = LANES,
                                                        .dim_stride = LANES,
                                                        .column_stride = 1,
                                                        .pack_queries = pack_queries,
                                                        .pack_values = pack_values,
                                                        .scores = scores,
                                                        .softmax = softmax,
                                                        .values = values,
                                                        .log_sum = log_sum,
                                                        .peaks = peaks};
