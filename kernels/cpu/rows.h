/* The row-wise loops, compiled once for each instruction set from rows_impl.h. */
#ifndef KERNELS_CPU_ROWS_H
#define KERNELS_CPU_ROWS_H

#include "kernels/cpu/cpu_queue.h"

#include <stddef.h>
#include <stdint.h>

/* Every call works on one row; arrays do not overlap. */
struct cpu_rows {
    /* x += delta (unless NULL); out = x / sqrt(mean(x^2) + eps) * weight (unless NULL). */
    void (*residual_norm)(uint16_t *out, float *x, const float *delta, const float *rest,
                          const float *weight, int cols, float eps);
    /* out = silu(gate) * up. */
    void (*swiglu)(uint16_t *out, const float *gate, const float *up, int cols);
    /* out = x / sqrt(mean(x^2) + eps) * weight in f32. */
    void (*norm)(float *out, const float *x, const float *weight, int cols, float eps);
    /* Pairs (i, i + half) of x turned by table[i] = {cos, sin}. x: [2 * half]. */
    void (*rotate)(uint16_t *out, const float *x, const float *table, int half);
    /* Sum of exp(x - most), for x <= most. */
    float (*sum_exp)(const float *x, float most, int cols);
    /* most = max(most, x - subtract). */
    void (*raise)(float *most, const float *x, float subtract, int cols);
    /* x = exp(x), for x <= 88; 0 where float32 has nothing normal left. */
    void (*exp)(float *x, int cols);
    /* out = out_share * out + other_share * other, bf16. */
    void (*blend)(uint16_t *out, float out_share, const uint16_t *other, float other_share,
                  int cols);
    void (*to_bf16)(uint16_t *out, const float *x, int cols);
    void (*to_float)(float *out, const uint16_t *x, int cols);
};

const struct cpu_rows *cpu_rows(enum cpu_isa isa);

extern const struct cpu_rows rows_portable;
#if defined(__x86_64__)
extern const struct cpu_rows rows_avx2;
extern const struct cpu_rows rows_avx512;
#endif

#endif
