/* Random tensors and comparisons for tests of kernels. */
#ifndef TESTS_SUPPORT_NUMBERS_H
#define TESTS_SUPPORT_NUMBERS_H

#include "tests/support/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t random_bits(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* Uniform in -1 .. 1, of variance 1/3. */
static inline float random_float(uint64_t *state)
{
    return (float)(random_bits(state) >> 40) / 8388608.0f - 1.0f;
}

static inline float float_of_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof(result));
    return result;
}

/* Truncates: exact enough to make inputs. */
static inline uint16_t bf16_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

/* Zeroed when nothing fills it; 64-byte aligned; never NULL. Freed with free(). */
static inline void *new_array(size_t count, size_t element_bytes)
{
    size_t bytes = (count * element_bytes + 64) / 64 * 64;
    void *array = aligned_alloc(64, bytes);
    assert_non_null(array);
    memset(array, 0, bytes);
    return array;
}

static inline float *new_floats(size_t count, uint64_t *random)
{
    float *array = new_array(count, sizeof(*array));
    for (size_t i = 0; random && i < count; i++)
        array[i] = random_float(random);
    return array;
}

static inline uint16_t *new_bf16s(size_t count, float scale, uint64_t *random)
{
    uint16_t *array = new_array(count, sizeof(*array));
    for (size_t i = 0; random && i < count; i++)
        array[i] = bf16_of_float(scale * random_float(random));
    return array;
}

/* Every |got - want| <= absolute + relative * |want|, and finite. */
static inline void assert_close(const float *got, const double *want, size_t count, double absolute,
                                double relative, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - want[i]);
        if (!(error <= absolute + relative * fabs(want[i])))
            fail_msg("%s: element %zu of %zu is %.9g, not %.9g", what, i, count, (double)got[i],
                     want[i]);
    }
}

static inline void assert_close_bf16(const uint16_t *got, const double *want, size_t count,
                                     double absolute, double relative, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        float value = float_of_bf16(got[i]);
        assert_close(&value, want + i, 1, absolute, relative, what);
    }
}

#endif
