/* More ranks (threads) than KV heads: ranks that share a head and hold stripes of the sequences
 * answer as one rank does, densely and by every rule, keep only their units, and send what the
 * formula of docs/decisions/0009-stripes.md says. */
#include "tests/unit/worker/engine_scene.h"

#include <unistd.h>

enum { TOKENS = 2000, WINDOW = 64, CHUNK = 128, UNIT = 256, SMALL_UNIT = 64, TINY_HEAD_DIM = 16 };

static const struct select_method pooled = {.rule = SELECT_POOLED};
static const struct select_method block = {.rule = SELECT_BLOCK};

/* Models by their KV heads, of 8 query heads. */
static char one_head[64], two_heads[64], four_heads[64], qwen3[64], profile_path[96];

struct group_case {
    const char *folder;
    int ranks;
};

/* 1 head x 2, 3 and 8 stripes; 2 + 1, 3 + 2, 4 + 4; 2 + 1 + 1 + 1, 2 + 2 + 1 + 1, 4 x 2. */
static const struct group_case groups[] = {
    {one_head, 2},  {one_head, 3},   {one_head, 8},   {two_heads, 3},  {two_heads, 5},
    {two_heads, 8}, {four_heads, 5}, {four_heads, 6}, {four_heads, 8}, {qwen3, 6},
};

enum { GROUPS = sizeof(groups) / sizeof(groups[0]) };

/* Documents and prompts of several units, chunks that begin and end within them, and questions of a
 * few rows and of more than a tile, together. */
static void ask_around(struct scene *scene)
{
    open_document(scene, 1, 333);
    open_document(scene, 2, 70);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].ready, 1);
    open_question(scene, 1, 1, 9, 12, &greedy);
    open_question(scene, 2, 1, 90, 12, &greedy);
    open_question(scene, 3, 2, 1, 12, &greedy);
    open_question(scene, 4, 0, 190, 12, &greedy);
    run_until_idle(scene);
    for (int key = 1; key <= 4; key++)
        assert_int_equal(scene->question[key].end, QUESTION_LENGTH);
    engine_close_document(scene->engine, 1);
    engine_close_document(scene->engine, 2);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void dense_answers_are_those_of_one_rank(void **state)
{
    (void)state;
    for (int i = 0; i < GROUPS; i++) {
        struct scene one = {.play = ask_around, .folder = groups[i].folder, .chunk = 100};
        struct scene many = one;

        many.ranks = groups[i].ranks;
        many.stripe_unit = SMALL_UNIT;
        assert_int_equal(perform(&one), TCA_OK);
        assert_int_equal(perform(&many), TCA_OK);
        for (int key = 1; key <= 4; key++)
            assert_same_answer(&one.question[key], &many.question[key]);
    }
}

static void ask_one(struct scene *scene)
{
    open_document(scene, 1, TOKENS);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].ready, 1);
    open_question(scene, 1, 1, 20, 12, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].failed, 0);
    engine_close_document(scene->engine, 1);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static struct scene sparse_scene(scene_fn play, const struct group_case *group)
{
    return (struct scene){.play = play,
                          .folder = group == NULL ? four_heads : group->folder,
                          .ranks = group == NULL ? 1 : group->ranks,
                          .positions = SCENE_POSITIONS,
                          .chunk = CHUNK,
                          .window = WINDOW,
                          .stripe_unit = UNIT,
                          .kv_memory_bytes = 64 << 20,
                          .reports_selection = true,
                          .prefill = {.method = block, .keep = 0.35},
                          .sparsity = {.method = pooled, .keep = 0.4}};
}

/* The same shares, and nearly the same tokens. */
static void assert_same_selection(const struct outcome *a, const struct outcome *b)
{
    int64_t kept = 0, moved = 0;

    assert_same_answer(a, b);
    assert_true(a->usage.kept_share == b->usage.kept_share);
    assert_true(fabs(a->usage.kept_mass_mean - b->usage.kept_mass_mean) < 2e-3);
    assert_true(fabs(a->usage.kept_mass_min - b->usage.kept_mass_min) < 2e-2);
    assert_int_equal(a->usage.full_kv_bytes, b->usage.full_kv_bytes);
    assert_int_equal(a->usage.core_cache_bytes, b->usage.core_cache_bytes);
    assert_int_equal(a->selections, b->selections);
    for (int bin = 0; bin < ENGINE_SELECTION_BINS; bin++) {
        kept += a->bins[bin];
        moved += labs((long)a->bins[bin] - (long)b->bins[bin]);
    }
    assert_true(moved * 100 <= kept * 3);
}

