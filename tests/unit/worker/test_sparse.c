/* Sparse rules on groups of 1 to 4 ranks (threads) with a small made-up model: what is read in
 * place equals dense attention, and what is selected depends on no rank, load or path. */
#include "tests/unit/worker/engine_scene.h"

#include <unistd.h>

enum { TOKENS = 2000, WINDOW = 64, CHUNK = 128, HEADS = 2 * 4 };

static const struct select_method pooled = {.rule = SELECT_POOLED};
static const struct select_method block = {.rule = SELECT_BLOCK};
static char folder[64], profile_path[96];

static struct scene sparse_scene(scene_fn play)
{
    return (struct scene){.play = play,
                          .positions = SCENE_POSITIONS,
                          .chunk = CHUNK,
                          .window = WINDOW,
                          .kv_memory_bytes = 64 << 20,
                          .prefill = {.method = block, .keep = 0.35},
                          .sparsity = {.method = pooled, .keep = 0.4}};
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

/* The ranks' parts of the vocabulary are summed in an order of their own. */
static const double rounding = 1e-5;

static double distance(const struct sampled_token *a, const struct sampled_token *b)
{
    return fabs((double)a->chosen.logprob - (double)b->chosen.logprob);
}

static void assert_equal_answers(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->tokens, b->tokens);
    assert_true(a->tokens > 0);
    for (int i = 0; i < a->tokens; i++) {
        assert_int_equal(a->token[i].chosen.id, b->token[i].chosen.id);
        assert_true(distance(&a->token[i], &b->token[i]) < rounding);
    }
}

static bool differs(const struct outcome *a, const struct outcome *b)
{
    for (int i = 0; i < a->tokens && i < b->tokens; i++)
        if (distance(&a->token[i], &b->token[i]) > 10.0 * rounding)
            return true;
    return a->tokens != b->tokens;
}

static void heads_that_keep_over_half_read_in_place(void **state)
{
    struct scene dense = sparse_scene(ask_one);
    struct scene question = sparse_scene(ask_one);
    struct scene both = sparse_scene(ask_one);

    (void)state;
    dense.prefill = dense.sparsity = (struct sparsity){.keep = 1.0};
    question.prefill = dense.prefill;
    question.sparsity.keep = both.sparsity.keep = 0.6;
    /* Early chunks have fewer tokens before them than the least budget: those are dense anyway. */
    both.prefill.keep = 0.6;
    assert_int_equal(perform(&dense), TCA_OK);
    assert_int_equal(perform(&question), TCA_OK);
    assert_int_equal(perform(&both), TCA_OK);
    assert_equal_answers(&dense.question[1], &question.question[1]);
    /* A chunk's own attention and that before it are merged in bf16. */
    assert_same_answer(&dense.question[1], &both.question[1]);
    assert_true(question.question[1].usage.kept_share == 1.0);
    assert_true(question.question[1].usage.kept_mass_min > 0.9999);
    assert_true(dense.question[1].usage.kept_mass_mean == 1.0);
}

static void every_number_of_ranks_keeps_the_same(void **state)
{
    struct scene one = sparse_scene(ask_one);

    (void)state;
    one.reports_selection = true;
    assert_int_equal(perform(&one), TCA_OK);
    assert_true(one.question[1].usage.kept_share > 0.39 && one.question[1].usage.kept_share < 0.41);
    for (int ranks = 2; ranks <= 4; ranks++) {
        struct scene many = sparse_scene(ask_one);

        many.ranks = ranks;
        many.reports_selection = true;
        assert_int_equal(perform(&many), TCA_OK);
        assert_equal_answers(&one.question[1], &many.question[1]);
        assert_memory_equal(one.question[1].bins, many.question[1].bins,
                            sizeof(one.question[1].bins));
        assert_true(one.question[1].usage.kept_share == many.question[1].usage.kept_share);
        assert_true(one.question[1].usage.kept_mass_min == many.question[1].usage.kept_mass_min);
        assert_true(fabs(one.question[1].usage.kept_mass_mean -
                         many.question[1].usage.kept_mass_mean) < 1e-9);
    }
}

