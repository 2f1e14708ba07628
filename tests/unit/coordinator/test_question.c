#include "tests/support/check.h"

#include "coordinator/question.h"

#include <stdlib.h>
#include <string.h>

enum { SEQUENCE = 1000, POOL = 640 };

/* A question with this max_tokens, measured with so many tokens after so long a document. */
static enum tca_status measure(int64_t max_tokens, size_t question_tokens, int64_t document_tokens,
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
    status = question_measure(*question_out, &tokens, document_tokens, SEQUENCE, POOL, error);
    assert_int_equal(tokens.count, status == TCA_OK ? 0 : question_tokens);
    assert_int_equal((*question_out)->is_measured, status == TCA_OK);
    token_ids_free(&tokens);
    return status;
}

static void expect(int64_t max_tokens, size_t question_tokens, int64_t document_tokens,
                   int64_t answer_tokens)
{
    struct question *question;

    assert_int_equal(measure(max_tokens, question_tokens, document_tokens, &question, NULL),
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

    assert_int_equal(measure(max_tokens, question_tokens, document_tokens, &question, &error),
                     wanted);
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

static void a_request_is_copied(void **state)
{
    char stops[2][8] = {"one", "two"};
    ProtobufCBinaryData list[2] = {{3, (uint8_t *)stops[0]}, {3, (uint8_t *)stops[1]}};
    Tca__V1__AskRequest message = TCA__V1__ASK_REQUEST__INIT;
    const struct ask_request request = {.message = &message,
                                        .request_id = "r-1",
                                        .logprobs = 3,
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
        cmocka_unit_test(a_request_is_copied),
    };
    return cmocka_run_group_tests_name("question", tests, NULL, NULL);
}
