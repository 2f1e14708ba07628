#include "tests/support/check.h"

#include "coordinator/document_meta.h"

#include <string.h>

static const char digest[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

static struct document *full_document(void)
{
    struct document *document = document_make("book");

    assert_int_equal(bytes_append(&document->display_name, "a \"b\"\n\0c \xc3\xa9", 11), TCA_OK);
    assert_int_equal(bytes_append_text(&document->identity.system, "be brief"), TCA_OK);
    document->identity.encoding = CONTENT_TOKEN_IDS_U32LE;
    document->identity.is_raw = true;
    document->identity.keep = 0.5;
    document->is_pinned = true;
    document->byte_count = INT64_C(5000000000);
    document->expected_bytes = 7;
    document->token_count = 8;
    document->create_time_ms = 1700000000123;
    document->last_used_ms = 1700000000456;
    strcpy(document->identity.rule, "tca");
    strcpy(document->sha256, digest);
    return document;
}

static enum tca_status read_back(const struct document *document, struct document **back_out,
                                 struct tca_error *error)
{
    struct bytes json = {0};
    enum tca_status status;

    assert_int_equal(document_meta_write(document, &json), TCA_OK);
    status = document_meta_read("meta.json", document->id, &json, back_out, error);
    bytes_free(&json);
    return status;
}

static void everything_that_lasts_reads_back(void **state)
{
    struct document *document = full_document();
    struct document *back;

    (void)state;
    assert_int_equal(read_back(document, &back, NULL), TCA_OK);
    assert_null(document_identity_difference(&document->identity, &back->identity));
    assert_int_equal(back->display_name.size, 11);
    assert_memory_equal(back->display_name.data, document->display_name.data, 11);
    assert_true(back->is_pinned);
    assert_int_equal(back->byte_count, document->byte_count);
    assert_int_equal(back->expected_bytes, 7);
    assert_int_equal(back->token_count, 8);
    assert_int_equal(back->create_time_ms, document->create_time_ms);
    assert_int_equal(back->last_used_ms, document->last_used_ms);
    assert_string_equal(back->sha256, digest);
    document_free(back);
    document_free(document);
}

static void the_state_is_what_can_be_again(void **state)
{
    static const struct {
        enum document_state written;
        enum rpc_code failure;
        enum document_state read;
    } cases[] = {
        {DOCUMENT_QUEUED, RPC_OK, DOCUMENT_QUEUED},
        {DOCUMENT_PREFILLING, RPC_OK, DOCUMENT_QUEUED},
        {DOCUMENT_READY, RPC_OK, DOCUMENT_QUEUED},
        {DOCUMENT_STORED, RPC_OK, DOCUMENT_STORED},
        {DOCUMENT_FAILED, RPC_INVALID_ARGUMENT, DOCUMENT_FAILED},
        {DOCUMENT_FAILED, RPC_OUT_OF_RANGE, DOCUMENT_QUEUED},
        {DOCUMENT_FAILED, RPC_FAILED_PRECONDITION, DOCUMENT_QUEUED},
        {DOCUMENT_FAILED, RPC_DATA_LOSS, DOCUMENT_QUEUED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct document *document = full_document();
        struct document *back;

        document->state = cases[i].written;
        document->failure = cases[i].failure;
        strcpy(document->failure_text, "why");
        assert_int_equal(read_back(document, &back, NULL), TCA_OK);
        assert_int_equal(back->state, cases[i].read);
        assert_int_equal(back->failure, back->state == DOCUMENT_FAILED ? cases[i].failure : RPC_OK);
        assert_string_equal(back->failure_text, back->state == DOCUMENT_FAILED ? "why" : "");
        document_free(back);
        document->sha256[0] = '\0';
        document->state = DOCUMENT_UPLOADING;
        assert_int_equal(read_back(document, &back, NULL), TCA_OK);
        assert_int_equal(back->state, DOCUMENT_UPLOADING);
        document_free(back);
        document_free(document);
    }
}

static void damage_is_refused_with_the_key(void **state)
{
    static const struct {
        const char *from, *to, *word;
    } damage[] = {
        {"\"version\":1", "\"version\":2", "version"},
        {"\"book\"", "\"cook\"", "document_id"},
        {"\"TOKEN_IDS_U32LE\"", "\"UTF-16\"", "encoding"},
        {"\"raw\":true", "\"raw\":1", "raw"},
        {"ba7816", "BA7816", "sha256"},
        {"ba7816", "ba781", "sha256"},
        {"\"token_count\":8", "\"token_count\":-8", "token_count"},
        {"\"failure\":0", "\"failure\":99", "failure"},
        {"\"keep\":0.5", "\"keep\":\"\"", "keep"},
        {"\"keep\":0.5", "\"keep\":1.5", "keep"},
        {"\"rule\":\"tca\"", "\"rule\":\"a rule with a long name\"", "rule"},
        {"\"rule\":\"tca\"", "\"rule\":\"magic\"", "rule"},
        {"}", "", "meta.json"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(damage) / sizeof(*damage); i++) {
        struct document *document = full_document();
        struct document *back = NULL;
        struct bytes json = {0};
        struct bytes broken = {0};
        struct tca_error error = {{0}};
        const char *at;

        assert_int_equal(document_meta_write(document, &json), TCA_OK);
        at = memmem(json.data, json.size, damage[i].from, strlen(damage[i].from));
        assert_non_null(at);
        assert_int_equal(bytes_append(&broken, json.data, (size_t)(at - (const char *)json.data)),
                         TCA_OK);
        assert_int_equal(bytes_append_text(&broken, damage[i].to), TCA_OK);
        at += strlen(damage[i].from);
        assert_int_equal(
            bytes_append(&broken, at, json.size - (size_t)(at - (const char *)json.data)), TCA_OK);
        assert_int_equal(document_meta_read("meta.json", "book", &broken, &back, &error),
                         TCA_ERR_INVALID);
        assert_non_null(strstr(error.text, damage[i].word));
        bytes_free(&broken);
        bytes_free(&json);
        document_free(document);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_lasts_reads_back),
        cmocka_unit_test(the_state_is_what_can_be_again),
        cmocka_unit_test(damage_is_refused_with_the_key),
    };
    return cmocka_run_group_tests_name("document_meta", tests, NULL, NULL);
}
