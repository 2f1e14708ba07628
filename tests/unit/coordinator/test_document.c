#include "tests/support/check.h"

#include "coordinator/document.h"

#include <string.h>

static void a_document_lives_through_its_states(void **state)
{
    static const enum document_state life[] = {
        DOCUMENT_QUEUED, DOCUMENT_PREFILLING, DOCUMENT_READY, DOCUMENT_STORED,
        DOCUMENT_QUEUED, DOCUMENT_PREFILLING, DOCUMENT_READY, DOCUMENT_DELETING,
    };
    struct document *document = document_make("book");

    (void)state;
    assert_int_equal(document->state, DOCUMENT_UPLOADING);
    for (size_t i = 0; i < sizeof(life) / sizeof(*life); i++) {
        assert_int_equal(document_move(document, life[i], 100 + i), TCA_OK);
        assert_int_equal(document->state, life[i]);
        assert_int_equal(document->sequence, 100 + i);
    }
    document_free(document);
}

static void impossible_transitions_change_nothing(void **state)
{
    struct document *document = document_make("book");

    (void)state;
    assert_int_equal(document_move(document, DOCUMENT_READY, 7), TCA_ERR_PRECONDITION);
    assert_int_equal(document_move(document, DOCUMENT_PREFILLING, 7), TCA_ERR_PRECONDITION);
    assert_int_equal(document_move(document, DOCUMENT_STORED, 7), TCA_ERR_PRECONDITION);
    assert_int_equal(document->state, DOCUMENT_UPLOADING);
    assert_int_equal(document->sequence, 0);
    assert_int_equal(document_move(document, DOCUMENT_DELETING, 8), TCA_OK);
    for (int next = 0; next < DOCUMENT_STATES; next++)
        assert_int_equal(document_move(document, (enum document_state)next, 9),
                         TCA_ERR_PRECONDITION);
    document_free(document);
    document_free(NULL);
}

static void a_failure_keeps_its_reason(void **state)
{
    struct document *document = document_make("book");

    (void)state;
    assert_int_equal(document_fail(document, RPC_OUT_OF_RANGE, "too long", 3), TCA_OK);
    assert_int_equal(document->state, DOCUMENT_FAILED);
    assert_int_equal(document->failure, RPC_OUT_OF_RANGE);
    assert_string_equal(document->failure_text, "too long");
    assert_int_equal(document_fail(document, RPC_INTERNAL, "again", 4), TCA_ERR_PRECONDITION);
    assert_string_equal(document->failure_text, "too long");
    document_free(document);
}

static void progress_tells_rate_and_time_left(void **state)
{
    struct document *document = document_make("book");

    (void)state;
    document_report(document, DOCUMENT_NEWS_PREFILLED, 0, 1000, 5000, 1);
    assert_int_equal(document_work_left_ms(document, 5000), 0);
    document_report(document, DOCUMENT_NEWS_PREFILLED, 250, 1000, 7000, 2);
    assert_int_equal(document_work_rate(document, 7000), 125);
    assert_int_equal(document_work_left_ms(document, 7000), 6000);
    assert_int_equal(document->sequence, 2);
    document_free(document);
}

static void ids_are_checked(void **state)
{
    static const char *const good[] = {"a", "...", ".x", "A-b_c.9", "-"};
    static const char *const bad[] = {"", ".", "..", "a/b", "a b", "\xc3\xa9"};
    char id[DOCUMENT_ID_BYTES];
    struct tca_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        assert_int_equal(document_id_check("document_id", good[i], strlen(good[i]), &error),
                         TCA_OK);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(document_id_check("document_id", bad[i], strlen(bad[i]), &error),
                         TCA_ERR_INVALID);
        assert_non_null(strstr(error.text, "document_id: "));
    }
    memset(id, 'x', sizeof(id));
    assert_int_equal(document_id_check("document_id", id, 128, &error), TCA_OK);
    assert_int_equal(document_id_check("document_id", id, 129, &error), TCA_ERR_INVALID);
    assert_int_equal(document_id_check("document_id", "a\0b", 3, &error), TCA_ERR_INVALID);
}

static void identities_differ_by_field(void **state)
{
    struct document_identity one = {0};
    struct document_identity other = {0};

    (void)state;
    assert_int_equal(bytes_append_text(&one.system, "be brief"), TCA_OK);
    assert_int_equal(bytes_append_text(&other.system, "be brief"), TCA_OK);
    assert_null(document_identity_difference(&one, &other));
    other.is_raw = true;
    assert_string_equal(document_identity_difference(&one, &other), "raw");
    other.is_raw = false;
    other.encoding = CONTENT_TOKEN_IDS_U32LE;
    assert_string_equal(document_identity_difference(&one, &other), "encoding");
    other.encoding = CONTENT_TEXT_UTF8;
    other.system.data[0] = 'B';
    assert_string_equal(document_identity_difference(&one, &other), "system");
    other.system.data[0] = 'b';
    other.keep = 0.5;
    assert_string_equal(document_identity_difference(&one, &other), "prefill.keep");
    other.keep = 0.0;
    strcpy(other.rule, "tca");
    assert_string_equal(document_identity_difference(&one, &other), "prefill.rule");
    document_identity_free(&one);
    document_identity_free(&other);
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(document_state_name(DOCUMENT_UPLOADING), "UPLOADING");
    assert_string_equal(document_state_name(DOCUMENT_READY), "READY");
    assert_string_equal(document_state_name(DOCUMENT_DELETING), "DELETING");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_lives_through_its_states),
        cmocka_unit_test(impossible_transitions_change_nothing),
        cmocka_unit_test(a_failure_keeps_its_reason),
        cmocka_unit_test(progress_tells_rate_and_time_left),
        cmocka_unit_test(ids_are_checked),
        cmocka_unit_test(identities_differ_by_field),
        cmocka_unit_test(states_have_names),
    };
    return cmocka_run_group_tests_name("document", tests, NULL, NULL);
}
