/* Server and client against each other, both over real sockets of this host. */
#include "tests/support/check.h"

#include "base/clock.h"
#include "proto/rpc_client.h"
#include "proto/rpc_server.h"
#include "tests/unit/proto/echo_service.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEADLINE_MS = 60000, GRACE_MS = 100 };

struct world {
    struct echo_service service;
    struct rpc_server *server;
    struct rpc_channel *channel;
    char address[64];
};

static int start_world(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct tca_error error;
    int port;

    echo_service_init(&world->service);
    assert_int_equal(rpc_server_start("127.0.0.1:0", world->service.methods, ECHO_METHODS, 2,
                                      &world->server, &port, &error),
                     TCA_OK);
    snprintf(world->address, sizeof(world->address), "127.0.0.1:%d", port);
    assert_int_equal(rpc_channel_open(world->address, &world->channel, &error), TCA_OK);
    *state = world;
    return 0;
}

static int stop_world(void **state)
{
    struct world *world = *state;

    rpc_channel_close(world->channel);
    rpc_server_stop(world->server, GRACE_MS);
    assert_int_equal(atomic_load(&world->service.started), atomic_load(&world->service.closed));
    free(world);
    return 0;
}

static struct rpc_stream *open_call(struct world *world, const char *path, int64_t timeout_ms)
{
    struct rpc_stream *stream;
    struct tca_error error;

    assert_int_equal(rpc_stream_open(world->channel, path, timeout_ms, &stream, &error), TCA_OK);
    return stream;
}

/* One request, all responses joined into *answer, the final status. */
static enum rpc_code call_once(struct world *world, const char *path, const void *data,
                               size_t bytes, struct bytes *answer, struct tca_error *error)
{
    struct rpc_stream *stream = open_call(world, path, DEADLINE_MS);
    struct bytes message = {0};
    enum rpc_code code;

    rpc_stream_send(stream, data, bytes);
    rpc_stream_send_end(stream);
    bytes_clear(answer);
    while (rpc_stream_receive(stream, -1, &message) == TCA_OK)
        bytes_append(answer, message.data, message.size);
    code = rpc_stream_finish(stream, error, NULL);
    bytes_free(&message);
    rpc_stream_close(stream);
    return code;
}

static void assert_text(const struct bytes *bytes, const char *text)
{
    assert_int_equal(bytes->size, strlen(text));
    assert_memory_equal(bytes->data, text, bytes->size);
}

static void a_unary_call_returns_its_answer(void **state)
{
    struct bytes answer = {0};
    struct tca_error error;

    assert_int_equal(call_once(*state, "/test.Echo/Unary", "hi\0there", 8, &answer, &error),
                     RPC_OK);
    assert_int_equal(answer.size, 8);
    assert_memory_equal(answer.data, "hi\0there", 8);
    bytes_free(&answer);
}

static void an_unknown_method_is_unimplemented(void **state)
{
    struct bytes answer = {0};
    struct tca_error error;

    assert_int_equal(call_once(*state, "/test.Echo/None", "", 0, &answer, &error),
                     RPC_UNIMPLEMENTED);
    assert_int_equal(answer.size, 0);
    bytes_free(&answer);
}

static void a_client_stream_is_read_to_its_end(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Collect", DEADLINE_MS);
    struct bytes answer = {0};
    char *data = calloc(1, 1 << 20);

    for (int i = 0; i < 8; i++)
        assert_int_equal(rpc_stream_send(stream, data, 1 << 20), TCA_OK);
    assert_int_equal(rpc_stream_send(stream, data, 5), TCA_OK);
    assert_int_equal(rpc_stream_send_end(stream), TCA_OK);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    assert_text(&answer, "8388613");
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_ERR_NOT_FOUND);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    bytes_free(&answer);
    free(data);
}

static void a_server_stream_keeps_its_order(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Count", DEADLINE_MS);
    struct bytes answer = {0};
    char text[32];

    rpc_stream_send(stream, "5000", 4);
    rpc_stream_send_end(stream);
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
        snprintf(text, sizeof(text), "%d", i);
        assert_text(&answer, text);
    }
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    bytes_free(&answer);
}

static void finish_waits_out_messages_nobody_received(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Count", DEADLINE_MS);

    rpc_stream_send(stream, "1000", 4);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
}

static void what_was_written_makes_room_for_more(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Chat", DEADLINE_MS);
    struct bytes answer = {0};
    char *data = calloc(1, 1 << 20);

    for (int i = 0; i < 12; i++) { /* three times what may wait at once */
        assert_int_equal(rpc_stream_send(stream, data, 1 << 20), TCA_OK);
        assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
        assert_int_equal(answer.size, 1 << 20);
    }
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    bytes_free(&answer);
    free(data);
}

