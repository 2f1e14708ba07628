#include "tests/support/check.h"

#include "model/shard_plan.h"

#include <stdbool.h>
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

/* 1 to 16 ranks of needle-9m and SmolLM2-135M: every head's stripes, every column and every
 * vocabulary row belongs to one rank. */
static void more_ranks_than_heads_cover_everything_once(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int ranks = 1; ranks <= 16; ranks++) {
            const struct model_config *config = &configs[i];
            int holders[4] = {0}, ffn = 0, vocab = 0;

            for (int rank = 0; rank < ranks; rank++) {
                struct shard shard = plan(config, rank, ranks);

                if (ranks <= config->kv_heads)
                    assert_int_equal(shard.stripes, 1);
                assert_int_equal(shard.ffn_first, ffn);
                assert_int_equal(shard.vocab_first, vocab);
                assert_true(shard.ffn > 0 && shard.vocab > 0);
                assert_int_equal(shard.ffn % 16, 0);
                assert_int_equal(shard.vocab % 16, 0);
                assert_true(shard.stripe >= 0 && shard.stripe < shard.stripes);
                assert_int_equal(shard.peer_first + shard.stripe, rank);
                for (int head = 0; head < shard.kv_heads; head++)
                    assert_int_equal(holders[shard.kv_head_first + head]++, shard.stripe);
                for (int peer = 0; peer < shard.stripes; peer++)
                    assert_int_equal(plan(config, shard.peer_first + peer, ranks).kv_head_first,
                                     shard.kv_head_first);
                ffn += shard.ffn;
                vocab += shard.vocab;
            }
            assert_int_equal(ffn, config->ffn);
            assert_int_equal(vocab, config->vocab);
            for (int head = 0; head < config->kv_heads; head++) {
                int least = ranks / config->kv_heads;

                if (ranks <= config->kv_heads)
                    assert_int_equal(holders[head], 1);
                else
                    assert_int_equal(holders[head],
                                     least + (head < ranks % config->kv_heads ? 1 : 0));
            }
        }
}

static void the_first_heads_get_one_stripe_more(void **state)
{
    static const int heads[] = {0, 0, 1, 1, 2, 3}, stripes[] = {2, 2, 2, 2, 1, 1};

    (void)state;
    for (int rank = 0; rank < 6; rank++) {
        struct shard shard = plan(&configs[0], rank, 6);

        assert_int_equal(shard.kv_head_first, heads[rank]);
        assert_int_equal(shard.kv_heads, 1);
        assert_int_equal(shard.q_head_first, 2 * heads[rank]);
        assert_int_equal(shard.q_heads, 2);
        assert_int_equal(shard.stripes, stripes[rank]);
        assert_int_equal(shard.stripe_unit, SHARD_STRIPE_UNIT);
    }
}

/* Row by row, the slow way. */
static void every_row_is_held_by_the_stripe_of_its_unit(void **state)
{
    (void)state;
    for (int stripes = 1; stripes <= 3; stripes++)
        for (int stripe = 0; stripe < stripes; stripe++) {
            struct shard shard = {.stripes = stripes, .stripe = stripe, .stripe_unit = 64};
            int64_t held = 0;

            for (int64_t row = 0; row < 1000; row++) {
                assert_int_equal(shard_plan_rows(&shard, row), held);
                held += row / 64 % stripes == stripe;
            }
        }
}

/* The arithmetic of admission: no stripe ever needs more than its part of what is counted. */
static void no_stripe_holds_more_than_its_sequence_counts(void **state)
{
    static const int64_t lengths[] = {1, 64, 4095, 4096, 4097, 8192, 12000, 100000, 1000000};

    (void)state;
    for (int ranks = 1; ranks <= 16; ranks++)
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            int64_t counted = shard_plan_kv_tokens(4, ranks, lengths[i]);
            bool is_reached = false;

            assert_true(counted >= lengths[i]);
            assert_true(counted < lengths[i] + 5 * SHARD_STRIPE_UNIT);
            for (int rank = 0; rank < ranks; rank++) {
                struct shard shard = plan(&configs[0], rank, ranks);
                int64_t needed = shard_plan_rows(&shard, lengths[i]) * shard.stripes;

                assert_true(needed <= counted);
                is_reached = is_reached || needed == counted;
            }
            assert_true(is_reached);
        }
    assert_int_equal(shard_plan_stripes(4, 4), 1);
    assert_int_equal(shard_plan_stripes(4, 5), 2);
    assert_int_equal(shard_plan_stripes(4, 8), 2);
    assert_int_equal(shard_plan_stripes(4, 9), 3);
    assert_int_equal(shard_plan_kv_tokens(4, 4, 100), 100);
    assert_int_equal(shard_plan_kv_tokens(4, 8, 100), 200);
    assert_int_equal(shard_plan_kv_tokens(4, 8, 8192), 8192);
}

static void impossible_plans_are_refused(void **state)
{
    struct model_config small = {.q_heads = 4, .kv_heads = 4, .ffn = 63, .vocab = 4096};
    struct tca_error error;
    struct shard shard;

    (void)state;
    assert_int_equal(shard_plan_make(&configs[2], 0, 257, &shard, &error), TCA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "257 workers"));
    assert_non_null(strstr(error.text, "1 to 256"));
    assert_int_equal(shard_plan_make(&configs[0], 0, 57, &shard, &error), TCA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "896 FFN columns"));
    assert_non_null(strstr(error.text, "57 workers"));
    assert_int_equal(shard_plan_make(&configs[0], 55, 56, &shard, &error), TCA_OK);
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
        cmocka_unit_test(more_ranks_than_heads_cover_everything_once),
        cmocka_unit_test(the_first_heads_get_one_stripe_more),
        cmocka_unit_test(every_row_is_held_by_the_stripe_of_its_unit),
        cmocka_unit_test(no_stripe_holds_more_than_its_sequence_counts),
        cmocka_unit_test(impossible_plans_are_refused),
    };
    return cmocka_run_group_tests_name("shard_plan", tests, NULL, NULL);
}
