#include "tests/support/check.h"

#include "base/clock.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/document_meta.h"
#include "coordinator/group_flow.h"
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

/* The group's words. */

static void become_ready(struct scene *scene, struct document *document)
{
    Tca__Control__V1__DocumentDone done = TCA__CONTROL__V1__DOCUMENT_DONE__INIT;

    assert_int_equal(document->state, DOCUMENT_PREFILLING);
    done.key = document->key;
    done.state = TCA__CONTROL__V1__DOCUMENT_DONE__STATE__READY;
    group_document_done(&scene->coordinator, &done);
}

static void become_closed(struct scene *scene, struct document *document)
{
    Tca__Control__V1__DocumentDone done = TCA__CONTROL__V1__DOCUMENT_DONE__INIT;

    assert_true(document->is_closing);
    give_tokens(document);
    done.key = document->key;
    done.state = TCA__CONTROL__V1__DOCUMENT_DONE__STATE__CLOSED;
    group_document_done(&scene->coordinator, &done);
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

static void what_fits_beside_the_first_passes_it(void **state)
{
    struct scene *scene = *state;
    struct document *busy = add_ready(scene, "busy", 20);
    struct document *first = add_document(scene, "first", 90);
    struct document *one = add_document(scene, "one", 10), *two = add_document(scene, "two", 10);
    struct question *running = ask(scene, busy);

    put(scene, first);
    put(scene, one);
    assert_int_equal(one->state, DOCUMENT_PREFILLING);
    put(scene, two); /* room there is, but with it the first would wait for one of them */
    assert_int_equal(two->state, DOCUMENT_QUEUED);
    become_ready(scene, one);
    assert_int_equal(two->state, DOCUMENT_QUEUED);
    leave(scene, running);
    become_closed(scene, busy);
    assert_int_equal(first->state, DOCUMENT_PREFILLING);
}

/* As if all that has happened to it had happened a minute earlier. */
static void age(struct document *document)
{
    document->waits_since_ms -= 60 * 1000;
    document->work_started_ms -= 60 * 1000;
}

static void a_document_that_is_always_asked_makes_room_at_last(void **state)
{
    struct scene *scene = *state;
    struct document *asked = add_ready(scene, "asked", 80);
    struct document *first = add_document(scene, "first", 60);
    struct question *early, *running, *held;

    age(asked);
    early = ask(scene, asked);
    put(scene, first);
    running = ask(scene, asked); /* the first has not waited for long */
    assert_int_equal(running->state, QUESTION_RUNNING);
    age(first);
    held = ask(scene, asked);
    assert_int_equal(held->state, QUESTION_WAITING);
    held->no_wait = true;
    scheduler_run(&scene->coordinator);
    assert_int_equal(asked->questions, 2); /* it has ended */
    held = ask(scene, asked);
    leave(scene, early);
    assert_int_equal(asked->state, DOCUMENT_READY); /* one still reads it */
    leave(scene, running);
    assert_int_equal(asked->state, DOCUMENT_QUEUED);
    become_closed(scene, asked);
    assert_int_equal(first->state, DOCUMENT_PREFILLING); /* though nobody asks it */

    become_ready(scene, first);
    assert_int_equal(first->state, DOCUMENT_STORED);
    become_closed(scene, first);
    become_ready(scene, asked);
    assert_int_equal(held->state, QUESTION_RUNNING);
}

static void who_brought_a_document_back_asks_it_before_it_leaves(void **state)
{
    struct scene *scene = *state;
    struct document *asked = add_document(scene, "asked", 80);
    struct document *first = add_document(scene, "first", 60);
    struct question *own = ask(scene, asked), *held;

    put(scene, first);
    age(first);
    become_ready(scene, asked);
    assert_int_equal(own->state, QUESTION_RUNNING);
    age(asked);
    held = ask(scene, asked);
    assert_int_equal(held->state, QUESTION_WAITING);
    leave(scene, own);
    become_closed(scene, asked);
    become_ready(scene, first);
    assert_int_equal(asked->state, DOCUMENT_QUEUED);
    leave(scene, held); /* nor is it brought back for nobody */
    assert_int_equal(asked->state, DOCUMENT_STORED);
}

static void a_document_that_is_not_in_the_way_is_not_held(void **state)
{
    struct scene *scene = *state;
    struct document *asked = add_ready(scene, "asked", 60);
    struct document *other = add_ready(scene, "other", 30);
    struct document *first = add_document(scene, "first", 70);

    age(asked);
    age(other);
    ask(scene, asked);
    put(scene, first);
    age(first);
    assert_int_equal(ask(scene, other)->state, QUESTION_RUNNING);
    assert_int_equal(ask(scene, asked)->state, QUESTION_WAITING);
}

/* Three of which one fits, each asked while it is not there; one that nobody asks, and a small one
 * that passes whoever is first, time and again. */
static void what_nobody_asks_has_its_turn_too(void **state)
{
    enum { ASKED = 3 };
    struct scene *scene = *state;
    struct document *asked[ASKED] = {add_ready(scene, "one", 80), add_document(scene, "two", 80),
                                     add_document(scene, "three", 80)};
    struct document *first = add_document(scene, "first", 80);
    struct document *small = add_document(scene, "small", 5);
    struct question *question[ASKED];
    int prefills = 0;

    for (int i = 0; i < ASKED; i++)
        question[i] = ask(scene, asked[i]);
    put(scene, first);
    for (; first->state == DOCUMENT_QUEUED && prefills < 20; prefills++) {
        const int here = prefills % ASKED, next = (prefills + 1) % ASKED;

        put(scene, small);
        become_ready(scene, small);
        document_flow_store(&scene->coordinator, small);
        become_closed(scene, small);
        leave(scene, question[here]);
        become_closed(scene, asked[here]);
        if (first->state != DOCUMENT_QUEUED)
            break;
        become_ready(scene, asked[next]);
        question[here] = ask(scene, asked[here]);
    }
    assert_int_equal(first->state, DOCUMENT_PREFILLING);
    assert_int_equal(prefills, 4); /* those that are asked came first, so often */
}

/* Nothing has come back that would serve the one or the other. */
static void what_is_refused_does_not_wake_what_was(void **state)
{
    struct scene *scene = *state;
    struct document *busy = add_ready(scene, "busy", 20);
    struct document *refused = add_document(scene, "refused", 20);
    Tca__Control__V1__DocumentDone document_done = TCA__CONTROL__V1__DOCUMENT_DONE__INIT;
    Tca__Control__V1__QuestionDone question_done = TCA__CONTROL__V1__QUESTION_DONE__INIT;
    struct question *running = ask(scene, busy), *question;

    put(scene, refused);
    assert_int_equal(refused->state, DOCUMENT_PREFILLING);
    document_done.key = refused->key;
    document_done.state = TCA__CONTROL__V1__DOCUMENT_DONE__STATE__FAILED;
    document_done.code = RPC_RESOURCE_EXHAUSTED;
    group_document_done(&scene->coordinator, &document_done);
    assert_int_equal(refused->state, DOCUMENT_QUEUED);
    give_tokens(refused);

    question = ask(scene, busy);
    assert_int_equal(question->state, QUESTION_RUNNING);
    question->call = (struct rpc_call *)scene; /* somebody waits for it; not looked at */
    question_done.key = question->key;
    question_done.reason = TCA__CONTROL__V1__QUESTION_DONE__REASON__FAILED;
    question_done.code = RPC_RESOURCE_EXHAUSTED;
    group_question_done(&scene->coordinator, &question_done);
    question->call = NULL;
    assert_int_equal(question->state, QUESTION_WAITING);
    assert_int_equal(refused->state, DOCUMENT_QUEUED);
    leave(scene, running);
    assert_int_equal(question->state, QUESTION_RUNNING);
    assert_int_equal(refused->state, DOCUMENT_PREFILLING);
}

/* Until the disk's thread, which needs the lock, is done. */
static void wait_for_disk(struct scene *scene, const struct document *document)
{
    pthread_mutex_t *lock = &scene->coordinator.lock;

    while (document->disk_tasks > 0) {
        pthread_mutex_unlock(lock);
        clock_sleep_ms(1);
        pthread_mutex_lock(lock);
    }
}

/* A save that was asked for while an upload's last chunk was on its way does not undo that. */
static void a_save_has_what_is_there_when_its_turn_comes(void **state)
{
    struct scene *scene = *state;
    struct document *document = add_document(scene, "saved", 1);
    struct bytes meta = {0};
    struct tca_error error;
    char path[128], text[4096] = "";
    FILE *file;

    assert_int_equal(document_meta_write(document, &meta), TCA_OK);
    assert_int_equal(store_create(scene->coordinator.store, "saved", &meta, &error), TCA_OK);
    bytes_free(&meta);
    document_flow_save(&scene->coordinator, document);
    strcpy(document->sha256, "00ff");
    wait_for_disk(scene, document);
    snprintf(path, sizeof(path), "%s/documents/saved/meta.json", scene->folder);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
    fclose(file);
    assert_non_null(strstr(text, "\"00ff\""));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clean)
    const struct CMUnitTest tests[] = {
        TEST(a_document_that_no_question_wants_any_more_is_stored_again),
        TEST(what_was_put_or_pinned_stays_queued),
        TEST(what_fits_beside_the_first_passes_it),
        TEST(a_document_that_is_always_asked_makes_room_at_last),
        TEST(who_brought_a_document_back_asks_it_before_it_leaves),
        TEST(a_document_that_is_not_in_the_way_is_not_held),
        TEST(what_nobody_asks_has_its_turn_too),
        TEST(what_is_refused_does_not_wake_what_was),
        TEST(a_save_has_what_is_there_when_its_turn_comes),
    };
#undef TEST

    return cmocka_run_group_tests(tests, NULL, NULL);
}
