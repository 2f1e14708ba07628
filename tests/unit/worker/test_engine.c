/* The engine on groups of 1 to 4 ranks (threads) with small made-up models: whatever the ranks,
 * chunks, batches and memory, a question's answer is the same. */
#include "tests/unit/worker/engine_scene.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOCUMENT_TOKENS = 150 };

static char llama[64], qwen2[64], qwen3[64];

/* Two documents, three questions over them and a bare prompt, all together. */
static void ask_around(struct scene *scene)
{
    open_document(scene, 1, DOCUMENT_TOKENS);
    open_document(scene, 2, 70);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].ready, 1);
    assert_int_equal(scene->document[2].ready, 1);
    open_question(scene, 1, 1, 9, 12, &greedy);
    open_question(scene, 2, 1, 20, 12, &greedy);
    open_question(scene, 3, 2, 9, 12, &greedy);
    open_question(scene, 4, 0, 90, 12, &greedy);
    run_until_idle(scene);
    for (int key = 1; key <= 4; key++)
        assert_int_equal(scene->question[key].end, QUESTION_LENGTH);
    engine_close_document(scene->engine, 1);
    engine_close_document(scene->engine, 2);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].closed, 1);
    assert_int_equal(scene->document[2].closed, 1);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void every_number_of_ranks_gives_the_same_answers(void **state)
{
    const char *const folders[] = {llama, qwen2, qwen3};

    (void)state;
    for (int model = 0; model < 3; model++) {
        struct scene one = {.play = ask_around, .folder = folders[model], .ranks = 1};

        assert_int_equal(perform(&one), TCA_OK);
        for (int ranks = 2; ranks <= 4; ranks++) {
            struct scene many = {.play = ask_around, .folder = folders[model], .ranks = ranks};

            assert_int_equal(perform(&many), TCA_OK);
            for (int key = 1; key <= 4; key++)
                assert_same_answer(&one.question[key], &many.question[key]);
        }
    }
}

static void every_chunk_size_gives_the_same_answers(void **state)
{
    const int chunks[] = {1, 16, 50, 512};
    struct scene reference = {.play = ask_around, .chunk = 64};

    (void)state;
    assert_int_equal(perform(&reference), TCA_OK);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
        struct scene other = {.play = ask_around, .chunk = chunks[i], .ranks = 2};

        assert_int_equal(perform(&other), TCA_OK);
        assert_int_equal(other.document[1].progress, (DOCUMENT_TOKENS + chunks[i] - 1) / chunks[i]);
        for (int key = 1; key <= 4; key++)
            assert_same_answer(&reference.question[key], &other.question[key]);
    }
}

static enum tca_status look_at_the_chunk(void *context, const struct group_run *run)
{
    const struct group_run_options *options = context;

    assert_int_equal(run->chunk_tokens, 48);
    assert_int_equal(model_shard_limits(run->shard).tokens, 48 + options->max_sequences);
    return TCA_OK;
}

static void the_device_says_how_long_a_chunk_is(void **state)
{
    struct kernel_backend backend = *kernel_backend_cpu();
    struct group_run_options options = {.model_folder = scene_folder,
                                        .local_ranks = 2,
                                        .threads = 1,
                                        .kv_memory_bytes = 16 << 20,
                                        .max_sequences = 4,
                                        .has_dummy_weights = true,
                                        .backend = &backend};

    (void)state;
    backend.step_rows = 48;
    assert_int_equal(group_run(&options, look_at_the_chunk, &options), TCA_OK);
}

static void answer_over_four_chunks(struct scene *scene)
{
    open_document(scene, 1, 4 * scene->chunk);
    run_until_idle(scene);
    open_question(scene, 1, 1, 9, 12, &greedy);
    run_until_idle(scene);
}

/* Chunks of 96, which the device does in time behind up to 144 keys: behind 192 a step takes 72
 * tokens and the next one the chunk's other 24, behind 288 twice 48. Each of two ranks has half of
 * the 8 heads. */
