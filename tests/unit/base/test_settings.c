#include "tests/support/check.h"
#include "tests/support/failing_alloc.h"

#include "base/settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum policy { POLICY_LRU, POLICY_REFUSE };

struct options {
    bool no_launch;
    int64_t workers;
    int64_t memory;
    int64_t any;
    double share;
    double real;
    enum policy policy;
    char *model;
    char *config;
    struct setting_texts stops;
};

static const char *const policies[] = {"lru", "refuse", NULL};

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, no_launch), .name = "no-launch", .help = "wait for a group"},
    {SETTING_FIELD(struct options, workers), .name = "workers", .initial = "2", .metavar = "N",
     .min = 1, .max = 64, .help = "ranks to start"},
    {SETTING_FIELD(struct options, memory), .name = "memory", .initial = "1G", .metavar = "BYTES",
     .min = 1, .max = INT64_MAX, .is_bytes = true, .help = "memory for keys | values"},
    {SETTING_FIELD(struct options, any), .name = "any", .help = "any number"},
    {SETTING_FIELD(struct options, share), .name = "share", .initial = "0.1", .real_min = 0,
     .real_max = 1, .help = "a share"},
    {SETTING_FIELD(struct options, real), .name = "real", .help = "any real number"},
    {SETTING_FIELD(struct options, policy), .name = "policy", .initial = "refuse",
     .choices = policies, .help = "what to do"},
    {SETTING_FIELD(struct options, model), .name = "model", .metavar = "DIR", .help = "a folder"},
    {SETTING_FIELD(struct options, config), .name = "config", .help = "a file"},
    {SETTING_FIELD(struct options, stops), .name = "stop", .help = "ends the answer"},
};

static const struct settings_table table = {.program = "prog",
                                            .synopsis = "FILE..",
                                            .rows = rows,
                                            .count = sizeof(rows) / sizeof(rows[0]),
                                            .config = "config"};

enum { ARGUMENTS_MAX = 16 };

/* A command line, its outcome, and a config file where one is wanted. */
struct fixture {
    struct options options;
    struct settings_arguments arguments;
    struct tca_error error;
    char path[32];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    *state = fixture;
    return fixture == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    settings_free(&table, &fixture->options, &fixture->arguments);
    if (fixture->path[0] != '\0')
        unlink(fixture->path);
    free(fixture);
    return 0;
}

static void write_config(struct fixture *fixture, const char *text, size_t bytes)
{
    int fd;

    if (fixture->path[0] != '\0')
        unlink(fixture->path);
    strcpy(fixture->path, "/tmp/test_settings_XXXXXX");
    fd = mkstemp(fixture->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, bytes), bytes);
    close(fd);
}

/* The words of `line`, split at '~', are the command line; FILE stands for the config file. */
static enum tca_status load_with(const struct settings_table *with, struct fixture *fixture,
                                 const char *line)
{
    static char words[512];
    char *argv[ARGUMENTS_MAX] = {(char[]){"prog"}};
    int argc = 1;

    settings_free(&table, &fixture->options, &fixture->arguments);
    memset(&fixture->options, 0xa5, sizeof(fixture->options));
    fixture->error.text[0] = '\0';
    snprintf(words, sizeof(words), "%s", line);
    for (char *word = strtok(words, "~"); word != NULL; word = strtok(NULL, "~"))
        argv[argc++] = strcmp(word, "FILE") == 0 ? fixture->path : word;
    return settings_load(with, argc, argv, &fixture->options, &fixture->arguments, &fixture->error);
}

static enum tca_status load(struct fixture *fixture, const char *line)
{
    return load_with(&table, fixture, line);
}

