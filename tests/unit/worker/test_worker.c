/* Whole worker groups, ranks as threads, attached over loopback gRPC to a coordinator that
 * follows a script: what travels on the control link, and how a group ends. */
#include "tests/support/check.h"

#include "base/clock.h"
#include "comm/local/comm_local.h"
#include "control.pb-c.h"
#include "proto/rpc_server.h"
#include "tests/unit/worker/tiny_model.h"
#include "worker/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RANKS_MAX = 4,
    DOCUMENT_TOKENS = 150,
    QUESTION_TOKENS = 5,
    ANSWER_TOKENS = 6,
    WAIT_MS = 60000
};

typedef Tca__Control__V1__CoordinatorMessage coordinator_message;
typedef Tca__Control__V1__WorkerMessage worker_message;

struct script;
typedef void (*on_message_fn)(struct script *script, const worker_message *message);

/* One coordinator: its callbacks run one after another. */
struct script {
    on_message_fn on_message;
    const char *model_folder;
    uint32_t chunk_tokens;
    struct rpc_call *call;
    atomic_bool is_closed;
    atomic_int ready_ranks;
    atomic_int alives;
    uint64_t kv_capacity_tokens;
    int document_progress, document_ready, document_closed, document_failed;
    int question_progress, tokens, questions_done;
    int32_t token[ANSWER_TOKENS];
    float logprob[ANSWER_TOKENS];
    int code;
    char text[512];
    Tca__Control__V1__QuestionDone__Reason reason;
    struct rpc_server *server;
    int port;
};

static void send(struct script *script, coordinator_message *message)
{
    uint8_t data[8192];
    size_t size = tca__control__v1__coordinator_message__pack(message, data);

    assert_true(size <= sizeof(data));
    rpc_call_send(script->call, data, size);
}

static ProtobufCBinaryData bytes_of(const void *data, size_t size)
{
    static _Thread_local uint8_t copy[4096];

    assert_true(size <= sizeof(copy));
    memcpy(copy, data, size);
    return (ProtobufCBinaryData){.len = size, .data = copy};
}

static void send_welcome(struct script *script)
{
    coordinator_message message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__Welcome welcome = TCA__CONTROL__V1__WELCOME__INIT;

    welcome.model_folder = bytes_of(script->model_folder, strlen(script->model_folder));
    welcome.chunk_tokens = script->chunk_tokens;
    welcome.threads = 1;
    welcome.kv_memory_bytes = 1 << 20;
    welcome.dummy_weights = 1;
    welcome.max_sequences = 2;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    send(script, &message);
}

static void send_document(struct script *script, uint64_t key, int32_t first_id)
{
    coordinator_message message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__DocumentOpen open = TCA__CONTROL__V1__DOCUMENT_OPEN__INIT;
    Tca__Control__V1__DocumentTokens tokens = TCA__CONTROL__V1__DOCUMENT_TOKENS__INIT;
    int32_t ids[DOCUMENT_TOKENS];

    for (int i = 0; i < DOCUMENT_TOKENS; i++)
        ids[i] = (first_id + i * 7) % TINY_VOCAB;
    open.key = key;
    open.token_count = DOCUMENT_TOKENS;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_OPEN;
    message.document_open = &open;
    send(script, &message);
    tokens.key = key;
    tokens.token_ids = bytes_of(ids, sizeof(ids));
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_TOKENS;
    message.document_tokens = &tokens;
    send(script, &message);
}

static void send_question(struct script *script, uint64_t key, uint64_t document)
{
    coordinator_message message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__QuestionOpen open = TCA__CONTROL__V1__QUESTION_OPEN__INIT;
    Tca__Control__V1__QuestionInput input = TCA__CONTROL__V1__QUESTION_INPUT__INIT;
    const int32_t ids[QUESTION_TOKENS] = {9, 8, 7, 6, 5};

    open.key = key;
    open.document_key = document;
    open.token_count = QUESTION_TOKENS;
    open.max_tokens = ANSWER_TOKENS;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_OPEN;
    message.question_open = &open;
    send(script, &message);
    input.key = key;
    input.token_ids = bytes_of(ids, sizeof(ids));
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_INPUT;
    message.question_input = &input;
    send(script, &message);
}

static void send_close(struct script *script, uint64_t key)
{
    coordinator_message message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__DocumentClose close = TCA__CONTROL__V1__DOCUMENT_CLOSE__INIT;

    close.key = key;
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_CLOSE;
    message.document_close = &close;
    send(script, &message);
}

static void send_stop(struct script *script)
{
    coordinator_message message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__Stop stop = TCA__CONTROL__V1__STOP__INIT;

    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_STOP;
    message.stop = &stop;
    send(script, &message);
    rpc_call_finish(script->call, RPC_OK, "", NULL, 0);
}