static void every_rule_keeps_what_one_rank_keeps(void **state)
{
    const struct select_method methods[] = {
        pooled,
        block,
        {.rule = SELECT_WINDOW},
        {.rule = SELECT_TCA, .redundancy = SELECT_REDUNDANCY_MASS},
        {.rule = SELECT_TCA, .redundancy = SELECT_REDUNDANCY_SIMPSON, .observes_last = true},
    };
    const struct group_case group = {four_heads, 6};

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        struct scene one = sparse_scene(ask_one, NULL);
        struct scene many = sparse_scene(ask_one, &group);

        one.profile = many.profile = profile_path;
        one.prefill.method = many.prefill.method = methods[i];
        one.sparsity.method = many.sparsity.method = methods[i];
        assert_int_equal(perform(&one), TCA_OK);
        assert_int_equal(perform(&many), TCA_OK);
        assert_true(one.question[1].usage.kept_share < 1.0);
        if (methods[i].rule == SELECT_TCA)
            assert_same_answer(&one.question[1], &many.question[1]);
        else
            assert_same_selection(&one.question[1], &many.question[1]);
    }
}

static void every_group_keeps_what_one_rank_keeps(void **state)
{
    (void)state;
    for (int i = 0; i < GROUPS; i++) {
        const struct group_case alone = {groups[i].folder, 1};
        struct scene one = sparse_scene(ask_one, &alone);
        struct scene many = sparse_scene(ask_one, &groups[i]);

        if (groups[i].folder == qwen3)
            continue; /* has too few positions */
        assert_int_equal(perform(&one), TCA_OK);
        assert_int_equal(perform(&many), TCA_OK);
        assert_same_selection(&one.question[1], &many.question[1]);
    }
}

/* Heads that keep over half read every stripe's rows in place. */
static void whole_heads_are_read_in_place_on_all_stripes(void **state)
{
    const struct group_case group = {two_heads, 5};
    struct scene dense = sparse_scene(ask_one, &group);
    struct scene whole = sparse_scene(ask_one, &group);

    (void)state;
    dense.prefill = dense.sparsity = (struct sparsity){.keep = 1.0};
    whole.prefill.keep = whole.sparsity.keep = 0.6;
    assert_int_equal(perform(&dense), TCA_OK);
    assert_int_equal(perform(&whole), TCA_OK);
    assert_same_answer(&dense.question[1], &whole.question[1]);
    assert_true(whole.question[1].usage.kept_share == 1.0);
    assert_true(whole.question[1].usage.kept_mass_min > 0.99);
}

static void tau_is_met_by_the_mass_of_all_stripes(void **state)
{
    const struct group_case group = {four_heads, 7};
    struct scene one = sparse_scene(ask_one, NULL);
    struct scene many = sparse_scene(ask_one, &group);

    (void)state;
    one.profile = many.profile = profile_path;
    one.sparsity.tau = many.sparsity.tau = 0.5;
    assert_int_equal(perform(&one), TCA_OK);
    assert_int_equal(perform(&many), TCA_OK);
    assert_true(many.question[1].usage.kept_mass_mean >= 0.5);
    assert_true(fabs(one.question[1].usage.kept_share - many.question[1].usage.kept_share) < 0.01);
    assert_same_answer(&one.question[1], &many.question[1]);
}

/* The answer's rows cross units while it selects anew by its own last queries. */
static void refresh_across_units(struct scene *scene)
{
    open_document(scene, 1, TOKENS);
    run_until_idle(scene);
    open_question(scene, 1, 1, 50, 90, &greedy);
    run_until_idle(scene);
}

static void refreshing_selects_by_the_answer_s_queries(void **state)
{
    const struct group_case group = {two_heads, 5}, alone = {two_heads, 1};
    struct scene one = sparse_scene(refresh_across_units, &alone);
    struct scene many = sparse_scene(refresh_across_units, &group);
    struct scene plain = sparse_scene(refresh_across_units, &alone);

    (void)state;
    one.refresh_every = many.refresh_every = 33;
    one.prefill = many.prefill = plain.prefill = (struct sparsity){.keep = 1.0};
    many.stripe_unit = SMALL_UNIT;
    assert_int_equal(perform(&one), TCA_OK);
    assert_int_equal(perform(&many), TCA_OK);
    assert_int_equal(perform(&plain), TCA_OK);
    assert_same_answer(&one.question[1], &many.question[1]);
    /* That the refresh is in the answer at all. */
    assert_true(fabs((double)one.question[1].token[60].chosen.logprob -
                     (double)plain.question[1].token[60].chosen.logprob) > 1e-4);
}

static void evict(struct scene *scene)
{
    scene->evicts = true;
    open_question(scene, 1, 0, TOKENS + CHUNK, 12, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].failed, 0);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void an_evicting_prompt_keeps_what_one_rank_keeps(void **state)
{
    const struct group_case group = {four_heads, 6};
    struct scene one = sparse_scene(evict, NULL);
    struct scene many = sparse_scene(evict, &group);

    (void)state;
    assert_int_equal(perform(&one), TCA_OK);
    assert_int_equal(perform(&many), TCA_OK);
    assert_same_selection(&one.question[1], &many.question[1]);
    assert_int_equal(many.question[1].evicted_tokens, 2 * one.question[1].evicted_tokens);
    assert_true(one.question[1].evicted_tokens > 0);
}

