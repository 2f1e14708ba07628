#include "tests/support/check.h"

#include "client/table.h"

#include <string.h>

static void check_finish(struct table *table, const char *expected)
{
    struct bytes out = {0};

    assert_int_equal(table_finish(table, &out), TCA_OK);
    assert_int_equal(out.size, strlen(expected));
    assert_memory_equal(out.data, expected, out.size);
    assert_int_equal(table->count, 0);
    bytes_free(&out);
}

static void columns_line_up_by_characters(void **state)
{
    static const char *const cells[] = {"ID", "STATE", "NAME", "caf\xc3\xa9", "", "x",
                                        "b",  "READY", ""};
    struct table table = {.columns = 3};

    (void)state;
    for (size_t i = 0; i < sizeof(cells) / sizeof(*cells); i++)
        table_add_text(&table, cells[i]);
    check_finish(&table, "ID    STATE  NAME\n"
                         "caf\xc3\xa9         x\n"
                         "b     READY\n");
}

static void a_cell_cannot_break_its_line(void **state)
{
    struct table table = {.columns = 2};

    (void)state;
    table_add(&table, "a\nb\x1b", 4);
    table_add_count(&table, 1234);
    table_add_count(&table, 0);
    table_add_size(&table, 2048);
    check_finish(&table, "a\\x0ab\\x1b  1,234\n"
                         "-           2.0 KiB\n");
}

static void an_empty_table_prints_nothing(void **state)
{
    struct table table = {.columns = 2};
    struct bytes out = {0};

    (void)state;
    assert_int_equal(table_finish(&table, &out), TCA_OK);
    assert_int_equal(out.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_line_up_by_characters),
        cmocka_unit_test(a_cell_cannot_break_its_line),
        cmocka_unit_test(an_empty_table_prints_nothing),
    };
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
