#include "client/input.h"

#include "proto/rpc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum tca_status input_text(const char *argument, struct bytes *text, struct tca_error *error)
{
    char data[64 * 1024];
    ssize_t got;

    if (strcmp(argument, "-") != 0)
        return bytes_append_text(text, argument);
    while ((got = read(STDIN_FILENO, data, sizeof(data))) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return tca_fail(error, TCA_ERR_IO, "stdin: %s", strerror(errno));
        if (text->size + (size_t)got > RPC_MESSAGE_BYTES_MAX)
            return tca_fail(error, TCA_ERR_RANGE, "stdin: more than %d bytes, what a message holds",
                            RPC_MESSAGE_BYTES_MAX);
        TCA_TRY(bytes_append(text, data, (size_t)got));
    }
    return TCA_OK;
}

ProtobufCBinaryData input_option(const char *text)
{
    return message_text(text != NULL ? text : "");
}

enum tca_status input_int32(const char *option, int64_t value, int32_t *value_out,
                            struct tca_error *error)
{
    if (value < INT32_MIN || value > INT32_MAX)
        return tca_fail(error, TCA_ERR_INVALID,
                        "--%s: value %" PRId64 ", allowed: %" PRId32 " to %" PRId32, option, value,
                        INT32_MIN, INT32_MAX);
    *value_out = (int32_t)value;
    return TCA_OK;
}

enum tca_status input_uint64(const char *option, const char *text, uint64_t *value_out,
                             struct tca_error *error)
{
    char *end;

    errno = 0;
    *value_out = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0)
        return tca_fail(error, TCA_ERR_INVALID, "--%s: value \"%.80s\", allowed: 0 to %" PRIu64,
                        option, text, UINT64_MAX);
    return TCA_OK;
}
