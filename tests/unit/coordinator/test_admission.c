#include "tests/support/check.h"

#include "coordinator/admission.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM = 8 };

/* Documents "0", "1", .. that hold KV, last used in this order. */
struct fixture {
    struct admission admission;
    struct document *table[ROOM];
    struct document *victims[ROOM];
    size_t documents, count;
    struct tca_error error;
};

static void hold(struct fixture *fixture, int64_t kv_tokens)
{
    char id[2] = {(char)('0' + fixture->documents), '\0'};
    struct document *document = document_make(id);

    document->state = DOCUMENT_READY;
    document->key = fixture->documents + 1;
    document->kv_tokens = kv_tokens;
    document->last_used_ms = (int64_t)fixture->documents;
    fixture->table[fixture->documents++] = document;
    admission_take_document(&fixture->admission, kv_tokens);
}

static enum admission_answer ask(struct fixture *fixture, int64_t tokens)
{
    return admission_document(&fixture->admission, tokens, fixture->table, fixture->documents,
                              fixture->victims, &fixture->count, &fixture->error);
}

static int make(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    fixture->admission = (struct admission){
        .policy = ADMISSION_LRU, .max_tokens = 50000, .max_running = 4, .window_tokens = 1024};
    /* 1000 whole grains: 100 for questions, 900 for documents. */
    admission_init(&fixture->admission, 64 * 1000 + 63, 0.1);
    *state = fixture;
    return 0;
}

static int clean(void **state)
{
    struct fixture *fixture = *state;

    for (size_t i = 0; i < fixture->documents; i++)
        document_free(fixture->table[i]);
    free(fixture);
    return 0;
}

static void tokens_are_rounded_up_to_64(void **state)
{
    (void)state;
    assert_int_equal(admission_round(0), 0);
    assert_int_equal(admission_round(1), 64);
    assert_int_equal(admission_round(64), 64);
    assert_int_equal(admission_round(65), 128);
}

static void the_capacity_is_shared(void **state)
{
    const struct fixture *fixture = *state;

    assert_int_equal(fixture->admission.question_pool, 64 * 100);
    assert_int_equal(fixture->admission.document_pool, 64 * 900);
}

static void a_document_that_fits_is_taken_at_once(void **state)
{
    struct fixture *fixture = *state;

    hold(fixture, 64 * 400);
    assert_int_equal(ask(fixture, 64 * 500), ADMISSION_NOW);
    assert_int_equal(fixture->count, 0);
    assert_int_equal(ask(fixture, 64 * 500 + 1), ADMISSION_EVICT);
}

static void what_can_never_fit_is_refused_with_the_numbers(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(ask(fixture, 50001), ADMISSION_NEVER);
    assert_non_null(strstr(fixture->error.text, "50001"));
    assert_non_null(strstr(fixture->error.text, "50000"));
    fixture->admission.max_tokens = 1000000;
    assert_int_equal(ask(fixture, 64 * 900), ADMISSION_NOW);
    assert_int_equal(ask(fixture, 64 * 900 + 1), ADMISSION_NEVER);
    assert_non_null(strstr(fixture->error.text, "57664"));
    assert_non_null(strstr(fixture->error.text, "57600"));
}

static void the_least_recently_used_make_room(void **state)
{
    struct fixture *fixture = *state;

    hold(fixture, 64 * 300);
    hold(fixture, 64 * 300);
    hold(fixture, 64 * 300);
    fixture->table[0]->last_used_ms = 10;
    assert_int_equal(ask(fixture, 64 * 301), ADMISSION_EVICT);
    assert_int_equal(fixture->count, 2);
    assert_ptr_equal(fixture->victims[0], fixture->table[1]);
    assert_ptr_equal(fixture->victims[1], fixture->table[2]);
}

static void pinned_and_busy_documents_stay(void **state)
{
    struct fixture *fixture = *state;

    hold(fixture, 64 * 300);
    hold(fixture, 64 * 300);
    hold(fixture, 64 * 300);
    fixture->table[0]->is_pinned = true;
    fixture->table[1]->questions = 1;
    assert_int_equal(ask(fixture, 64 * 300), ADMISSION_EVICT);
    assert_int_equal(fixture->count, 1);
    assert_ptr_equal(fixture->victims[0], fixture->table[2]);
    /* Enough would be free only once the question is done: nobody leaves for nothing. */
    assert_int_equal(ask(fixture, 64 * 301), ADMISSION_WAIT);
    assert_int_equal(fixture->count, 0);
    /* More than there is beside the pinned one: no waiting helps. */
    assert_int_equal(ask(fixture, 64 * 601), ADMISSION_FULL);
    assert_non_null(strstr(fixture->error.text, "pinned"));
    fixture->table[1]->questions = 0;
    fixture->table[1]->state = DOCUMENT_PREFILLING;
    assert_int_equal(ask(fixture, 64 * 301), ADMISSION_WAIT);
}