static void behind_many_keys_chunks_are_cut(void **state)
{
    struct kernel_backend backend = *kernel_backend_cpu();
    const int layers = 2, heads_a_rank = 8 / 2, head_dim = 16;
    struct scene whole = {.play = answer_over_four_chunks, .chunk = 96}, cut = whole;

    (void)state;
    backend.step_flops = 4.0 * layers * heads_a_rank * head_dim * 96 * 144;
    cut.backend = &backend;
    cut.ranks = 2;
    assert_int_equal(perform(&whole), TCA_OK);
    assert_int_equal(perform(&cut), TCA_OK);
    assert_int_equal(whole.document[1].progress, 4);
    assert_int_equal(cut.document[1].progress, 2 + 2 + 2);
    assert_same_answer(&whole.question[1], &cut.question[1]);
}

/* The same questions, one after another. */
static void ask_in_turn(struct scene *scene)
{
    open_document(scene, 1, DOCUMENT_TOKENS);
    open_document(scene, 2, 70);
    run_until_idle(scene);
    open_question(scene, 1, 1, 9, 12, &greedy);
    run_until_idle(scene);
    open_question(scene, 2, 1, 20, 12, &greedy);
    run_until_idle(scene);
    open_question(scene, 3, 2, 9, 12, &greedy);
    run_until_idle(scene);
    open_question(scene, 4, 0, 90, 12, &greedy);
    run_until_idle(scene);
}

static void questions_together_answer_as_alone(void **state)
{
    struct scene together = {.play = ask_around};
    struct scene alone = {.play = ask_in_turn, .max_sequences = 1};

    (void)state;
    assert_int_equal(perform(&together), TCA_OK);
    assert_int_equal(perform(&alone), TCA_OK);
    for (int key = 1; key <= 4; key++)
        assert_same_answer(&together.question[key], &alone.question[key]);
}

/* A question over a document is the bare prompt of both, which arrives in two pieces. */
static void ask_both_ways(struct scene *scene)
{
    int document = *(const int *)scene->extra;
    struct question_params params = {
        .key = 2, .tokens = document + 9, .max_tokens = 12, .sampling = greedy};
    int32_t ids[TINY_POSITIONS];

    open_document(scene, 1, document);
    run_until_idle(scene);
    open_question(scene, 1, 1, 9, 12, &greedy);
    make_ids(ids, document, 1);
    make_ids(ids + document, 9, 101);
    engine_open_question(scene->engine, &params);
    engine_receive_question(scene->engine, 2, ids, document - 1);
    run_until_idle(scene);
    engine_receive_question(scene->engine, 2, ids + document - 1, 10);
    run_until_idle(scene);
    assert_same_answer(&scene->question[1], &scene->question[2]);
}

/* The shorter the document, the more each of its tokens counts. */
static void a_document_and_a_question_equal_one_prompt(void **state)
{
    int documents[] = {2, 65, DOCUMENT_TOKENS};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct scene scene = {.play = ask_both_ways, .ranks = 2, .extra = &documents[i]};

        assert_int_equal(perform(&scene), TCA_OK);
    }
}

static void end_at_an_end_token(struct scene *scene)
{
    const struct outcome *first = &scene->question[1];
    struct question_params params = {
        .key = 2, .tokens = 9, .max_tokens = 50, .sampling = greedy, .end_tokens = 2};
    int32_t ids[9];

    open_question(scene, 1, 0, 9, 12, &greedy);
    run_until_idle(scene);
    params.end_token[0] = -1;
    params.end_token[1] = first->token[5].chosen.id;
    make_ids(ids, 9, 101);
    engine_open_question(scene->engine, &params);
    engine_receive_question(scene->engine, 2, ids, 9);
    run_until_idle(scene);
    assert_int_equal(scene->question[2].end, QUESTION_EOS);
    assert_in_range(scene->question[2].tokens, 0, 5);
    for (int i = 0; i < scene->question[2].tokens; i++) {
        assert_int_equal(scene->question[2].token[i].chosen.id, first->token[i].chosen.id);
        assert_int_not_equal(scene->question[2].token[i].chosen.id, params.end_token[1]);
    }
    assert_true(scene->question[2].usage.full_kv_bytes > 0);
}