static void note(struct script *script, const worker_message *message)
{
    const Tca__Control__V1__QuestionTokens *tokens;

    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY) {
        script->kv_capacity_tokens = message->ready->kv_capacity_tokens;
        atomic_store(&script->ready_ranks, (int)message->ready->n_ranks);
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_ALIVE) {
        atomic_fetch_add(&script->alives, 1);
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_PROGRESS) {
        script->document_progress++;
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_DONE) {
        script->document_ready += message->document_done->state == 1;
        script->document_closed += message->document_done->state == 2;
        script->document_failed += message->document_done->state == 3;
        script->code = message->document_done->code;
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_PROGRESS) {
        script->question_progress++;
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_TOKENS) {
        tokens = message->question_tokens;
        for (size_t i = 0; i < tokens->n_tokens && script->tokens < ANSWER_TOKENS; i++) {
            script->token[script->tokens] = tokens->tokens[i]->token_id;
            script->logprob[script->tokens++] = tokens->tokens[i]->logprob;
        }
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_DONE) {
        script->questions_done++;
        script->reason = message->question_done->reason;
        script->code = message->question_done->code;
    } else if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_GROUP_FAILED) {
        snprintf(script->text, sizeof(script->text), "%.*s",
                 (int)message->group_failed->message.len,
                 (const char *)message->group_failed->message.data);
    }
}

static void attach_message(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct script *script = context;
    worker_message *message = tca__control__v1__worker_message__unpack(NULL, bytes, data);

    assert_non_null(message);
    script->call = call;
    note(script, message);
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_HELLO) {
        if (message->hello->secret.len != 6 ||
            memcmp(message->hello->secret.data, "secret", 6) != 0)
            rpc_call_finish(call, RPC_UNAUTHENTICATED, "the secret is wrong", NULL, 0);
        else
            send_welcome(script);
    } else {
        script->on_message(script, message);
    }
    tca__control__v1__worker_message__free_unpacked(message, NULL);
    rpc_call_read_next(call);
}

static void attach_half_close(struct rpc_call *call, void *context)
{
    (void)context;
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
}

static void attach_closed(struct rpc_call *call, void *context)
{
    struct script *script = context;

    (void)call;
    atomic_store(&script->is_closed, true);
}

/* Ranks as threads. */

struct rank {
    struct comm_group *group;
    struct worker_options options;
    enum tca_status status;
};

static void *run_rank(void *argument)
{
    struct rank *rank = argument;

    rank->status = worker_run(rank->group, &rank->options);
    rank->group->ops->destroy(rank->group);
    return NULL;
}

/* Serve the script until the group has ended; statuses_out[ranks]. */
static void run_group(struct script *script, int ranks, const char *secret,
                      enum tca_status *statuses_out)
{
    struct rpc_method method = {.path = "/tca.control.v1.Control/Attach",
                                .client_streams = true,
                                .context = script,
                                .message = attach_message,
                                .half_close = attach_half_close,
                                .closed = attach_closed};
    struct comm_group *groups[RANKS_MAX];
    struct rank rank[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    char address[32];

    assert_int_equal(
        rpc_server_start("127.0.0.1:0", &method, 1, 1, &script->server, &script->port, NULL),
        TCA_OK);
    snprintf(address, sizeof(address), "127.0.0.1:%d", script->port);
    assert_int_equal(comm_local_create(kernel_backend_cpu(), ranks, WAIT_MS, groups), TCA_OK);
    for (int i = 0; i < ranks; i++) {
        rank[i] = (struct rank){.group = groups[i],
                                .options = {.coordinator = address,
                                            .secret = secret,
                                            .version = "test",
                                            .connect_timeout_ms = 5000,
                                            .step_timeout_ms = WAIT_MS}};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &rank[i]), 0);
    }
    for (int i = 0; i < ranks; i++) {
        pthread_join(threads[i], NULL);
        statuses_out[i] = rank[i].status;
    }
    rpc_server_stop(script->server, 0);
}

static char folder[64];

static int setup(void **state)
{
    (void)state;
    tiny_model_make("llama", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tiny_model_remove(folder);
    return 0;
}

/* Document, question, answer, close, stop. */
static void serve_one_question(struct script *script, const worker_message *message)
{
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY)
        send_document(script, 11, 3);
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_DONE &&
        message->document_done->state == 1)
        send_question(script, 22, 11);
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_DONE)
        send_close(script, 11);
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_DONE &&
        message->document_done->state == 2)
        send_stop(script);
}

static void a_document_goes_in_and_an_answer_comes_out(void **state)
{
    enum tca_status statuses[RANKS_MAX];
    struct script first;

    (void)state;
    for (int ranks = 1; ranks <= 3; ranks += 2) {
        struct script script = {
            .on_message = serve_one_question, .model_folder = folder, .chunk_tokens = 64};

        run_group(&script, ranks, "secret", statuses);
        for (int i = 0; i < ranks; i++)
            assert_int_equal(statuses[i], TCA_OK);
        assert_int_equal(script.ready_ranks, ranks);
        assert_true(script.kv_capacity_tokens >= DOCUMENT_TOKENS);
        assert_int_equal(script.document_progress, 3); /* 64 + 64 + 22 */
        assert_int_equal(script.document_ready, 1);
        assert_int_equal(script.document_closed, 1);
        assert_int_equal(script.question_progress, 1);
        assert_int_equal(script.tokens, ANSWER_TOKENS);
        assert_int_equal(script.questions_done, 1);
        assert_int_equal(script.reason, TCA__CONTROL__V1__QUESTION_DONE__REASON__LENGTH);
        if (ranks == 1)
            first = script;
        /* The first token's margin is wide in this model; later ones follow from it. */
        assert_int_equal(script.token[0], first.token[0]);
        assert_true(script.logprob[0] - first.logprob[0] < 0.1F &&
                    first.logprob[0] - script.logprob[0] < 0.1F);
    }
}

