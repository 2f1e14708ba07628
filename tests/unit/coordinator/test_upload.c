#include "tests/support/check.h"

#include "coordinator/upload.h"

#include <string.h>

static struct document *document_of(enum document_state state, int64_t bytes, const char *sha256)
{
    struct document *document = document_make("book");

    document->state = state;
    document->byte_count = bytes;
    strcpy(document->sha256, sha256);
    return document;
}

static void a_new_document_starts_at_zero(void **state)
{
    struct upload_header header = {.id = "book"};
    enum upload_kind kind;
    struct tca_error error;

    (void)state;
    assert_int_equal(upload_classify(&header, NULL, &kind, &error), TCA_OK);
    assert_int_equal(kind, UPLOAD_NEW);
    header.resume_offset = 5;
    assert_int_equal(upload_classify(&header, NULL, &kind, &error), TCA_ERR_RANGE);
    assert_non_null(strstr(error.text, "resume_offset: 5, allowed: 0"));
}

static void an_unfinished_upload_resumes_where_it_was_acknowledged(void **state)
{
    struct document *document = document_of(DOCUMENT_UPLOADING, 300, "");
    struct upload_header header = {.id = "book", .resume_offset = 300, .total_bytes = 900};
    enum upload_kind kind;
    struct tca_error error;

    (void)state;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_OK);
    assert_int_equal(kind, UPLOAD_RESUME);
    header.resume_offset = 0;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_RANGE);
    assert_non_null(strstr(error.text, "allowed: 300"));
    header.resume_offset = 300;
    document->expected_bytes = 800;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_EXISTS);
    document->expected_bytes = 900;
    document->is_being_uploaded = true;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_ABORTED);
    document_free(document);
}

static void a_complete_document_is_compared_or_known_to_be_the_same(void **state)
{
    struct document *document = document_of(DOCUMENT_READY, 300, "abcd");
    struct upload_header header = {.id = "book"};
    enum upload_kind kind;
    struct tca_error error;

    (void)state;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_OK);
    assert_int_equal(kind, UPLOAD_COMPARE);
    header.resume_offset = 300;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_OK);
    assert_int_equal(kind, UPLOAD_SAME);
    header.resume_offset = 200;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_RANGE);
    header.resume_offset = 0;
    strcpy(header.sha256, "abcd");
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_OK);
    assert_int_equal(kind, UPLOAD_SAME);
    document_free(document);
}

static void another_identity_exists_already(void **state)
{
    struct document *document = document_of(DOCUMENT_READY, 300, "abcd");
    struct upload_header header = {.id = "book", .total_bytes = 301};
    enum upload_kind kind;
    struct tca_error error;

    (void)state;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_EXISTS);
    assert_non_null(strstr(error.text, "total_bytes"));
    header.total_bytes = 300;
    strcpy(header.sha256, "dcba");
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_EXISTS);
    assert_non_null(strstr(error.text, "sha256"));
    header.sha256[0] = '\0';
    header.identity.is_raw = true;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_EXISTS);
    assert_non_null(strstr(error.text, "raw"));
    header.identity.is_raw = false;
    document->state = DOCUMENT_DELETING;
    assert_int_equal(upload_classify(&header, document, &kind, &error), TCA_ERR_ABORTED);
    document_free(document);
}

static void a_failed_document_tells_its_failure(void **state)
{
    struct document *document = document_of(DOCUMENT_FAILED, 0, "");
    struct upload_header header = {.id = "book", .identity = {.is_raw = true}};
    enum upload_kind kind;

    (void)state;
    assert_int_equal(upload_classify(&header, document, &kind, NULL), TCA_OK);
    assert_int_equal(kind, UPLOAD_SAME);
    document_free(document);
}

static void chunks_follow_each_other(void **state)
{
    struct upload upload = {.total_bytes = 6, .max_bytes = 100};
    struct tca_error error;

    (void)state;
    assert_int_equal(upload_accept(&upload, 0, "abc", 3, false, &error), TCA_OK);
    assert_int_equal(upload_accept(&upload, 0, "abc", 3, false, &error), TCA_ERR_RANGE);
    assert_non_null(strstr(error.text, "chunk.offset: 0, allowed: 3"));
    assert_int_equal(upload_accept(&upload, 4, "abc", 3, false, &error), TCA_ERR_RANGE);
    assert_int_equal(upload_accept(&upload, 3, "defg", 4, false, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "total_bytes"));
    assert_int_equal(upload_accept(&upload, 3, "de", 2, true, &error), TCA_ERR_INVALID);
    assert_int_equal(upload.offset, 3);
    assert_false(upload.is_complete);
    assert_int_equal(upload_accept(&upload, 3, "def", 3, true, &error), TCA_OK);
    assert_true(upload.is_complete);
    assert_int_equal(upload_accept(&upload, 6, "", 0, true, &error), TCA_ERR_INVALID);
}

static void chunks_have_bounds(void **state)
{
    static char big[UPLOAD_CHUNK_BYTES_MAX + 1];
    struct upload upload = {.max_bytes = UPLOAD_CHUNK_BYTES_MAX};
    struct tca_error error;

    (void)state;
    memset(big, 'x', sizeof(big));
    assert_int_equal(upload_accept(&upload, 0, big, sizeof(big), false, &error), TCA_ERR_INVALID);
    assert_int_equal(upload_accept(&upload, 0, "", 0, true, &error), TCA_ERR_INVALID);
    assert_int_equal(upload_accept(&upload, 0, "\xff", 1, true, &error), TCA_ERR_INVALID);
    assert_int_equal(upload_accept(&upload, 0, "\xc3", 1, true, &error), TCA_ERR_INVALID);
    assert_int_equal(upload_accept(&upload, 0, "", 0, false, &error), TCA_OK);
    assert_int_equal(upload_accept(&upload, 0, big, sizeof(big) - 1, false, &error), TCA_OK);
    assert_int_equal(upload_accept(&upload, 0, big, sizeof(big) - 1, false, &error), TCA_ERR_RANGE);
    assert_false(upload.is_too_long); /* a wrong offset says nothing of the document */
    assert_int_equal(upload_accept(&upload, UPLOAD_CHUNK_BYTES_MAX, "x", 1, true, &error),
                     TCA_ERR_RANGE);
    assert_true(upload.is_too_long);
    assert_int_equal(upload_accept(&upload, UPLOAD_CHUNK_BYTES_MAX, "", 0, true, &error), TCA_OK);
}

static void a_wrong_digest_is_named(void **state)
{
    struct tca_error error;

    (void)state;
    assert_int_equal(upload_check_digest("", "abcd", &error), TCA_OK);
    assert_int_equal(upload_check_digest("abcd", "abcd", &error), TCA_OK);
    assert_int_equal(upload_check_digest("abce", "abcd", &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "sha256: the header announced abce, the bytes have abcd"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_document_starts_at_zero),
        cmocka_unit_test(an_unfinished_upload_resumes_where_it_was_acknowledged),
        cmocka_unit_test(a_complete_document_is_compared_or_known_to_be_the_same),
        cmocka_unit_test(another_identity_exists_already),
        cmocka_unit_test(a_failed_document_tells_its_failure),
        cmocka_unit_test(chunks_follow_each_other),
        cmocka_unit_test(chunks_have_bounds),
        cmocka_unit_test(a_wrong_digest_is_named),
    };
    return cmocka_run_group_tests_name("upload", tests, NULL, NULL);
}
