/* Exponentials and logarithms in plain C that the compiler can vectorise. */
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

/* Natural log of a positive normal number, error under 2e-7 or of the last bits: log(m 2^e) with
 * m in [0.75, 1.5), and log(m) = 2 artanh((m - 1) / (m + 1)). */
static inline float log_fast(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    uint32_t exponent = (bits - 0x3f400000u) & 0xff800000u; /* of x / 0.75 */
    bits -= exponent;
    float m;
    memcpy(&m, &bits, sizeof(m));
    float s = (m - 1.0f) / (m + 1.0f);
    float t = s * s;
    float p = 1.0f / 9;
    p = p * t + 1.0f / 7;
    p = p * t + 1.0f / 5;
    p = p * t + 1.0f / 3;
    p = p * t + 1.0f;
    return 2.0f * s * p + (float)((int32_t)exponent / 8388608) * 0.693147181f;
}

#endif