static void memory_that_is_being_freed_is_waited_for(void **state)
{
    struct fixture *fixture = *state;

    hold(fixture, 64 * 450);
    hold(fixture, 64 * 450);
    fixture->table[0]->state = DOCUMENT_STORED;
    admission_close_document(&fixture->admission, 64 * 450);
    assert_int_equal(ask(fixture, 64 * 450), ADMISSION_WAIT);
    assert_int_equal(fixture->count, 0);
    assert_int_equal(ask(fixture, 64 * 451), ADMISSION_EVICT);
    assert_ptr_equal(fixture->victims[0], fixture->table[1]);
    admission_free_document(&fixture->admission, 64 * 450);
    assert_int_equal(ask(fixture, 64 * 450), ADMISSION_NOW);
}

static void a_pinned_document_that_is_deleted_is_waited_for(void **state)
{
    struct fixture *fixture = *state;

    hold(fixture, 64 * 900);
    fixture->table[0]->is_pinned = true;
    assert_int_equal(ask(fixture, 64), ADMISSION_FULL);
    fixture->table[0]->state = DOCUMENT_DELETING;
    assert_int_equal(ask(fixture, 64), ADMISSION_WAIT); /* its questions are still there */
    admission_close_document(&fixture->admission, 64 * 900);
    assert_int_equal(ask(fixture, 64), ADMISSION_WAIT);
}

static void policy_refuse_evicts_nothing(void **state)
{
    struct fixture *fixture = *state;

    fixture->admission.policy = ADMISSION_REFUSE;
    hold(fixture, 64 * 600);
    assert_int_equal(ask(fixture, 64 * 300), ADMISSION_NOW);
    assert_int_equal(ask(fixture, 64 * 301), ADMISSION_FULL);
    assert_non_null(strstr(fixture->error.text, "19264"));
    admission_close_document(&fixture->admission, 64 * 600);
    assert_int_equal(ask(fixture, 64 * 301), ADMISSION_WAIT);
}

static void questions_have_their_own_share(void **state)
{
    struct fixture *fixture = *state;
    struct admission *admission = &fixture->admission;

    assert_true(admission_question(admission, 64 * 100));
    admission_take_question(admission, 64 * 60);
    assert_false(admission_question(admission, 64 * 41));
    assert_true(admission_question(admission, 64 * 40));
    admission_give_back_question(admission, 64 * 60);
    assert_true(admission_question(admission, 64 * 41));
    for (int i = 0; i < 4; i++)
        admission_take_question(admission, 64);
    assert_false(admission_question(admission, 64));
    admission_give_back_question(admission, 64);
    assert_true(admission_question(admission, 64));
}

static int64_t core(const struct fixture *fixture, double keep, double tau, int64_t tokens)
{
    const struct attention attention = {.rule = "pooled", .keep = keep, .tau = tau};

    return admission_core_tokens(&fixture->admission, &attention, tokens);
}

static void a_core_cache_is_its_share_within_bounds(void **state)
{
    const struct fixture *fixture = *state;
    const struct attention dense = {0};

    assert_int_equal(admission_core_tokens(&fixture->admission, &dense, 100000), 0);
    assert_int_equal(core(fixture, 0.03, 0.0, 1000000), 30000);
    assert_int_equal(core(fixture, 0.03, 0.0, 100001), 3001); /* rounded up */
    assert_int_equal(core(fixture, 0.03, 0.9, 1000000), 60000);
    /* The least budget: 64 + 1024 + 512. */
    assert_int_equal(core(fixture, 0.03, 0.0, 32768), 1600);
    assert_int_equal(core(fixture, 0.03, 0.9, 20000), 1600);
    assert_int_equal(core(fixture, 0.03, 0.9, 30000), 1800);
    /* What is over half is read in place. */
    assert_int_equal(core(fixture, 0.03, 0.0, 3001), 1501);
    assert_int_equal(core(fixture, 0.9, 0.0, 10001), 5001);
    assert_int_equal(core(fixture, 0.3, 0.9, 10000), 5000);
    assert_int_equal(core(fixture, 0.03, 0.0, 1), 1);
}