static void every_rule_answers_and_says_what_it_keeps(void **state)
{
    const enum select_rule rules[] = {SELECT_POOLED, SELECT_BLOCK, SELECT_WINDOW};
    struct scene dense = sparse_scene(ask_one);

    (void)state;
    dense.prefill = dense.sparsity = (struct sparsity){.keep = 1.0};
    assert_int_equal(perform(&dense), TCA_OK);
    for (int i = 0; i < 3; i++) {
        struct scene scene = sparse_scene(ask_one);
        const struct outcome *outcome = &scene.question[1];
        uint64_t kept = 0;

        scene.prefill = (struct sparsity){.keep = 1.0};
        scene.sparsity.method.rule = rules[i];
        scene.reports_selection = true;
        assert_int_equal(perform(&scene), TCA_OK);
        assert_true(differs(outcome, &dense.question[1]));
        assert_true(outcome->usage.kept_share <= 0.4 + 1e-9);
        assert_true(outcome->usage.kept_mass_mean < 1.0 && outcome->usage.kept_mass_mean > 0.1);
        assert_true(outcome->usage.kept_mass_min <= outcome->usage.kept_mass_mean);
        assert_true(outcome->usage.core_cache_bytes < outcome->usage.full_kv_bytes / 2);
        assert_int_equal(outcome->selections, HEADS);
        for (int bin = 0; bin < ENGINE_SELECTION_BINS; bin++)
            kept += outcome->bins[bin];
        assert_true(fabs((double)kept - outcome->usage.kept_share * TOKENS * HEADS) < 0.5);
        assert_true(outcome->bins[0] > 0 && outcome->bins[ENGINE_SELECTION_BINS - 1] > 0);
    }
}

static void a_larger_share_keeps_more_mass(void **state)
{
    const double shares[] = {0.01, 0.4, 0.49};
    double before = 0.0;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct scene scene = sparse_scene(ask_one);

        scene.prefill = (struct sparsity){.keep = 1.0};
        scene.sparsity.keep = shares[i];
        assert_int_equal(perform(&scene), TCA_OK);
        assert_true(scene.question[1].usage.kept_mass_mean > before);
        before = scene.question[1].usage.kept_mass_mean;
        if (i == 0) /* the least budget */
            assert_true(fabs(scene.question[1].usage.kept_share - 640.0 / TOKENS) < 1e-6);
    }
}

/* A question is written while the document is prefilled: the chunks stay whole. */
static void prefill_under_load(struct scene *scene)
{
    bool is_busy;

    open_document(scene, 2, 300);
    run_until_idle(scene);
    open_question(scene, 2, 2, 5, 200, &greedy);
    for (int i = 0; i < 5; i++)
        step(scene, &is_busy);
    assert_true(scene->question[2].tokens > 0 && scene->question[2].done == 0);
    open_document(scene, 1, TOKENS);
    while (scene->document[1].ready == 0)
        step(scene, &is_busy);
    assert_int_equal(scene->question[2].done, 0);
    open_question(scene, 1, 1, 20, 12, &greedy);
    run_until_idle(scene);
}

static void what_is_selected_does_not_depend_on_the_load(void **state)
{
    struct scene alone = sparse_scene(ask_one);
    struct scene loaded = sparse_scene(prefill_under_load);

    (void)state;
    assert_int_equal(perform(&alone), TCA_OK);
    assert_int_equal(perform(&loaded), TCA_OK);
    assert_same_answer(&alone.question[1], &loaded.question[1]);
    assert_true(fabs(alone.question[1].usage.kept_mass_mean -
                     loaded.question[1].usage.kept_mass_mean) < 1e-3);
}

