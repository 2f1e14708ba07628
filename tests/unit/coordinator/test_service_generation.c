/* What waits for the tokenizer: the tests hold its thread at a gate meanwhile. */
#include "tests/support/check.h"

#include "base/clock.h"
#include "coordinator/coordinator_state.h"
#include "proto/message.h"
#include "proto/rpc_client.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 60000, ASKS_MAX = 3, TEXTS_MAX = 256, BYTES_MAX = 64 * 1024 * 1024 };

/* A task that the tokenizer's thread stays in until it is opened. */
struct gate {
    struct task task;
    sem_t opened;
};

struct world {
    char folder[64];
    struct coordinator_options options;
    struct settings_arguments arguments;
    struct coordinator *coordinator;
    struct rpc_channel *channel;
    struct gate gate;
};

static void stay(struct task *task)
{
    sem_wait(&((struct gate *)task)->opened);
}

static void start_coordinator(struct world *world)
{
    char model[512], state_dir[96];
    char *const arguments[] = {
        "test", model, state_dir, "--listen=127.0.0.1:0", "--no-launch", "--max-waiting=3"};
    struct tca_error error;

    strcpy(world->folder, "/tmp/tca-test-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
    snprintf(state_dir, sizeof(state_dir), "--state-dir=%s", world->folder);
    snprintf(model, sizeof(model), "--model=%s/models/needle-9m", getenv("TCA_SOURCE"));
    assert_int_equal(settings_load(&options_table, sizeof(arguments) / sizeof(*arguments),
                                   arguments, &world->options, &world->arguments, &error),
                     TCA_OK);
    assert_int_equal(coordinator_start(&world->options, "secret", &world->coordinator, &error),
                     TCA_OK);
}

/* No group: none is needed to take requests, only the phase. */
static int start_world(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct tca_error error;

    start_coordinator(world);
    pthread_mutex_lock(&world->coordinator->lock);
    world->coordinator->phase = COORDINATOR_SERVING;
    pthread_mutex_unlock(&world->coordinator->lock);
    sem_init(&world->gate.opened, 0, 0);
    world->gate.task.run = stay;
    task_queue_post(world->coordinator->request_tokenizer, &world->gate.task);
    assert_int_equal(
        rpc_channel_open(coordinator_address(world->coordinator), &world->channel, &error), TCA_OK);
    *state = world;
    return 0;
}

static int stop_world(void **state)
{
    struct world *world = *state;
    char command[96];

    sem_post(&world->gate.opened); /* in case the test has failed */
    rpc_channel_close(world->channel);
    coordinator_stop(world->coordinator);
    settings_free(&options_table, &world->options, &world->arguments);
    sem_destroy(&world->gate.opened);
    snprintf(command, sizeof(command), "rm -rf %s", world->folder);
    assert_int_equal(system(command), 0);
    free(world);
    return 0;
}

static bool nothing_is_left(const struct coordinator *coordinator)
{
    return coordinator->questions == NULL && coordinator->queued_texts == 0 &&
           coordinator->queued_bytes == 0;
}

static bool all_texts_wait(const struct coordinator *coordinator)
{
    return coordinator->queued_texts == TEXTS_MAX;
}

static int count_questions(const struct coordinator *coordinator, enum question_state state)
{
    int count = 0;

    for (const struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        count += question->state == state;
    return count;
}

static bool all_asks_are_there(const struct coordinator *coordinator)
{
    return count_questions(coordinator, QUESTION_TOKENIZING) == ASKS_MAX;
}

static bool all_asks_are_left(const struct coordinator *coordinator)
{
    return count_questions(coordinator, QUESTION_LEAVING) == ASKS_MAX;
}

static void wait_until(const struct world *world, bool (*is_so)(const struct coordinator *))
{
    const int64_t until = clock_monotonic_ms() + DEADLINE_MS;
    bool is_there = false;

    while (!is_there && clock_monotonic_ms() < until) {
        clock_sleep_ms(5);
        pthread_mutex_lock(&world->coordinator->lock);
        is_there = is_so(world->coordinator);
        pthread_mutex_unlock(&world->coordinator->lock);
    }
    assert_true(is_there);
}

static struct rpc_stream *start(const struct world *world, const char *path, const void *request)
{
    struct rpc_stream *stream;
    struct bytes packed = {0};
    struct tca_error error;

    assert_int_equal(message_pack(request, &packed), TCA_OK);
    assert_int_equal(rpc_stream_open(world->channel, path, DEADLINE_MS, &stream, &error), TCA_OK);
    rpc_stream_send(stream, packed.data, packed.size);
    rpc_stream_send_end(stream);
    bytes_free(&packed);
    return stream;
}

static struct rpc_stream *ask(const struct world *world)
{
    Tca__V1__AskRequest request = TCA__V1__ASK_REQUEST__INIT;

    request.source_case = TCA__V1__ASK_REQUEST__SOURCE_PROMPT;
    request.prompt = message_text("Who?");
    return start(world, "/tca.v1.Generation/Ask", &request);
}

static struct rpc_stream *tokenize(const struct world *world, const char *text)
{
    Tca__V1__TokenizeRequest request = TCA__V1__TOKENIZE_REQUEST__INIT;

    request.text = message_text(text);
    return start(world, "/tca.v1.Generation/Tokenize", &request);
}

static struct rpc_stream *detokenize(const struct world *world)
{
    Tca__V1__DetokenizeRequest request = TCA__V1__DETOKENIZE_REQUEST__INIT;
    int32_t ids[] = {5, 6, 7};

    request.token_ids = ids;
    request.n_token_ids = 3;
    return start(world, "/tca.v1.Generation/Detokenize", &request);
}

static enum rpc_code end_of(struct rpc_stream *stream, struct tca_error *error)
{
    const enum rpc_code code = rpc_stream_finish(stream, error, NULL);

    rpc_stream_close(stream);
    return code;
}

static void is_exhausted(struct rpc_stream *stream, const char *text)
{
    struct tca_error error;

    assert_int_equal(end_of(stream, &error), RPC_RESOURCE_EXHAUSTED);
    assert_string_equal(error.text, text);
}

static void questions_left_with_the_tokenizer_still_wait(void **state)
{
    struct world *world = *state;
    struct coordinator *coordinator = world->coordinator;
    struct tokenizer *tokenizer = coordinator->tokenizer;
    struct rpc_stream *streams[ASKS_MAX];

    for (int i = 0; i < ASKS_MAX; i++)
        streams[i] = ask(world);
    wait_until(world, all_asks_are_there);
    for (int i = 0; i < ASKS_MAX; i++)
        rpc_stream_close(streams[i]); /* cancels */
    wait_until(world, all_asks_are_left);
    is_exhausted(ask(world), "3 questions wait already, allowed: up to 3");
    pthread_mutex_lock(&coordinator->lock);
    coordinator->tokenizer = NULL; /* they are not worth its time */
    pthread_mutex_unlock(&coordinator->lock);
    sem_post(&world->gate.opened);
    wait_until(world, nothing_is_left);
    coordinator->tokenizer = tokenizer;
}

static void texts_that_wait_are_bounded_in_number(void **state)
{
    struct world *world = *state;
    struct rpc_stream *streams[TEXTS_MAX];

    for (int i = 0; i < TEXTS_MAX; i++)
        streams[i] = i % 2 == 0 ? tokenize(world, "hi") : detokenize(world);
    wait_until(world, all_texts_wait);
    is_exhausted(tokenize(world, "hi"),
                 "256 requests wait for the tokenizer already, allowed: up to 256");
    is_exhausted(detokenize(world),
                 "256 requests wait for the tokenizer already, allowed: up to 256");
    sem_post(&world->gate.opened);
    for (int i = 0; i < TEXTS_MAX; i++)
        assert_int_equal(end_of(streams[i], NULL), RPC_OK);
    wait_until(world, nothing_is_left);
    assert_int_equal(end_of(tokenize(world, "hi"), NULL), RPC_OK);
}

static void add_bytes(struct coordinator *coordinator, int64_t bytes)
{
    pthread_mutex_lock(&coordinator->lock);
    coordinator->queued_bytes += (size_t)bytes;
    pthread_mutex_unlock(&coordinator->lock);
}

/* A text of 4 bytes makes a request of 6, as the question does; the three ids make one of 5. */
static void what_waits_is_bounded_in_bytes(void **state)
{
    static const char text[] = "67108859 bytes wait for the tokenizer already, allowed: up to "
                               "67108864 with the 6 of this request";
    struct world *world = *state;
    struct rpc_stream *fitting;

    add_bytes(world->coordinator, BYTES_MAX - 5);
    is_exhausted(tokenize(world, "over"), text);
    is_exhausted(ask(world), text);
    fitting = detokenize(world);
    add_bytes(world->coordinator, 5 - BYTES_MAX);
    sem_post(&world->gate.opened);
    assert_int_equal(end_of(fitting, NULL), RPC_OK);
    wait_until(world, nothing_is_left);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, start_world, stop_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(questions_left_with_the_tokenizer_still_wait),
        TEST(texts_that_wait_are_bounded_in_number),
        TEST(what_waits_is_bounded_in_bytes),
    };
    return cmocka_run_group_tests_name("service_generation", tests, NULL, NULL);
}
