#include "tests/support/check.h"
#include "tests/support/folder.h"

#include "model/rope.h"
#include "tests/unit/model/rope_golden.h"

#include <math.h>

static void frequencies_are_those_of_transformers(void **state)
{
    float inv_freq[MODEL_HEAD_DIM_MAX / 2], magnitude;
    struct model_config config;
    struct tca_error error;
    struct folder folder;

    (void)state;
    folder_create(&folder);
    for (size_t i = 0; i < sizeof(rope_goldens) / sizeof(rope_goldens[0]); i++) {
        const struct rope_golden *golden = &rope_goldens[i];

        folder_write_text(&folder, "config.json", golden->config);
        if (model_config_read(folder.path, &config, &error) != TCA_OK)
            fail_msg("%s: %s", golden->name, error.text);
        assert_int_equal(config.head_dim, 2 * golden->half);
        rope_frequencies(&config.rope, config.head_dim, config.max_positions, inv_freq, &magnitude);
        assert_true(fabsf(magnitude - golden->magnitude) <= 1e-7F * golden->magnitude);
        /* Equal but for the last bit, where torch's vectorised pow is not libm's. */
        for (int j = 0; j < golden->half; j++)
            if (fabsf(inv_freq[j] - golden->inv_freq[j]) > 1.2e-7F * golden->inv_freq[j])
                fail_msg("%s: frequency %d is %.9g, expected %.9g", golden->name, j,
                         (double)inv_freq[j], (double)golden->inv_freq[j]);
    }
    folder_destroy(&folder);
}

static void yarn_bounds_that_meet_divide_by_no_zero(void **state)
{
    struct rope_config rope = {.type = ROPE_YARN,
                               .theta = 10000,
                               .factor = 2,
                               .original_max_positions = 1,
                               .beta_fast = 32,
                               .beta_slow = 1};
    float inv_freq[4], magnitude;

    (void)state;
    rope_frequencies(&rope, 8, 1, inv_freq, &magnitude);
    for (int i = 0; i < 4; i++)
        assert_true(isfinite(inv_freq[i]) && inv_freq[i] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_are_those_of_transformers),
        cmocka_unit_test(yarn_bounds_that_meet_divide_by_no_zero),
    };
    return cmocka_run_group_tests_name("rope", tests, NULL, NULL);
}