/* The prompt's last 128 tokens (a chunk) observe; the rest is its head. */
static void evict(struct scene *scene)
{
    struct question_params params = {.key = 1,
                                     .tokens = TOKENS + CHUNK,
                                     .max_tokens = 12,
                                     .sampling = greedy,
                                     .sparsity = scene->sparsity,
                                     .evicts = true};
    int32_t ids[TOKENS + CHUNK];
    size_t most = 0;
    bool is_busy = true;

    make_ids(ids, TOKENS, 1);
    make_ids(ids + TOKENS, CHUNK, 101);
    engine_open_question(scene->engine, &params);
    engine_receive_question(scene->engine, 1, ids, TOKENS + CHUNK);
    while (is_busy) {
        const size_t used = model_shard_used_bytes(scene->run->shard);

        most = used > most ? used : most;
        if (scene->question[1].tokens == 3)
            assert_true(used < most * 6 / 10);
        step(scene, &is_busy);
    }
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void ask_with_a_chunk(struct scene *scene)
{
    open_document(scene, 1, TOKENS);
    run_until_idle(scene);
    open_question(scene, 1, 1, CHUNK, 12, &greedy);
    run_until_idle(scene);
}

static void an_evicting_prompt_answers_as_a_question_over_its_head(void **state)
{
    struct scene question = sparse_scene(ask_with_a_chunk);
    struct scene prompt = sparse_scene(evict);

    (void)state;
    question.prefill = (struct sparsity){.keep = 1.0};
    prompt.ranks = 2;
    assert_int_equal(perform(&question), TCA_OK);
    assert_int_equal(perform(&prompt), TCA_OK);
    assert_equal_answers(&question.question[1], &prompt.question[1]);
    assert_true(fabs(question.question[1].usage.kept_mass_mean -
                     prompt.question[1].usage.kept_mass_mean) < 1e-9);
    assert_int_equal(prompt.question[1].evicted_tokens, CHUNK + 12 + 800);
}

static void cancel_while_evicting(struct scene *scene)
{
    struct question_params params = {.key = 1,
                                     .tokens = TOKENS,
                                     .max_tokens = 12,
                                     .sampling = greedy,
                                     .sparsity = scene->sparsity,
                                     .evicts = true};
    int32_t ids[TOKENS];
    bool is_busy;

    make_ids(ids, TOKENS, 1);
    engine_open_question(scene->engine, &params);
    engine_receive_question(scene->engine, 1, ids, TOKENS);
    for (int i = 0; i < 4; i++)
        step(scene, &is_busy);
    assert_true(model_shard_used_bytes(scene->run->shard) > 0);
    engine_cancel_question(scene->engine, 1);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].end, QUESTION_CANCELLED);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void a_cancelled_prompt_leaves_nothing(void **state)
{
    struct scene scene = sparse_scene(cancel_while_evicting);

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

static void refreshing_selects_by_the_answer(void **state)
{
    struct scene plain = sparse_scene(ask_one);
    struct scene refreshed = sparse_scene(ask_one);
    struct scene whole = sparse_scene(ask_one);
    struct scene dense = sparse_scene(ask_one);

    (void)state;
    dense.prefill = dense.sparsity = (struct sparsity){.keep = 1.0};
    plain.prefill = refreshed.prefill = whole.prefill = dense.prefill;
    refreshed.refresh_every = 3;
    refreshed.ranks = 3;
    whole.refresh_every = 3;
    whole.sparsity.keep = 0.6;
    assert_int_equal(perform(&plain), TCA_OK);
    assert_int_equal(perform(&refreshed), TCA_OK);
    assert_int_equal(perform(&whole), TCA_OK);
    assert_int_equal(perform(&dense), TCA_OK);
    assert_equal_answers(&dense.question[1], &whole.question[1]);
    /* The same until the third decode step, which reads what was selected anew. */
    for (int i = 0; i < 3; i++)
        assert_true(distance(&plain.question[1].token[i], &refreshed.question[1].token[i]) <
                    rounding);
    assert_true(differs(&plain.question[1], &refreshed.question[1]));
    assert_true(fabs(plain.question[1].usage.kept_mass_mean -
                     refreshed.question[1].usage.kept_mass_mean) < 1e-9);
}

static void ask_without_a_profile(struct scene *scene)
{
    const struct sparsity tca = {.method = {.rule = SELECT_TCA}, .keep = 0.4};

    open_document(scene, 1, 300);
    run_until_idle(scene);
    scene->sparsity.tau = 0.9;
    open_question(scene, 1, 1, 20, 12, &greedy);
    scene->sparsity = tca;
    open_question(scene, 2, 1, 20, 12, &greedy);
    scene->prefill = tca;
    open_document(scene, 2, 300);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].status, TCA_ERR_PRECONDITION);
    assert_int_equal(scene->question[2].status, TCA_ERR_PRECONDITION);
    assert_int_equal(scene->document[2].status, TCA_ERR_PRECONDITION);
    assert_non_null(strstr(scene->question[1].message, "tca-calibrate"));
}