static void an_end_token_ends_the_answer_and_is_not_part_of_it(void **state)
{
    struct scene scene = {.play = end_at_an_end_token};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

/* 512 positions: the last token can still be said, but not run. */
static void fill_the_positions(struct scene *scene)
{
    open_document(scene, 1, 400);
    run_until_idle(scene);
    open_question(scene, 1, 1, 12, 1000, &greedy);
    open_question(scene, 2, 1, 112, 1000, &greedy);
    open_question(scene, 3, 1, 113, 1000, &greedy);
    engine_open_document(scene->engine, 2, TINY_POSITIONS + 1, NULL);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].end, QUESTION_LENGTH);
    assert_int_equal(scene->question[1].tokens, TINY_POSITIONS - 412 + 1);
    assert_int_equal(scene->question[2].end, QUESTION_LENGTH);
    assert_int_equal(scene->question[2].tokens, 1);
    assert_int_equal(scene->question[3].end, QUESTION_FAILED);
    assert_int_equal(scene->question[3].status, TCA_ERR_RANGE);
    assert_int_equal(scene->document[2].status, TCA_ERR_RANGE);
}

static void an_answer_ends_where_the_positions_end(void **state)
{
    struct scene scene = {.play = fill_the_positions};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

static void sample_twice(struct scene *scene)
{
    struct sampler_params sampling = {.temperature = 1.5,
                                      .top_k = 50,
                                      .top_p = 0.95,
                                      .repetition_penalty = 1.1,
                                      .seed = 7,
                                      .logprobs = 3};

    open_question(scene, 1, 0, 9, 30, &sampling);
    run_until_idle(scene);
    open_question(scene, 2, 0, 9, 30, &sampling); /* other ids: keys salt them */
    sampling.seed = 8;
    open_question(scene, 3, 0, 9, 30, &sampling);
    run_until_idle(scene);
}

static void the_same_seed_gives_the_same_tokens(void **state)
{
    struct scene first = {.play = sample_twice};
    struct scene second = {.play = sample_twice, .ranks = 1};
    int different = 0;

    (void)state;
    assert_int_equal(perform(&first), TCA_OK);
    assert_int_equal(perform(&second), TCA_OK);
    for (int key = 1; key <= 3; key++)
        for (int i = 0; i < 30; i++)
            assert_int_equal(first.question[key].token[i].chosen.id,
                             second.question[key].token[i].chosen.id);
    for (int i = 0; i < 30; i++)
        different += first.question[1].token[i].chosen.id != first.question[3].token[i].chosen.id;
    assert_true(different > 0);
    assert_int_equal(first.question[1].token[0].top, 3);
}

/* The first token, with whole rows gathered from three ranks, against candidates only. */
static void look_both_ways(struct scene *scene)
{
    struct sampler_params nudged = greedy;

    nudged.repetition_penalty = 1.0000001; /* asks for whole rows, changes nothing */
    open_question(scene, 1, 0, 9, 1, &greedy);
    run_until_idle(scene);
    scene->question[2] = scene->question[1];
    memset(&scene->question[1], 0, sizeof(scene->question[1]));
    open_question(scene, 1, 0, 9, 1, &nudged);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].token[0].chosen.id, scene->question[2].token[0].chosen.id);
    for (int i = 0; i < 2; i++)
        assert_true(fabs((double)scene->question[1].token[0].best[i].logprob -
                         (double)scene->question[2].token[0].best[i].logprob) < 1e-4);
}