static void both_directions_stream_at_once(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Chat", DEADLINE_MS);
    struct bytes answer = {0};

    for (int i = 0; i < 100; i++) {
        assert_int_equal(rpc_stream_send(stream, &i, sizeof(i)), TCA_OK);
        assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
        assert_memory_equal(answer.data, &i, sizeof(i));
    }
    assert_int_equal(rpc_stream_receive(stream, 10, &answer), TCA_ERR_DEADLINE);
    assert_int_equal(rpc_stream_send(stream, "x", 1), TCA_OK);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    assert_text(&answer, "x");
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    bytes_free(&answer);
}

static void a_failure_carries_text_and_details(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Fail", DEADLINE_MS);
    const char *text = "top_p is 1.5%, allowed: 0 to 1 \xe2\x82\xac";
    struct bytes details = {0};
    struct tca_error error;

    rpc_stream_send(stream, text, strlen(text));
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_finish(stream, &error, &details), RPC_INVALID_ARGUMENT);
    assert_string_equal(error.text, text);
    assert_text(&details, text);
    rpc_stream_close(stream);
    bytes_free(&details);
}

static void overlong_status_texts_are_cut_not_lost(void **state)
{
    struct bytes answer = {0};
    struct tca_error error;
    char text[8000];

    memset(text, '\n', sizeof(text)); /* three bytes each on the wire */
    assert_int_equal(call_once(*state, "/test.Echo/Fail", text, sizeof(text), &answer, &error),
                     RPC_INVALID_ARGUMENT);
    assert_int_equal(strlen(error.text), sizeof(error.text) - 1);
    bytes_free(&answer);
}

static void a_deadline_ends_the_call_on_both_sides(void **state)
{
    struct world *world = *state;
    struct bytes answer = {0};
    int64_t until;

    /* Where a loaded machine lets the deadline pass before the call has begun: a longer one. */
    for (int64_t timeout_ms = 300; atomic_load(&world->service.started) == 0; timeout_ms *= 2) {
        struct rpc_stream *stream = open_call(world, "/test.Echo/Hang", timeout_ms);

        rpc_stream_send(stream, "x", 1);
        rpc_stream_send_end(stream);
        assert_int_equal(rpc_stream_receive(stream, -1, &answer), TCA_ERR_NOT_FOUND);
        assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_DEADLINE_EXCEEDED);
        rpc_stream_close(stream);
    }
    until = clock_monotonic_ms() + DEADLINE_MS;
    while (atomic_load(&world->service.closed) < 1 && clock_monotonic_ms() < until)
        clock_sleep_ms(5);
    assert_true(atomic_load(&world->service.closed) >= 1);
    bytes_free(&answer);
}

struct cancelling {
    struct world *world;
    struct rpc_stream *stream;
};

static void *cancel_when_begun(void *argument)
{
    const struct cancelling *cancelling = argument;

    while (atomic_load(&cancelling->world->service.started) == 0)
        clock_sleep_ms(5);
    rpc_stream_cancel(cancelling->stream);
    return NULL;
}

static void cancel_from_another_thread_ends_a_blocked_receive(void **state)
{
    struct world *world = *state;
    struct rpc_stream *stream = open_call(world, "/test.Echo/Hang", 0);
    struct cancelling cancelling = {world, stream};
    const int64_t until = clock_monotonic_ms() + DEADLINE_MS;
    struct bytes answer = {0};
    pthread_t thread;

    rpc_stream_send(stream, "x", 1);
    rpc_stream_send_end(stream);
    pthread_create(&thread, NULL, cancel_when_begun, &cancelling);
    assert_int_equal(rpc_stream_receive(stream, -1, &answer), TCA_ERR_NOT_FOUND);
    pthread_join(thread, NULL);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_CANCELLED);
    assert_int_equal(rpc_stream_send(stream, "x", 1), TCA_ERR_CANCELLED);
    rpc_stream_close(stream);
    while (atomic_load(&world->service.closed) < 1 && clock_monotonic_ms() < until)
        clock_sleep_ms(5);
    assert_int_equal(atomic_load(&world->service.closed), 1);
    bytes_free(&answer);
}

static void a_stream_closed_early_is_cancelled(void **state)
{
    struct world *world = *state;
    struct rpc_stream *stream = open_call(world, "/test.Echo/Count", 0);
    struct bytes answer = {0};

    rpc_stream_send(stream, "100000000", 9);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    rpc_stream_close(stream);
    bytes_free(&answer);
}