static void what_needs_a_profile_fails_without(void **state)
{
    struct scene scene = sparse_scene(ask_without_a_profile);

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

static void a_profile_spreads_the_share(void **state)
{
    struct scene uniform = sparse_scene(ask_one);
    struct scene spread = sparse_scene(ask_one);

    (void)state;
    uniform.prefill = spread.prefill = (struct sparsity){.keep = 1.0};
    spread.profile = profile_path;
    assert_int_equal(perform(&uniform), TCA_OK);
    assert_int_equal(perform(&spread), TCA_OK);
    assert_true(differs(&uniform.question[1], &spread.question[1]));
    /* Heads that get over half read all in place: the kept share may pass what was asked for. */
    assert_true(spread.question[1].usage.kept_share > 0.39);
}

static void tau_gives_every_head_its_mass(void **state)
{
    struct scene low = sparse_scene(ask_one);
    struct scene high = sparse_scene(ask_one);
    struct scene uniform = sparse_scene(ask_one);

    (void)state;
    low.prefill = high.prefill = uniform.prefill = (struct sparsity){.keep = 1.0};
    low.profile = high.profile = profile_path;
    low.ranks = 2;
    low.sparsity.tau = 0.5;
    high.sparsity.tau = 0.97;
    uniform.sparsity.keep = 0.33;
    assert_int_equal(perform(&low), TCA_OK);
    assert_int_equal(perform(&high), TCA_OK);
    assert_int_equal(perform(&uniform), TCA_OK);
    assert_true(low.question[1].usage.kept_mass_mean >= 0.5);
    /* The made-up heads look at everything alike: only reading in place keeps 0.97 of that,
     * whatever the profile says of the concentrated one. */
    assert_true(high.question[1].usage.kept_mass_mean > 0.97);
    assert_true(high.question[1].usage.kept_share > low.question[1].usage.kept_share);
}

static void the_paper_s_rule_answers_alike_on_all_ranks(void **state)
{
    const struct select_method methods[] = {
        {SELECT_TCA, SELECT_REDUNDANCY_SIMPSON, .observes_last = true},
        {SELECT_TCA, SELECT_REDUNDANCY_MASS, .observes_last = false}};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct scene one = sparse_scene(ask_one);
        struct scene three = sparse_scene(ask_one);

        one.profile = three.profile = profile_path;
        one.prefill.method = one.sparsity.method = methods[i];
        three.prefill.method = three.sparsity.method = methods[i];
        three.ranks = 3;
        assert_int_equal(perform(&one), TCA_OK);
        assert_int_equal(perform(&three), TCA_OK);
        assert_equal_answers(&one.question[1], &three.question[1]);
        assert_true(one.question[1].usage.kept_share == three.question[1].usage.kept_share);
        assert_true(one.question[1].usage.kept_mass_mean < 1.0);
    }
}

static void a_foreign_profile_is_refused(void **state)
{
    struct scene scene = sparse_scene(ask_one);
    char path[96];

    (void)state;
    snprintf(path, sizeof(path), "%s/missing.json", folder);
    scene.profile = path;
    assert_int_not_equal(perform(&scene), TCA_OK);
    scene.profile = "none";
    assert_int_equal(perform(&scene), TCA_OK);
}

/* Memory for the document, the question's rows, but not for its core cache. */
static void ask_without_memory(struct scene *scene)
{
    open_document(scene, 1, TOKENS);
    run_until_idle(scene);
    open_question(scene, 1, 1, 20, 12, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].status, TCA_ERR_BUSY);
    scene->sparsity = (struct sparsity){.keep = 1.0};
    open_question(scene, 2, 1, 20, 12, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[2].failed, 0);
}

static void a_core_cache_without_memory_fails_alone(void **state)
{
    /* 2 layers of K and V for 4 heads of 16 dimensions in bf16: 512 bytes a token. */
    struct scene scene = sparse_scene(ask_without_memory);

    (void)state;
    scene.kv_memory_bytes = (TOKENS / 64 * 64 + 64 + 64 + 256) * 512;
    assert_int_equal(perform(&scene), TCA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_that_keep_over_half_read_in_place),
        cmocka_unit_test(every_number_of_ranks_keeps_the_same),
        cmocka_unit_test(every_rule_answers_and_says_what_it_keeps),
        cmocka_unit_test(a_larger_share_keeps_more_mass),
        cmocka_unit_test(what_is_selected_does_not_depend_on_the_load),
        cmocka_unit_test(an_evicting_prompt_answers_as_a_question_over_its_head),
        cmocka_unit_test(a_cancelled_prompt_leaves_nothing),
        cmocka_unit_test(refreshing_selects_by_the_answer),
        cmocka_unit_test(what_needs_a_profile_fails_without),
        cmocka_unit_test(a_profile_spreads_the_share),
        cmocka_unit_test(tau_gives_every_head_its_mass),
        cmocka_unit_test(the_paper_s_rule_answers_alike_on_all_ranks),
        cmocka_unit_test(a_foreign_profile_is_refused),
        cmocka_unit_test(a_core_cache_without_memory_fails_alone),
    };
    int failed;

    tiny_model_make_long("llama", SCENE_POSITIONS, folder);
    scene_folder = folder;
    snprintf(profile_path, sizeof(profile_path), "%s/profile.json", folder);
    make_profile(profile_path, WINDOW, CHUNK, TOKENS);
    failed = cmocka_run_group_tests_name("sparse", tests, NULL, NULL);
    unlink(profile_path);
    tiny_model_remove(folder);
    return failed;
}
