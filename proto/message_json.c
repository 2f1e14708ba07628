#include "proto/message_json.h"

#include "base/utf8.h"
#include "proto/message.h"
#include "proto/message_field.h"

#include <google/protobuf/timestamp.pb-c.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NUMBER_BYTES = 64 };

static enum tca_status print_message(const ProtobufCMessage *message, struct bytes *out);

static enum tca_status append_format(struct bytes *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static enum tca_status append_format(struct bytes *out, const char *format, ...)
{
    char text[NUMBER_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return bytes_append_text(out, text);
}

/* One character, or one byte that is none. */
static enum tca_status print_character(const char *text, size_t length, struct bytes *out)
{
    const unsigned char c = (unsigned char)*text;

    if (length == 0)
        return bytes_append_text(out, "\xef\xbf\xbd");
    if (c == '"' || c == '\\')
        return append_format(out, "\\%c", c);
    if (c == '\n')
        return bytes_append_text(out, "\\n");
    if (c < 0x20 || c == 0x7f)
        return append_format(out, "\\u%04x", c);
    return bytes_append(out, text, length);
}

static enum tca_status print_text(const char *text, size_t bytes, struct bytes *out)
{
    size_t at = 0;

    TCA_TRY(bytes_append_text(out, "\""));
    while (at < bytes) {
        const size_t length = utf8_character_bytes(text + at, bytes - at);

        TCA_TRY(print_character(text + at, length, out));
        at += length == 0 ? 1 : length;
    }
    return bytes_append_text(out, "\"");
}

static enum tca_status print_base64(const uint8_t *data, size_t bytes, struct bytes *out)
{
    enum { PADDING = 64 };
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";

    TCA_TRY(bytes_append_text(out, "\""));
    for (size_t at = 0; at < bytes; at += 3) {
        const size_t left = bytes - at;
        const unsigned three = (unsigned)data[at] << 16 |
                               (left > 1 ? (unsigned)data[at + 1] << 8 : 0) |
                               (left > 2 ? (unsigned)data[at + 2] : 0);
        const char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
                              digits[left > 1 ? three >> 6 & 63 : PADDING],
                              digits[left > 2 ? three & 63 : PADDING]};

        TCA_TRY(bytes_append(out, four, sizeof(four)));
    }
    return bytes_append_text(out, "\"");
}

/* The fewest digits that read back as the same number; `is_float`: as the same float. */
static enum tca_status print_number(double value, bool is_float, struct bytes *out)
{
    char text[NUMBER_BYTES];
    int digits = is_float ? 6 : 15;

    if (isnan(value))
        return bytes_append_text(out, "\"NaN\"");
    if (isinf(value))
        return bytes_append_text(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    if (fpclassify(value) == FP_ZERO && signbit(value) != 0)
        return bytes_append_text(out, "-0.0"); /* readers take -0 for an integer */
    for (;; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        const double back = is_float ? (double)strtof(text, NULL) : strtod(text, NULL);
        if (back == value || digits == (is_float ? 9 : 17))
            break;
    }
    for (char *c = text; *c != '\0'; c++)
        if (*c == ',') /* the program's locale */
            *c = '.';
    return bytes_append_text(out, text);
}

static enum tca_status print_timestamp(const Google__Protobuf__Timestamp *time, struct bytes *out)
{
    const int64_t year_1 = INT64_C(-62135596800), year_9999_end = INT64_C(253402300799);
    const time_t seconds = (time_t)time->seconds;
    char text[NUMBER_BYTES];
    struct tm utc;

    if (time->seconds < year_1 || time->seconds > year_9999_end || time->nanos < 0 ||
        time->nanos > 999999999 || gmtime_r(&seconds, &utc) == NULL)
        return TCA_ERR_RANGE;
    snprintf(text, sizeof(text), "\"%04d-%02d-%02dT%02d:%02d:%02d", utc.tm_year + 1900,
             utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
    TCA_TRY(bytes_append_text(out, text));
    if (time->nanos % 1000 != 0)
        TCA_TRY(append_format(out, ".%09" PRId32, time->nanos));
    else if (time->nanos % 1000000 != 0)
        TCA_TRY(append_format(out, ".%06" PRId32, time->nanos / 1000));
    else if (time->nanos != 0)
        TCA_TRY(append_format(out, ".%03" PRId32, time->nanos / 1000000));
    return bytes_append_text(out, "Z\"");
}

static enum tca_status print_enum(const ProtobufCEnumDescriptor *type, int value, struct bytes *out)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);

    if (known == NULL)
        return append_format(out, "%d", value);
    return print_text(known->name, strlen(known->name), out);
}

static enum tca_status print_bytes(const ProtobufCBinaryData *data, bool is_text, struct bytes *out)
{
    if (is_text)
        return print_text((const char *)data->data, data->len, out);
    return print_base64(data->data, data->len, out);
}

static enum tca_status print_value(const ProtobufCMessageDescriptor *type,
                                   const ProtobufCFieldDescriptor *field, const void *value,
                                   struct bytes *out)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return append_format(out, "%" PRId32, *(const int32_t *)value);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return append_format(out, "%" PRIu32, *(const uint32_t *)value);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return append_format(out, "\"%" PRId64 "\"", *(const int64_t *)value);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return append_format(out, "\"%" PRIu64 "\"", *(const uint64_t *)value);
    case PROTOBUF_C_TYPE_FLOAT:
        return print_number((double)*(const float *)value, true, out);
    case PROTOBUF_C_TYPE_DOUBLE:
        return print_number(*(const double *)value, false, out);
    case PROTOBUF_C_TYPE_BOOL:
        return bytes_append_text(out, *(const protobuf_c_boolean *)value ? "true" : "false");
    case PROTOBUF_C_TYPE_ENUM:
        return print_enum(field->descriptor, *(const int *)value, out);
    case PROTOBUF_C_TYPE_STRING:
        return print_text(*(const char *const *)value, strlen(*(const char *const *)value), out);
    case PROTOBUF_C_TYPE_BYTES:
        return print_bytes(value, message_field_is_text(type, field), out);
    case PROTOBUF_C_TYPE_MESSAGE:
        return print_message(*(const ProtobufCMessage *const *)value, out);
    }
    return TCA_ERR_UNSUPPORTED;
}

