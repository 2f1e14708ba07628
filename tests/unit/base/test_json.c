#include "tests/support/check.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct json_document *parse(const char *text)
{
    struct json_document *document = NULL;
    struct tca_error error = {0};

    assert_int_equal(json_document_parse("f.json", text, strlen(text), &document, &error), TCA_OK);
    return document;
}

static void getters_read_what_is_there(void **state)
{
    struct json_document *document =
        parse("{\"a\": {\"n\": 7, \"x\": 2.5, \"t\": true, \"s\": \"b\\u0000c\", \"none\": null}}");
    const struct json_node root = json_document_root(document);
    const struct json_node a = json_node_get(&root, "a");
    const struct json_node n = json_node_get(&a, "n"), x = json_node_get(&a, "x");
    const struct json_node t = json_node_get(&a, "t"), s = json_node_get(&a, "s");
    const struct json_node none = json_node_get(&a, "none"), no = json_node_get(&a, "no");
    int64_t integer = 0;
    double real = 0;
    bool truth = false;
    const char *text = NULL;
    size_t bytes = 0;

    (void)state;
    assert_int_equal(json_node_int(&n, 0, 7, &integer, NULL), TCA_OK);
    assert_int_equal(integer, 7);
    assert_int_equal(json_node_double(&x, &real, NULL), TCA_OK);
    assert_true(real == 2.5);
    assert_int_equal(json_node_double(&n, &real, NULL), TCA_OK);
    assert_true(real == 7.0);
    assert_int_equal(json_node_bool(&t, &truth, NULL), TCA_OK);
    assert_true(truth);
    assert_int_equal(json_node_string(&s, &text, &bytes, NULL), TCA_OK);
    assert_int_equal(bytes, 3);
    assert_memory_equal(text, "b\0c", 4);
    assert_false(json_node_exists(&none));
    assert_false(json_node_exists(&no));
    assert_int_equal(json_node_count(&a), 5);
    json_document_close(document);
}

static void children_come_in_the_order_of_the_file(void **state)
{
    struct json_document *document = parse("[{\"z\": 1, \"a\": 2}, null, \"s\"]");
    const struct json_node root = json_document_root(document);
    struct json_node element = {0}, member = {0}, nothing = {0};

    (void)state;
    assert_true(json_node_next(&root, &element));
    assert_int_equal(json_node_type(&element), JSON_TYPE_OBJECT);
    assert_true(json_node_next(&element, &member));
    assert_string_equal(member.key, "z");
    assert_true(json_node_next(&element, &member));
    assert_string_equal(member.key, "a");
    assert_int_equal(member.key_bytes, 1);
    assert_false(json_node_next(&element, &member));
    assert_true(json_node_next(&root, &element));
    assert_int_equal(json_node_type(&element), JSON_TYPE_ABSENT);
    assert_true(json_node_next(&root, &element));
    assert_int_equal(json_node_type(&element), JSON_TYPE_STRING);
    assert_false(json_node_next(&element, &nothing));
    assert_false(json_node_next(&root, &element));
    json_document_close(document);
}