static void a_question_holds_its_peak(void **state)
{
    const struct fixture *fixture = *state;
    const struct admission *admission = &fixture->admission;

    assert_int_equal(admission_question_tokens(admission, false, 20, 44, 0), 64);
    assert_int_equal(admission_question_tokens(admission, false, 20, 45, 0), 128);
    assert_int_equal(admission_question_tokens(admission, false, 20, 44, 65), 64 + 128);
    /* The prompt with its answer, the core cache, the answer again. */
    assert_int_equal(admission_question_tokens(admission, true, 4000, 100, 1600),
                     4160 + 1600 + 128);
    assert_int_equal(admission_answer_tokens(admission, false, 20, 0), 6400 - 20);
    assert_int_equal(admission_answer_tokens(admission, false, 20, 65), 6400 - 128 - 20);
    assert_true(admission_answer_tokens(admission, false, 20, 6400) <= 0);
    for (int64_t prompt = 1; prompt < 4800; prompt += 67) {
        const int64_t answer = admission_answer_tokens(admission, true, prompt, 1600);
        const int64_t step = ADMISSION_GRAIN_TOKENS;

        assert_true(answer > 0 || admission_round(prompt) + 2 * step > 4800);
        assert_true(admission_question_tokens(admission, true, prompt, answer, 1600) <= 6400);
        assert_true(admission_question_tokens(admission, true, prompt, answer + step, 1600) > 6400);
    }
}

/* 8 workers share 4 KV heads: a sequence of less than a unit of 4096 tokens is on one of two
 * stripes, and so may all be that a question keeps. */
static void stripes_count_by_the_fullest(void **state)
{
    struct fixture *fixture = *state;
    struct admission *admission = &fixture->admission;

    admission->kv_heads = 4;
    admission->ranks = 8;
    assert_int_equal(admission_sequence_tokens(admission, 65), 256);
    assert_int_equal(admission_sequence_tokens(admission, 8192), 8192);
    assert_int_equal(admission_question_tokens(admission, false, 20, 44, 65), 128 + 256);
    assert_int_equal(admission_question_tokens(admission, true, 1000, 24, 65), 2048 + 256 + 128);
    assert_int_equal(admission_answer_tokens(admission, false, 20, 0), 3200 - 20);
    assert_int_equal(admission_answer_tokens(admission, false, 20, 1600), 1600 - 20);
    assert_int_equal(admission_answer_tokens(admission, true, 1000, 65), 1024);
    assert_int_equal(admission_answer_tokens(admission, false, 20, 3200), 0);
    hold(fixture, admission_sequence_tokens(admission, 45000)); /* 6 units on a stripe of 2 */
    assert_int_equal(fixture->admission.document_used, 49152);
    assert_int_equal(ask(fixture, 4200), ADMISSION_NOW); /* 8192 */
    fixture->admission.document_used += 8192;
    assert_int_equal(ask(fixture, 200), ADMISSION_EVICT);
    admission->ranks = 4;
    assert_int_equal(admission_sequence_tokens(admission, 65), 128);
}

static void a_question_that_shrinks_makes_room(void **state)
{
    struct fixture *fixture = *state;
    struct admission *admission = &fixture->admission;

    admission_take_question(admission, 64 * 90);
    assert_false(admission_question(admission, 64 * 11));
    admission_shrink_question(admission, 64 * 60);
    assert_true(admission_question(admission, 64 * 70));
    assert_int_equal(admission->running, 1);
    admission_give_back_question(admission, 64 * 30);
    assert_int_equal(admission->question_used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_rounded_up_to_64),
        cmocka_unit_test_setup_teardown(the_capacity_is_shared, make, clean),
        cmocka_unit_test_setup_teardown(a_document_that_fits_is_taken_at_once, make, clean),
        cmocka_unit_test_setup_teardown(what_can_never_fit_is_refused_with_the_numbers, make,
                                        clean),
        cmocka_unit_test_setup_teardown(the_least_recently_used_make_room, make, clean),
        cmocka_unit_test_setup_teardown(pinned_and_busy_documents_stay, make, clean),
        cmocka_unit_test_setup_teardown(memory_that_is_being_freed_is_waited_for, make, clean),
        cmocka_unit_test_setup_teardown(a_pinned_document_that_is_deleted_is_waited_for, make,
                                        clean),
        cmocka_unit_test_setup_teardown(policy_refuse_evicts_nothing, make, clean),
        cmocka_unit_test_setup_teardown(questions_have_their_own_share, make, clean),
        cmocka_unit_test_setup_teardown(a_core_cache_is_its_share_within_bounds, make, clean),
        cmocka_unit_test_setup_teardown(a_question_holds_its_peak, make, clean),
        cmocka_unit_test_setup_teardown(stripes_count_by_the_fullest, make, clean),
        cmocka_unit_test_setup_teardown(a_question_that_shrinks_makes_room, make, clean),
    };
    return cmocka_run_group_tests_name("admission", tests, NULL, NULL);
}
