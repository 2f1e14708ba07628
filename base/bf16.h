/* bfloat16: the upper 16 bits of a float, in a uint16_t. */
#ifndef BASE_BF16_H
#define BASE_BF16_H

#include <stdint.h>
#include <string.h>

static inline float bf16_to_float(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;

    memcpy(&result, &bits, sizeof(result));
    return result;
}

/* Round to nearest, ties to even; a NaN stays one, overflow becomes infinity. Without branches, so
 * that loops become vectors. */
static inline uint16_t bf16_from_float(float value)
{
    uint32_t bits, rounded, quiet_nan;

    memcpy(&bits, &value, sizeof(bits));
    rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
    quiet_nan = bits >> 16 | 0x40U;
    return (uint16_t)((bits & 0x7fffffffU) > 0x7f800000U ? quiet_nan : rounded);
}

#endif
