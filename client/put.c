/* `tca put`: one thread sends the file's bytes while the main one reads the server's events. */
#include "base/clock.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "client/commands.h"
#include "client/document_view.h"
#include "client/input.h"
#include "client/session.h"
#include "proto/message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHUNK_BYTES = 1024 * 1024, /* the most that the server takes in a message */
    FILL_WAIT_MS = 200,        /* a slow pipe's bytes are not kept longer to fill a chunk */
};

struct upload {
    struct session *session;
    const char *path; /* for messages */
    int file;
    uint64_t total_bytes; /* 0: unknown */
    uint8_t sha256[SHA256_BYTES];
    size_t sha256_bytes; /* 0: unknown */
    uint64_t offset;     /* of the next byte to send */
    struct call call;
    int wake[2];    /* a pipe; readable when the call is over and reading should end */
    int read_error; /* errno of a failed read; the sender's until it is joined */
};

/* Wait until the file can be read. False: the call is over, or nothing came within timeout_ms. */
static bool wait_readable(const struct upload *upload, int timeout_ms)
{
    struct pollfd files[2] = {{.fd = upload->file, .events = POLLIN},
                              {.fd = upload->wake[0], .events = POLLIN}};
    int ready;

    do
        ready = poll(files, 2, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready > 0 && files[1].revents == 0;
}

/* Read into data[CHUNK_BYTES] what can be had without a long wait, at least a byte unless the file
 * ends. -1: the call is over, or reading failed. */
static ssize_t fill(struct upload *upload, uint8_t *data)
{
    size_t filled = 0;

    while (filled < CHUNK_BYTES) {
        ssize_t got;

        if (!wait_readable(upload, filled == 0 ? -1 : FILL_WAIT_MS))
            return filled == 0 ? -1 : (ssize_t)filled;
        got = read(upload->file, data + filled, CHUNK_BYTES - filled);
        if (got == 0)
            break;
        if (got > 0) {
            filled += (size_t)got;
        } else if (errno != EINTR) {
            upload->read_error = errno;
            return -1;
        }
    }
    return (ssize_t)filled;
}

static enum tca_status send_chunk(struct upload *upload, const uint8_t *data, size_t bytes,
                                  bool is_last)
{
    Tca__V1__UploadRequest request = TCA__V1__UPLOAD_REQUEST__INIT;
    Tca__V1__UploadChunk chunk = TCA__V1__UPLOAD_CHUNK__INIT;

    chunk.offset = upload->offset;
    chunk.data = message_text_bytes(data, bytes);
    chunk.last = is_last;
    request.body_case = TCA__V1__UPLOAD_REQUEST__BODY_CHUNK;
    request.chunk = &chunk;
    upload->offset += bytes;
    return call_send(&upload->call, &request.base);
}

/* A chunk is sent when the next one is there, or the file's end: the last one must say so. */
static enum tca_status send_chunks(struct upload *upload, uint8_t *buffers)
{
    uint8_t *data = buffers, *next = buffers + CHUNK_BYTES;
    ssize_t bytes = fill(upload, data);

    while (bytes >= 0) {
        ssize_t next_bytes = bytes > 0 ? fill(upload, next) : 0;
        uint8_t *sent = data;

        if (next_bytes < 0)
            break;
        TCA_TRY(send_chunk(upload, data, (size_t)bytes, next_bytes == 0));
        if (next_bytes == 0)
            return call_send_end(&upload->call);
        data = next;
        next = sent;
        bytes = next_bytes;
    }
    return TCA_ERR_CANCELLED;
}

/* The sending thread. */
static void *send_file(void *argument)
{
    struct upload *upload = argument;
    uint8_t *buffers = malloc((size_t)2 * CHUNK_BYTES);

    if (buffers == NULL)
        upload->read_error = ENOMEM;
    else
        send_chunks(upload, buffers); /* how the call ends says why it failed */
    if (upload->read_error != 0)
        call_cancel(&upload->call);
    free(buffers);
    return NULL;
}

static int fail_on_file(const struct upload *upload, int error_number)
{
    char message[512];

    snprintf(message, sizeof(message), "%.400s: %s", upload->path, strerror(error_number));
    return session_fail_here(upload->session, message);
}

/* The digest of a whole regular file, which the server compares; the file is rewound. */
static enum tca_status digest_file(struct upload *upload)
{
    uint8_t data[64 * 1024];
    char hex[SHA256_HEX_BYTES] = "";
    struct sha256 *sha;
    ssize_t got;
    enum tca_status status = sha256_create(&sha);

    if (status != TCA_OK)
        return status;
    while ((got = read(upload->file, data, sizeof(data))) > 0 && status == TCA_OK)
        status = sha256_update(sha, data, (size_t)got);
    if (got < 0 || lseek(upload->file, 0, SEEK_SET) != 0) {
        upload->read_error = errno;
        status = TCA_ERR_IO;
    }
    if (status == TCA_OK)
        status = sha256_hex(sha, hex);
    sha256_destroy(sha);
    for (size_t i = 0; status == TCA_OK && i < SHA256_BYTES; i++)
        sscanf(hex + 2 * i, "%2hhx", &upload->sha256[i]);
    upload->sha256_bytes = status == TCA_OK ? SHA256_BYTES : 0;
    return status;
}

/* Open the file and learn what can be known before its bytes are sent. The exit code. */
static int open_file(struct upload *upload)
{
    struct stat facts;

    if (strcmp(upload->path, "-") == 0) {
        upload->file = STDIN_FILENO;
        return EXIT_DONE;
    }
    upload->file = open(upload->path, O_RDONLY | O_CLOEXEC);
    if (upload->file < 0 || fstat(upload->file, &facts) != 0)
        return fail_on_file(upload, errno);
    if (S_ISDIR(facts.st_mode)) /* a call that is begun and cancelled holds the id for a moment */
        return fail_on_file(upload, EISDIR);
    if (!S_ISREG(facts.st_mode))
        return EXIT_DONE;
    upload->total_bytes = (uint64_t)facts.st_size;
    if (digest_file(upload) != TCA_OK)
        return fail_on_file(upload, upload->read_error != 0 ? upload->read_error : ENOMEM);
    return EXIT_DONE;
}

/* A digest shows that what the server has is the file's beginning; of a pipe there is none. */
static int fail_on_pipe(const struct upload *upload, const char *id)
{
    char message[512];

    snprintf(message, sizeof(message),
             "document %.128s: %llu bytes are there of an interrupted upload, and a pipe cannot be "
             "compared with them: put a file, or tca rm %.128s first",
             id, (unsigned long long)upload->offset, id);
    return session_fail_here(upload->session, message);
}

/* Where the server wants an interrupted upload of this id to go on; 0 if there is none. */
static int find_offset(struct upload *upload, const char *id)
{
    Tca__V1__GetDocumentRequest request = TCA__V1__GET_DOCUMENT_REQUEST__INIT;
    void *message;
    struct tca_error error = {0};
    enum rpc_code code;
    struct call call;

    request.document_id = message_text(id);
    if (!call_request(&call, upload->session, "/tca.v1.Documents/Get", &request.base))
        return EXIT_REFUSED;
    message = call_receive(&call, &tca__v1__document__descriptor);
    call_close(&call, &code, &error);
    if (message != NULL) {
        const Tca__V1__Document *document = message;

        if (document->state == TCA__V1__DOCUMENT__STATE__UPLOADING)
            upload->offset = document->byte_count;
        message_free(message);
    }
    if (code != RPC_OK && code != RPC_NOT_FOUND)
        return session_fail(upload->session, code, error.text);
    if (upload->offset > 0 && upload->sha256_bytes == 0)
        return fail_on_pipe(upload, id);
    if (upload->offset > 0 && lseek(upload->file, (off_t)upload->offset, SEEK_SET) < 0)
        return fail_on_file(upload, errno);
    return EXIT_DONE;
}

static enum tca_status send_header(struct upload *upload, const struct client_options *options)
{
    Tca__V1__UploadRequest request = TCA__V1__UPLOAD_REQUEST__INIT;
    Tca__V1__UploadHeader header = TCA__V1__UPLOAD_HEADER__INIT;
    Tca__V1__PrefillOptions prefill = TCA__V1__PREFILL_OPTIONS__INIT;
    const char *slash = strrchr(upload->path, '/'), *name;

    header.document_id = input_option(options->id);
    name = slash != NULL ? slash + 1 : upload->path;
    if (upload->file != STDIN_FILENO && utf8_is_valid(name, strlen(name)))
        header.display_name = message_text(name);
    header.total_bytes = upload->total_bytes;
    header.sha256 = (ProtobufCBinaryData){.len = upload->sha256_bytes, .data = upload->sha256};
    header.resume_offset = upload->offset;
    if (options->token_ids)
        header.encoding = TCA__V1__UPLOAD_HEADER__ENCODING__TOKEN_IDS_U32LE;
    header.raw = options->raw;
    header.system = input_option(options->system);
    header.pinned = options->pin;
    prefill.rule = input_option(options->rule);
    prefill.keep = options->keep;
    header.prefill = &prefill;
    request.body_case = TCA__V1__UPLOAD_REQUEST__BODY_HEADER;
    request.header = &header;
    return call_send(&upload->call, &request.base);
}

static void receive_events(struct upload *upload, struct document_view *view)
{
    void *message;
    bool is_heard = true;

    while ((message = call_receive(&upload->call, &tca__v1__document_event__descriptor)) != NULL) {
        if (is_heard)
            is_heard = document_view_show(view, upload->session, message);
        if (!is_heard)
            call_cancel(&upload->call);
        message_free(message);
    }
}

/* Send and receive until the call is over; the exit code. */
static int transfer(struct upload *upload, const struct client_options *options,
                    struct document_view *view)
{
    pthread_t sender;
    bool is_sending;

    if (!call_open(&upload->call, upload->session, "/tca.v1.Documents/Upload"))
        return EXIT_REFUSED;
    is_sending = send_header(upload, options) == TCA_OK;
    if (is_sending && pthread_create(&sender, NULL, send_file, upload) != 0) {
        is_sending = false;
        upload->call.failure = TCA_ERR_NO_MEMORY;
        call_cancel(&upload->call);
    }
    receive_events(upload, view);
    if (is_sending) {
        close(upload->wake[1]); /* its reader hangs up: the sender stops waiting for the file */
        upload->wake[1] = -1;
        pthread_join(sender, NULL);
    }
    if (upload->read_error != 0) {
        struct tca_error ignored;
        enum rpc_code code;

        call_close(&upload->call, &code, &ignored);
        return fail_on_file(upload, upload->read_error);
    }
    return call_finish(&upload->call);
}

static void say_how_to_go_on(const struct upload *upload, const struct document_view *view)
{
    if (view->id.size == 0 || upload->file == STDIN_FILENO)
        return;
    if (view->is_received)
        fprintf(stderr, "tca: the server goes on: tca watch %.*s\n", (int)view->id.size,
                (const char *)view->id.data);
    else
        fprintf(stderr, "tca: to go on with the upload: tca put --id %.*s, with the same options\n",
                (int)view->id.size, (const char *)view->id.data);
}

COMMAND_FUNCTION(put)
{
    struct upload upload = {.session = session, .path = arguments[0], .file = -1, .wake = {-1, -1}};
    struct document_view view = {.start_ms = clock_monotonic_ms()};
    int code = open_file(&upload);

    if (code == EXIT_DONE && pipe2(upload.wake, O_CLOEXEC) != 0)
        code = fail_on_file(&upload, errno);
    if (code == EXIT_DONE && options->id != NULL)
        code = find_offset(&upload, options->id);
    if (code == EXIT_DONE) {
        view.resumed_bytes = upload.offset;
        view.total_bytes = upload.total_bytes;
        code = transfer(&upload, options, &view);
        if (code == EXIT_DONE)
            document_view_finish(&view, session);
        else if (code == EXIT_INTERRUPTED)
            say_how_to_go_on(&upload, &view);
    }
    for (int i = 0; i < 2; i++)
        if (upload.wake[i] >= 0)
            close(upload.wake[i]);
    if (upload.file > STDIN_FILENO)
        close(upload.file);
    document_view_free(&view);
    return code;
}
