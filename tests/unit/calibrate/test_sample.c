/* Samples stand where a long document is read for real: in its second half, apart from one another,
 * and the same for the same seed. */
#include "tests/support/check.h"

#include "calibrate/sample.h"

static struct sampler_random seeded(uint64_t seed)
{
    struct sampler_random random;

    sampler_random_seed(&random, seed);
    return random;
}

static void positions_are_apart_in_the_second_half(void **state)
{
    static const int64_t lengths[] = {SAMPLE_DOCUMENT_LEAST, 4097, 7680, 8192, 40000, 131072};

    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        const int64_t tokens = lengths[seed % 6];
        const int wanted = 1 + (int)(seed % SAMPLE_POSITIONS_MAX);
        struct sampler_random random = seeded(seed);
        int64_t starts[SAMPLE_POSITIONS_MAX], end = (tokens + 1) / 2;
        const int count = sample_positions(tokens, wanted, &random, starts);

        assert_in_range(count, 1, wanted);
        for (int i = 0; i < count; i++) {
            assert_true(starts[i] >= end);
            assert_int_equal(starts[i] % 64, 0);
            end = starts[i] + SAMPLE_TEXT_ROWS;
        }
        assert_true(end <= tokens);
    }
}

static void as_many_positions_as_there_is_room_for(void **state)
{
    struct sampler_random random = seeded(1);
    int64_t starts[SAMPLE_POSITIONS_MAX];

    (void)state;
    assert_int_equal(sample_positions(8192, 8, &random, starts), 3);
    assert_int_equal(sample_positions(32768, 8, &random, starts), 8);
}

static void positions_follow_the_seed(void **state)
{
    struct sampler_random one = seeded(1), again = seeded(1), other = seeded(2);
    int64_t starts[3][4];

    (void)state;
    sample_positions(131072, 4, &one, starts[0]);
    sample_positions(131072, 4, &again, starts[1]);
    sample_positions(131072, 4, &other, starts[2]);
    assert_memory_equal(starts[0], starts[1], sizeof(starts[0]));
    assert_memory_not_equal(starts[0], starts[2], sizeof(starts[0]));
}

static void judged_rows_are_distinct_and_spread(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sampler_random random = seeded(seed);
        const struct sample sample = sample_of_text(2, 4096, &random);
        int first_half = 0;

        assert_int_equal(sample.length, 2);
        assert_int_equal(sample.earlier, 4096);
        assert_int_equal(sample.judged, SAMPLE_JUDGED);
        for (int i = 0; i < sample.judged; i++) {
            assert_in_range(sample.judged_row[i], sample.observers, sample.rows - 1);
            assert_true(i == 0 || sample.judged_row[i] > sample.judged_row[i - 1]);
            first_half += sample.judged_row[i] < SAMPLE_OBSERVERS + SAMPLE_SPAN / 2;
        }
        assert_in_range(first_half, SAMPLE_JUDGED / 4, SAMPLE_JUDGED * 3 / 4);
    }
}

static void an_answer_is_judged_behind_its_question(void **state)
{
    const struct sample sample = sample_of_question(1, 10000, 20, 3);

    (void)state;
    assert_true(sample.is_question);
    assert_int_equal(sample.rows, 23);
    assert_int_equal(sample.observers, 20);
    assert_int_equal(sample.judged, 3);
    assert_int_equal(sample.judged_row[0], 20);
    assert_int_equal(sample.judged_row[2], 22);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_are_apart_in_the_second_half),
        cmocka_unit_test(as_many_positions_as_there_is_room_for),
        cmocka_unit_test(positions_follow_the_seed),
        cmocka_unit_test(judged_rows_are_distinct_and_spread),
        cmocka_unit_test(an_answer_is_judged_behind_its_question),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
