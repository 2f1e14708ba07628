#include "bench/bf16_peak.h"

#if defined(__x86_64__)

#include "base/clock.h"

#include <immintrin.h>

enum { CHAINS = 24, ROUNDS = 4096 };

/* Enough independent chains to cover the latency, few enough to stay in registers. */
__attribute__((target("avx512f,avx512bf16"))) static void multiply_add(float *sink)
{
    __m512 chains[CHAINS];
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        chains[i] = _mm512_setzero_ps();
    for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            chains[i] = _mm512_dpbf16_ps(chains[i], a, a);
            __asm__("" : "+v"(chains[i])); /* the compiler may not combine rounds */
        }
    }
#pragma GCC unroll 24
    for (int i = 1; i < CHAINS; i++)
        chains[0] = _mm512_add_ps(chains[0], chains[i]);
    *sink += _mm512_reduce_add_ps(chains[0]);
}

double bf16_peak_gflops(double seconds)
{
    if (!__builtin_cpu_supports("avx512bf16"))
        return 0;
    volatile float kept = 0;
    float sink = 0;
    double flops = 0;
    double elapsed;
    double start = (double)clock_monotonic_ns() * 1e-9;
    do {
        multiply_add(&sink);
        flops += 64.0 * CHAINS * ROUNDS;
        elapsed = (double)clock_monotonic_ns() * 1e-9 - start;
    } while (elapsed < seconds);
    kept += sink;
    return flops / elapsed * 1e-9;
}

#else

double bf16_peak_gflops(double seconds)
{
    (void)seconds;
    return 0;
}

#endif