static void a_slow_reader_makes_the_server_busy(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Flood", DEADLINE_MS);
    struct bytes answer = {0};
    struct tca_error error;
    char text[32];
    int received = 0;

    rpc_stream_send(stream, "x", 1);
    rpc_stream_send_end(stream);
    clock_sleep_ms(200);
    while (rpc_stream_receive(stream, DEADLINE_MS, &answer) == TCA_OK)
        received++;
    assert_int_equal(rpc_stream_finish(stream, &error, NULL), RPC_RESOURCE_EXHAUSTED);
    snprintf(text, sizeof(text), "%d", received);
    assert_string_equal(error.text, text); /* what was queued before is not lost */
    assert_true(received >= RPC_MESSAGE_BYTES_MAX / ECHO_FLOOD_BYTES);
    rpc_stream_close(stream);
    bytes_free(&answer);
}

static void a_message_over_4_mib_is_resource_exhausted(void **state)
{
    const size_t bytes = RPC_MESSAGE_BYTES_MAX;
    char *data = calloc(1, bytes + 1);
    struct bytes answer = {0};
    struct tca_error error;

    assert_int_equal(call_once(*state, "/test.Echo/Unary", data, bytes, &answer, &error), RPC_OK);
    assert_int_equal(answer.size, bytes);
    assert_int_equal(call_once(*state, "/test.Echo/Unary", data, bytes + 1, &answer, &error),
                     RPC_RESOURCE_EXHAUSTED);
    bytes_free(&answer);
    free(data);
}

static void a_unary_method_takes_exactly_one_message(void **state)
{
    struct rpc_stream *stream = open_call(*state, "/test.Echo/Unary", DEADLINE_MS);

    rpc_stream_send(stream, "x", 1);
    rpc_stream_send(stream, "y", 1);
    rpc_stream_send(stream, "z", 1);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_INVALID_ARGUMENT);
    rpc_stream_close(stream);

    stream = open_call(*state, "/test.Echo/Unary", DEADLINE_MS);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_INVALID_ARGUMENT);
    rpc_stream_close(stream);
}

static void a_port_in_use_is_an_error(void **state)
{
    struct world *world = *state;
    struct rpc_server *server = NULL;
    struct tca_error error;
    int port;

    assert_int_equal(rpc_server_start(world->address, world->service.methods, ECHO_METHODS, 1,
                                      &server, &port, &error),
                     TCA_ERR_UNAVAILABLE);
    assert_null(server);
    assert_non_null(strstr(error.text, world->address));
    assert_int_equal(rpc_server_start("no address", world->service.methods, ECHO_METHODS, 1,
                                      &server, &port, &error),
                     TCA_ERR_UNAVAILABLE);
}

static void a_dead_server_is_unavailable(void **state)
{
    struct world *world = *state;
    struct bytes answer = {0};
    struct tca_error error;

    rpc_server_stop(world->server, 0);
    assert_int_equal(call_once(world, "/test.Echo/Unary", "x", 1, &answer, &error),
                     RPC_UNAVAILABLE);
    world->server = NULL;
    bytes_free(&answer);
}

static void a_server_that_goes_ends_the_calls_of_its_clients(void **state)
{
    struct world *world = *state;
    struct rpc_stream *stream = open_call(world, "/test.Echo/Chat", 0);
    struct bytes answer = {0};
    enum rpc_code code;

    assert_int_equal(rpc_stream_send(stream, "x", 1), TCA_OK);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    rpc_server_stop(world->server, 0);
    world->server = NULL;
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_ERR_NOT_FOUND);
    code = rpc_stream_finish(stream, NULL, NULL);
    assert_true(code == RPC_UNAVAILABLE || code == RPC_CANCELLED);
    rpc_stream_close(stream);
    bytes_free(&answer);
}

static struct rpc_call *held;

static void hold_and_finish(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    (void)context;
    (void)data;
    (void)bytes;
    held = rpc_call_hold(call);
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
    rpc_call_finish(call, RPC_INTERNAL, "the first end counts", NULL, 0);
}

static void a_held_call_outlives_its_server(void **state)
{
    const struct rpc_method method = {.path = "/test.Echo/Held", .message = hold_and_finish};
    struct world other = {0};
    struct bytes answer = {0};
    struct tca_error error;
    int port;

    (void)state;
    assert_int_equal(rpc_server_start("127.0.0.1:0", &method, 1, 1, &other.server, &port, &error),
                     TCA_OK);
    snprintf(other.address, sizeof(other.address), "127.0.0.1:%d", port);
    assert_int_equal(rpc_channel_open(other.address, &other.channel, &error), TCA_OK);
    assert_int_equal(call_once(&other, "/test.Echo/Held", "x", 1, &answer, &error), RPC_OK);
    rpc_channel_close(other.channel);
    rpc_server_stop(other.server, 0);
    assert_true(rpc_call_is_over(held));
    assert_int_equal(rpc_call_send(held, "x", 1), TCA_ERR_CANCELLED);
    rpc_call_read_next(held);
    rpc_call_finish(held, RPC_INTERNAL, "too late", NULL, 0);
    assert_int_equal(rpc_call_pending(held), 0);
    assert_non_null(rpc_call_peer(held));
    rpc_call_drop(held);
    bytes_free(&answer);
}

