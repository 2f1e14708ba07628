#include "tests/support/check.h"

#include "base/clock.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/question_flow.h"
#include "coordinator/scheduler.h"
#include "tca.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A coordinator without servers and clients, whose group takes every message and says nothing. */
struct scene {
    struct coordinator coordinator;
    struct coordinator_options options;
    char folder[64];
};

enum { GRAIN = ADMISSION_GRAIN_TOKENS, POOL = 100 * GRAIN, QUESTION_POOL = 10 * GRAIN };

static int make(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    struct coordinator *coordinator = &scene->coordinator;
    struct tca_error error;

    coordinator->options = &scene->options;
    coordinator->phase = COORDINATOR_SERVING;
    coordinator->admission = (struct admission){.policy = ADMISSION_LRU,
                                                .max_tokens = POOL,
                                                .document_pool = POOL,
                                                .question_pool = QUESTION_POOL,
                                                .max_running = 4,
                                                .kv_heads = 1,
                                                .ranks = 1};
    pthread_mutex_init(&coordinator->lock, NULL);
    strcpy(scene->folder, "/tmp/tca-test-scheduler-XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    assert_int_equal(store_open(scene->folder, &coordinator->store, &error), TCA_OK);
    assert_int_equal(task_queue_start(&coordinator->disk), TCA_OK);
    pthread_mutex_lock(&coordinator->lock); /* as whoever runs the scheduler */
    *state = scene;
    return 0;
}

static int clean(void **state)
{
    struct scene *scene = *state;
    struct coordinator *coordinator = &scene->coordinator;
    char command[128];

    pthread_mutex_unlock(&coordinator->lock);
    task_queue_stop(coordinator->disk);
    while (coordinator->questions != NULL)
        question_flow_remove(coordinator, coordinator->questions);
    document_table_free(&coordinator->documents);
    worker_link_free(&coordinator->link);
    store_close(coordinator->store);
    pthread_mutex_destroy(&coordinator->lock);
    snprintf(command, sizeof(command), "rm -rf %s", scene->folder);
    assert_int_equal(system(command), 0);
    free(scene);
    return 0;
}

static void give_tokens(struct document *document)
{
    const int32_t token = 5;

    while ((int64_t)document->tokens.count < document->token_count)
        assert_int_equal(token_ids_append(&document->tokens, &token, 1), TCA_OK);
    document->has_tokens = true;
}

/* STORED, and of so many grains; its tokens are at hand whenever it is QUEUED. */
static struct document *add_document(struct scene *scene, const char *id, int grains)
{
    struct document *document = document_make(id);

    assert_non_null(document);
    document->state = DOCUMENT_STORED;
    document->token_count = (int64_t)grains * GRAIN;
    assert_int_equal(document_table_add(&scene->coordinator.documents, document), TCA_OK);
    return document;
}

static void put(struct scene *scene, struct document *document)
{
    document_flow_queue(&scene->coordinator, document);
    give_tokens(document);
    scheduler_run(&scene->coordinator);
}

/* As the group says it. */
static void become_ready(struct scene *scene, struct document *document)
{
    assert_int_equal(document->state, DOCUMENT_PREFILLING);
    assert_int_equal(document_move(document, DOCUMENT_READY, 0), TCA_OK);
    scheduler_run(&scene->coordinator);
}

static struct document *add_ready(struct scene *scene, const char *id, int grains)
{
    struct document *document = add_document(scene, id, grains);

    put(scene, document);
    become_ready(scene, document);
    return document;
}

static struct question *ask(struct scene *scene, struct document *document)
{
    Tca__V1__AskRequest message = TCA__V1__ASK_REQUEST__INIT;
    const struct ask_request request = {.message = &message};
    struct question *question = question_make(&request, clock_monotonic_ms());

    assert_non_null(question);
    question->state = QUESTION_WAITING;
    question->is_measured = true;
    question->kv_tokens = GRAIN;
    question->max_tokens = 1;
    question->ignores_eos = true;
    question_flow_add(&scene->coordinator, question, document);
    if (document->state == DOCUMENT_STORED) {
        document_flow_recall(&scene->coordinator, document);
        give_tokens(document);
    }
    scheduler_run(&scene->coordinator);
    return question;
}

/* The client goes, or the group has answered. */
static void leave(struct scene *scene, struct question *question)
{
    if (question->state == QUESTION_WAITING)
        question_flow_client_lost(&scene->coordinator, question);
    else
        question_flow_remove(&scene->coordinator, question);
    scheduler_run(&scene->coordinator);
}

static void a_document_that_no_question_wants_any_more_is_stored_again(void **state)
{
    struct scene *scene = *state;
    struct document *busy = add_ready(scene, "busy", 80);
    struct document *wanted = add_document(scene, "wanted", 50);
    struct question *running = ask(scene, busy);
    struct question *first = ask(scene, wanted), *second = ask(scene, wanted);

    assert_int_equal(wanted->state, DOCUMENT_QUEUED);
    leave(scene, first);
    assert_int_equal(wanted->state, DOCUMENT_QUEUED);
    leave(scene, second);
    assert_int_equal(wanted->state, DOCUMENT_STORED);
    leave(scene, running);
    assert_int_equal(busy->state, DOCUMENT_READY);
}

static void what_was_put_or_pinned_stays_queued(void **state)
{
    struct scene *scene = *state;
    struct document *busy = add_ready(scene, "busy", 80);
    struct document *of_upload = add_document(scene, "put", 50);
    struct document *pinned = add_document(scene, "pinned", 50);

    ask(scene, busy);
    put(scene, of_upload);
    leave(scene, ask(scene, of_upload));
    assert_int_equal(of_upload->state, DOCUMENT_QUEUED);
    pinned->is_pinned = true;
    leave(scene, ask(scene, pinned));
    assert_int_equal(pinned->state, DOCUMENT_QUEUED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clean)
    const struct CMUnitTest tests[] = {
        TEST(a_document_that_no_question_wants_any_more_is_stored_again),
        TEST(what_was_put_or_pinned_stays_queued),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
