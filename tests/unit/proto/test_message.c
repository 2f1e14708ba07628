#include "tests/support/check.h"

#include "proto/message.h"
#include "tca.pb-c.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pack `message`, unpack it again as the same type. */
static enum tca_status round_trip(const ProtobufCMessage *message, void **message_out,
                                  struct tca_error *error)
{
    struct bytes wire = {0};
    enum tca_status status;

    assert_int_equal(message_pack(message, &wire), TCA_OK);
    status = message_unpack(message->descriptor, wire.data, wire.size, message_out, error);
    bytes_free(&wire);
    return status;
}

static void texts_keep_their_nul_bytes(void **state)
{
    Tca__V1__AskRequest request = TCA__V1__ASK_REQUEST__INIT;
    ProtobufCBinaryData stops[2] = {message_text_bytes("a\0b", 3), message_text("\xe2\x82\xac")};
    Tca__V1__AskRequest *copy;
    struct tca_error error;
    void *message;

    (void)state;
    request.source_case = TCA__V1__ASK_REQUEST__SOURCE_PROMPT;
    request.prompt = message_text_bytes("\0x", 2);
    request.n_stop = 2;
    request.stop = stops;
    assert_int_equal(round_trip(&request.base, &message, &error), TCA_OK);
    copy = message;
    assert_int_equal(copy->source_case, TCA__V1__ASK_REQUEST__SOURCE_PROMPT);
    assert_int_equal(copy->prompt.len, 2);
    assert_memory_equal(copy->prompt.data, "\0x", 2);
    assert_int_equal(copy->stop[0].len, 3);
    assert_memory_equal(copy->stop[0].data, "a\0b", 3);
    assert_int_equal(copy->stop[1].len, 3);
    assert_memory_equal(copy->stop[1].data, "\xe2\x82\xac", 3);
    assert_int_equal(copy->question.len, 0);
    message_free(message);
}

