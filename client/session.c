#include "client/session.h"

#include "base/settings.h"
#include "client/command.h"
#include "client/format.h"
#include "client/interrupt.h"
#include "proto/message.h"
#include "proto/message_json.h"
#include "proto/rpc_client.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum tca_status session_open(struct session *session, const struct client_options *options,
                             struct tca_error *error)
{
    /* In milliseconds it must fit the clock's 64 bits with room to spare. */
    if (!(options->timeout_s >= 0 && options->timeout_s <= 1e12))
        return tca_fail(error, TCA_ERR_INVALID, "--timeout: value %g, allowed: 0 to 1e12",
                        options->timeout_s);
    TCA_TRY(rpc_check_address("--server", options->server, error));
    session->timeout_ms = (int64_t)(options->timeout_s * 1000 + 0.5);
    if (session->timeout_ms == 0 && options->timeout_s > 0)
        session->timeout_ms = 1;
    session->is_json = options->json;
    session->is_terminal = isatty(STDOUT_FILENO) != 0;
    session->progress.out = stderr;
    session->progress.is_terminal = isatty(STDERR_FILENO) != 0;
    TCA_TRY(interrupt_start(&session->interrupt));
    return rpc_channel_open(options->server, &session->channel, error);
}

void session_close(struct session *session)
{
    progress_clear(&session->progress);
    rpc_channel_close(session->channel);
    interrupt_stop(session->interrupt);
}

static int fail(struct session *session, const char *name, const char *message)
{
    struct bytes line = {0};

    progress_clear(&session->progress);
    if (interrupt_seen(session->interrupt)) {
        fprintf(stderr, "tca: interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (format_escaped(&line, message, strlen(message), FORMAT_ESCAPE_BREAKS) == TCA_OK)
        fprintf(stderr, "tca: %s%s%.*s\n", name, name[0] != '\0' ? ": " : "", (int)line.size,
                (const char *)line.data);
    bytes_free(&line);
    return EXIT_REFUSED;
}

int session_fail(struct session *session, enum rpc_code code, const char *message)
{
    return fail(session, rpc_code_name(code), message);
}

int session_fail_here(struct session *session, const char *message)
{
    return fail(session, "", message);
}

bool session_print(struct session *session, const void *data, size_t bytes)
{
    if (session->is_output_lost)
        return false;
    if (bytes == 0 || (fwrite(data, 1, bytes, stdout) == bytes && fflush(stdout) == 0))
        return true;
    session->is_output_lost = true;
    if (errno != EPIPE) /* a reader that has seen enough is no failure to talk about */
        fprintf(stderr, "tca: stdout: %s\n", strerror(errno));
    return false;
}

bool session_print_text(struct session *session, const void *text, size_t bytes)
{
    struct bytes escaped = {0};
    bool is_printed;

    if (!session->is_terminal)
        return session_print(session, text, bytes);
    is_printed = format_escaped(&escaped, text, bytes, FORMAT_KEEP_BREAKS) == TCA_OK &&
                 session_print(session, escaped.data, escaped.size);
    bytes_free(&escaped);
    return is_printed;
}

bool session_print_json(struct session *session, const ProtobufCMessage *message)
{
    struct bytes line = {0};
    bool is_printed = message_print_json(message, &line) == TCA_OK &&
                      bytes_append_text(&line, "\n") == TCA_OK &&
                      session_print(session, line.data, line.size);

    bytes_free(&line);
    return is_printed;
}

int session_print_built(struct session *session, enum tca_status built, struct bytes *bytes)
{
    int code = EXIT_REFUSED;

    if (built != TCA_OK)
        session_fail_here(session, tca_status_text(built));
    else if (session_print_text(session, bytes->data, bytes->size))
        code = EXIT_DONE;
    bytes_free(bytes);
    return code;
}

int session_print_response(struct session *session, void *response, enum tca_status built,
                           struct bytes *text)
{
    int code;

    if (session->is_json) {
        bytes_free(text);
        code = session_print_json(session, response) ? EXIT_DONE : EXIT_REFUSED;
    } else {
        code = session_print_built(session, built, text);
    }
    message_free(response);
    return code;
}

bool call_open(struct call *call, struct session *session, const char *path)
{
    struct tca_error error = {0};
    enum tca_status status;

    *call = (struct call){.session = session};
    status = rpc_stream_open(session->channel, path, session->timeout_ms, &call->stream, &error);
    if (status != TCA_OK) {
        session_fail(session, rpc_code_from_status(status), error.text);
        return false;
    }
    interrupt_watch(session->interrupt, call->stream);
    return true;
}

enum tca_status call_send(struct call *call, const ProtobufCMessage *message)
{
    struct bytes packed = {0};
    enum tca_status status = message_pack(message, &packed);

    if (status == TCA_OK)
        status = rpc_stream_send(call->stream, packed.data, packed.size);
    bytes_free(&packed);
    return status;
}

enum tca_status call_send_end(struct call *call)
{
    return rpc_stream_send_end(call->stream);
}

void *call_receive(struct call *call, const ProtobufCMessageDescriptor *descriptor)
{
    enum tca_status status = rpc_stream_receive(call->stream, -1, &call->received);
    void *message = NULL;

    if (status == TCA_OK)
        status = message_unpack(descriptor, call->received.data, call->received.size, &message,
                                &call->failure_text);
    if (status != TCA_OK && status != TCA_ERR_NOT_FOUND) {
        call->failure = status;
        rpc_stream_cancel(call->stream);
    }
    return message;
}

void call_cancel(struct call *call)
{
    rpc_stream_cancel(call->stream);
}

void call_close(struct call *call, enum rpc_code *code_out, struct tca_error *error)
{
    *code_out = rpc_stream_finish(call->stream, error, NULL);
    if (call->failure != TCA_OK) {
        *code_out = rpc_code_from_status(call->failure);
        tca_fail(error, call->failure, "on this side: %s%s%s", tca_status_text(call->failure),
                 call->failure_text.text[0] != '\0' ? ": " : "", call->failure_text.text);
    }
    interrupt_watch(call->session->interrupt, NULL);
    rpc_stream_close(call->stream);
    bytes_free(&call->received);
}

int call_finish(struct call *call)
{
    struct session *session = call->session;
    struct tca_error error = {0};
    enum rpc_code code;

    call_close(call, &code, &error);
    if (session->is_output_lost)
        return EXIT_REFUSED; /* the cancelled call is our own doing, and said */
    return code == RPC_OK ? EXIT_DONE : session_fail(session, code, error.text);
}

bool call_request(struct call *call, struct session *session, const char *path,
                  const ProtobufCMessage *request)
{
    enum tca_status status;

    if (!call_open(call, session, path))
        return false;
    status = call_send(call, request);
    if (status == TCA_OK)
        status = call_send_end(call);
    /* A call that is over already says why at its end. */
    if (status != TCA_OK && status != TCA_ERR_CANCELLED) {
        call->failure = status;
        call_cancel(call);
    }
    return true;
}

int call_unary(struct session *session, const char *path, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *descriptor, void **response_out)
{
    struct call call;
    int code;

    *response_out = NULL;
    if (!call_request(&call, session, path, request))
        return EXIT_REFUSED;
    *response_out = call_receive(&call, descriptor);
    code = call_finish(&call);
    if (code == EXIT_DONE && *response_out == NULL)
        code = session_fail(session, RPC_INTERNAL, "the server sent no response");
    if (code != EXIT_DONE && *response_out != NULL) {
        message_free(*response_out);
        *response_out = NULL;
    }
    return code;
}
