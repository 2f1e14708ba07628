/* Clients that keep the server waiting. One sends requests and reads no response: it writes its own
 * frames, with no room for the server's data, of which C-core's client would take some on its own.
 */
#include "tests/support/check.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "proto/rpc_client.h"
#include "proto/rpc_server.h"
#include "tests/unit/proto/echo_service.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEADLINE_MS = 60000, MIB = 1024 * 1024 };
enum { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_SETTINGS = 4, END_STREAM = 1, END_HEADERS = 4 };

struct world {
    struct echo_service service;
    struct rpc_server *server;
    int port;
    int client; /* socket */
    uint32_t streams;
};

static void send_bytes(const struct world *world, const void *data, size_t bytes)
{
    assert_int_equal(send(world->client, data, bytes, MSG_NOSIGNAL), bytes);
}

static void send_frame(const struct world *world, int type, int flags, uint32_t stream,
                       const void *data, size_t bytes)
{
    const uint8_t head[9] = {
        (uint8_t)(bytes >> 16),  (uint8_t)(bytes >> 8),  (uint8_t)bytes,
        (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};

    send_bytes(world, head, sizeof(head));
    send_bytes(world, data, bytes);
}

static void connect_client(struct world *world)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const uint8_t no_window[6] = {0, 4, 0, 0, 0, 0};
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                        .sin_port = htons((uint16_t)world->port)};

    world->client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(world->client, (const struct sockaddr *)&address, sizeof(address)), 0);
    send_bytes(world, preface, strlen(preface));
    send_frame(world, FRAME_SETTINGS, 0, 0, no_window, sizeof(no_window));
}

static int start_world(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct tca_error error;

    echo_service_init(&world->service);
    assert_int_equal(rpc_server_start("127.0.0.1:0", world->service.methods, ECHO_METHODS, 2,
                                      &world->server, &world->port, &error),
                     TCA_OK);
    connect_client(world);
    *state = world;
    return 0;
}

static int stop_world(void **state)
{
    struct world *world = *state;

    rpc_server_stop(world->server, 0);
    assert_int_equal(atomic_load(&world->service.started), atomic_load(&world->service.closed));
    close(world->client);
    free(world);
    return 0;
}

/* One request, to which the server has 4 MiB and a status to say. */
static void call_flood(struct world *world)
{
    static const char headers[] = "\x83\x86"                 /* POST, http */
                                  "\x04\x10/test.Echo/Flood" /* path */
                                  "\x01\x04here"             /* authority */
                                  "\x0f\x10\x10"             /* content-type */
                                  "application/grpc\0\x02te\x08trailers";
    static const char message[] = "\0\0\0\0\x01x";
    const uint32_t stream = 2 * world->streams++ + 1;

    send_frame(world, FRAME_HEADERS, END_HEADERS, stream, headers, sizeof(headers) - 1);
    send_frame(world, FRAME_DATA, END_STREAM, stream, message, sizeof(message) - 1);
}

static void wait_for(atomic_int *count, int wanted)
{
    const int64_t until = clock_monotonic_ms() + DEADLINE_MS;

    while (atomic_load(count) < wanted && clock_monotonic_ms() < until)
        clock_sleep_ms(5);
    assert_int_equal(atomic_load(count), wanted);
}

static void what_nobody_reads_is_dropped_in_the_end(void **state)
{
    struct world *world = *state;

    rpc_server_limit_stalled(world->server, 50, SIZE_MAX);
    call_flood(world);
    call_flood(world);
    wait_for(&world->service.closed, 2);
}

static void the_oldest_make_room(void **state)
{
    struct world *world = *state;

    rpc_server_limit_stalled(world->server, 2 * DEADLINE_MS, 8 * MIB);
    for (int calls = 1; calls <= 5; calls++) {
        call_flood(world);
        wait_for(&world->service.started, calls);
        wait_for(&world->service.closed, calls < 2 ? 0 : calls - 2);
    }
}

static void others_are_answered_meanwhile(void **state)
{
    struct world *world = *state;
    struct rpc_channel *channel;
    struct rpc_stream *stream;
    struct bytes answer = {0};
    struct tca_error error;
    char address[32];
    char *data = calloc(1, 4 * MIB);

    rpc_server_limit_stalled(world->server, 2 * DEADLINE_MS, 8 * MIB);
    call_flood(world);
    call_flood(world);
    wait_for(&world->service.started, 2);
    snprintf(address, sizeof(address), "127.0.0.1:%d", world->port);
    assert_int_equal(rpc_channel_open(address, &channel, &error), TCA_OK);
    assert_int_equal(rpc_stream_open(channel, "/test.Echo/Unary", DEADLINE_MS, &stream, &error),
                     TCA_OK);
    rpc_stream_send(stream, data, 4 * MIB);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    assert_int_equal(answer.size, 4 * MIB);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    rpc_channel_close(channel);
    bytes_free(&answer);
    free(data);
}

static void a_call_without_a_request_is_ended(void **state)
{
    enum { LIMIT_MS = 2000 };
    struct world *world = *state;
    struct rpc_channel *channel;
    struct rpc_stream *stream;
    struct bytes answer = {0};
    struct tca_error error;
    char address[32];

    rpc_server_limit_stalled(world->server, LIMIT_MS, SIZE_MAX);
    snprintf(address, sizeof(address), "127.0.0.1:%d", world->port);
    assert_int_equal(rpc_channel_open(address, &channel, &error), TCA_OK);
    assert_int_equal(rpc_stream_open(channel, "/test.Echo/Chat", 0, &stream, &error), TCA_OK);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_ERR_NOT_FOUND);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_DEADLINE_EXCEEDED);
    rpc_stream_close(stream);

    /* One that has spoken may take its time. */
    assert_int_equal(rpc_stream_open(channel, "/test.Echo/Chat", 0, &stream, &error), TCA_OK);
    rpc_stream_send(stream, "one", 3);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    clock_sleep_ms(LIMIT_MS + 1500); /* what is stalled is looked at every second */
    rpc_stream_send(stream, "two", 3);
    assert_int_equal(rpc_stream_receive(stream, DEADLINE_MS, &answer), TCA_OK);
    rpc_stream_send_end(stream);
    assert_int_equal(rpc_stream_finish(stream, NULL, NULL), RPC_OK);
    rpc_stream_close(stream);
    rpc_channel_close(channel);
    bytes_free(&answer);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, start_world, stop_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_nobody_reads_is_dropped_in_the_end),
        TEST(the_oldest_make_room),
        TEST(others_are_answered_meanwhile),
        TEST(a_call_without_a_request_is_ended),
    };
    return cmocka_run_group_tests_name("rpc_stalled", tests, NULL, NULL);
}
