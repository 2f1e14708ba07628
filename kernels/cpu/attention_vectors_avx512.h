/* Vector pieces that the avx512_bf16 attention kernels share. Include only from files compiled
 * for it. */
#ifndef KERNELS_CPU_ATTENTION_VECTORS_AVX512_H
#define KERNELS_CPU_ATTENTION_VECTORS_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m512i broadcast_pair(const void *from)
{
    int32_t pair;
    memcpy(&pair, from, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

/* sum + the products of both bf16 of every pair. */
INLINE __m512 dot_add(__m512 sum, __m512i a, __m512i b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
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

/* As log_fast() of exp_fast.h. */
INLINE __m512 log_fast(__m512 x)
{
    __m512 exponent = _mm512_getexp_ps(_mm512_mul_ps(x, _mm512_set1_ps(4.0f / 3)));
    __m512 m = _mm512_scalef_ps(x, _mm512_sub_ps(_mm512_setzero_ps(), exponent));
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 s = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one));
    __m512 t = _mm512_mul_ps(s, s);
    __m512 p = _mm512_set1_ps(1.0f / 9);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.0f / 7));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.0f / 5));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.0f / 3));
    p = _mm512_fmadd_ps(p, t, one);
    p = _mm512_mul_ps(p, _mm512_add_ps(s, s));
    return _mm512_fmadd_ps(exponent, _mm512_set1_ps(0.693147181f), p);
}

INLINE __m512 fold_pair(bool is_sum, __m512 a, __m512 b)
{
    return is_sum ? _mm512_add_ps(a, b) : _mm512_max_ps(a, b);
}

/* Lane i of the result is the sum, or else the largest, of all lanes of v[i]: pairs of vectors are
 * folded into one, halving the number of lanes that belong to each, until one is left. */
INLINE __m512 fold_lanes(__m512 v[16], bool is_sum)
{
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512 low = _mm512_shuffle_f32x4(v[i], v[i + 8], 0x44);
        __m512 high = _mm512_shuffle_f32x4(v[i], v[i + 8], 0xee);
        v[i] = fold_pair(is_sum, low, high);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512 low = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88);
        __m512 high = _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd);
        v[i] = fold_pair(is_sum, low, high);
    }
    /* 128-bit groups now belong to keys i, i + 8, i + 4, i + 12. */
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512 low = _mm512_shuffle_ps(v[i], v[i + 2], 0x44);
        __m512 high = _mm512_shuffle_ps(v[i], v[i + 2], 0xee);
        v[i] = fold_pair(is_sum, low, high);
    }
    __m512 even = _mm512_shuffle_ps(v[0], v[1], 0x88);
    __m512 odd = _mm512_shuffle_ps(v[0], v[1], 0xdd);
    /* Groups (0, 8, 4, 12), in each: i = 0, 2, 1, 3. */
    const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    return _mm512_permutexvar_ps(order, fold_pair(is_sum, even, odd));
}

#endif
