/* Numbers made up for a model without weights (`dummy`): they depend on a seed and a place alone,
 * so that every split of a matrix and every device makes the same. Also compiled for GPUs. */
#ifndef KERNELS_DUMMY_H
#define KERNELS_DUMMY_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define DUMMY_FUNCTION static __host__ __device__ inline
#else
#define DUMMY_FUNCTION static inline
#endif

/* Rows of a matrix: element (row, col) is dummy_value(seed, first + row * stride + col, scale). */
struct dummy_rows {
    uint64_t seed;
    int64_t first, stride;
    int64_t rows;
    int scale;
};

/* splitmix64's finaliser: neighbouring inputs give unrelated outputs. */
DUMMY_FUNCTION uint64_t dummy_mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
    return value ^ (value >> 31);
}

/* Uniform in [-1, 1) with 8 significant bits, so that bf16 holds it exactly, times 2^-scale. */
DUMMY_FUNCTION float dummy_value(uint64_t seed, int64_t index, int scale)
{
    int32_t byte = (int32_t)(dummy_mix(seed + (uint64_t)index) >> 56) - 128;

    return (float)byte / (float)(128 << scale);
}

/* The same as bf16. */
DUMMY_FUNCTION uint16_t dummy_bf16(uint64_t seed, int64_t index, int scale)
{
    float value = dummy_value(seed, index, scale);
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

#undef DUMMY_FUNCTION

#endif
