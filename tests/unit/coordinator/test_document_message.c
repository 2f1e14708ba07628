#include "tests/support/check.h"

#include "coordinator/document_message.h"

#include <string.h>

static const struct document_facts facts = {.model = "needle", .kv_bytes_per_token = 100};

static struct document *make_document(void)
{
    struct document *document = document_make("book");

    assert_int_equal(bytes_append_text(&document->display_name, "A book"), TCA_OK);
    document->byte_count = 50;
    document->token_count = 20;
    document->kv_tokens = 64;
    document->create_time_ms = 1700000000123;
    document->last_used_ms = 1700000001999;
    document->sequence = 7;
    strcpy(document->sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    return document;
}

static void every_field_is_filled(void **state)
{
    struct document *document = make_document();
    struct document_message message;

    (void)state;
    document->state = DOCUMENT_READY;
    document->is_pinned = true;
    document_message_fill(&message, document, &facts);
    assert_memory_equal(message.document.document_id.data, "book", 4);
    assert_int_equal(message.document.document_id.len, 4);
    assert_memory_equal(message.document.display_name.data, "A book", 6);
    assert_int_equal(message.document.state, TCA__V1__DOCUMENT__STATE__READY);
    assert_int_equal(message.document.byte_count, 50);
    assert_int_equal(message.document.token_count, 20);
    assert_int_equal(message.document.kv_bytes, 6400);
    assert_int_equal(message.document.sha256.len, 32);
    assert_int_equal(message.document.sha256.data[0], 0xba);
    assert_int_equal(message.document.sha256.data[31], 0xad);
    assert_true(message.document.pinned);
    assert_int_equal(message.document.create_time->seconds, 1700000000);
    assert_int_equal(message.document.create_time->nanos, 123000000);
    assert_int_equal(message.document.last_used_time->nanos, 999000000);
    assert_memory_equal(message.document.model.data, "needle", 6);
    assert_int_equal(message.document.error_message.len, 0);
    document_free(document);
}

static void states_have_their_numbers(void **state)
{
    static const Tca__V1__Document__State numbers[DOCUMENT_STATES] = {
        TCA__V1__DOCUMENT__STATE__UPLOADING,  TCA__V1__DOCUMENT__STATE__QUEUED,
        TCA__V1__DOCUMENT__STATE__PREFILLING, TCA__V1__DOCUMENT__STATE__READY,
        TCA__V1__DOCUMENT__STATE__STORED,     TCA__V1__DOCUMENT__STATE__FAILED,
        TCA__V1__DOCUMENT__STATE__DELETING,
    };
    struct document *document = make_document();
    struct document_message message;

    (void)state;
    strcpy(document->failure_text, "why");
    document->sha256[0] = '\0';
    for (int i = 0; i < DOCUMENT_STATES; i++) {
        document->state = (enum document_state)i;
        document_message_fill(&message, document, &facts);
        assert_int_equal(message.document.state, numbers[i]);
        assert_int_equal(message.document.error_message.len, i == DOCUMENT_FAILED ? 3 : 0);
        assert_int_equal(message.document.sha256.len, 0);
    }
    document_free(document);
}

static void events_say_what_is_new(void **state)
{
    struct document *document = make_document();
    struct document_event_message message;
    const Tca__V1__DocumentEvent *event = &message.event;

    (void)state;
    document_report(document, DOCUMENT_NEWS_COMMITTED, 0, 0, 1000, 8);
    document_event_message_fill(&message, document, &facts, false, 1000);
    assert_int_equal(event->sequence, 8);
    assert_int_equal(event->body_case, TCA__V1__DOCUMENT_EVENT__BODY_COMMITTED);
    assert_int_equal(event->committed->bytes, 50);

    assert_int_equal(document_move(document, DOCUMENT_QUEUED, 9), TCA_OK);
    document_event_message_fill(&message, document, &facts, false, 1000);
    assert_int_equal(event->body_case, TCA__V1__DOCUMENT_EVENT__BODY_PROGRESS);
    assert_int_equal(event->progress->phase, TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__WAITING);

    document_report(document, DOCUMENT_NEWS_TOKENIZED, 25, 50, 2000, 10);
    document_report(document, DOCUMENT_NEWS_TOKENIZED, 30, 50, 5000, 11);
    document_event_message_fill(&message, document, &facts, false, 5000);
    assert_int_equal(event->progress->phase, TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__TOKENIZING);
    assert_int_equal(event->progress->elapsed_ms, 3000);
    assert_int_equal(event->progress->eta_ms, 2000);
    assert_int_equal(event->progress->tokens_done, 0);

    assert_int_equal(document_move(document, DOCUMENT_PREFILLING, 12), TCA_OK);
    document_report(document, DOCUMENT_NEWS_PREFILLED, 0, 20, 6000, 12);
    document_report(document, DOCUMENT_NEWS_PREFILLED, 5, 20, 8000, 13);
    document_event_message_fill(&message, document, &facts, false, 8000);
    assert_int_equal(event->progress->phase, TCA__V1__DOCUMENT_EVENT__PROGRESS__PHASE__PREFILLING);
    assert_int_equal(event->progress->tokens_done, 5);
    assert_int_equal(event->progress->tokens_total, 20);
    assert_int_equal(event->progress->eta_ms, 6000);
    assert_true(event->progress->tokens_per_s == 2.5);

    assert_int_equal(document_move(document, DOCUMENT_READY, 14), TCA_OK);
    document_event_message_fill(&message, document, &facts, false, 9000);
    assert_int_equal(event->body_case, TCA__V1__DOCUMENT_EVENT__BODY__NOT_SET);
    document_event_message_fill(&message, document, &facts, true, 9000);
    assert_int_equal(event->body_case, TCA__V1__DOCUMENT_EVENT__BODY_HEARTBEAT);
    assert_int_equal(event->sequence, 14);
    document_free(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_filled),
        cmocka_unit_test(states_have_their_numbers),
        cmocka_unit_test(events_say_what_is_new),
    };
    return cmocka_run_group_tests_name("document_message", tests, NULL, NULL);
}
