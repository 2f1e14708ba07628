#include "tests/support/check.h"

#include "coordinator/stop_text.h"

#include <string.h>

/* Feed `text` in pieces of `step` bytes; what is shown goes to shown[64].
 * Says whether it stopped. */
static bool show(const char *const *stops, const char *text, size_t step, char *shown)
{
    struct stop_text stop = {0};
    struct bytes released = {0};
    bool is_stopped = false;

    for (; *stops != NULL; stops++)
        assert_int_equal(stop_text_add(&stop, *stops, strlen(*stops)), TCA_OK);
    for (size_t at = 0; at < strlen(text) && !is_stopped; at += step) {
        const size_t left = strlen(text) - at;

        assert_int_equal(
            stop_text_push(&stop, text + at, left < step ? left : step, &released, &is_stopped),
            TCA_OK);
    }
    if (!is_stopped)
        assert_int_equal(stop_text_finish(&stop, &released), TCA_OK);
    assert_true(released.size < 64);
    memcpy(shown, released.data == NULL ? (const uint8_t *)"" : released.data, released.size);
    shown[released.size] = '\0';
    bytes_free(&released);
    stop_text_free(&stop);
    return is_stopped;
}

static void the_answer_does_not_depend_on_how_it_is_cut(void **state)
{
    static const struct {
        const char *stops[4];
        const char *text, *shown;
        bool is_stopped;
    } cases[] = {
        {{NULL}, "no stops", "no stops", false},
        {{"END"}, "some text END more", "some text ", true},
        {{"END"}, "some text EN", "some text EN", false},
        {{"END"}, "ENEND", "EN", true},
        {{"aab"}, "aaab", "a", true},
        {{"\n\n"}, "a\nb\n\nc", "a\nb", true},
        {{"bcd", "c"}, "abcd", "ab", true}, /* "c" is complete first */
        {{"abc", "c"}, "xabc", "x", true},  /* both end there: the longest */
        {{"one two", "two"}, "one two", "", true},
        {{"\xf0\x9f\x98\x80"}, "ok\xf0\x9f\x98\x81", "ok\xf0\x9f\x98\x81", false},
    };
    char shown[64];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (size_t step = 1; step <= strlen(cases[i].text); step++) {
            assert_int_equal(show(cases[i].stops, cases[i].text, step, shown), cases[i].is_stopped);
            assert_string_equal(shown, cases[i].shown);
        }
}

static void only_the_start_of_a_stop_is_held_back(void **state)
{
    struct stop_text stop = {0};
    struct bytes released = {0};
    bool is_stopped;

    (void)state;
    assert_int_equal(stop_text_add(&stop, "Question:", 9), TCA_OK);
    assert_int_equal(stop_text_push(&stop, "no Que", 6, &released, &is_stopped), TCA_OK);
    assert_int_equal(released.size, 3);
    assert_int_equal(stop_text_push(&stop, "en ", 3, &released, &is_stopped), TCA_OK);
    assert_int_equal(released.size, 9);
    assert_memory_equal(released.data, "no Queen ", 9);
    bytes_free(&released);
    stop_text_free(&stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_does_not_depend_on_how_it_is_cut),
        cmocka_unit_test(only_the_start_of_a_stop_is_held_back),
    };
    return cmocka_run_group_tests_name("stop_text", tests, NULL, NULL);
}
