/* Fails every host allocation of a group's life in turn, on a group of one rank: loading, opening,
 * answering, closing. The engine goes on or the group ends with a status; nothing leaks (the
 * sanitizers' builds see it), and nobody is left without an answer. */
#include "tests/support/check.h"
#include "tests/support/failing_alloc.h"

#include "tests/unit/worker/tiny_model.h"
#include "worker/control_link.h"
#include "worker/group_run.h"

enum { ALLOCATIONS_MAX = 500, DOCUMENT = 40, QUESTION = 9 };

struct story {
    int answered; /* the document and the question, each when it came to an end */
};

static void watch(void *context, const struct engine_event *event)
{
    struct story *story = context;
    struct bytes packed = {0};

    story->answered += event->kind == ENGINE_QUESTION_DONE ||
                       event->kind == ENGINE_DOCUMENT_READY ||
                       event->kind == ENGINE_DOCUMENT_FAILED;
    assert_true(control_pack_event(event, &packed) == TCA_OK || packed.size == 0);
    bytes_free(&packed);
}

static enum tca_status play(struct engine *engine)
{
    struct question_params params = {
        .key = 2,
        .tokens = QUESTION,
        .max_tokens = 3,
        .sampling = {.temperature = 1.0, .top_p = 0.9, .repetition_penalty = 1.0}};
    const int32_t ids[DOCUMENT] = {1, 2, 3};
    bool is_busy = true;

    engine_open_document(engine, 1, DOCUMENT, NULL);
    engine_receive_document(engine, 1, ids, DOCUMENT);
    engine_open_question(engine, &params);
    engine_receive_question(engine, 2, ids, QUESTION);
    while (is_busy)
        TCA_TRY(engine_step(engine, &is_busy));
    engine_close_document(engine, 1);
    return engine_step(engine, &is_busy);
}

static enum tca_status lead(void *context, const struct group_run *run)
{
    const struct engine_options options = {
        .chunk_tokens = 16, .max_sequences = 2, .max_positions = TINY_POSITIONS};
    struct engine *engine;
    enum tca_status status;

    TCA_TRY(engine_create(&options, run->lockstep, run->shard, watch, context, &engine));
    status = play(engine);
    engine_destroy(engine);
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    struct group_run_options options = {.local_ranks = 1,
                                        .threads = 1,
                                        .kv_memory_bytes = 1 << 20,
                                        .chunk_tokens = 16,
                                        .max_sequences = 2,
                                        .has_dummy_weights = true};
    char folder[64];
    int failures = 0;
    bool has_failed = true;

    (void)state;
    tiny_model_make("qwen2", folder);
    options.model_folder = folder;
    for (int count = 0; has_failed; count++) {
        struct story story = {0};
        enum tca_status status;

        assert_true(count < ALLOCATIONS_MAX);
        failing_alloc_after(count);
        status = group_run(&options, lead, &story);
        has_failed = failing_alloc_stop();
        failures += has_failed;
        if (status == TCA_OK)
            assert_int_equal(story.answered, 2);
        else
            assert_true(has_failed);
    }
    assert_true(failures > 40);
    tiny_model_remove(folder);
}

/* Nobody listens at port 1: every try ends before a Welcome. */
static void a_link_that_does_not_open_says_why(void **state)
{
    const struct control_link_options options = {
        .coordinator = "127.0.0.1:1", .secret = "secret", .version = "1", .ranks = 1};
    bool has_failed = true;
    int failures = 0;

    (void)state;
    for (int count = 0; has_failed; count++) {
        struct tca_error error = {.text = "nothing was said"};
        struct group_settings settings;
        struct control_link *link = NULL;
        enum tca_status status;

        assert_true(count < ALLOCATIONS_MAX);
        failing_alloc_after(count);
        status = control_link_open(&options, &link, &settings, &error);
        has_failed = failing_alloc_stop();
        failures += has_failed;
        assert_int_equal(status, has_failed ? TCA_ERR_NO_MEMORY : TCA_ERR_UNAVAILABLE);
        assert_string_not_equal(error.text, "nothing was said");
        assert_null(link);
    }
    assert_true(failures > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(a_link_that_does_not_open_says_why),
    };
    return cmocka_run_group_tests_name("no_memory", tests, NULL, NULL);
}
