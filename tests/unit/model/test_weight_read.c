#include "tests/support/check.h"

#include "base/bf16.h"
#include "model/weight_files.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The compiler's own half type is the reference. */
__extension__ typedef _Float16 half;

static struct weight_tensor tensor_of(enum weight_dtype dtype, int64_t rows, int64_t cols,
                                      const void *data)
{
    return (struct weight_tensor){
        .dtype = dtype, .dimensions = 2, .shape = {rows, cols}, .data = data};
}

static bool is_same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof(a)) == 0;
}

static void every_half_becomes_its_float(void **state)
{
    uint16_t *halves = malloc(65536 * sizeof(*halves));
    uint16_t *rounded = malloc(65536 * sizeof(*rounded));
    float *floats = malloc(65536 * sizeof(*floats));
    struct weight_tensor tensor;

    (void)state;
    assert_true(halves != NULL && rounded != NULL && floats != NULL);
    for (int i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    tensor = tensor_of(WEIGHT_F16, 1, 65536, halves);
    weight_tensor_read_f32(&tensor, 0, 1, 0, 65536, floats);
    weight_tensor_read_bf16(&tensor, 0, 1, 0, 65536, rounded);
    for (int i = 0; i < 65536; i++) {
        float expected;
        half value;

        memcpy(&value, &halves[i], sizeof(value));
        expected = (float)value;
        if (!is_same_float(floats[i], expected))
            fail_msg("half %04x is %a, expected %a", (unsigned)i, (double)floats[i],
                     (double)expected);
        if (isnan(expected))
            assert_true(isnan(bf16_to_float(rounded[i])));
        else
            assert_int_equal(rounded[i], bf16_from_float(expected));
    }
    free(halves);
    free(rounded);
    free(floats);
}

/* The nearest by distance in double, and of two equally near the even one. */
static uint16_t nearest_bf16(float value)
{
    uint32_t bits;
    uint16_t below, above;
    double down, up;

    memcpy(&bits, &value, sizeof(bits));
    below = (uint16_t)(bits >> 16);
    above = (uint16_t)(below + 1);
    down = fabs((double)value - (double)bf16_to_float(below));
    /* Beyond the largest bf16 the next step would be 2^128. */
    up = fabs(copysign(isinf(bf16_to_float(above)) ? 0x1p128 : (double)fabsf(bf16_to_float(above)),
                       (double)value) -
              (double)value);
    if (down == up)
        return below % 2 == 0 ? below : above;
    return down < up ? below : above;
}

static void floats_round_to_the_nearest_and_ties_to_even(void **state)
{
    static const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};

    (void)state;
    for (uint32_t head = 0; head < 0x10000; head++)
        for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
            uint32_t bits = head << 16 | tails[i];
            struct weight_tensor tensor = tensor_of(WEIGHT_F32, 1, 1, &bits);
            uint16_t rounded;
            float value;

            memcpy(&value, &bits, sizeof(value));
            weight_tensor_read_bf16(&tensor, 0, 1, 0, 1, &rounded);
            if (isnan(value))
                assert_true(isnan(bf16_to_float(rounded)));
            else if (isinf(value))
                assert_int_equal(rounded, head);
            else if (rounded != nearest_bf16(value))
                fail_msg("%a is rounded to %04x, expected %04x", (double)value, rounded,
                         nearest_bf16(value));
        }
}

/* Row r, column c holds 10 r + c; the data start at an odd address. */
static void parts_of_a_matrix_are_copied_from_any_address(void **state)
{
    static const enum weight_dtype dtypes[] = {WEIGHT_BF16, WEIGHT_F16, WEIGHT_F32};
    uint8_t memory[1 + 4 * 6 * 4];

    (void)state;
    for (int d = 0; d < 3; d++) {
        const size_t bytes = dtypes[d] == WEIGHT_F32 ? 4 : 2;
        struct weight_tensor tensor = tensor_of(dtypes[d], 4, 6, memory + 1);
        uint16_t part_bf16[4];
        float part[4];

        for (int i = 0; i < 24; i++) {
            float value = (float)(i / 6 * 10 + i % 6);
            half value_half = (half)value;
            uint16_t value_bf16 = bf16_from_float(value);

            memcpy(memory + 1 + (size_t)i * bytes,
                   dtypes[d] == WEIGHT_F32   ? (const void *)&value
                   : dtypes[d] == WEIGHT_F16 ? (const void *)&value_half
                                             : (const void *)&value_bf16,
                   bytes);
        }
        weight_tensor_read_f32(&tensor, 2, 2, 3, 2, part);
        weight_tensor_read_bf16(&tensor, 2, 2, 3, 2, part_bf16);
        for (int i = 0; i < 4; i++) {
            float expected = (float)((2 + i / 2) * 10 + 3 + i % 2);

            assert_true(part[i] == expected);
            assert_true(bf16_to_float(part_bf16[i]) == expected);
        }
    }
}

static void a_vector_is_one_row(void **state)
{
    const float values[5] = {0, 1, 2, 3, 4};
    struct weight_tensor tensor = {
        .dtype = WEIGHT_F32, .dimensions = 1, .shape = {5, 0}, .data = values};
    float part[2];

    (void)state;
    weight_tensor_read_f32(&tensor, 0, 1, 3, 2, part);
    assert_true(part[0] == 3.0F && part[1] == 4.0F);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_becomes_its_float),
        cmocka_unit_test(floats_round_to_the_nearest_and_ties_to_even),
        cmocka_unit_test(parts_of_a_matrix_are_copied_from_any_address),
        cmocka_unit_test(a_vector_is_one_row),
    };
    return cmocka_run_group_tests_name("weight_read", tests, NULL, NULL);
}