/* Left out: what has the value it would have if it were not there. */
static bool is_default(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    static const char zeros[sizeof(uint64_t)];
    const void *value = message_field_value(message, field, 0);

    if (message_field_count(message, field) == 0)
        return true;
    if (field->label == PROTOBUF_C_LABEL_REPEATED ||
        (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
        return false;
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return false;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)value)->len == 0;
    case PROTOBUF_C_TYPE_STRING:
        return **(const char *const *)value == '\0';
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL:
        return memcmp(value, zeros, sizeof(uint32_t)) == 0;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return memcmp(value, zeros, sizeof(uint64_t)) == 0;
    }
    return false;
}

static enum tca_status print_field(const ProtobufCMessage *message,
                                   const ProtobufCFieldDescriptor *field, struct bytes *out)
{
    const bool is_repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    const size_t count = message_field_count(message, field);

    TCA_TRY(print_text(field->name, strlen(field->name), out));
    TCA_TRY(bytes_append_text(out, is_repeated ? ":[" : ":"));
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            TCA_TRY(bytes_append_text(out, ","));
        TCA_TRY(
            print_value(message->descriptor, field, message_field_value(message, field, i), out));
    }
    return is_repeated ? bytes_append_text(out, "]") : TCA_OK;
}

static enum tca_status print_message(const ProtobufCMessage *message, struct bytes *out)
{
    bool is_first = true;

    if (message->descriptor == &google__protobuf__timestamp__descriptor)
        return print_timestamp((const void *)message, out);
    TCA_TRY(bytes_append_text(out, "{"));
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

        if (is_default(message, field))
            continue;
        if (!is_first)
            TCA_TRY(bytes_append_text(out, ","));
        is_first = false;
        TCA_TRY(print_field(message, field, out));
    }
    return bytes_append_text(out, "}");
}

enum tca_status message_print_json(const void *message, struct bytes *out)
{
    return print_message(message, out);
}
