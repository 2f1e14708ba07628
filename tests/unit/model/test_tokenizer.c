#include "tests/support/check.h"

#include "model/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int open_needle(void **state)
{
    struct tokenizer *tokenizer = NULL;
    char folder[512];

    snprintf(folder, sizeof(folder), "%s/models/needle-9m", getenv("TCA_SOURCE"));
    assert_int_equal(tokenizer_open(folder, &tokenizer, NULL), TCA_OK);
    *state = tokenizer;
    return 0;
}

static int close_needle(void **state)
{
    tokenizer_close(*state);
    return 0;
}

/* The ids are those of Hugging Face's tokenizers 0.23.3. */
static void ids_are_those_of_the_reference(void **state)
{
    static const char text[] = "I'll don't  42\t\xe2\x80\x94 na\xc3\xafve \xe4\xb8\xad\xe6\x96\x87 "
                               "\xf0\x9f\x98\x80\r\n";
    static const int32_t expected[] = {44,  3933, 1846, 834, 224, 224,  23,  21,  201,
                                       436, 246,  300,  68,  131, 111,  360, 224, 164,
                                       120, 259,  166,  248, 233, 3323, 250, 226, 659};
    struct token_ids ids = {0};

    assert_int_equal(tokenizer_encode(*state, text, strlen(text), false, &ids), TCA_OK);
    assert_int_equal(ids.count, sizeof(expected) / sizeof(*expected));
    assert_memory_equal(ids.ids, expected, sizeof(expected));
    token_ids_free(&ids);
}

static void special_tokens_are_parsed_only_when_asked_for(void **state)
{
    static const char text[] = "<|im_start|>x<|im_end|>";
    struct token_ids ids = {0};

    assert_int_equal(tokenizer_encode(*state, text, strlen(text), true, &ids), TCA_OK);
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.ids[0], 1);
    assert_int_equal(ids.ids[2], 2);
    ids.count = 0;
    assert_int_equal(tokenizer_encode(*state, text, strlen(text), false, &ids), TCA_OK);
    assert_true(ids.count > 3);
    for (size_t i = 0; i < ids.count; i++)
        assert_false(tokenizer_is_special(*state, ids.ids[i]));
    token_ids_free(&ids);
}

static void tokens_are_known_by_text_and_id(void **state)
{
    struct bytes text = {0};

    assert_int_equal(tokenizer_vocab(*state), 4096);
    assert_int_equal(tokenizer_find(*state, "<|im_end|>"), 2);
    assert_int_equal(tokenizer_find(*state, "no such token"), -1);
    assert_true(tokenizer_is_special(*state, 2));
    assert_false(tokenizer_is_special(*state, 4));
    assert_false(tokenizer_is_special(*state, -1));
    assert_false(tokenizer_is_special(*state, 4096));
    assert_int_equal(tokenizer_decode(*state, 2, false, &text), TCA_OK);
    assert_int_equal(tokenizer_decode(*state, -1, true, &text), TCA_OK);
    assert_int_equal(tokenizer_decode(*state, 4096, true, &text), TCA_OK);
    assert_int_equal(text.size, 0);
    assert_int_equal(tokenizer_decode(*state, 2, true, &text), TCA_OK);
    assert_int_equal(text.size, 10);
    assert_memory_equal(text.data, "<|im_end|>", 10);
    bytes_free(&text);
}

static void malformed_text_is_refused_and_nothing_appended(void **state)
{
    struct token_ids ids = {0};

    assert_int_equal(tokenizer_encode(*state, "fine", 4, false, &ids), TCA_OK);
    const size_t count = ids.count;
    assert_int_equal(tokenizer_encode(*state, "text \xc3", 6, false, &ids), TCA_ERR_INVALID);
    assert_int_equal(ids.count, count);
    assert_int_equal(tokenizer_encode(*state, "", 0, false, &ids), TCA_OK);
    assert_int_equal(tokenizer_encode(*state, NULL, 0, false, &ids), TCA_OK);
    assert_int_equal(ids.count, count);
    assert_int_equal(tokenizer_encode(*state, "a\0b", 3, false, &ids), TCA_OK);
    assert_true(ids.count >= count + 3);
    token_ids_free(&ids);
}

