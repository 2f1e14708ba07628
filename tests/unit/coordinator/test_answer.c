/* With needle-9m's real tokenizer: what a client would be sent. */
#include "tests/support/check.h"

#include "base/utf8.h"
#include "coordinator/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct tokenizer *tokenizer;
    struct answer answer;
    struct bytes sent; /* all text so far */
};

static int make(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    char folder[4096];

    snprintf(folder, sizeof(folder), "%s/models/needle-9m", getenv("TCA_SOURCE"));
    assert_int_equal(tokenizer_open(folder, &fixture->tokenizer, NULL), TCA_OK);
    fixture->answer.tokenizer = fixture->tokenizer;
    *state = fixture;
    return 0;
}

static int clean(void **state)
{
    struct fixture *fixture = *state;

    answer_free(&fixture->answer);
    bytes_free(&fixture->sent);
    tokenizer_close(fixture->tokenizer);
    free(fixture);
    return 0;
}

/* Move the unsent text to `sent`: it must be whole characters. */
static void send(struct fixture *fixture)
{
    struct answer *answer = &fixture->answer;

    assert_true(utf8_is_valid((const char *)answer->unsent_text.data, answer->unsent_text.size));
    assert_int_equal(
        bytes_append(&fixture->sent, answer->unsent_text.data, answer->unsent_text.size), TCA_OK);
    answer_sent(answer, answer->unsent_count);
    assert_int_equal(answer->unsent_count, 0);
    assert_int_equal(answer->unsent_text.size, 0);
}

/* Answer the tokens of `text`, without the last `missing` ones; sends after each token. */
static void answer_text(struct fixture *fixture, const char *text, size_t missing)
{
    struct token_ids ids = {0};

    assert_int_equal(tokenizer_encode(fixture->tokenizer, text, strlen(text), false, &ids), TCA_OK);
    for (size_t i = 0; i + missing < ids.count && !fixture->answer.is_stopped; i++) {
        const struct answer_token token = {.chosen = {ids.ids[i], -0.5F}};

        assert_int_equal(answer_push(&fixture->answer, &token), TCA_OK);
        assert_int_equal(fixture->answer.unsent_count, 1);
        assert_int_equal(fixture->answer.unsent[0].chosen.token_id, ids.ids[i]);
        send(fixture);
    }
    assert_int_equal(answer_finish(&fixture->answer), TCA_OK);
    send(fixture);
    token_ids_free(&ids);
}

static void assert_sent(const struct fixture *fixture, const char *text)
{
    assert_int_equal(fixture->sent.size, strlen(text));
    if (fixture->sent.size > 0)
        assert_memory_equal(fixture->sent.data, text, fixture->sent.size);
}

static void tokens_become_whole_characters(void **state)
{
    static const char text[] = "plain \xc3\xa9\xe2\x82\xac\xf0\x9f\xa7\xbf\xf0\x9f\x98\x80, end";

    answer_text(*state, text, 0);
    assert_sent(*state, text);
}

static void an_unfinished_character_becomes_the_replacement_character(void **state)
{
    answer_text(*state, "ok \xf0\x9f\xa7\xbf", 1);
    assert_sent(*state, "ok \xef\xbf\xbd");
}

static void a_stop_string_ends_the_answer_across_tokens(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(stop_text_add(&fixture->answer.stop, "fox jum", 7), TCA_OK);
    answer_text(fixture, "The quick brown fox jumps over the lazy dog.", 0);
    assert_true(fixture->answer.is_stopped);
    assert_sent(fixture, "The quick brown ");
}

static void nothing_is_taken_after_a_stop(void **state)
{
    struct fixture *fixture = *state;
    const struct answer_token token = {.chosen = {100, 0.0F}};
    int64_t tokens;

    assert_int_equal(stop_text_add(&fixture->answer.stop, "brown", 5), TCA_OK);
    answer_text(fixture, "The quick brown fox", 0);
    tokens = fixture->answer.tokens;
    assert_int_equal(answer_push(&fixture->answer, &token), TCA_OK);
    assert_int_equal(fixture->answer.tokens, tokens);
    assert_int_equal(fixture->answer.unsent_count, 0);
}

static void text_held_for_a_stop_comes_at_the_end(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(stop_text_add(&fixture->answer.stop, "fox jumped", 10), TCA_OK);
    answer_text(fixture, "The quick brown fox jump", 0);
    assert_false(fixture->answer.is_stopped);
    assert_sent(fixture, "The quick brown fox jump");
}

static void special_tokens_have_no_text(void **state)
{
    struct fixture *fixture = *state;
    const struct answer_token token = {.chosen = {2, 0.0F}}; /* <|im_end|> */

    assert_int_equal(answer_push(&fixture->answer, &token), TCA_OK);
    assert_int_equal(fixture->answer.unsent_text.size, 0);
    assert_int_equal(fixture->answer.tokens, 1);
}

static void part_of_the_tokens_can_be_sent(void **state)
{
    struct fixture *fixture = *state;

    for (int32_t id = 100; id < 130; id++) {
        const struct answer_token token = {.chosen = {id, 0.0F}};

        assert_int_equal(answer_push(&fixture->answer, &token), TCA_OK);
    }
    answer_sent(&fixture->answer, 12);
    assert_int_equal(fixture->answer.unsent_count, 18);
    for (size_t i = 0; i < 18; i++)
        assert_int_equal(fixture->answer.unsent[i].chosen.token_id, 112 + (int)i);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clean)
    const struct CMUnitTest tests[] = {
        TEST(tokens_become_whole_characters),
        TEST(an_unfinished_character_becomes_the_replacement_character),
        TEST(a_stop_string_ends_the_answer_across_tokens),
        TEST(nothing_is_taken_after_a_stop),
        TEST(text_held_for_a_stop_comes_at_the_end),
        TEST(special_tokens_have_no_text),
        TEST(part_of_the_tokens_can_be_sent),
    };
    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
