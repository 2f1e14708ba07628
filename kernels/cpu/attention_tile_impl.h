/* Attention tiles in plain C and f32: loops over lanes, which are columns, that the compiler vectorises. A file that
 * is compiled for one instruction set defines ATTENTION_TILE_TABLE and includes this. Packed
 * arrays hold floats: queries [head_dim, lane], weights [key, lane], values [key, head_dim]; sums
 * of values are [head_dim, lane]. */
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/exp_fast.h"

enum { LANES = ATTENTION_LANES, CHUNK = 16 /* lanes that stay in registers together */ };

static int used_lanes(int columns)
{
    return (columns + CHUNK - 1) / CHUNK * CHUNK;
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
    int lanes = used_lanes(columns);
    for (int lane = 0; lane < lanes; lane++)
        block->tile_most[lane] = ATTENTION_MASKED;
    for (int col = 0; col < lanes; col += CHUNK) {
        const float *q_lanes = (const float *)q + col;
        for (int key = 0; key < keys; key++) {
            float acc[CHUNK] = {0};
            const uint16_t *row = k + (size_t)key * (size_t)head_dim;
            for (int dim = 0; dim < head_dim; dim++) {
                float value = bf16_to_float(row[dim]);
                for (int i = 0; i < CHUNK; i++)
                    acc[i] += q_lanes[dim * LANES + i] * value;
            }
            for (int i = 0; i < CHUNK; i++) {
                bool is_seen = !is_masked || key < block->limit[col + i];
                float score = is_seen ? acc[i] : ATTENTION_MASKED;
                float most = block->tile_most[col + i];
                block->tile_most[col + i] = score > most ? score : most;
                out[key * LANES + col + i] = score;
            }
        }
    }
}

static void softmax(void *weights, struct attention_block *block, const float *score, float scale,
                    int keys, int columns)
{
    int lanes = used_lanes(columns);
    float *out = weights;
    for (int lane = 0; lane < lanes; lane++) {
        float before = block->most[lane];
        float tile = block->tile_most[lane] * scale;
        float most = tile > before ? tile : before;
        block->most[lane] = most;
        block->rescale[lane] = exp2_fast(before - most);
        block->sum[lane] *= block->rescale[lane];
    }
    for (int key = 0; key < keys; key++)
        for (int lane = 0; lane < lanes; lane++) {
            float p = exp2_fast(score[key * LANES + lane] * scale - block->most[lane]);
            out[key * LANES + lane] = p;
            block->sum[lane] += p;
        }
}

static void values(float *acc, const struct attention_block *block, const void *weights,
                   const void *v, int keys, int head_dim, int columns)
{
    int lanes = used_lanes(columns);
    const float *rows = v;
    for (int col = 0; col < lanes; col += CHUNK) {
        const float *weight_lanes = (const float *)weights + col;
        for (int dim = 0; dim < head_dim; dim++) {
            float sums[CHUNK];
            for (int i = 0; i < CHUNK; i++)
                sums[i] = acc[dim * LANES + col + i] * block->rescale[col + i];
            for (int key = 0; key < keys; key++) {
                float value = rows[(size_t)key * (size_t)head_dim + (size_t)dim];
                for (int i = 0; i < CHUNK; i++)
                    sums[i] += weight_lanes[key * LANES + i] * value;
            }
            for (int i = 0; i < CHUNK; i++)
                acc[dim * LANES + col + i] = sums[i];
        }
    }
}

const struct attention_tile_ops ATTENTION_TILE_TABLE = {.columns_most = LANES,
                                                        .dim_stride = LANES,
                                                        .column_stride = 1,
                                                        .pack_queries = pack_queries,
                                                        .pack_values = pack_values,
                                                        .scores = scores,
                                                        .softmax = softmax,
                                                        .values = values};
