#include "tests/support/check.h"

#include "client/command.h"
#include "client/input.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS_MAX = 24 };

/* Parse a command line given as words with single spaces between them. */
static enum tca_status parse(const char *words, struct command_line *line, struct tca_error *error)
{
    static char text[512];
    char *argv[WORDS_MAX], *rest = text;
    int argc = 0;

    snprintf(text, sizeof(text), "tca %s", words);
    while (argc < WORDS_MAX - 1 && (argv[argc] = strsep(&rest, " ")) != NULL)
        if (argv[argc][0] != '\0')
            argc++;
    argv[argc] = NULL;
    return command_line_parse(argc, argv, line, error);
}

static void options_stand_before_and_after_the_command(void **state)
{
    struct command_line line;
    struct tca_error error;

    (void)state;
    assert_int_equal(parse("--server h:1 --json ask --max-tokens 7 book what?"
                           " --temperature=0.5 --stop a --stop b --timeout 2.5 --seed 12",
                           &line, &error),
                     TCA_OK);
    assert_string_equal(line.command->name, "ask");
    assert_string_equal(line.options.server, "h:1");
    assert_true(line.options.json);
    assert_int_equal(line.options.max_tokens, 7);
    assert_true(line.options.temperature == 0.5);
    assert_true(line.options.timeout_s == 2.5);
    assert_int_equal(line.options.stop.count, 2);
    assert_string_equal(line.options.stop.items[1], "b");
    assert_string_equal(line.options.seed, "12");
    assert_int_equal(line.arguments.positionals, 2);
    assert_string_equal(line.arguments.positional[0], "book");
    assert_string_equal(line.arguments.positional[1], "what?");
    command_line_free(&line);
}

static void after_two_dashes_everything_is_an_argument(void **state)
{
    struct command_line line;
    struct tca_error error;

    (void)state;
    assert_int_equal(parse("ask book --raw -- --json", &line, &error), TCA_OK);
    assert_true(line.options.raw);
    assert_false(line.options.json);
    assert_string_equal(line.arguments.positional[1], "--json");
    command_line_free(&line);
    assert_int_equal(parse("put -", &line, &error), TCA_OK);
    assert_string_equal(line.arguments.positional[0], "-");
    command_line_free(&line);
}

static void check_refused(const char *words, const char *expected)
{
    struct command_line line;
    struct tca_error error = {0};

    assert_int_equal(parse(words, &line, &error), TCA_ERR_INVALID);
    if (strstr(error.text, expected) == NULL)
        fail_msg("\"%s\" gave \"%s\", not \"%s\"", words, error.text, expected);
}

static void usage_errors_name_what_is_wrong(void **state)
{
    (void)state;
    check_refused("", "a command is missing");
    check_refused("--json", "a command is missing");
    check_refused("fly", "unknown command \"fly\"");
    check_refused("ask book", "takes ID QUESTION");
    check_refused("ask book a b", "takes ID QUESTION");
    check_refused("ls x", "unexpected argument \"x\"");
    check_refused("ls --max-tokens 3", "unknown option \"--max-tokens\"");
    check_refused("ask a b --max-tokens many", "--max-tokens: value \"many\"");
    check_refused("ask a b --temperature warm", "--temperature: value \"warm\"");
    check_refused("ask a b --seed", "--seed: a value is missing");
    check_refused("get a -x", "unknown option \"-x\"");
}

static char *help_of(const char *words)
{
    struct command_line line;
    struct tca_error error;
    char *text = NULL;
    size_t bytes;
    FILE *out;

    assert_int_equal(parse(words, &line, &error), TCA_OK);
    assert_int_equal(line.arguments.help, SETTINGS_HELP_TEXT);
    out = open_memstream(&text, &bytes);
    command_print_help(line.command, line.arguments.help, out);
    fclose(out);
    command_line_free(&line);
    return text;
}

static void every_command_has_help(void **state)
{
    static const char *const names[] = {"put",   "ask",    "generate", "ls", "get",
                                        "watch", "pin",    "unpin",    "rm", "tokenize",
                                        "info",  "health", "drain"};
    char *overview = help_of("--help");
    char words[32];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char *help;

        snprintf(words, sizeof(words), "\n  %s ", names[i]);
        assert_non_null(strstr(overview, words));
        snprintf(words, sizeof(words), "%s --help", names[i]);
        help = help_of(words);
        assert_non_null(strstr(help, "--server HOST:PORT"));
        snprintf(words, sizeof(words), "usage: tca %s", names[i]);
        assert_non_null(strstr(help, words));
        free(help);
    }
    free(overview);
}

static void numbers_must_fit_their_field(void **state)
{
    struct tca_error error;
    uint64_t seed;
    int32_t value;

    (void)state;
    assert_int_equal(input_int32("top-k", -5, &value, &error), TCA_OK);
    assert_int_equal(value, -5); /* the server judges ranges */
    assert_int_equal(input_int32("top-k", (int64_t)INT32_MAX + 1, &value, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "--top-k: value 2147483648"));
    assert_int_equal(input_uint64("seed", "18446744073709551615", &seed, &error), TCA_OK);
    assert_true(seed == UINT64_MAX);
    assert_int_equal(input_uint64("seed", "18446744073709551616", &seed, &error), TCA_ERR_INVALID);
    assert_int_equal(input_uint64("seed", "-1", &seed, &error), TCA_ERR_INVALID);
    assert_int_equal(input_uint64("seed", "1x", &seed, &error), TCA_ERR_INVALID);
    assert_int_equal(input_uint64("seed", "", &seed, &error), TCA_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_stand_before_and_after_the_command),
        cmocka_unit_test(after_two_dashes_everything_is_an_argument),
        cmocka_unit_test(usage_errors_name_what_is_wrong),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(numbers_must_fit_their_field),
    };
    return cmocka_run_group_tests_name("command", tests, NULL, NULL);
}