static void a_stop_waits_for_calls_within_its_grace(void **state)
{
    struct world *world = *state;
    struct rpc_stream *stream = open_call(world, "/test.Echo/Count", DEADLINE_MS);
    struct bytes answer = {0};
    int received = 1;

    rpc_stream_send(stream, "300", 3);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    rpc_server_stop(world->server, DEADLINE_MS);
    world->server = NULL;
    while (rpc_stream_receive(stream, DEADLINE_MS, &answer) == TCA_OK)
        received++;
    assert_int_equal(received, 300);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    bytes_free(&answer);
}

static void a_silent_listener_meets_the_deadline(void **state)
{
    const struct sockaddr_in any = {.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in bound;
    socklen_t bytes = sizeof(bound);
    struct world other = {0};
    struct rpc_stream *stream;
    struct tca_error error;

    (void)state;
    assert_int_equal(bind(listener, (const struct sockaddr *)&any, sizeof(any)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&bound, &bytes), 0);
    snprintf(other.address, sizeof(other.address), "127.0.0.1:%d", ntohs(bound.sin_port));
    assert_int_equal(rpc_channel_open(other.address, &other.channel, &error), TCA_OK);
    stream = open_call(&other, "/test.Echo/Unary", 300);
    rpc_stream_send(stream, "x", 1);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_DEADLINE_EXCEEDED);
    rpc_stream_close(stream);
    rpc_channel_close(other.channel);
    close(listener);
}

static void *chat_many(void *argument)
{
    struct world *world = argument;
    struct bytes answer = {0};

    for (int i = 0; i < 20; i++) {
        struct rpc_stream *stream = open_call(world, "/test.Echo/Chat", DEADLINE_MS);

        for (int k = 0; k < 20; k++) {
            assert_int_equal(rpc_stream_send(stream, &k, sizeof(k)), TCA_OK);
            assert_int_equal(rpc_stream_receive(stream, -1, &answer), TCA_OK);
            assert_memory_equal(answer.data, &k, sizeof(k));
        }
        if (i % 3 != 0) { /* the others are cancelled in the middle */
            rpc_stream_send_end(stream);
            assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
        }
        rpc_stream_close(stream);
    }
    bytes_free(&answer);
    return NULL;
}

static void many_streams_at_once_do_not_mix(void **state)
{
    pthread_t threads[16];

    for (int i = 0; i < 16; i++)
        pthread_create(&threads[i], NULL, chat_many, *state);
    for (int i = 0; i < 16; i++)
        pthread_join(threads[i], NULL);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, start_world, stop_world)

static void an_address_is_a_host_and_a_port(void **state)
{
    static const char *const right[] = {"127.0.0.1:0", "host.name:65535", "[::1]:50051"};
    static const char *const wrong[] = {"",        "host",    "host:",      ":1",       "host:x",
                                        "host:1x", "host:-1", "host:65536", "host:1e3", "::1",
                                        "::1:5",   "[::1]",   "[::1]:",     "host: 1",  "unix:/s",
                                        NULL,      "a:1:2"};
    struct tca_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++)
        assert_int_equal(rpc_check_address("listen", right[i], &error), TCA_OK);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_int_equal(rpc_check_address("listen", wrong[i], &error), TCA_ERR_INVALID);
    assert_string_equal(error.text,
                        "listen: value \"a:1:2\", allowed: HOST:PORT, the port from 0 to "
                        "65535, an IPv6 host in brackets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_a_host_and_a_port),
        TEST(a_unary_call_returns_its_answer),
        TEST(an_unknown_method_is_unimplemented),
        TEST(a_client_stream_is_read_to_its_end),
        TEST(a_server_stream_keeps_its_order),
        TEST(both_directions_stream_at_once),
        TEST(finish_waits_out_messages_nobody_received),
        TEST(what_was_written_makes_room_for_more),
        TEST(a_failure_carries_text_and_details),
        TEST(overlong_status_texts_are_cut_not_lost),
        TEST(a_deadline_ends_the_call_on_both_sides),
        TEST(cancel_from_another_thread_ends_a_blocked_receive),
        TEST(a_stream_closed_early_is_cancelled),
        TEST(a_slow_reader_makes_the_server_busy),
        TEST(a_message_over_4_mib_is_resource_exhausted),
        TEST(a_unary_method_takes_exactly_one_message),
        TEST(a_port_in_use_is_an_error),
        TEST(a_dead_server_is_unavailable),
        TEST(a_server_that_goes_ends_the_calls_of_its_clients),
        TEST(a_held_call_outlives_its_server),
        TEST(a_stop_waits_for_calls_within_its_grace),
        TEST(a_silent_listener_meets_the_deadline),
        TEST(many_streams_at_once_do_not_mix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
