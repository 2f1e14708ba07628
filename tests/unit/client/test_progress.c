#include "tests/support/check.h"

#include "client/progress.h"

#include <stdlib.h>
#include <string.h>

static const struct progress_state half_way = {
    .phase = "prefilling",
    .unit = PROGRESS_TOKENS,
    .done = 8192,
    .total = 16384,
    .per_s = 1234.4,
    .eta_ms = 6600,
};

static void a_wide_terminal_gets_a_bar(void **state)
{
    char line[PROGRESS_LINE_BYTES];

    (void)state;
    progress_format(&half_way, 120, line);
    assert_string_equal(line, "prefilling [############            ]  50 %  8,192 of 16,384 tokens"
                              "  1,234 tokens/s  ETA 6.6 s");
    progress_format(&half_way, 70, line);
    assert_int_equal(strlen(line), 70);
}

static void a_plain_line_has_no_bar_and_is_not_cut(void **state)
{
    char line[PROGRESS_LINE_BYTES];

    (void)state;
    progress_format(&half_way, 0, line);
    assert_string_equal(line,
                        "prefilling  50 %  8,192 of 16,384 tokens  1,234 tokens/s  ETA 6.6 s");
}

static void an_unknown_total_shows_what_is_done(void **state)
{
    struct progress_state upload = {
        .phase = "uploading",
        .unit = PROGRESS_BYTES,
        .done = 1572864,
        .per_s = 2048,
    };
    char line[PROGRESS_LINE_BYTES];

    (void)state;
    progress_format(&upload, 80, line);
    assert_string_equal(line, "uploading  1.5 MiB  2.0 KiB/s");
    upload.done = 0;
    upload.per_s = 0;
    progress_format(&upload, 80, line);
    assert_string_equal(line, "uploading");
}

static void more_than_all_is_all(void **state)
{
    struct progress_state over = {
        .phase = "p", .unit = PROGRESS_TOKENS, .done = 3, .total = 2, .per_s = -1};
    char line[PROGRESS_LINE_BYTES];

    (void)state;
    progress_format(&over, 80, line);
    assert_non_null(strstr(line, "########################]  100 %  3 of 2 tokens"));
}

static void plain_lines_come_with_news_only(void **state)
{
    struct progress_state other = {.phase = "waiting"};
    struct progress progress = {0};
    char *text = NULL;
    size_t bytes = 0;

    (void)state;
    progress.out = open_memstream(&text, &bytes);
    progress_show(&progress, &half_way, 1000);
    progress_show(&progress, &half_way, 2999); /* too soon */
    progress_show(&progress, &half_way, 3000);
    progress_show(&progress, &other, 3001); /* another phase: at once */
    progress_clear(&progress);
    fclose(progress.out);
    assert_string_equal(text,
                        "prefilling  50 %  8,192 of 16,384 tokens  1,234 tokens/s  ETA 6.6 s\n"
                        "prefilling  50 %  8,192 of 16,384 tokens  1,234 tokens/s  ETA 6.6 s\n"
                        "waiting\n");
    free(text);
}

static void a_terminal_line_is_redrawn_and_cleared(void **state)
{
    struct progress_state waiting = {.phase = "waiting"};
    struct progress progress = {.is_terminal = true};
    char *text = NULL;
    size_t bytes = 0;

    (void)state;
    progress.out = open_memstream(&text, &bytes);
    progress_show(&progress, &waiting, 1000);
    progress_show(&progress, &waiting, 1050); /* too soon */
    progress_clear(&progress);
    progress_clear(&progress);
    fclose(progress.out);
    assert_string_equal(text, "\r\x1b[Kwaiting\r\x1b[K");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wide_terminal_gets_a_bar),
        cmocka_unit_test(a_plain_line_has_no_bar_and_is_not_cut),
        cmocka_unit_test(an_unknown_total_shows_what_is_done),
        cmocka_unit_test(more_than_all_is_all),
        cmocka_unit_test(plain_lines_come_with_news_only),
        cmocka_unit_test(a_terminal_line_is_redrawn_and_cleared),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
