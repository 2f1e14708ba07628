#include "tests/support/check.h"

#include "model/pattern.h"

#include <string.h>

static void patterns_of_known_models_are_translated(void **state)
{
    static const char *const cases[][2] = {
        {"\\s+(?!\\S)|\\s+",
         "[\\t-\\r\\x{85}\\p{Z}]+(?![^\\t-\\r\\x{85}\\p{Z}])|[\\t-\\r\\x{85}\\p{Z}]+"},
        {" ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*", " ?[^\\t-\\r\\x{85}\\p{Z}\\p{L}\\p{N}]+[\\r\\n]*"},
        {"(?i:'s|'t)|[^\\r\\n\\p{L}]?\\p{L}+|\\p{N}{1,3}",
         "(?i:'s|'t)|[^\\r\\n\\p{L}]?\\p{L}+|\\p{N}{1,3}"},
        {"[\\p{Lu}\\p{M}]*(?:a|b)\\.", "[\\p{Lu}\\p{M}]*(?:a|b)\\."},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct bytes translated = {0};
        size_t position;

        assert_int_equal(
            pattern_translate(cases[i][0], strlen(cases[i][0]), &translated, &position), TCA_OK);
        assert_int_equal(translated.size, strlen(cases[i][1]));
        assert_memory_equal(translated.data, cases[i][1], translated.size);
        bytes_free(&translated);
    }
}

static void what_differs_between_the_engines_is_refused(void **state)
{
    static const struct {
        const char *pattern;
        size_t position;
    } cases[] = {
        {"ab\\w", 2},   {"\\h", 0},     {"a\\", 1},     {"[^\\S]", 2},     {"[a[b]]", 2},
        {"[a&&b]", 2},  {"a.b", 1},     {"^a", 0},      {"a$", 1},         {"a{1,2}+", 5},
        {"(?<=a)b", 0}, {"(?i)a", 0},   {"(*UCP)a", 0}, {"\\p{L", 0},      {"\\pL", 0},
        {"\\p{^L}", 0}, {"\\x{41}", 0}, {"[]a]", 0},    {"(?<name>a)", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct bytes translated = {0};
        size_t position = 99;

        assert_int_equal(
            pattern_translate(cases[i].pattern, strlen(cases[i].pattern), &translated, &position),
            TCA_ERR_UNSUPPORTED);
        assert_int_equal(position, cases[i].position);
        bytes_free(&translated);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_of_known_models_are_translated),
        cmocka_unit_test(what_differs_between_the_engines_is_refused),
    };
    return cmocka_run_group_tests_name("pattern", tests, NULL, NULL);
}
