/* Every allocation of the pure core fails once: each call says TCA_ERR_NO_MEMORY (or makes
 * nothing), leaks nothing, and works the next time. */
#include "tests/support/check.h"
#include "tests/support/failing_alloc.h"

#include "coordinator/document_meta.h"
#include "coordinator/document_table.h"
#include "coordinator/question.h"
#include "coordinator/upload.h"

#include <stdlib.h>
#include <string.h>

enum { ALLOCATIONS_MAX = 1000 };

/* Run `attempt` with ever later failures until nothing fails any more. */
static void fail_each(enum tca_status (*attempt)(void))
{
    int failures = 0;

    for (int count = 0;; count++) {
        enum tca_status status;

        assert_true(count < ALLOCATIONS_MAX);
        failing_alloc_after(count);
        status = attempt();
        if (!failing_alloc_stop()) {
            assert_int_equal(status, TCA_OK);
            break;
        }
        assert_int_equal(status, TCA_ERR_NO_MEMORY);
        failures++;
    }
    assert_true(failures > 0);
}

static enum tca_status fill_table(void)
{
    static const char *const ids[] = {"b", "a", "c"};
    struct document_table table = {0};
    enum tca_status status = TCA_OK;

    for (size_t i = 0; i < 3 && status == TCA_OK; i++) {
        struct document *document = document_make(ids[i]);

        status = document == NULL ? TCA_ERR_NO_MEMORY : document_table_add(&table, document);
        if (status != TCA_OK)
            document_free(document);
    }
    document_table_free(&table);
    return status;
}

static enum tca_status write_meta(void)
{
    struct document document = {.id = "book"};
    struct bytes json = {0};
    const enum tca_status status = document_meta_write(&document, &json);

    bytes_free(&json);
    return status;
}

static enum tca_status read_meta(void)
{
    static char text[] =
        "{\"version\":1,\"document_id\":\"book\",\"display_name\":\"name\",\"encoding\":\"TEXT_"
        "UTF8\","
        "\"system\":\"brief\",\"rule\":\"\",\"sha256\":\"\",\"expected_sha256\":\"\","
        "\"failure_text\":\"\",\"raw\":false,\"keep\":0,\"pinned\":false,\"is_stored\":false,"
        "\"byte_count\":0,\"expected_bytes\":0,\"token_count\":0,\"create_time_ms\":0,"
        "\"last_used_ms\":0,\"failure\":0}";
    const struct bytes json = {.data = (uint8_t *)text, .size = sizeof(text) - 1};
    struct document *document = NULL;
    const enum tca_status status = document_meta_read("meta", "book", &json, &document, NULL);

    document_free(document);
    return status;
}

static enum tca_status stop_a_text(void)
{
    struct stop_text stop = {0};
    struct bytes released = {0};
    bool is_stopped = false;
    enum tca_status status = stop_text_add(&stop, "end", 3);

    if (status == TCA_OK)
        status = stop_text_add(&stop, "stop", 4);
    if (status == TCA_OK)
        status = stop_text_push(&stop, "some st", 7, &released, &is_stopped);
    if (status == TCA_OK)
        status = stop_text_finish(&stop, &released);
    bytes_free(&released);
    stop_text_free(&stop);
    return status;
}

static enum tca_status make_question(void)
{
    char text[] = "stop";
    ProtobufCBinaryData stops[1] = {{4, (uint8_t *)text}};
    Tca__V1__AskRequest message = TCA__V1__ASK_REQUEST__INIT;
    const struct ask_request request = {.message = &message};
    struct question *question;

    message.n_stop = 1;
    message.stop = stops;
    question = question_make(&request, 0);
    question_free(question);
    return question == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
}

static void identities_survive(void **state)
{
    (void)state;
}

static void tables_survive(void **state)
{
    (void)state;
    fail_each(fill_table);
}

static void metadata_survives(void **state)
{
    (void)state;
    fail_each(write_meta);
    fail_each(read_meta);
}

static void stop_texts_survive(void **state)
{
    (void)state;
    fail_each(stop_a_text);
}

static void questions_survive(void **state)
{
    (void)state;
    fail_each(make_question);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identities_survive), cmocka_unit_test(tables_survive),
        cmocka_unit_test(metadata_survives),  cmocka_unit_test(stop_texts_survive),
        cmocka_unit_test(questions_survive),
    };
    return cmocka_run_group_tests_name("no_memory", tests, NULL, NULL);
}
