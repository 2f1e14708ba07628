/* Vector pieces that the avx512_bf16 attention kernels share. Include only from files compiled
 * for it. */
#ifndef KERNELS_CPU_ATTENTION_VECTORS_AVX512_H
#define KERNELS_CPU_ATTENTION_VECTORS_AVX512_H

#include <immintrin.h>
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

#endif
