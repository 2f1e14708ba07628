#include "tests/support/check.h"

#include "coordinator/ask_request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ProtobufCBinaryData text(char *of)
{
    return (ProtobufCBinaryData){.len = strlen(of), .data = (uint8_t *)of};
}

struct fixture {
    Tca__V1__AskRequest message;
    Tca__V1__SamplingParams sampling;
    Tca__V1__AttentionOptions attention;
    Tca__V1__Turn turns[2];
    Tca__V1__Turn *history[2];
    struct ask_request request;
    struct tca_error error;
    char book[8], question[8], user[8], assistant[16];
};

/* A request that passes: a question over "book". */
static int make(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    strcpy(fixture->book, "book");
    strcpy(fixture->question, "Who?");
    strcpy(fixture->user, "user");
    strcpy(fixture->assistant, "assistant");
    tca__v1__ask_request__init(&fixture->message);
    tca__v1__sampling_params__init(&fixture->sampling);
    tca__v1__attention_options__init(&fixture->attention);
    fixture->message.source_case = TCA__V1__ASK_REQUEST__SOURCE_DOCUMENT_ID;
    fixture->message.document_id = text(fixture->book);
    fixture->message.question = text(fixture->question);
    fixture->message.sampling = &fixture->sampling;
    fixture->message.attention = &fixture->attention;
    for (int i = 0; i < 2; i++) {
        tca__v1__turn__init(&fixture->turns[i]);
        fixture->turns[i].role = text(i == 0 ? fixture->user : fixture->assistant);
        fixture->history[i] = &fixture->turns[i];
    }
    fixture->message.history = fixture->history;
    *state = fixture;
    return 0;
}

static int clean(void **state)
{
    free(*state);
    return 0;
}

static enum tca_status check(struct fixture *fixture)
{
    return ask_request_read(&fixture->message, &fixture->request, &fixture->error);
}

static void expect(struct fixture *fixture, enum tca_status status, const char *words)
{
    assert_int_equal(check(fixture), status);
    assert_non_null(strstr(fixture->error.text, words));
}

static void zeros_mean_the_documented_defaults(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(check(fixture), TCA_OK);
    assert_string_equal(fixture->request.document_id, "book");
    assert_true(fixture->request.has_document);
    assert_true(fixture->request.sampling.temperature == 0.0);
    assert_true(fixture->request.sampling.top_p == 1.0);
    assert_true(fixture->request.sampling.repetition_penalty == 1.0);
    assert_int_equal(fixture->request.max_tokens, 0);
    fixture->message.sampling = NULL;
    fixture->message.attention = NULL;
    assert_int_equal(check(fixture), TCA_OK);
    assert_true(fixture->request.sampling.top_p == 1.0);
}

static void sampling_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    Tca__V1__SamplingParams *sampling = &fixture->sampling;

    sampling->temperature = -0.1;
    expect(fixture, TCA_ERR_INVALID, "sampling.temperature: -0.1, allowed: 0 to 100");
    sampling->temperature = (double)NAN;
    expect(fixture, TCA_ERR_INVALID, "sampling.temperature: ");
    sampling->temperature = 1.0;
    sampling->top_p = 1.1;
    expect(fixture, TCA_ERR_INVALID, "sampling.top_p: 1.1, allowed: 0 to 1");
    sampling->top_p = 0.9;
    sampling->min_p = -1.0;
    expect(fixture, TCA_ERR_INVALID, "sampling.min_p");
    sampling->min_p = 0.0;
    sampling->top_k = -1;
    expect(fixture, TCA_ERR_INVALID, "sampling.top_k: -1");
    sampling->top_k = 0;
    sampling->repetition_penalty = (double)INFINITY;
    expect(fixture, TCA_ERR_INVALID, "sampling.repetition_penalty: inf");
    sampling->repetition_penalty = 0.0;
    assert_int_equal(check(fixture), TCA_OK);
}

static void counts_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    ProtobufCBinaryData stops[ASK_STOPS_MAX + 1];

    fixture->message.max_tokens = -1;
    expect(fixture, TCA_ERR_INVALID, "max_tokens: -1");
    fixture->message.max_tokens = 5;
    fixture->message.logprobs = 21;
    expect(fixture, TCA_ERR_INVALID, "logprobs: 21, allowed: 0 to 20");
    fixture->message.logprobs = 20;
    for (size_t i = 0; i <= ASK_STOPS_MAX; i++)
        stops[i] = text(fixture->question);
    fixture->message.stop = stops;
    fixture->message.n_stop = ASK_STOPS_MAX + 1;
    expect(fixture, TCA_ERR_INVALID, "stop: 17 texts, allowed: 0 to 16");
    fixture->message.n_stop = ASK_STOPS_MAX;
    stops[3].len = 0;
    expect(fixture, TCA_ERR_INVALID, "stop[3]: 0 bytes, allowed: 1 to 256");
    stops[3].len = 257;
    expect(fixture, TCA_ERR_INVALID, "stop[3]: 257 bytes");
    stops[3].len = 1;
    assert_int_equal(check(fixture), TCA_OK);
    assert_int_equal(fixture->request.max_tokens, 5);
    assert_int_equal(fixture->request.logprobs, 20);
}