/* A sequence shorter than a unit, and one whose last unit is another stripe's. */
static void open_short_sequences(struct scene *scene)
{
    const size_t token_bytes = 2 * 2 * TINY_HEAD_DIM * sizeof(uint16_t);

    open_document(scene, 1, 50);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 64 * token_bytes);
    open_document(scene, 2, 3 * SMALL_UNIT);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), (64 + 2 * 64) * token_bytes);
    open_question(scene, 1, 2, 9, 3, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].end, QUESTION_LENGTH);
    assert_int_equal(model_shard_facts(scene->run->shard)->kv_capacity_tokens,
                     2 * 1024 * 1024 / token_bytes);
    assert_int_equal(model_shard_facts(scene->run->shard)->kv_bytes_per_token, token_bytes / 2);
}

static void a_rank_keeps_the_rows_of_its_units_alone(void **state)
{
    struct scene scene = {.play = open_short_sequences,
                          .folder = one_head,
                          .ranks = 2,
                          .stripe_unit = SMALL_UNIT,
                          .kv_memory_bytes = 1024 * 1024};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

/* What the formula says a step of C tokens sends over so many layers: O observers (0: dense) of N
 * tokens before, on R stripes of one head with 8 query heads of 16. A document's step has one layer
 * less than the model: of the last, K and V are all that is wanted. */
static int64_t expected_bytes(int64_t C, int64_t O, int64_t N, int64_t R, int64_t layers)
{
    const int64_t G = 8, d = TINY_HEAD_DIM, hidden = 64;
    const int64_t sum = 2 * C * hidden * (int64_t)sizeof(float) * (R - 1) / R;
    const int64_t lse = 4 * O * G * (R - 1);
    const int64_t masses = O == 0 ? 0 : 4 * (N / 64) * (R - 1) / R;
    const int64_t outputs = (C + R - 1) / R * G * (2 * d + 4) * (R - 1);

    return R * (sum + layers * (2 * sum + lse + masses + outputs));
}

static void count_bytes(struct scene *scene)
{
    enum { ROUND = 4 * UNIT }; /* a unit of every stripe */
    bool is_busy;

    open_document(scene, 1, 3 * ROUND + CHUNK);
    step(scene, &is_busy); /* opened */
    assert_int_equal(lockstep_sent_bytes(scene->run->lockstep), 0);
    step(scene, &is_busy);
    assert_int_equal(lockstep_sent_bytes(scene->run->lockstep), expected_bytes(CHUNK, 0, 0, 4, 1));
    while (scene->document[1].ready == 0)
        step(scene, &is_busy);
    assert_int_equal(lockstep_sent_bytes(scene->run->lockstep),
                     expected_bytes(CHUNK, 16, 3 * ROUND, 4, 1));
    /* Dense: 9 tokens, the first of the answer with them, and 2 steps of one token. */
    scene->sparsity = (struct sparsity){.keep = 1.0};
    open_question(scene, 1, 1, 9, 3, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].usage.exchanged_bytes,
                     expected_bytes(9, 0, 0, 4, 2) + 2 * expected_bytes(1, 0, 0, 4, 2));
}

static void what_is_sent_is_what_the_formula_says(void **state)
{
    const struct group_case group = {one_head, 4};
    struct scene scene = sparse_scene(count_bytes, &group);

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

static void a_device_without_the_operations_is_refused(void **state)
{
    struct kernel_backend backend = *kernel_backend_cpu();
    struct scene scene = {.play = ask_around, .folder = one_head, .ranks = 2, .backend = &backend};

    (void)state;
    backend.pick = NULL;
    assert_int_equal(perform(&scene), TCA_ERR_UNSUPPORTED);
    backend.pick = kernel_backend_cpu()->pick;
    scene.stripe_unit = 100;
    assert_int_equal(perform(&scene), TCA_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_answers_are_those_of_one_rank),
        cmocka_unit_test(every_rule_keeps_what_one_rank_keeps),
        cmocka_unit_test(every_group_keeps_what_one_rank_keeps),
        cmocka_unit_test(whole_heads_are_read_in_place_on_all_stripes),
        cmocka_unit_test(tau_is_met_by_the_mass_of_all_stripes),
        cmocka_unit_test(refreshing_selects_by_the_answer_s_queries),
        cmocka_unit_test(an_evicting_prompt_keeps_what_one_rank_keeps),
        cmocka_unit_test(a_rank_keeps_the_rows_of_its_units_alone),
        cmocka_unit_test(what_is_sent_is_what_the_formula_says),
        cmocka_unit_test(a_device_without_the_operations_is_refused),
    };
    int failed;

    tiny_model_make_heads(1, SCENE_POSITIONS, one_head);
    tiny_model_make_heads(2, SCENE_POSITIONS, two_heads);
    tiny_model_make_heads(4, SCENE_POSITIONS, four_heads);
    tiny_model_make("qwen3", qwen3);
    snprintf(profile_path, sizeof(profile_path), "%s/profile.json", four_heads);
    make_profile(profile_path, WINDOW, CHUNK, TOKENS);
    failed = cmocka_run_group_tests_name("stripes", tests, NULL, NULL);
    unlink(profile_path);
    tiny_model_remove(one_head);
    tiny_model_remove(two_heads);
    tiny_model_remove(four_heads);
    tiny_model_remove(qwen3);
    return failed;
}