static void candidates_and_whole_rows_agree(void **state)
{
    struct scene scene = {.play = look_both_ways, .ranks = 3};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

static void cancel_and_close(struct scene *scene)
{
    bool is_busy;

    open_document(scene, 1, DOCUMENT_TOKENS);
    open_document(scene, 2, DOCUMENT_TOKENS);
    step(scene, &is_busy);                   /* opened */
    step(scene, &is_busy);                   /* first chunk */
    engine_close_document(scene->engine, 1); /* amid its prefill */
    engine_close_document(scene->engine, 1);
    engine_close_document(scene->engine, 6); /* never heard of: nothing happens */
    run_until_idle(scene);
    assert_int_equal(scene->document[1].closed, 1);
    assert_int_equal(scene->document[1].ready, 0);
    assert_int_equal(scene->document[6].closed, 0);
    assert_int_equal(scene->document[2].ready, 1);

    open_question(scene, 1, 2, 9, 300, &greedy);
    open_question(scene, 2, 2, 9, 300, &greedy);
    for (int i = 0; i < 5; i++)
        step(scene, &is_busy);
    engine_cancel_question(scene->engine, 1);
    engine_cancel_question(scene->engine, 1);
    assert_int_equal(scene->question[1].end, QUESTION_CANCELLED);
    assert_int_equal(scene->question[1].done, 1);
    engine_close_document(scene->engine, 2); /* takes the other with it */
    run_until_idle(scene);
    assert_int_equal(scene->question[2].status, TCA_ERR_ABORTED);
    assert_in_range(scene->question[2].tokens, 1, 10);
    assert_int_equal(scene->document[2].closed, 1);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void cancelled_work_stops_and_frees_its_memory(void **state)
{
    struct scene scene = {.play = cancel_and_close, .ranks = 2};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

static void ask_wrongly(struct scene *scene)
{
    struct sampler_params bad = greedy;
    const int32_t outside = TINY_VOCAB;
    const int32_t many[12] = {0};
    struct question_params params = {.key = 5, .tokens = 3, .max_tokens = 4, .sampling = greedy};
    bool is_busy;

    bad.top_p = 2.0;
    open_question(scene, 1, 0, 9, 5, &bad);
    assert_int_equal(scene->question[1].status, TCA_ERR_INVALID);
    open_question(scene, 2, 7, 9, 5, &greedy);
    assert_int_equal(scene->question[2].status, TCA_ERR_NOT_FOUND);
    engine_open_document(scene->engine, 1, 40, NULL);
    open_question(scene, 3, 1, 9, 5, &greedy);
    assert_int_equal(scene->question[3].status, TCA_ERR_PRECONDITION);
    engine_receive_document(scene->engine, 1, &outside, 1);
    assert_int_equal(scene->document[1].status, TCA_ERR_RANGE);
    assert_non_null(strstr(scene->document[1].message, "256"));
    engine_open_document(scene->engine, 2, 10, NULL);
    engine_receive_document(scene->engine, 2, many, 11);
    assert_int_equal(scene->document[2].status, TCA_ERR_RANGE);
    open_question(scene, 4, 0, 9, 0, &greedy);
    assert_int_equal(scene->question[4].status, TCA_ERR_INVALID);
    engine_open_question(scene->engine, &params);
    engine_receive_question(scene->engine, 5, many, 4);
    assert_int_equal(scene->question[5].status, TCA_ERR_RANGE);
    run_until_idle(scene);
    /* More questions than the group was made for. */
    params.max_tokens = 500;
    for (uint64_t key = 0; key < 5; key++) {
        scene->question[key].status = TCA_OK;
        params.key = key;
        engine_open_question(scene->engine, &params);
    }
    assert_int_equal(scene->question[3].status, TCA_OK);
    assert_int_equal(scene->question[4].status, TCA_ERR_BUSY);
    for (uint64_t key = 0; key < 4; key++)
        engine_cancel_question(scene->engine, key);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);

    open_document(scene, 3, 40);
    run_until_idle(scene);
    open_question(scene, 6, 3, 9, 300, &greedy);
    for (int i = 0; i < 3; i++)
        step(scene, &is_busy);
    engine_receive_document(scene->engine, 3, many,
                            1); /* it is READY: takes its question with it */
    assert_int_equal(scene->document[3].status, TCA_ERR_RANGE);
    run_until_idle(scene);
    assert_int_equal(scene->question[6].status, TCA_ERR_ABORTED);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

static void wrong_requests_fail_alone(void **state)
{
    struct scene scene = {.play = ask_wrongly, .ranks = 2};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

/* 128 tokens of KV on rank 0 of 3, which has two of the four heads: the others have room. */
static void run_out_of_memory(struct scene *scene)
{
    open_document(scene, 1, 100);
    open_document(scene, 2, 100);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].ready, 1);
    assert_int_equal(scene->document[2].failed, 1);
    assert_int_equal(scene->document[2].status, TCA_ERR_BUSY);
    open_question(scene, 1, 1, 9, 5, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[1].status, TCA_ERR_BUSY);
    engine_close_document(scene->engine, 1);
    run_until_idle(scene);
    open_document(scene, 3, 60);
    run_until_idle(scene);
    assert_int_equal(scene->document[3].ready, 1);
    open_question(scene, 2, 3, 9, 5, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->question[2].end, QUESTION_LENGTH);
}

static void memory_that_one_rank_lacks_fails_the_open_on_all(void **state)
{
    struct scene scene = {.play = run_out_of_memory,
                          .ranks = 3,
                          .kv_memory_bytes = 128 * 2 /* layers */ * 2 * 2 /* heads */ * 16 * 2};

    (void)state;
    assert_int_equal(perform(&scene), TCA_OK);
}

/* A backend whose device runs out of memory at the n-th allocation. */

static atomic_int allocations_left;
static struct kernel_backend failing;

static enum tca_status failing_alloc(int device, size_t bytes, void **ptr_out)
{
    if (atomic_fetch_sub(&allocations_left, 1) <= 0)
        return TCA_ERR_NO_MEMORY;
    return kernel_backend_cpu()->alloc(device, bytes, ptr_out);
}

static enum tca_status failing_weight_create(struct kernel_queue *queue, const uint16_t *host_rows,
                                             int rows, int cols, bool keep_rows,
                                             struct kernel_weight **weight_out)
{
    if (atomic_fetch_sub(&allocations_left, 1) <= 0)
        return TCA_ERR_NO_MEMORY;
    return kernel_backend_cpu()->weight_create(queue, host_rows, rows, cols, keep_rows, weight_out);
}

static void use_failing_backend(int allocations)
{
    failing = *kernel_backend_cpu();
    failing.alloc = failing_alloc;
    failing.weight_create = failing_weight_create;
    atomic_store(&allocations_left, allocations);
}

static void answer_or_fail(struct scene *scene)
{
    open_document(scene, 1, 40);
    open_question(scene, 1, 0, 9, 3, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].ready + scene->document[1].failed, 1);
    assert_int_equal(scene->question[1].done, 1);
    if (scene->document[1].failed)
        assert_int_equal(scene->document[1].status, TCA_ERR_BUSY);
    engine_close_document(scene->engine, 1);
    run_until_idle(scene);
    assert_int_equal(model_shard_used_bytes(scene->run->shard), 0);
}

/* On every rank at once or on one of two: a clear status, no leak, no hang. */
static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        int survived = 0;

        for (int allocations = 0; survived < 3; allocations++) {
            struct scene scene = {.play = answer_or_fail, .ranks = ranks, .backend = &failing};
            enum tca_status status;

            use_failing_backend(allocations);
            status = perform(&scene);
            if (status == TCA_OK)
                survived++;
            else
                assert_true(status == TCA_ERR_NO_MEMORY || status == TCA_ERR_ABORTED);
            assert_true(allocations < 200);
        }
    }
}

