#include "tests/support/check.h"

#include "base/json.h"
#include "base/json_write.h"

#include <string.h>

static void every_text_reads_back(void **state)
{
    static const char texts[][24] = {
        "", "plain", "a\0b", "\"q\" \\b", "\n\r\t\x01\x1f\x7f", "\xc3\xa9\xf0\x9f\x98\x80"};
    static const size_t sizes[] = {0, 5, 3, 6, 6, 6};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct bytes json = {0};
        struct json_document *document;
        struct json_node root, node;
        const char *text;
        size_t bytes;

        assert_int_equal(bytes_append_text(&json, "{\"k\":"), TCA_OK);
        assert_int_equal(json_write_string(&json, texts[i], sizes[i]), TCA_OK);
        assert_int_equal(bytes_append_text(&json, "}"), TCA_OK);
        assert_int_equal(
            json_document_parse("test", (const char *)json.data, json.size, &document, NULL),
            TCA_OK);
        root = json_document_root(document);
        node = json_node_get(&root, "k");
        assert_int_equal(json_node_string(&node, &text, &bytes, NULL), TCA_OK);
        assert_int_equal(bytes, sizes[i]);
        assert_memory_equal(text, texts[i], bytes);
        json_document_close(document);
        bytes_free(&json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text_reads_back),
    };
    return cmocka_run_group_tests_name("json_write", tests, NULL, NULL);
}