static void assert_refused(struct fixture *fixture, const char *line, const char *text)
{
    assert_int_equal(load(fixture, line), TCA_ERR_INVALID);
    if (strstr(fixture->error.text, text) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", fixture->error.text, text);
    assert_null(fixture->options.model);
    assert_null(fixture->arguments.positional);
}

static void defaults_fill_every_field(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(load(fixture, ""), TCA_OK);
    assert_false(fixture->options.no_launch);
    assert_int_equal(fixture->options.workers, 2);
    assert_int_equal(fixture->options.memory, 1 << 30);
    assert_int_equal(fixture->options.any, 0);
    assert_true(fixture->options.share > 0.0999 && fixture->options.share < 0.1001);
    assert_int_equal(fixture->options.policy, POLICY_REFUSE);
    assert_null(fixture->options.model);
    assert_int_equal(fixture->options.stops.count, 0);
    assert_int_equal(fixture->arguments.positionals, 0);
}

static void both_spellings_are_read_and_the_last_wins(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(load(fixture,
                          "--workers=3~--no-launch~--workers~4~--memory=8K~--any=-7~--real=-1e3~"
                          "--share~.25~--policy=lru~--model~a=b~--stop~x~--stop=y"),
                     TCA_OK);
    assert_true(fixture->options.no_launch);
    assert_int_equal(fixture->options.workers, 4);
    assert_int_equal(fixture->options.memory, 8192);
    assert_int_equal(fixture->options.any, -7);
    assert_true(fixture->options.share == 0.25);
    assert_int_equal(fixture->options.policy, POLICY_LRU);
    assert_string_equal(fixture->options.model, "a=b");
    assert_int_equal(fixture->options.stops.count, 2);
    assert_string_equal(fixture->options.stops.items[1], "y");
    assert_int_equal(load(fixture, "--no-launch~--no-launch=false"), TCA_OK);
    assert_false(fixture->options.no_launch);
}

static void positional_arguments_are_handed_back(void **state)
{
    struct settings_table stopping = table;
    struct settings_table strict = table;
    struct fixture *fixture = *state;

    assert_int_equal(load(fixture, "a~--workers~3~-~--~--any"), TCA_OK);
    assert_int_equal(fixture->arguments.positionals, 3);
    assert_string_equal(fixture->arguments.positional[0], "a");
    assert_string_equal(fixture->arguments.positional[1], "-");
    assert_string_equal(fixture->arguments.positional[2], "--any");

    stopping.stops_at_positional = true;
    assert_int_equal(load_with(&stopping, fixture, "--workers=3~put~--id~x"), TCA_OK);
    assert_int_equal(fixture->options.workers, 3);
    assert_int_equal(fixture->arguments.positionals, 3);
    assert_string_equal(fixture->arguments.positional[1], "--id");

    strict.synopsis = NULL;
    assert_int_equal(load_with(&strict, fixture, "a"), TCA_ERR_INVALID);
}

static void wrong_values_are_refused_with_what_is_allowed(void **state)
{
    static const char *const wrong[][2] = {
        {"--model=m~--workers=0", "--workers: value \"0\", allowed: 1 to 64"},
        {"--workers=65", "1 to 64"},
        {"--workers= 3", "1 to 64"},
        {"--workers=3x", "1 to 64"},
        {"--workers=", "1 to 64"},
        {"--workers=99999999999999999999", "1 to 64"},
        {"--workers=3K", "1 to 64"},
        {"--any=1.5", "a whole number"},
        {"--memory=8KB", "K, M, G or T"},
        {"--memory=9000000T", "K, M, G or T"},
        {"--memory=16777217T", "K, M, G or T"}, /* 1T more than 2^64 */
        {"--real=1e999", "a number"},
        {"--memory=-1K", "K, M, G or T"},
        {"--share=1.5", "0 to 1"},
        {"--share=nan", "0 to 1"},
        {"--share=0x1", "0 to 1"},
        {"--share=1e", "0 to 1"},
        {"--share=", "0 to 1"},
        {"--policy=LRU", "value \"LRU\", allowed: lru or refuse"},
        {"--no-launch=1", "true or false"},
        {"--model=m~--workers", "--workers: a value is missing"},
        {"--worker=3", "unknown option \"--worker=3\""},
        {"-w", "unknown option \"-w\""},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_refused(*state, wrong[i][0], wrong[i][1]);
}

static void command_line_wins_over_file_and_file_over_defaults(void **state)
{
    static const char text[] =
        "# comment\n\n  workers = 5  \nmodel=some dir # x\r\nno-launch = true\n"
        "stop = a\nstop = b\nshare=1";
    struct fixture *fixture = *state;

    write_config(fixture, text, strlen(text));
    assert_int_equal(load(fixture, "--memory=1K~--config~FILE~--share=0.5~--stop=c~pos"), TCA_OK);
    assert_int_equal(fixture->options.workers, 5);
    assert_int_equal(fixture->options.memory, 1024);
    assert_int_equal(fixture->options.policy, POLICY_REFUSE);
    assert_true(fixture->options.no_launch);
    assert_true(fixture->options.share == 0.5);
    assert_string_equal(fixture->options.model, "some dir # x");
    assert_int_equal(fixture->options.stops.count, 3);
    assert_string_equal(fixture->options.stops.items[2], "c");
    assert_string_equal(fixture->options.config, fixture->path);
    assert_int_equal(fixture->arguments.positionals, 1);
}

static void wrong_files_are_refused_with_their_line(void **state)
{
    static const struct {
        const char *text, *reason;
    } wrong[] = {
        {"workers = 1\nworkerz = 2\n", "line 2: unknown setting \"workerz\""},
        {"workers = 0\n", "line 1: workers: value \"0\", allowed: 1 to 64"},
        {"\nworkers\n", "line 2: \"workers\", allowed: name = value"},
        {"workers = 1\nworkers = 2\n", "line 2: workers is set twice"},
        {"config = other\n", "line 1: unknown setting \"config\""},
        {"--workers = 1\n", "line 1: unknown setting \"--workers\""},
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        write_config(fixture, wrong[i].text, strlen(wrong[i].text));
        assert_refused(fixture, "--model=m~--config~FILE", wrong[i].reason);
        assert_non_null(strstr(fixture->error.text, fixture->path));
    }
    write_config(fixture, "workers = 3\0 4\n", 15);
    assert_refused(fixture, "--config~FILE", "line 1: a NUL byte");
    assert_int_equal(load(fixture, "--config=/nonexistent/file"), TCA_ERR_NOT_FOUND);
    assert_int_equal(load(fixture, "--config=/tmp"), TCA_ERR_IO);
}

static char *print_to_text(struct fixture *fixture, enum settings_help help)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    assert_non_null(out);
    if (help == SETTINGS_HELP_NONE)
        settings_print(&table, &fixture->options, out);
    else
        settings_print_help(&table, help, out);
    fclose(out);
    return text;
}

static void printed_settings_read_back_as_themselves(void **state)
{
    struct fixture *fixture = *state;
    char *first, *second;

    assert_int_equal(load(fixture, "--memory=1536~--share=0.3333333333333333~--stop=a b~--stop=c~"
                                   "--no-launch~--any=-3~--policy=lru"),
                     TCA_OK);
    first = print_to_text(fixture, SETTINGS_HELP_NONE);
    assert_non_null(strstr(first, "memory = 1536\n"));
    assert_non_null(strstr(first, "share = 0.33333333333333331\n"));
    assert_non_null(strstr(first, "policy = lru\n"));
    write_config(fixture, first, strlen(first));
    assert_int_equal(load(fixture, "--config~FILE"), TCA_OK);
    second = print_to_text(fixture, SETTINGS_HELP_NONE);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

static void help_names_every_setting_and_its_range(void **state)
{
    struct fixture *fixture = *state;
    char *text;

    assert_int_equal(load(fixture, "--workers=3~--help~--nonsense"), TCA_OK);
    assert_int_equal(fixture->arguments.help, SETTINGS_HELP_TEXT);
    text = print_to_text(fixture, SETTINGS_HELP_TEXT);
    assert_non_null(strstr(text, "usage: prog [OPTION].. FILE..\n"));
    assert_non_null(strstr(text, "ranks to start; 1 to 64 (default 2)\n"));
    for (size_t i = 0; i < table.count; i++)
        assert_non_null(strstr(text, rows[i].name));
    free(text);

    assert_int_equal(load(fixture, "--help=markdown"), TCA_OK);
    text = print_to_text(fixture, fixture->arguments.help);
    assert_non_null(strstr(text, "| `--workers N` | `2` | 1 to 64 | ranks to start |\n"));
    assert_non_null(
        strstr(text, "| `--no-launch` | `false` | true or false | wait for a group |\n"));
    assert_non_null(strstr(text, "keys \\| values"));
    free(text);
}

static void failed_allocation_leaves_nothing_owned(void **state)
{
    struct fixture *fixture = *state;
    enum tca_status status;

    write_config(fixture, "model = m\nstop = a\n", 19);
    for (int count = 0;; count++) {
        failing_alloc_after(count);
        status = load(fixture, "--config~FILE~--stop=b~pos");
        if (!failing_alloc_stop())
            break;
        assert_int_equal(status, TCA_ERR_NO_MEMORY);
        assert_null(fixture->options.model);
        assert_null(fixture->options.stops.items);
        assert_null(fixture->arguments.positional);
    }
    assert_int_equal(status, TCA_OK);
    assert_int_equal(fixture->options.stops.count, 2);
}

#define SETTINGS_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SETTINGS_TEST(defaults_fill_every_field),
        SETTINGS_TEST(both_spellings_are_read_and_the_last_wins),
        SETTINGS_TEST(positional_arguments_are_handed_back),
        SETTINGS_TEST(wrong_values_are_refused_with_what_is_allowed),
        SETTINGS_TEST(command_line_wins_over_file_and_file_over_defaults),
        SETTINGS_TEST(wrong_files_are_refused_with_their_line),
        SETTINGS_TEST(printed_settings_read_back_as_themselves),
        SETTINGS_TEST(help_names_every_setting_and_its_range),
        SETTINGS_TEST(failed_allocation_leaves_nothing_owned),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