static void wait_for_life(struct script *script, const worker_message *message)
{
    (void)message;
    if (atomic_load(&script->alives) >= 2)
        send_stop(script);
}

static void an_idle_group_says_every_second_that_it_lives(void **state)
{
    struct script script = {.on_message = wait_for_life, .model_folder = folder};
    enum tca_status statuses[RANKS_MAX];

    (void)state;
    run_group(&script, 2, "secret", statuses);
    assert_int_equal(statuses[0], TCA_OK);
    assert_int_equal(statuses[1], TCA_OK);
    assert_true(script.alives >= 2);
}

static void hang_up(struct script *script, const worker_message *message)
{
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY)
        rpc_call_finish(script->call, RPC_UNAVAILABLE, "", NULL, 0);
}

static void a_lost_coordinator_ends_every_rank(void **state)
{
    struct script script = {.on_message = hang_up, .model_folder = folder};
    enum tca_status statuses[RANKS_MAX];

    (void)state;
    run_group(&script, 3, "secret", statuses);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(statuses[i], TCA_OK);
}

static void ignore(struct script *script, const worker_message *message)
{
    (void)script;
    (void)message;
}

static void a_wrong_secret_ends_every_rank(void **state)
{
    struct script script = {.on_message = ignore, .model_folder = folder};
    enum tca_status statuses[RANKS_MAX];

    (void)state;
    run_group(&script, 2, "guess", statuses);
    assert_int_equal(statuses[0], TCA_ERR_UNAUTHENTICATED);
    assert_int_equal(statuses[1], TCA_ERR_ABORTED);
    assert_int_equal(script.ready_ranks, 0);
}

static void a_model_that_is_not_there_fails_the_group_with_its_reason(void **state)
{
    struct script script = {.on_message = ignore, .model_folder = "/nowhere/model"};
    enum tca_status statuses[RANKS_MAX];

    (void)state;
    run_group(&script, 2, "secret", statuses);
    assert_int_not_equal(statuses[0], TCA_OK);
    assert_int_not_equal(statuses[1], TCA_OK);
    assert_non_null(strstr(script.text, "/nowhere/model"));
}

static void a_welcome_out_of_range_ends_the_group(void **state)
{
    struct script script = {.on_message = ignore, .model_folder = folder, .chunk_tokens = 1 << 21};
    enum tca_status statuses[RANKS_MAX];

    (void)state;
    run_group(&script, 1, "secret", statuses);
    assert_int_equal(statuses[0], TCA_ERR_INVALID); /* the Welcome's chunk is out of range */
}

static void say_nonsense(struct script *script, const worker_message *message)
{
    if (message->body_case == TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY)
        rpc_call_send(script->call, "\x0a\xff\xff", 3);
}

static void an_unreadable_message_ends_the_group(void **state)
{
    struct script script = {.on_message = say_nonsense, .model_folder = folder};
    enum tca_status statuses[RANKS_MAX];

    (void)state;
    run_group(&script, 2, "secret", statuses);
    assert_int_equal(statuses[0], TCA_ERR_INVALID);
    assert_int_equal(statuses[1], TCA_ERR_ABORTED);
    assert_true(script.text[0] != '\0');
}

static void nobody_answers(void **state)
{
    struct worker_options options = {.coordinator = "127.0.0.1:1",
                                     .secret = "secret",
                                     .version = "test",
                                     .connect_timeout_ms = 500,
                                     .step_timeout_ms = 1000};
    struct comm_group *group;

    (void)state;
    assert_int_equal(comm_local_create(kernel_backend_cpu(), 1, 1000, &group), TCA_OK);
    assert_int_equal(worker_run(group, &options), TCA_ERR_UNAVAILABLE);
    group->ops->destroy(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_goes_in_and_an_answer_comes_out),
        cmocka_unit_test(an_idle_group_says_every_second_that_it_lives),
        cmocka_unit_test(a_lost_coordinator_ends_every_rank),
        cmocka_unit_test(a_wrong_secret_ends_every_rank),
        cmocka_unit_test(a_model_that_is_not_there_fails_the_group_with_its_reason),
        cmocka_unit_test(a_welcome_out_of_range_ends_the_group),
        cmocka_unit_test(an_unreadable_message_ends_the_group),
        cmocka_unit_test(nobody_answers),
    };
    return cmocka_run_group_tests_name("worker", tests, setup, teardown);
}
