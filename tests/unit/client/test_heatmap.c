#include "tests/support/check.h"

#include "client/heatmap.h"

#include <stdbool.h>
#include <string.h>

static const struct heatmap_caption plain = {
    .question = "Why?", .question_bytes = 4, .document_id = "book"};

static void add(struct heatmap *map, uint32_t layer, uint32_t kv_head, uint32_t first)
{
    uint32_t kept[HEATMAP_COLUMNS] = {first};

    assert_int_equal(heatmap_add(map, layer, kv_head, kept, HEATMAP_COLUMNS, NULL), TCA_OK);
}

/* The picture as text, ended by NUL; free it. */
static struct bytes draw(const struct heatmap *map, const struct heatmap_caption *caption)
{
    struct bytes svg = {0};

    assert_int_equal(heatmap_draw(map, caption, &svg), TCA_OK);
    assert_int_equal(bytes_append(&svg, "", 1), TCA_OK);
    return svg;
}

static void check_part(const struct heatmap *map, const struct heatmap_caption *caption,
                       const char *part, bool is_there)
{
    struct bytes svg = draw(map, caption);

    if ((strstr((const char *)svg.data, part) != NULL) != is_there)
        fail_msg("%s \"%s\" in %s", is_there ? "no" : "there is", part, (const char *)svg.data);
    bytes_free(&svg);
}

static void rows_are_sorted_and_the_last_of_a_head_stays(void **state)
{
    static const uint32_t expected[][3] = {{0, 0, 5}, {0, 1, 4}, {1, 0, 2}, {2, 7, 1}};
    struct heatmap map = {0};

    (void)state;
    add(&map, 2, 7, 1);
    add(&map, 1, 0, 2);
    add(&map, 0, 0, 3);
    add(&map, 0, 1, 4);
    add(&map, 0, 0, 5);
    assert_int_equal(map.count, 4);
    for (size_t i = 0; i < map.count; i++) {
        assert_int_equal(map.rows[i].layer, expected[i][0]);
        assert_int_equal(map.rows[i].kv_head, expected[i][1]);
        assert_int_equal(map.rows[i].kept[0], expected[i][2]);
    }
    heatmap_free(&map);
    assert_null(map.rows);
}

static void a_server_cannot_add_without_end(void **state)
{
    const uint32_t kept[HEATMAP_COLUMNS + 1] = {0};
    struct heatmap map = {0};
    struct tca_error error;

    (void)state;
    assert_int_equal(heatmap_add(&map, 3, 1, kept, HEATMAP_COLUMNS + 1, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "selection of layer 3, head 1: 257 bins, allowed: 256");
    for (uint32_t i = 0; i < HEATMAP_ROWS_MAX; i++)
        add(&map, i, 0, 0);
    assert_int_equal(heatmap_add(&map, 1, 1, kept, HEATMAP_COLUMNS, &error), TCA_ERR_RANGE);
    add(&map, 1, 0, 9);
    assert_int_equal(map.rows[1].kept[0], 9);
    heatmap_free(&map);
}

/* Of 257 tokens, column 0 has two (0 and 1 go to floor(256 i / 257) = 0), every other one. */
static void a_column_has_its_share_of_the_tokens(void **state)
{
    struct heatmap map = {.document_tokens = 257};
    uint32_t kept[HEATMAP_COLUMNS] = {1, 1};

    (void)state;
    assert_int_equal(heatmap_add(&map, 0, 0, kept, HEATMAP_COLUMNS, NULL), TCA_OK);
    check_part(&map, &plain, "<path fill=\"#2657a2\" d=\"M0 0h1v1h-1z\"/>", true); /* up to 60 % */
    check_part(&map, &plain, "<path fill=\"#0b1547\" d=\"M1 0h1v1h-1z\"/>", true); /* 100 % */
    /* More than there are is drawn as all; a column without tokens as none. */
    map.document_tokens = 1;
    check_part(&map, &plain, "<path fill=\"#0b1547\" d=\"M0 0h1v1h-1z\"/>", true);
    check_part(&map, &plain, "M1 0", false);
    map.document_tokens = UINT64_MAX;
    check_part(&map, &plain, "<path fill=\"#e4f2b4\" d=\"M0 0h2v1h-2z\"/>", true);
    heatmap_free(&map);
}

static void questions_are_text_not_markup(void **state)
{
    static const char odd[] = "  a\n\t <b>&\0\x1b\xff\xef\xbf\xbf\xc2\x85 ";
    const struct heatmap_caption caption = {
        .question = odd, .question_bytes = sizeof(odd) - 1, .document_id = "b", .rule = "r<"};
    struct heatmap map = {.document_tokens = 1024};

    (void)state;
    check_part(&map, &caption, ">a &lt;b&gt;&amp;\\x00\\x1b\\xff\xef\xbf\xbd\\u0085 </text>", true);
    check_part(&map, &caption, ">b, 1,024 tokens, rule r&lt;</text>", true);
}

static void long_questions_are_cut_between_characters(void **state)
{
    char text[2 * 85];
    struct heatmap_caption caption = {.question = text, .document_id = "b"};
    struct heatmap map = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    caption.question_bytes = 2 * 84;
    check_part(&map, &caption, "\xc3\xa9</text>", true);
    caption.question_bytes = 2 * 85;
    check_part(&map, &caption, "\xc3\xa9\xe2\x80\xa6</text>", true);
}

static void many_rows_are_thin_and_few_are_named(void **state)
{
    struct heatmap map = {.document_tokens = 4096};

    (void)state;
    for (uint32_t i = 0; i < 24; i++)
        add(&map, i / 4, i % 4, 0);
    check_part(&map, &plain, "scale(4 15)", true);
    check_part(&map, &plain, ">5.3</text>", true);
    for (uint32_t i = 24; i < 256; i++)
        add(&map, i / 4, i % 4, 0);
    check_part(&map, &plain, "scale(4 2)", true);
    check_part(&map, &plain, ">5.3</text>", false);
    check_part(&map, &plain, ">2.0</text>", true);
    check_part(&map, &plain, ">3.0</text>", false); /* 8 pixels below 2.0 */
    heatmap_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sorted_and_the_last_of_a_head_stays),
        cmocka_unit_test(a_server_cannot_add_without_end),
        cmocka_unit_test(a_column_has_its_share_of_the_tokens),
        cmocka_unit_test(questions_are_text_not_markup),
        cmocka_unit_test(long_questions_are_cut_between_characters),
        cmocka_unit_test(many_rows_are_thin_and_few_are_named),
    };
    return cmocka_run_group_tests_name("heatmap", tests, NULL, NULL);
}