static void errors_name_file_key_and_limits(void **state)
{
    struct json_document *document = parse("{\"a\": {\"list\": [1, \"two\", 1.5]}, \"b\": -9}");
    const struct json_node root = json_document_root(document);
    const struct json_node a = json_node_get(&root, "a"), list = json_node_get(&a, "list");
    const struct json_node b = json_node_get(&root, "b"), c = json_node_get(&b, "c");
    const struct json_node gone = json_node_get(&a, "gone"), deep = json_node_get(&gone, "deep");
    struct json_node element = {0};
    struct tca_error error;
    int64_t integer = 42;

    (void)state;
    assert_int_equal(json_node_int(&b, 0, 10, &integer, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: b = -9 must be from 0 to 10");
    assert_int_equal(json_node_int(&c, 0, 10, &integer, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: b must be an object, not a number");
    assert_int_equal(json_node_int(&gone, 0, 10, &integer, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: a.gone is missing, must be a number");
    assert_int_equal(json_node_int(&deep, 0, 10, &integer, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: a.gone is missing, must be an object");
    assert_true(json_node_next(&list, &element) && json_node_next(&list, &element));
    assert_int_equal(json_node_int(&element, 0, 10, &integer, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: a.list[1] must be a number, not a string");
    assert_true(json_node_next(&list, &element));
    assert_int_equal(json_node_int(&element, 0, 10, &integer, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: a.list[2] = 1.5 must be an integer from 0 to 10");
    assert_int_equal(json_node_expect(&root, JSON_TYPE_ARRAY, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "f.json: the top level must be an array, not an object");
    assert_int_equal(integer, 42);
    json_document_close(document);
}

static void integers_beyond_64_bits_do_not_spoil_the_file(void **state)
{
    struct json_document *document = parse("{\"n\": 1000000000000000019884624838656, \"m\": 5}");
    const struct json_node root = json_document_root(document);
    const struct json_node n = json_node_get(&root, "n"), m = json_node_get(&root, "m");
    int64_t integer = 0;
    double real = 0;

    (void)state;
    assert_int_equal(json_node_int(&n, 0, INT64_MAX, &integer, NULL), TCA_ERR_INVALID);
    assert_int_equal(json_node_double(&n, &real, NULL), TCA_OK);
    assert_true(fabs(real - 1e30) < 1e20);
    assert_int_equal(json_node_int(&m, 0, 5, &integer, NULL), TCA_OK);
    assert_int_equal(integer, 5);
    json_document_close(document);
}

static void malformed_text_is_refused(void **state)
{
    static const char *const bad[] = {
        "",      "{",        "{\"a\": 1,}", "{\"a\": 1, \"a\": 2}",
        "[1] 2", "\"\xff\"", "NaN",         "{\"a\\u0000\": 1}",
    };
    enum { DEEP = 100000 };
    char *deep = malloc(DEEP);

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct json_document *document = NULL;
        struct tca_error error = {0};

        assert_int_equal(json_document_parse("f", bad[i], strlen(bad[i]), &document, &error),
                         TCA_ERR_INVALID);
        assert_null(document);
        assert_non_null(strstr(error.text, "f: not JSON: line 1"));
    }
    assert_non_null(deep);
    memset(deep, '[', DEEP);
    struct json_document *document = NULL;
    assert_int_equal(json_document_parse("f", deep, DEEP, &document, NULL), TCA_ERR_INVALID);
    free(deep);
}

static void files_are_checked_before_they_are_read(void **state)
{
    char folder[] = "/tmp/test_json.XXXXXX", path[64], fifo[64];
    struct json_document *document = NULL;
    struct tca_error error;
    FILE *file;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a.json", folder);
    snprintf(fifo, sizeof(fifo), "%s/fifo", folder);
    assert_int_equal(json_document_open(path, 100, &document, &error), TCA_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, "a.json: No such file"));
    file = fopen(path, "w");
    assert_non_null(file);
    fputs("{\"k\": [1, 2]}", file);
    fclose(file);
    assert_int_equal(json_document_open(path, 12, &document, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "13 bytes long, at most 12"));
    assert_int_equal(json_document_open(path, 13, &document, &error), TCA_OK);
    json_document_close(document);
    assert_int_equal(json_document_open(folder, 100, &document, &error), TCA_ERR_INVALID);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(json_document_open(fifo, 100, &document, &error), TCA_ERR_INVALID);
    unlink(fifo);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(getters_read_what_is_there),
        cmocka_unit_test(children_come_in_the_order_of_the_file),
        cmocka_unit_test(errors_name_file_key_and_limits),
        cmocka_unit_test(integers_beyond_64_bits_do_not_spoil_the_file),
        cmocka_unit_test(malformed_text_is_refused),
        cmocka_unit_test(files_are_checked_before_they_are_read),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