struct progress {
    size_t calls, last, stop_after;
};

static bool note_progress(void *context, size_t bytes_done)
{
    struct progress *progress = context;

    assert_true(bytes_done > progress->last);
    progress->last = bytes_done;
    return ++progress->calls < progress->stop_after;
}

static char *repeat(const char *word, size_t bytes)
{
    const size_t length = strlen(word);
    char *text = malloc(bytes);

    assert_non_null(text);
    for (size_t i = 0; i < bytes; i++)
        text[i] = word[i % length];
    return text;
}

static void a_long_text_reports_progress_and_can_be_stopped(void **state)
{
    enum { BYTES = 100000 };
    char *text = repeat("words and more words, ", BYTES);
    struct progress all = {.stop_after = SIZE_MAX}, some = {.stop_after = 3};
    struct token_ids whole = {0}, pieces = {0};

    assert_int_equal(tokenizer_encode(*state, text, BYTES, false, &whole), TCA_OK);
    assert_int_equal(tokenizer_encode_long(*state, text, BYTES, 1000, note_progress, &all, &pieces),
                     TCA_OK);
    assert_true(all.calls >= 90 && all.calls <= 100);
    assert_true(all.last <= BYTES);
    assert_int_equal(pieces.count, whole.count);
    assert_memory_equal(pieces.ids, whole.ids, whole.count * sizeof(*whole.ids));
    assert_int_equal(
        tokenizer_encode_long(*state, text, BYTES, 1000, note_progress, &some, &pieces),
        TCA_ERR_CANCELLED);
    assert_int_equal(some.calls, 3);
    assert_int_equal(pieces.count, whole.count);
    free(text);
    token_ids_free(&whole);
    token_ids_free(&pieces);
}

/* One match of the pattern, one pre-token: neither the JIT's stack nor a quadratic merge may
 * stand in the way. */
static void a_pre_token_may_be_megabytes_long(void **state)
{
    static const char *const words[] = {"a",        " ", "=", "\n", "abcdefg", "\xe4\xb8\xad",
                                        "e\xcc\x81"};
    enum { BYTES = 3 * 1000 * 1000 };

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        char *text = repeat(words[i], BYTES);
        struct token_ids ids = {0};
        struct bytes back = {0};

        assert_int_equal(tokenizer_encode(*state, text, BYTES, false, &ids), TCA_OK);
        for (size_t j = 0; j < ids.count; j++)
            assert_int_equal(tokenizer_decode(*state, ids.ids[j], false, &back), TCA_OK);
        assert_int_equal(back.size, BYTES);
        assert_memory_equal(back.data, text, BYTES);
        free(text);
        token_ids_free(&ids);
        bytes_free(&back);
    }
}

static void *encode_often(void *tokenizer)
{
    static const char text[] = "Threads share the tokenizer, 12345 times \xf0\x9f\x98\x80.";
    size_t *count = calloc(1, sizeof(*count));

    for (int i = 0; i < 200; i++) {
        struct token_ids ids = {0};

        if (tokenizer_encode(tokenizer, text, strlen(text), i % 2 == 0, &ids) == TCA_OK)
            *count += ids.count;
        token_ids_free(&ids);
    }
    return count;
}

static void threads_may_encode_at_once(void **state)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    size_t *counts[THREADS];

    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, *state), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result = NULL;

        assert_int_equal(pthread_join(threads[i], &result), 0);
        counts[i] = result;
        assert_non_null(counts[i]);
        assert_true(*counts[i] > 0);
        assert_int_equal(*counts[i], *counts[0]);
    }
    for (int i = 0; i < THREADS; i++)
        free(counts[i]);
}

/* Push the tokens of `data`'s bytes, one each; `expected` is what Python's
 * bytes.decode("utf-8", errors="replace") makes of the same bytes. */
