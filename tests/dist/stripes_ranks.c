/* One rank of a group over MPI whose model has a single KV head, so that all share it: on the CPU
 * or, with the argument `cuda`, each on a GPU of its own. Rank 0 compares what the group says,
 * densely and of what it selects, with one rank on the same device. Exit
 * status 77: too few GPUs. */
#include "tests/support/gpus.h"

#include "tests/unit/worker/engine_scene.h"

#include <unistd.h>

/* Chunks that cuDNN takes, and with two ranks enough stored rows that they are read together. */
enum { TOKENS = 3700, CHUNK = 512, UNIT = 256, WINDOW = 64, HEAD_DIM = 64, ANSWER = 24 };

/* How far from one rank: activations on GPUs are bf16, and every rank rounds its part of them. */
struct tolerance {
    double log_probability; /* at most */
    double margin;          /* a choice that was clearer is made alike */
    double kept_mass_mean;
    double moved_share; /* of the kept tokens, to another 256th of the document */
};

static struct scene one, many;
static struct tolerance tolerance = {0.05, 0.05, 2e-3, 0.03};

enum { DENSE = 1, POOLED, SPARSE_PREFILL, QUESTIONS = SPARSE_PREFILL };

static void ask_all(struct scene *scene)
{
    const struct select_method pooled = {.rule = SELECT_POOLED}, block = {.rule = SELECT_BLOCK};

    open_document(scene, 1, TOKENS);
    run_until_idle(scene);
    open_question(scene, DENSE, 1, 90, ANSWER, &greedy);
    scene->sparsity = (struct sparsity){.method = pooled, .keep = 0.3};
    scene->reports_selection = true;
    open_question(scene, POOLED, 1, 20, ANSWER, &greedy);
    run_until_idle(scene);
    scene->prefill = (struct sparsity){.method = block, .keep = 0.3};
    open_document(scene, 2, TOKENS);
    run_until_idle(scene);
    open_question(scene, SPARSE_PREFILL, 2, 20, ANSWER, &greedy);
    run_until_idle(scene);
    engine_close_document(scene->engine, 1);
    engine_close_document(scene->engine, 2);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void answers_are_those_of_one_rank(void **state)
{
    (void)state;
    for (int key = 1; key <= QUESTIONS; key++) {
        const struct outcome *a = &one.question[key], *b = &many.question[key];
        double furthest = 0;
        int i = 0;

        assert_int_equal(a->end, QUESTION_LENGTH);
        assert_int_equal(b->end, QUESTION_LENGTH);
        assert_int_equal(a->tokens, ANSWER);
        assert_int_equal(b->tokens, ANSWER);
        for (; i < ANSWER && a->token[i].chosen.id == b->token[i].chosen.id; i++)
            furthest = fmax(furthest, fabs((double)a->token[i].chosen.logprob -
                                           (double)b->token[i].chosen.logprob));
        printf("question %d: %d tokens alike, log-probabilities differ by up to %.4f\n", key, i,
               furthest);
        if (i < ANSWER && margin(&a->token[i]) >= tolerance.margin)
            fail_msg("question %d: another token %d, of margin %.3f", key, i, margin(&a->token[i]));
        assert_true(furthest <= tolerance.log_probability);
        assert_true(fabs((double)a->token[0].best[0].logprob -
                         (double)b->token[0].best[0].logprob) <= tolerance.log_probability);
    }
}

static void the_same_is_kept(void **state)
{
    (void)state;
    for (int key = POOLED; key <= QUESTIONS; key++) {
        const struct outcome *a = &one.question[key], *b = &many.question[key];
        int64_t kept = 0, moved = 0;

        assert_true(a->usage.kept_share == b->usage.kept_share);
        assert_true(a->usage.kept_share < 0.5);
        assert_int_equal(a->usage.core_cache_bytes, b->usage.core_cache_bytes);
        for (int bin = 0; bin < ENGINE_SELECTION_BINS; bin++) {
            kept += a->bins[bin];
            moved += labs((long)a->bins[bin] - (long)b->bins[bin]);
        }
        printf("question %d: kept mass %.4f and %.4f, %lld of %lld tokens elsewhere\n", key,
               a->usage.kept_mass_mean, b->usage.kept_mass_mean, (long long)moved, (long long)kept);
        assert_true(fabs(a->usage.kept_mass_mean - b->usage.kept_mass_mean) <=
                    tolerance.kept_mass_mean);
        assert_true((double)moved <= tolerance.moved_share * (double)kept);
    }
}

/* Partial outputs went between the ranks, beside the sums. */
static void the_ranks_shared_a_head(void **state)
{
    (void)state;
    assert_int_equal(one.question[DENSE].usage.exchanged_bytes, 0);
    assert_true(many.question[DENSE].usage.exchanged_bytes > 0);
}

static enum tca_status play(bool is_cuda)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_one_rank),
        cmocka_unit_test(the_same_is_kept),
        cmocka_unit_test(the_ranks_shared_a_head),
    };
    char folder[64];
    enum tca_status status;

    tiny_model_make_wide(1, HEAD_DIM, SCENE_POSITIONS, folder);
    many = (struct scene){.play = ask_all,
                          .folder = folder,
                          .positions = SCENE_POSITIONS,
                          .is_world = true,
                          .device = is_cuda ? DEVICE_CUDA : DEVICE_CPU,
                          .chunk = CHUNK,
                          .window = WINDOW,
                          .stripe_unit = UNIT,
                          .kv_memory_bytes = 64 << 20};
    one = many;
    one.is_world = false;
    status = perform(&many);
    if (status == TCA_OK && many.steps > 0) { /* rank 0 */
        status = perform(&one);
        if (status == TCA_OK && cmocka_run_group_tests_name("stripes", tests, NULL, NULL) != 0)
            status = TCA_ERR_INVALID;
    }
    tiny_model_remove(folder);
    return status;
}

int main(int argc, char **argv)
{
    const bool is_cuda = argc == 2 && strcmp(argv[1], "cuda") == 0;

    if (is_cuda && !has_gpu_for_each_rank()) {
        printf("too few GPUs\n");
        return TEST_SKIPPED;
    }
    if (is_cuda)
        tolerance = (struct tolerance){0.05, 0.1, 5e-3, 0.1};
    return play(is_cuda) == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
