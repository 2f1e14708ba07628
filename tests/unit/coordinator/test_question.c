#include "tests/support/check.h"

#include "coordinator/question.h"

#include <stdlib.h>
#include <string.h>

static const struct admission admission = {
    .max_tokens = 1000, .question_pool = 640, .window_tokens = 64};

/* A question with this max_tokens, measured with so many tokens after so long a document. */
static enum tca_status measure(const struct attention *attention, int64_t max_tokens,
                               size_t question_tokens, int64_t document_tokens,
                               struct question **question_out, struct tca_error *error)
{
    Tca__V1__AskRequest message = TCA__V1__ASK_REQUEST__INIT;
    const struct ask_request request = {
        .message = &message, .request_id = "r", .max_tokens = max_tokens};
    struct token_ids tokens = {0};
    enum tca_status status;
    const int32_t id = 5;

    *question_out = question_make(&request, 77);
    assert_non_null(*question_out);
    for (size_t i = 0; i < question_tokens; i++)
        assert_int_equal(token_ids_append(&tokens, &id, 1), TCA_OK);
    (*question_out)->attention = *attention;
    status = question_measure(*question_out, &tokens, document_tokens, &admission, error);
    assert_int_equal(tokens.count, status == TCA_OK ? 0 : question_tokens);
    assert_int_equal((*question_out)->is_measured, status == TCA_OK);
    token_ids_free(&tokens);
    return status;
}

static const struct attention dense;

static void expect(int64_t max_tokens, size_t question_tokens, int64_t document_tokens,
                   int64_t answer_tokens)
{
    struct question *question;

    assert_int_equal(measure(&dense, max_tokens, question_tokens, document_tokens, &question, NULL),
                     TCA_OK);
    assert_int_equal(question->max_tokens, answer_tokens);
    assert_int_equal(question->kv_tokens,
                     ((int64_t)question_tokens + answer_tokens + 63) / 64 * 64);
    assert_int_equal(question->tokens.count, question_tokens);
    question_free(question);
}

static void refuse(int64_t max_tokens, size_t question_tokens, int64_t document_tokens,
                   enum tca_status wanted, const char *words)
{
    struct question *question;
    struct tca_error error;

    assert_int_equal(
        measure(&dense, max_tokens, question_tokens, document_tokens, &question, &error), wanted);
    assert_non_null(strstr(error.text, words));
    question_free(question);
}

static void the_default_keeps_within_what_there_is(void **state)
{
    (void)state;
    expect(0, 20, 100, 256);
    expect(0, 20, 900, 80); /* the sequence ends */
    expect(0, 20, 979, 1);
    expect(0, 500, 0, 140); /* the questions' memory ends */
}

static void what_was_asked_for_is_given_or_refused(void **state)
{
    (void)state;
    expect(7, 20, 100, 7);
    expect(80, 20, 900, 80);
    refuse(81, 20, 900, TCA_ERR_RANGE, "over 1000, the longest sequence");
    expect(620, 20, 0, 620);
    refuse(621, 20, 0, TCA_ERR_RANGE, "over 640, the KV memory that all questions have");
    refuse(0, 20, 980, TCA_ERR_RANGE, "document 980, question 20 and answer 1");
    refuse(0, 640, 0, TCA_ERR_RANGE, "question 640 and answer 1");
    refuse(0, 0, 100, TCA_ERR_INVALID, "has no tokens");
}

/* What it may answer and holds; words: of the error that it gets instead. */
static void expect_sparse(const struct attention *attention, int64_t max_tokens,
                          size_t question_tokens, int64_t document_tokens, int64_t answer_tokens,
                          int64_t kv_tokens, const char *words)
{
    struct question *question;
    struct tca_error error = {{0}};
    const enum tca_status status =
        measure(attention, max_tokens, question_tokens, document_tokens, &question, &error);

    if (words != NULL) {
        assert_int_equal(status, TCA_ERR_RANGE);
        assert_non_null(strstr(error.text, words));
    } else {
        assert_int_equal(status, TCA_OK);
        assert_int_equal(question->max_tokens, answer_tokens);
        assert_int_equal(question->kv_tokens, kv_tokens);
    }
    question_free(question);
}

static void a_core_cache_counts(void **state)
{
    const struct attention half = {.rule = "pooled", .keep = 0.5};

    (void)state;
    expect_sparse(&half, 7, 20, 900, 7, 64 + 512, NULL);
    expect_sparse(&half, 7, 20, 600, 7, 64 + 320, NULL);
    expect_sparse(&half, 0, 20, 600, 256, 320 + 320, NULL);
    expect_sparse(&half, 0, 100, 600, 220, 320 + 320, NULL); /* the memory ends */
    expect_sparse(&half, 221, 100, 600, 0, 0,
                  "question 100 and answer 221 tokens, with 300 kept of the document, are together "
                  "over 640");
}

static void an_evicting_prompt_holds_both_ranges_at_its_peak(void **state)
{
    const struct attention evict = {.rule = "pooled", .keep = 0.25, .evicts = true};

    (void)state;
    /* Nothing of a prompt that leaves is read in place: the least budget keeps all of these. */
    expect_sparse(&evict, 10, 200, 0, 10, 256 + 256 + 64, NULL);
    expect_sparse(&evict, 0, 200, 0, 64, 320 + 256 + 64, NULL);
    expect_sparse(&evict, 65, 200, 0, 0, 0,
                  "question 200 and answer 65 tokens, with 200 kept of the prompt and the answer's "
                  "once more, are together over 640");
}

static void a_request_is_copied(void **state)
{
    char stops[2][8] = {"one", "two"};
    ProtobufCBinaryData list[2] = {{3, (uint8_t *)stops[0]}, {3, (uint8_t *)stops[1]}};
    Tca__V1__AskRequest message = TCA__V1__ASK_REQUEST__INIT;
    const struct ask_request request = {.message = &message,
                                        .request_id = "r-1",
                                        .logprobs = 3,
                                        .attention = {.rule = "window", .keep = 0.5},
                                        .sampling = {.temperature = 0.5, .seed = 9}};
    struct question *question;

    (void)state;
    message.n_stop = 2;
    message.stop = list;
    message.ignore_eos = 1;
    question = question_make(&request, 77);
    strcpy(stops[0], "gone");
    assert_string_equal(question->request_id, "r-1");
    assert_int_equal(question->state, QUESTION_TOKENIZING);
    assert_int_equal(question->asked_ms, 77);
    assert_int_equal(question->logprobs, 3);
    assert_string_equal(question->wish.rule, "window");
    assert_true(question->wish.keep == 0.5);
    assert_true(question->ignores_eos);
    assert_int_equal(question->sampling.seed, 9);
    assert_int_equal(question->answer.stop.count, 2);
    assert_memory_equal(question->answer.stop.stops[0].data, "one", 3);
    question_free(question);
    question_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_keeps_within_what_there_is),
        cmocka_unit_test(what_was_asked_for_is_given_or_refused),
        cmocka_unit_test(a_core_cache_counts),
        cmocka_unit_test(an_evicting_prompt_holds_both_ranges_at_its_peak),
        cmocka_unit_test(a_request_is_copied),
    };
    return cmocka_run_group_tests_name("question", tests, NULL, NULL);
}