/* A backend that makes dummy weights itself, as a GPU does. */

static atomic_int matrices_made;

static enum tca_status make_weight(struct kernel_queue *queue, const struct dummy_rows *runs,
                                   int count, int cols, struct kernel_weight **weight_out)
{
    int64_t rows = 0;
    uint16_t *host, *next;
    enum tca_status status;

    for (int i = 0; i < count; i++)
        rows += runs[i].rows;
    host = next = malloc((size_t)(rows * cols) * sizeof(*host));
    assert_non_null(host);
    for (int i = 0; i < count; i++)
        for (int64_t row = 0; row < runs[i].rows; row++)
            for (int64_t col = 0; col < cols; col++)
                *next++ = dummy_bf16(runs[i].seed, runs[i].first + row * runs[i].stride + col,
                                     runs[i].scale);
    status = kernel_backend_cpu()->weight_create(queue, host, (int)rows, cols, true, weight_out);
    free(host);
    atomic_fetch_add(&matrices_made, 1);
    return status;
}

static void answer(struct scene *scene)
{
    open_document(scene, 1, 40);
    run_until_idle(scene);
    open_question(scene, 1, 1, 9, 12, &greedy);
    run_until_idle(scene);
}

static void a_device_makes_the_weights_that_the_host_would(void **state)
{
    struct scene host = {.play = answer}, device = {.play = answer, .ranks = 2};
    struct kernel_backend maker = *kernel_backend_cpu();

    (void)state;
    maker.weight_create_dummy = make_weight;
    device.backend = &maker;
    assert_int_equal(perform(&host), TCA_OK);
    assert_int_equal(perform(&device), TCA_OK);
    assert_true(atomic_load(&matrices_made) > 2 * 2 * 4);
    assert_same_answer(&host.question[1], &device.question[1]);
}

