#include "comm/reduce.h"

#include "base/bf16.h"

#include <string.h>

enum { BLOCK = 1024, SLICE_UNIT = 16 };

size_t reduce_element_bytes(enum kernel_dtype dtype)
{
    return dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
}

size_t reduce_slice_first(size_t count, int rank, int ranks)
{
    size_t units = (count + SLICE_UNIT - 1) / SLICE_UNIT;
    size_t first = units * (size_t)rank / (size_t)ranks * SLICE_UNIT;

    return first < count ? first : count;
}

static void sum_f32(float *out, const void *const *sources, int ranks, size_t first, size_t count)
{
    float sum[BLOCK];

    memcpy(sum, (const float *)sources[0] + first, count * sizeof(float));
    for (int rank = 1; rank < ranks; rank++) {
        const float *source = (const float *)sources[rank] + first;

        for (size_t i = 0; i < count; i++)
            sum[i] += source[i];
    }
    memcpy(out + first, sum, count * sizeof(float));
}

static void sum_bf16(uint16_t *out, const void *const *sources, int ranks, size_t first,
                     size_t count)
{
    float sum[BLOCK];

    for (size_t i = 0; i < count; i++)
        sum[i] = bf16_to_float(((const uint16_t *)sources[0])[first + i]);
    for (int rank = 1; rank < ranks; rank++) {
        const uint16_t *source = (const uint16_t *)sources[rank] + first;

        for (size_t i = 0; i < count; i++)
            sum[i] += bf16_to_float(source[i]);
    }
    for (size_t i = 0; i < count; i++)
        out[first + i] = bf16_from_float(sum[i]);
}

void reduce_sum(void *out, const void *const *sources, int ranks, size_t count,
                enum kernel_dtype dtype)
{
    for (size_t first = 0; first < count; first += BLOCK) {
        size_t block = count - first < BLOCK ? count - first : BLOCK;

        if (dtype == KERNEL_F32)
            sum_f32(out, sources, ranks, first, block);
        else
            sum_bf16(out, sources, ranks, first, block);
    }
}
