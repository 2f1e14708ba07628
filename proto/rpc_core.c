#include "proto/rpc_core.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/rpc.h"

#include <grpc/compression.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include <stdatomic.h>
#include <string.h>

enum {
    KEEPALIVE_MS = 60 * 1000,
    KEEPALIVE_TIMEOUT_MS = 20 * 1000,
    /* Clients may ping every 10 s; pings that bunch up on the way must not count as strikes. */
    PING_INTERVAL_MIN_MS = 5 * 1000,
    PING_STRIKES = 2,
    IDLE_MS = 15 * 60 * 1000,
    HANDSHAKE_MS = 20 * 1000,
    STREAMS_PER_CONNECTION = 1024,
    WINDOW_BYTES = 2 << 20, /* under way on a stream: 2 pieces of an upload */
    /* Of all connections of a server together: messages that are not complete, headers, buffers.
     * When it is spent, C-core ends calls RESOURCE_EXHAUSTED. */
    MEMORY_BYTES = 256 * 1024 * 1024,
    RECONNECT_FIRST_MS = 200,
    RECONNECT_MAX_MS = 5 * 1000,
};

#define SETTING(name, number)                                                                      \
    {                                                                                              \
        .type = GRPC_ARG_INTEGER, .key = (name), .value.integer = (number)                         \
    }

/* Compressed messages are refused: their size after unpacking is bounded by nothing. */
#define NO_COMPRESSION                                                                             \
    SETTING(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE)

/* The server's streams have a window of one size. A window that C-core adapts to bandwidth and
 * memory may shrink below what a client has sent; the client may still end its stream, with an
 * empty frame, but C-core 1.51 finds that these 0 bytes overflow the negative window and resets the
 * call: INTERNAL, instead of our status. */
static grpc_arg server_settings[] = {
    SETTING(GRPC_ARG_ALLOW_REUSEPORT, 0), /* a port in use is an error */
    SETTING(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX),
    SETTING(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION),
    SETTING(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
    SETTING(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
    SETTING(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    SETTING(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MIN_MS),
    SETTING(GRPC_ARG_HTTP2_MAX_PING_STRIKES, PING_STRIKES),
    SETTING(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    SETTING(GRPC_ARG_MAX_CONNECTION_IDLE_MS, IDLE_MS),
    SETTING(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
    SETTING(GRPC_ARG_HTTP2_BDP_PROBE, 0), /* no windows that adapt, see above */
    SETTING(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, WINDOW_BYTES),
    NO_COMPRESSION,
};

static grpc_arg channel_settings[] = {
    SETTING(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX),
    SETTING(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
    SETTING(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
    SETTING(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
    SETTING(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
    SETTING(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS),
    SETTING(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
            HANDSHAKE_MS), /* also how long connecting may take */
    SETTING(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS),
    SETTING(GRPC_ARG_ENABLE_RETRIES, 0),            /* retrying is the caller's decision */
    SETTING(GRPC_ARG_ENABLE_HTTP_PROXY, 0),         /* the server is near */
    SETTING(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1), /* a new channel is a new connection */
    NO_COMPRESSION,
};

static atomic_bool is_deaf;

/* C-core calls failures of peers errors; the caller that sees the status reports them. One that
 * nobody else sees: C-core 1.51 gives up a listener when accept4 fails, most likely for want of a
 * descriptor, and says so only here. */
static void log_line(gpr_log_func_args *args)
{
    if (strstr(args->message, "Failed accept4") == NULL) {
        log_debug("grpc: %s", args->message);
        return;
    }
    log_error("a listener takes no more connections: %s", args->message);
    atomic_store(&is_deaf, true);
}

bool rpc_core_is_deaf(void)
{
    return atomic_load(&is_deaf);
}

void rpc_core_start(void)
{
    gpr_set_log_function(log_line);
    grpc_init();
}

void rpc_core_stop(void)
{
    grpc_shutdown();
}

grpc_server *rpc_core_server_create(void)
{
    enum { COUNT = sizeof(server_settings) / sizeof(server_settings[0]) };
    grpc_resource_quota *quota = grpc_resource_quota_create("server");
    const grpc_arg memory = {.type = GRPC_ARG_POINTER,
                             .key = GRPC_ARG_RESOURCE_QUOTA,
                             .value.pointer = {quota, grpc_resource_quota_arg_vtable()}};
    grpc_arg settings[COUNT + 1];
    const grpc_channel_args args = {.num_args = COUNT + 1, .args = settings};
    grpc_server *server;

    grpc_resource_quota_resize(quota, MEMORY_BYTES);
    memcpy(settings, server_settings, sizeof(server_settings));
    settings[COUNT] = memory;
    server = grpc_server_create(&args, NULL);
    grpc_resource_quota_unref(quota);
    return server;
}

int rpc_core_server_listen(grpc_server *server, const char *address)
{
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    const int port = grpc_server_add_http2_port(server, address, credentials);

    grpc_server_credentials_release(credentials);
    return port;
}

grpc_channel *rpc_core_channel_create(const char *address)
{
    const grpc_channel_args args = {.num_args =
                                        sizeof(channel_settings) / sizeof(channel_settings[0]),
                                    .args = channel_settings};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, credentials, &args);

    grpc_channel_credentials_release(credentials);
    return channel;
}

gpr_timespec rpc_core_deadline(int64_t timeout_ms)
{
    if (timeout_ms < 0)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

int64_t rpc_core_monotonic_ms(gpr_timespec deadline)
{
    gpr_timespec left;

    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
        return INT64_MAX;
    left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    return clock_monotonic_ms() + left.tv_sec * 1000 + left.tv_nsec / 1000000;
}