/* A device that fails in the middle of a step on one rank takes the group with it. */

static atomic_int swiglus_left;

static enum tca_status failing_swiglu(struct kernel_queue *queue, uint16_t *out,
                                      const void *gate_up, int rows, int cols)
{
    if (atomic_fetch_sub(&swiglus_left, 1) == 0)
        return TCA_ERR_DEVICE;
    return kernel_backend_cpu()->swiglu(queue, out, gate_up, rows, cols);
}

static void step_into_failure(struct scene *scene)
{
    enum tca_status status = TCA_OK;
    bool is_busy = true;

    open_document(scene, 1, DOCUMENT_TOKENS);
    while (is_busy && status == TCA_OK)
        status = engine_step(scene->engine, &is_busy);
    assert_int_not_equal(status, TCA_OK);
    scene->steps = 1;
}

static void a_device_failure_ends_the_group(void **state)
{
    (void)state;
    for (int calls = 0; calls < 4; calls++) {
        struct scene scene = {.play = step_into_failure, .ranks = 2, .backend = &failing};

        failing = *kernel_backend_cpu();
        failing.swiglu = failing_swiglu;
        atomic_store(&swiglus_left, calls);
        perform(&scene);
        assert_int_equal(scene.steps, 1);
    }
}

static int setup(void **state)
{
    (void)state;
    tiny_model_make("llama", llama);
    scene_folder = llama;
    tiny_model_make("qwen2", qwen2);
    tiny_model_make("qwen3", qwen3);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tiny_model_remove(llama);
    tiny_model_remove(qwen2);
    tiny_model_remove(qwen3);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_ranks_gives_the_same_answers),
        cmocka_unit_test(every_chunk_size_gives_the_same_answers),
        cmocka_unit_test(the_device_says_how_long_a_chunk_is),
        cmocka_unit_test(behind_many_keys_chunks_are_cut),
        cmocka_unit_test(questions_together_answer_as_alone),
        cmocka_unit_test(a_document_and_a_question_equal_one_prompt),
        cmocka_unit_test(an_end_token_ends_the_answer_and_is_not_part_of_it),
        cmocka_unit_test(an_answer_ends_where_the_positions_end),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens),
        cmocka_unit_test(candidates_and_whole_rows_agree),
        cmocka_unit_test(cancelled_work_stops_and_frees_its_memory),
        cmocka_unit_test(wrong_requests_fail_alone),
        cmocka_unit_test(memory_that_one_rank_lacks_fails_the_open_on_all),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(a_device_makes_the_weights_that_the_host_would),
        cmocka_unit_test(a_device_failure_ends_the_group),
    };
    return cmocka_run_group_tests_name("engine", tests, setup, teardown);
}
