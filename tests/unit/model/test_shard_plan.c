#include "tests/support/check.h"

#include "model/shard_plan.h"

#include <stdlib.h>
#include <string.h>

static const struct model_config configs[] = {
    {.q_heads = 8, .kv_heads = 4, .ffn = 896, .vocab = 4096},      /* needle-9m */
    {.q_heads = 9, .kv_heads = 3, .ffn = 1536, .vocab = 49152},    /* SmolLM2-135M */
    {.q_heads = 32, .kv_heads = 8, .ffn = 14336, .vocab = 128256}, /* Llama 3.1 8B */
    {.q_heads = 14, .kv_heads = 2, .ffn = 4864, .vocab = 151936},  /* Qwen2.5 0.5B */
    {.q_heads = 32, .kv_heads = 32, .ffn = 11008, .vocab = 32001}, /* no multiple of 16 */
    {.q_heads = 7, .kv_heads = 7, .ffn = 1000, .vocab = 1021},
};

enum { CONFIGS = sizeof(configs) / sizeof(configs[0]) };

static struct shard plan(const struct model_config *config, int rank, int ranks)
{
    struct tca_error error;
    struct shard shard;

    if (shard_plan_make(config, rank, ranks, &shard, &error) != TCA_OK)
        fail_msg("%s", error.text);
    return shard;
}

static void shards_cover_everything_once(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGS; i++)
        for (int ranks = 1; ranks <= configs[i].kv_heads; ranks++) {
            int kv_heads = 0, q_heads = 0, ffn = 0, vocab = 0;

            for (int rank = 0; rank < ranks; rank++) {
                struct shard shard = plan(&configs[i], rank, ranks);

                assert_int_equal(shard.kv_head_first, kv_heads);
                assert_int_equal(shard.q_head_first, q_heads);
                assert_int_equal(shard.ffn_first, ffn);
                assert_int_equal(shard.vocab_first, vocab);
                assert_true(shard.kv_heads > 0 && shard.ffn > 0 && shard.vocab > 0);
                kv_heads += shard.kv_heads;
                q_heads += shard.q_heads;
                ffn += shard.ffn;
                vocab += shard.vocab;
            }
            assert_int_equal(kv_heads, configs[i].kv_heads);
            assert_int_equal(q_heads, configs[i].q_heads);
            assert_int_equal(ffn, configs[i].ffn);
            assert_int_equal(vocab, configs[i].vocab);
        }
}

/* Whole groups; every rank's share of columns follows its share of heads to within one unit, and
 * only the last holds a remainder. */
static void columns_follow_the_heads_in_multiples_of_16(void **state)
{
    (void)state;
    for (int i = 0; i < CONFIGS; i++)
        for (int ranks = 1; ranks <= configs[i].kv_heads; ranks++)
            for (int rank = 0; rank < ranks; rank++) {
                const struct model_config *config = &configs[i];
                struct shard shard = plan(config, rank, ranks);
                double share = (double)shard.kv_heads / config->kv_heads;

                assert_int_equal(shard.q_heads,
                                 shard.kv_heads * (config->q_heads / config->kv_heads));
                assert_int_equal(shard.ffn_first % 16, 0);
                assert_int_equal(shard.vocab_first % 16, 0);
                assert_true(rank == ranks - 1 || (shard.ffn % 16 == 0 && shard.vocab % 16 == 0));
                assert_true(abs(shard.ffn - (int)(share * config->ffn)) < 32);
                assert_true(abs(shard.vocab - (int)(share * config->vocab)) < 32);
            }
}

static void first_ranks_get_one_head_more(void **state)
{
    static const struct {
        int config, ranks, heads[4];
    } cases[] = {
        {0, 3, {2, 1, 1}},    {1, 2, {2, 1}},    {2, 3, {3, 3, 2}},
        {0, 4, {1, 1, 1, 1}}, {5, 3, {3, 2, 2}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int rank = 0; rank < cases[i].ranks; rank++)
            assert_int_equal(plan(&configs[cases[i].config], rank, cases[i].ranks).kv_heads,
                             cases[i].heads[rank]);
}

static void impossible_plans_are_refused(void **state)
{
    struct model_config small = {.q_heads = 4, .kv_heads = 4, .ffn = 63, .vocab = 4096};
    struct tca_error error;
    struct shard shard;

    (void)state;
    assert_int_equal(shard_plan_make(&configs[0], 0, 5, &shard, &error), TCA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "5 workers"));
    assert_non_null(strstr(error.text, "1 to 4"));
    assert_int_equal(shard_plan_make(&configs[0], 2, 2, &shard, &error), TCA_ERR_INVALID);
    assert_int_equal(shard_plan_make(&configs[0], -1, 2, &shard, &error), TCA_ERR_INVALID);
    assert_int_equal(shard_plan_make(&configs[0], 0, 0, &shard, &error), TCA_ERR_INVALID);
    assert_int_equal(shard_plan_make(&small, 0, 2, &shard, &error), TCA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "63 FFN columns"));
    assert_int_equal(shard_plan_make(&small, 0, 1, &shard, &error), TCA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_cover_everything_once),
        cmocka_unit_test(columns_follow_the_heads_in_multiples_of_16),
        cmocka_unit_test(first_ranks_get_one_head_more),
        cmocka_unit_test(impossible_plans_are_refused),
    };
    return cmocka_run_group_tests_name("shard_plan", tests, NULL, NULL);
}
