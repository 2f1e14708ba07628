/* The row-wise loops in plain C, written so that the compiler vectorises them. A file that is
 * compiled for one instruction set defines ROWS_TABLE and includes this. */
#include "base/bf16.h"
#include "kernels/cpu/exp_fast.h"
#include "kernels/cpu/rows.h"

#include <math.h>

/* Sums run in this many lanes: the compiler may not reorder float additions itself. */
enum { LANES = 32 };

static float sum_of_lanes(const float lanes[LANES])
{
    float sum = 0;
    for (int j = 0; j < LANES; j++)
        sum += lanes[j];
    return sum;
}

static float sum_of_squares(const float *x, int cols)
{
    float lanes[LANES] = {0};
    int i = 0;
    for (; i + LANES <= cols; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] += x[i + j] * x[i + j];
    for (int j = 0; i + j < cols; j++)
        lanes[j] += x[i + j] * x[i + j];
    return sum_of_lanes(lanes);
}

static float sum_exp(const float *x, float most, int cols)
{
    float lanes[LANES] = {0};
    int i = 0;
    for (; i + LANES <= cols; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] += exp_fast(x[i + j] - most);
    for (int j = 0; i + j < cols; j++)
        lanes[j] += exp_fast(x[i + j] - most);
    return sum_of_lanes(lanes);
}

static float inverse_rms(const float *x, int cols, float eps)
{
    return 1.0f / sqrtf(sum_of_squares(x, cols) / (float)cols + eps);
}

static void residual_norm(uint16_t *restrict out, float *restrict x, const float *restrict delta,
                          const float *restrict rest, const float *restrict weight, int cols,
                          float eps)
{
    if (delta && rest) {
        for (int i = 0; i < cols; i++)
            x[i] += delta[i] + rest[i];
    } else if (delta) {
        for (int i = 0; i < cols; i++)
            x[i] += delta[i];
    }
    if (!out)
        return;
    float scale = inverse_rms(x, cols, eps);
    for (int i = 0; i < cols; i++)
        out[i] = bf16_from_float(x[i] * scale * weight[i]);
}

static void norm(float *restrict out, const float *restrict x, const float *restrict weight,
                 int cols, float eps)
{
    float scale = inverse_rms(x, cols, eps);
    for (int i = 0; i < cols; i++)
        out[i] = x[i] * scale * weight[i];
}

static void swiglu(uint16_t *restrict out, const float *restrict gate, const float *restrict up,
                   int cols)
{
    for (int i = 0; i < cols; i++)
        out[i] = bf16_from_float(gate[i] / (1.0f + exp_fast(-gate[i])) * up[i]);
}

static void rotate(uint16_t *restrict out, const float *restrict x, const float *restrict table,
                   int half)
{
    for (int i = 0; i < half; i++) {
        float c = table[2 * i];
        float s = table[2 * i + 1];
        out[i] = bf16_from_float(x[i] * c - x[half + i] * s);
        out[half + i] = bf16_from_float(x[half + i] * c + x[i] * s);
    }
}

static void raise_to(float *restrict most, const float *restrict x, float subtract, int cols)
{
    for (int i = 0; i < cols; i++) {
        float value = x[i] - subtract;
        most[i] = value > most[i] ? value : most[i];
    }
}

static void exp_row(float *x, int cols)
{
    for (int i = 0; i < cols; i++)
        x[i] = x[i] > -87.0f ? exp_fast(x[i]) : 0.0f;
}

static void blend(uint16_t *restrict out, float out_share, const uint16_t *restrict other,
                  float other_share, int cols)
{
    for (int i = 0; i < cols; i++)
        out[i] = bf16_from_float(out_share * bf16_to_float(out[i]) +
                                 other_share * bf16_to_float(other[i]));
}

static void to_bf16(uint16_t *restrict out, const float *restrict x, int cols)
{
    for (int i = 0; i < cols; i++)
        out[i] = bf16_from_float(x[i]);
}

static void to_float(float *restrict out, const uint16_t *restrict x, int cols)
{
    for (int i = 0; i < cols; i++)
        out[i] = bf16_to_float(x[i]);
}

const struct cpu_rows ROWS_TABLE = {.residual_norm = residual_norm,
                                    .swiglu = swiglu,
                                    .norm = norm,
                                    .rotate = rotate,
                                    .sum_exp = sum_exp,
                                    .raise = raise_to,
                                    .exp = exp_row,
                                    .blend = blend,
                                    .to_bf16 = to_bf16,
                                    .to_float = to_float};
