/* What every command shares: the connection, where output goes, how calls and failures end. */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include "base/bytes.h"
#include "base/error.h"
#include "client/progress.h"
#include "proto/rpc.h"
#include "tca.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client_options;
struct interrupt;
struct rpc_channel;
struct rpc_stream;

struct session {
    struct rpc_channel *channel;
    struct interrupt *interrupt;
    int64_t timeout_ms; /* of each call; 0: none */
    bool is_json;
    bool is_terminal; /* stdout */
    bool is_output_lost;
    struct progress progress; /* on stderr */
};

/* Connect. TCA_ERR_INVALID: a usage error. Close it also after a failure. */
enum tca_status session_open(struct session *session, const struct client_options *options,
                             struct tca_error *error);
void session_close(struct session *session);

/* Say "tca: NAME: message" on stderr; the exit code of a failed command. */
int session_fail(struct session *session, enum rpc_code code, const char *message);
int session_fail_here(struct session *session, const char *message); /* no server's doing */

/* Write to stdout and flush. False: nobody reads it any more; the command should end. */
bool session_print(struct session *session, const void *data, size_t bytes);
/* The same of a server's text, with control characters escaped on a terminal. */
bool session_print_text(struct session *session, const void *text, size_t bytes);
bool session_print_json(struct session *session, const ProtobufCMessage *message);
/* Of a local text built up in *bytes, which is freed; is_whole: the status of building it. */
int session_print_built(struct session *session, enum tca_status built, struct bytes *bytes);

/* A response as JSON or else as session_print_built; frees both. The exit code. */
int session_print_response(struct session *session, void *response, enum tca_status built,
                           struct bytes *text);

/* One call. Receive and finish belong to one thread; send may be another's. */
struct call {
    struct session *session;
    struct rpc_stream *stream;
    struct bytes received;
    enum tca_status failure; /* on this side: a message that is no message, no memory */
    struct tca_error failure_text;
};

/* False: reported; nothing to finish. */
bool call_open(struct call *call, struct session *session, const char *path);
/* TCA_ERR_CANCELLED: the call is over. */
enum tca_status call_send(struct call *call, const ProtobufCMessage *message);
enum tca_status call_send_end(struct call *call);
/* The next message, to be freed by message_free; NULL: no more, finish. */
void *call_receive(struct call *call, const ProtobufCMessageDescriptor *descriptor);
void call_cancel(struct call *call);
/* Wait for the call's end; *code_out and *error say how it ended. Reports nothing. */
void call_close(struct call *call, enum rpc_code *code_out, struct tca_error *error);
/* call_close, and report a failure; the exit code. */
int call_finish(struct call *call);

/* Open a call with its only request. */
bool call_request(struct call *call, struct session *session, const char *path,
                  const ProtobufCMessage *request);
/* A call with one response: *response_out is NULL unless EXIT_DONE is returned. */
int call_unary(struct session *session, const char *path, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *descriptor, void **response_out);

#endif
