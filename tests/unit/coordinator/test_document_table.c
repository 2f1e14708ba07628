#include "tests/support/check.h"

#include "coordinator/document_table.h"

#include <stdio.h>
#include <string.h>

static void documents_are_found_and_listed_by_id(void **state)
{
    static const char *const ids[] = {"m", "b", "z", "a", "y", ".x", "B"};
    struct document_table table = {0};
    size_t row = 0;
    const char *last = "";

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
        assert_int_equal(document_table_add(&table, document_make(ids[i])), TCA_OK);
    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
        assert_string_equal(document_table_find(&table, ids[i])->id, ids[i]);
    assert_null(document_table_find(&table, "n"));
    assert_null(document_table_find(&table, ""));
    /* Page by page, one document a page. */
    while ((row = document_table_after(&table, last)) < table.count) {
        assert_true(strcmp(table.rows[row]->id, last) > 0);
        last = table.rows[row]->id;
    }
    assert_string_equal(last, "z");
    document_table_free(&table);
}

static void an_id_is_taken_once(void **state)
{
    struct document_table table = {0};
    struct document *twin = document_make("a");

    (void)state;
    assert_int_equal(document_table_add(&table, document_make("a")), TCA_OK);
    assert_int_equal(document_table_add(&table, twin), TCA_ERR_EXISTS);
    document_free(twin);
    document_table_remove(&table, document_table_find(&table, "a"));
    assert_int_equal(table.count, 0);
    assert_null(document_table_find(&table, "a"));
    document_table_free(&table);
}

static void many_documents_stay_in_order(void **state)
{
    struct document_table table = {0};
    char id[16];

    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        snprintf(id, sizeof(id), "%03u", i * 7 % 500);
        assert_int_equal(document_table_add(&table, document_make(id)), TCA_OK);
    }
    for (unsigned i = 0; i < 500; i += 2) {
        snprintf(id, sizeof(id), "%03u", i);
        document_table_remove(&table, document_table_find(&table, id));
    }
    assert_int_equal(table.count, 250);
    for (size_t row = 0; row < table.count; row++) {
        snprintf(id, sizeof(id), "%03zu", row * 2 + 1);
        assert_string_equal(table.rows[row]->id, id);
    }
    document_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_found_and_listed_by_id),
        cmocka_unit_test(an_id_is_taken_once),
        cmocka_unit_test(many_documents_stay_in_order),
    };
    return cmocka_run_group_tests_name("document_table", tests, NULL, NULL);
}