static void the_source_is_needed_and_whole(void **state)
{
    struct fixture *fixture = *state;

    fixture->message.question.len = 0;
    expect(fixture, TCA_ERR_INVALID, "question: is empty");
    fixture->message.source_case = TCA__V1__ASK_REQUEST__SOURCE_PROMPT;
    assert_int_equal(check(fixture), TCA_OK);
    assert_false(fixture->request.has_document);
    fixture->message.question.len = 4;
    expect(fixture, TCA_ERR_INVALID, "question: 4 bytes, allowed: none with prompt");
    fixture->message.prompt.len = 0;
    expect(fixture, TCA_ERR_INVALID, "prompt: is empty");
    fixture->message.source_case = TCA__V1__ASK_REQUEST__SOURCE__NOT_SET;
    expect(fixture, TCA_ERR_INVALID, "source: is not set");
    fixture->message.source_case = TCA__V1__ASK_REQUEST__SOURCE_DOCUMENT_ID;
    fixture->message.document_id = text(fixture->question);
    expect(fixture, TCA_ERR_INVALID, "document_id: \"Who?\"");
    fixture->message.document_id = text(fixture->book);
    fixture->message.request_id = text(fixture->question);
    expect(fixture, TCA_ERR_INVALID, "request_id: \"Who?\"");
}

static void history_alternates(void **state)
{
    struct fixture *fixture = *state;
    char long_role[1000] = "";

    fixture->message.n_history = 2;
    assert_int_equal(check(fixture), TCA_OK);
    fixture->message.raw = 1;
    expect(fixture, TCA_ERR_INVALID, "history: 2 turns, allowed: 0 with raw");
    fixture->message.raw = 0;
    fixture->message.n_history = 1;
    expect(fixture, TCA_ERR_INVALID, "an even number");
    fixture->message.n_history = 2;
    fixture->turns[1].role = text(fixture->user);
    expect(fixture, TCA_ERR_INVALID, "history[1].role: \"user\", allowed: assistant");
    fixture->turns[0].role = text(fixture->book);
    expect(fixture, TCA_ERR_INVALID, "history[0].role: \"book\", allowed: user");
    memset(long_role, 'x', sizeof(long_role) - 1);
    fixture->turns[0].role = text(long_role);
    expect(fixture, TCA_ERR_INVALID, "history[0].role: 999 bytes, allowed: user");
    fixture->message.n_history = ASK_HISTORY_MAX + 1;
    expect(fixture, TCA_ERR_INVALID, "history: 1025 turns");
}

static void attention_is_read_and_fits_its_source(void **state)
{
    struct fixture *fixture = *state;
    Tca__V1__AttentionOptions *attention = &fixture->attention;
    char rule[] = "pooled", wrong[] = "Dense";

    assert_int_equal(check(fixture), TCA_OK);
    assert_null(fixture->request.attention.rule);
    attention->rule = text(rule);
    attention->keep = 0.25;
    attention->tau = 0.5;
    attention->report_selection = 1;
    assert_int_equal(check(fixture), TCA_OK);
    assert_string_equal(fixture->request.attention.rule, "pooled");
    assert_true(fixture->request.attention.keep == 0.25);
    assert_true(fixture->request.attention.tau == 0.5);
    assert_true(fixture->request.attention.reports_selection);
    assert_false(fixture->request.attention.evicts);
    attention->evict = 1;
    expect(fixture, TCA_ERR_INVALID, "attention.evict: true, allowed: only with prompt");
    fixture->message.source_case = TCA__V1__ASK_REQUEST__SOURCE_PROMPT;
    fixture->message.prompt = text(fixture->question);
    fixture->message.question.len = 0;
    assert_int_equal(check(fixture), TCA_OK);
    assert_true(fixture->request.attention.evicts);
    attention->evict = 0;
    expect(fixture, TCA_ERR_INVALID,
           "attention.rule: \"pooled\", allowed: only with document_id or");
    attention->rule = text(wrong);
    expect(fixture, TCA_ERR_INVALID, "attention.rule: \"Dense\", allowed: dense, window");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(zeros_mean_the_documented_defaults, make, clean),
        cmocka_unit_test_setup_teardown(sampling_is_bounded, make, clean),
        cmocka_unit_test_setup_teardown(counts_are_bounded, make, clean),
        cmocka_unit_test_setup_teardown(the_source_is_needed_and_whole, make, clean),
        cmocka_unit_test_setup_teardown(history_alternates, make, clean),
        cmocka_unit_test_setup_teardown(attention_is_read_and_fits_its_source, make, clean),
    };
    return cmocka_run_group_tests_name("ask_request", tests, NULL, NULL);
}
