/* The processor's own speed limit for bf16 dot products. */
#ifndef BENCH_BF16_PEAK_H
#define BENCH_BF16_PEAK_H

/* Multiply-adds on registers alone, counted as two operations each, in 1e9/s on the calling
 * thread over about `seconds`. 0: the processor has no avx512_bf16. */
double bf16_peak_gflops(double seconds);

#endif