static void assert_streamed(const struct tokenizer *tokenizer, const char *data,
                            const char *expected)
{
    struct token_stream stream = {0};
    struct bytes text = {0};

    for (const char *c = data; *c != '\0'; c++) {
        int32_t id = 0;

        for (; id < tokenizer_vocab(tokenizer); id++) { /* the token that is this byte */
            struct bytes token = {0};
            bool is_it;

            assert_int_equal(tokenizer_decode(tokenizer, id, false, &token), TCA_OK);
            is_it = token.size == 1 && token.data[0] == (uint8_t)*c;
            bytes_free(&token);
            if (is_it)
                break;
        }
        assert_int_equal(token_stream_push(&stream, tokenizer, id, &text), TCA_OK);
    }
    assert_int_equal(token_stream_finish(&stream, &text), TCA_OK);
    assert_int_equal(text.size, strlen(expected));
    assert_memory_equal(text.data, expected, text.size);
    bytes_free(&text);
}

#define R "\xef\xbf\xbd"

static void streams_cut_no_character_and_replace_what_is_none(void **state)
{
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80", "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80"},
        {"\xe2\x28\xa1", R "(" R},
        {"\xf0\x9f\x98", R},
        {"\xf0\x9f\x98z", R "z"},
        {"\xed\xa0\x80", R R R},
        {"\xf0\x80\x80\x80", R R R R},
        {"\xf4\x90\x80", R R R},
        {"\xc0\xaf", R R},
        {"\xff\xfe", R R},
        {"\xe4\xb8\xe4\xb8\xad", R "\xe4\xb8\xad"},
        {"a\xc3", "a" R},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_streamed(*state, cases[i][0], cases[i][1]);
}

/* Of a model with more ids than the tokenizer; a character that they cut off is none any more. */
static void ids_without_text_are_replaced_in_streams(void **state)
{
    static const char start[] = "\xf0\x9f\x98\x80";
    struct token_stream stream = {0};
    struct token_ids ids = {0};
    struct bytes text = {0};

    assert_int_equal(tokenizer_encode(*state, start, strlen(start), false, &ids), TCA_OK);
    assert_true(ids.count > 1);
    assert_int_equal(token_stream_push(&stream, *state, ids.ids[0], &text), TCA_OK);
    assert_int_equal(text.size, 0);
    assert_int_equal(token_stream_push(&stream, *state, tokenizer_vocab(*state), &text), TCA_OK);
    assert_int_equal(token_stream_push(&stream, *state, INT32_MAX, &text), TCA_OK);
    assert_int_equal(token_stream_finish(&stream, &text), TCA_OK);
    assert_int_equal(text.size, strlen(R R R));
    assert_memory_equal(text.data, R R R, text.size);
    bytes_free(&text);
    token_ids_free(&ids);
}

static void a_stream_hands_out_whole_characters_as_they_come(void **state)
{
    struct token_stream stream = {0};
    struct token_ids ids = {0};
    struct bytes text = {0};

    assert_int_equal(tokenizer_encode(*state, "\xf0\x9f\x98\x80", 4, false, &ids), TCA_OK);
    assert_true(ids.count > 1);
    for (size_t i = 0; i < ids.count; i++) {
        assert_int_equal(text.size, 0);
        assert_int_equal(token_stream_push(&stream, *state, ids.ids[i], &text), TCA_OK);
        /* A control token in between says nothing and breaks nothing. */
        assert_int_equal(token_stream_push(&stream, *state, 2, &text), TCA_OK);
    }
    assert_int_equal(text.size, 4);
    assert_int_equal(stream.held_bytes, 0);
    token_ids_free(&ids);
    bytes_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_reference),
        cmocka_unit_test(special_tokens_are_parsed_only_when_asked_for),
        cmocka_unit_test(tokens_are_known_by_text_and_id),
        cmocka_unit_test(malformed_text_is_refused_and_nothing_appended),
        cmocka_unit_test(a_long_text_reports_progress_and_can_be_stopped),
        cmocka_unit_test(a_pre_token_may_be_megabytes_long),
        cmocka_unit_test(threads_may_encode_at_once),
        cmocka_unit_test(streams_cut_no_character_and_replace_what_is_none),
        cmocka_unit_test(ids_without_text_are_replaced_in_streams),
        cmocka_unit_test(a_stream_hands_out_whole_characters_as_they_come),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, open_needle, close_needle);
}