static void invalid_texts_are_named(void **state)
{
    Tca__V1__AskRequest request = TCA__V1__ASK_REQUEST__INIT;
    Tca__V1__Turn turns[2] = {TCA__V1__TURN__INIT, TCA__V1__TURN__INIT};
    Tca__V1__Turn *history[2] = {&turns[0], &turns[1]};
    struct tca_error error;
    void *message = NULL;

    (void)state;
    request.n_history = 2;
    request.history = history;
    turns[1].text = message_text("ab\xff");
    assert_int_equal(round_trip(&request.base, &message, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "history[1].text: not valid UTF-8 at byte 2 of 3");
    turns[1].text = message_text("");
    request.source_case = TCA__V1__ASK_REQUEST__SOURCE_DOCUMENT_ID;
    request.document_id = message_text("\xed\xa0\x80"); /* a surrogate */
    assert_int_equal(round_trip(&request.base, &message, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "document_id: not valid UTF-8 at byte 0 of 3");
    assert_null(message);
}

static void real_bytes_may_hold_anything(void **state)
{
    Tca__V1__UploadRequest request = TCA__V1__UPLOAD_REQUEST__INIT;
    Tca__V1__UploadChunk chunk = TCA__V1__UPLOAD_CHUNK__INIT;
    struct tca_error error;
    void *message;

    (void)state;
    chunk.data = message_text("\xff\xfe");
    request.body_case = TCA__V1__UPLOAD_REQUEST__BODY_CHUNK;
    request.chunk = &chunk;
    assert_int_equal(round_trip(&request.base, &message, &error), TCA_OK);
    message_free(message);
}

static void messages_that_expand_too_far_are_refused(void **state)
{
    const size_t bytes = 4 * 1024 * 1024;
    uint8_t *wire = malloc(bytes);
    struct tca_error error;
    void *message = NULL;

    (void)state;
    for (size_t i = 0; i < bytes; i += 2) {
        wire[i] = 11 << 3 | 2; /* stop: "", 16 bytes in memory for 2 on the wire */
        wire[i + 1] = 0;
    }
    assert_int_equal(
        message_unpack(&tca__v1__ask_request__descriptor, wire, bytes, &message, &error),
        TCA_ERR_NO_MEMORY);
    assert_non_null(strstr(error.text, "expands too far: 4194304 bytes of tca.v1.AskRequest, "
                                       "allowed: up to 16842752 in memory"));
    for (size_t i = 0; i < bytes; i += 2)
        wire[i] = 4 << 3 | 2; /* history: {} */
    assert_int_equal(
        message_unpack(&tca__v1__ask_request__descriptor, wire, bytes, &message, &error),
        TCA_ERR_NO_MEMORY);
    assert_null(message);
    /* The same in a size that a person may send. */
    assert_int_equal(message_unpack(&tca__v1__ask_request__descriptor, wire, 200, &message, &error),
                     TCA_OK);
    assert_int_equal(((Tca__V1__AskRequest *)message)->n_history, 100);
    message_free(message);
    free(wire);
}

static void a_full_message_of_token_ids_fits(void **state)
{
    Tca__V1__DetokenizeRequest request = TCA__V1__DETOKENIZE_REQUEST__INIT;
    const size_t count = 1000000;
    struct tca_error error;
    void *message;

    (void)state;
    request.n_token_ids = count;
    request.token_ids = calloc(count, sizeof(int32_t));
    assert_int_equal(round_trip(&request.base, &message, &error), TCA_OK);
    assert_int_equal(((Tca__V1__DetokenizeRequest *)message)->n_token_ids, count);
    message_free(message);
    free(request.token_ids);
}

static void a_full_chunk_fits(void **state)
{
    Tca__V1__UploadRequest request = TCA__V1__UPLOAD_REQUEST__INIT;
    Tca__V1__UploadChunk chunk = TCA__V1__UPLOAD_CHUNK__INIT;
    const size_t bytes = 1 << 20;
    struct tca_error error;
    void *message;

    (void)state;
    chunk.data.len = bytes;
    chunk.data.data = calloc(1, bytes);
    request.body_case = TCA__V1__UPLOAD_REQUEST__BODY_CHUNK;
    request.chunk = &chunk;
    assert_int_equal(round_trip(&request.base, &message, &error), TCA_OK);
    message_free(message);
    free(chunk.data.data);
}

/* A request with something of every kind in it. */
static void full_request_pack(struct bytes *wire)
{
    Tca__V1__AskRequest request = TCA__V1__ASK_REQUEST__INIT;
    Tca__V1__Turn turn = TCA__V1__TURN__INIT;
    Tca__V1__Turn *history[3] = {&turn, &turn, &turn};
    Tca__V1__SamplingParams sampling = TCA__V1__SAMPLING_PARAMS__INIT;
    Tca__V1__AttentionOptions attention = TCA__V1__ATTENTION_OPTIONS__INIT;
    ProtobufCBinaryData stops[2] = {message_text("one"), message_text("two")};

    turn.role = message_text("user");
    turn.text = message_text("what?");
    sampling.temperature = 0.5;
    sampling.seed = UINT64_MAX;
    attention.rule = message_text("dense");
    request.request_id = message_text("r-1");
    request.source_case = TCA__V1__ASK_REQUEST__SOURCE_DOCUMENT_ID;
    request.document_id = message_text("book");
    request.n_history = 3;
    request.history = history;
    request.question = message_text("why?");
    request.no_wait = 1;
    request.sampling = &sampling;
    request.max_tokens = 300;
    request.n_stop = 2;
    request.stop = stops;
    request.attention = &attention;
    assert_int_equal(message_pack(&request, wire), TCA_OK);
}

/* Whatever the bytes are, unpacking ends, and leaks and overruns nothing (run under ASan). */
static void damaged_messages_do_no_harm(void **state)
{
    struct bytes wire = {0};
    uint64_t random = 88172645463325252u;
    int accepted = 0;

    (void)state;
    full_request_pack(&wire);
    for (int round = 0; round < 20000; round++) {
        struct bytes damaged = {0};
        struct tca_error error;
        void *message;

        bytes_append(&damaged, wire.data, wire.size);
        for (int i = 0; i <= round % 4; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            damaged.data[random % wire.size] = (uint8_t)(random >> 40);
        }
        if (round % 3 == 0)
            damaged.size = random % wire.size;
        if (message_unpack(&tca__v1__ask_request__descriptor, damaged.data, damaged.size, &message,
                           &error) == TCA_OK) {
            accepted++;
            message_free(message);
        }
        bytes_free(&damaged);
    }
    assert_in_range(accepted, 100, 19900); /* both outcomes were tried */
    bytes_free(&wire);
}

static void lengths_are_checked_with_field_and_range(void **state)
{
    struct tca_error error;

    (void)state;
    assert_int_equal(message_check_bytes("document_id", 128, 1, 128, &error), TCA_OK);
    assert_int_equal(message_check_bytes("document_id", 129, 1, 128, &error), TCA_ERR_INVALID);
    assert_string_equal(error.text, "document_id: 129 bytes, allowed: 1 to 128");
    assert_int_equal(message_check_bytes("stop[0]", 0, 1, 256, &error), TCA_ERR_INVALID);
}

/* The list of texts is made by a small script; protoc's own descriptors are the reference. */
static int check_fields(const char *scope, const Google__Protobuf__DescriptorProto *type)
{
    char name[256];
    int texts = 0;

    snprintf(name, sizeof(name), "%s.%.*s", scope, (int)type->name.len, (char *)type->name.data);
    for (size_t i = 0; i < type->n_field; i++) {
        const Google__Protobuf__FieldDescriptorProto *field = type->field[i];
        const bool is_text =
            field->type == GOOGLE__PROTOBUF__FIELD_DESCRIPTOR_PROTO__TYPE__TYPE_STRING;
        char field_name[128];
        const ProtobufCMessageDescriptor message = {.name = name};
        const ProtobufCFieldDescriptor asked = {.name = field_name, .type = PROTOBUF_C_TYPE_BYTES};

        snprintf(field_name, sizeof(field_name), "%.*s", (int)field->name.len,
                 (char *)field->name.data);
        if (message_field_is_text(&message, &asked) != is_text)
            fail_msg("%s.%s", name, field_name);
        texts += is_text;
    }
    for (size_t i = 0; i < type->n_nested_type; i++)
        texts += check_fields(name, type->nested_type[i]);
    return texts;
}

static bool is_ours(const Google__Protobuf__FileDescriptorProto *file)
{
    return file->package.len == 6 && memcmp(file->package.data, "tca.v1", 6) == 0;
}

static void every_string_of_the_api_is_known_as_a_text(void **state)
{
    static const uint8_t descriptor_set[] = {
#include "descriptor_set.inc"
    };
    Google__Protobuf__FileDescriptorSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, sizeof(descriptor_set), descriptor_set);
    int texts = 0;

    (void)state;
    assert_non_null(set);
    for (size_t i = 0; i < set->n_file; i++)
        for (size_t k = 0; k < set->file[i]->n_message_type; k++)
            if (is_ours(set->file[i]))
                texts += check_fields("tca.v1", set->file[i]->message_type[k]);
    assert_true(texts > 30);
    message_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_keep_their_nul_bytes),
        cmocka_unit_test(invalid_texts_are_named),
        cmocka_unit_test(real_bytes_may_hold_anything),
        cmocka_unit_test(messages_that_expand_too_far_are_refused),
        cmocka_unit_test(a_full_message_of_token_ids_fits),
        cmocka_unit_test(a_full_chunk_fits),
        cmocka_unit_test(damaged_messages_do_no_harm),
        cmocka_unit_test(lengths_are_checked_with_field_and_range),
        cmocka_unit_test(every_string_of_the_api_is_known_as_a_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
