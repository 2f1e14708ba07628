/* Exponentials in plain C that the compiler can vectorise. */
#ifndef KERNELS_CPU_EXP_FAST_H
#define KERNELS_CPU_EXP_FAST_H

#include <stdint.h>
#include <string.h>

/* 2^x, relative error under 1e-6: an integer power by the exponent bits, the rest in
 * [-0.5, 0.5] by a polynomial. x is clamped to the normal range. */
static inline float exp2_fast(float x)
{
    x = x < -126.0f ? -126.0f : x;
    x = x > 126.0f ? 126.0f : x;
    float shifted = x + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    float f = x - (shifted - 12582912.0f);
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits - 0x4b400000u + 127u) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return power * p;
}

static inline float exp_fast(float x)
{
    return exp2_fast(x * 1.44269504f);
}

#endif
