/* bf16 as the backend's tables hold it, in device code. */
#ifndef KERNELS_CUDA_BF16_CUH
#define KERNELS_CUDA_BF16_CUH

#include <cuda_bf16.h>

#include <stdint.h>

static __device__ __forceinline__ float float_of_bf16(uint16_t value)
{
    return __uint_as_float((uint32_t)value << 16);
}

static __device__ __forceinline__ uint16_t bf16_of_float(float value)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

/* Two values in one register, `low` in the lower half. */
static __device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
    uint32_t pair;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

static __device__ __forceinline__ float2 floats_of_pair(uint32_t pair)
{
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

static __device__ __forceinline__ float warp_sum(float value)
{
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

static __device__ __forceinline__ float warp_max(float value)
{
    for (int offset = 16; offset > 0; offset /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

#endif
