#include "tests/support/check.h"

#include "control.pb-c.h"
#include "proto/rpc.h"
#include "worker/control_message.h"

#include <stdlib.h>
#include <string.h>

typedef Tca__Control__V1__WorkerMessage worker_message;

static ProtobufCBinaryData text(const char *value)
{
    static uint8_t copy[8192];
    size_t size = strlen(value);

    memcpy(copy, value, size + 1);
    return (ProtobufCBinaryData){.len = size, .data = copy};
}

static struct bytes pack(const Tca__Control__V1__CoordinatorMessage *message)
{
    struct bytes packed = {0};

    assert_int_equal(
        bytes_reserve(&packed, tca__control__v1__coordinator_message__get_packed_size(message) + 1),
        TCA_OK);
    packed.size = tca__control__v1__coordinator_message__pack(message, packed.data);
    return packed;
}

static enum tca_status read_welcome(const Tca__Control__V1__Welcome *welcome,
                                    struct group_settings *settings, struct tca_error *error)
{
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__Welcome body = *welcome;
    struct bytes packed;
    enum tca_status status;

    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_WELCOME;
    message.welcome = &body;
    packed = pack(&message);
    status = control_read_welcome(&packed, settings, error);
    bytes_free(&packed);
    return status;
}

static void a_welcome_sets_what_it_names_and_the_defaults(void **state)
{
    Tca__Control__V1__Welcome welcome = TCA__CONTROL__V1__WELCOME__INIT;
    struct group_settings settings;
    struct tca_error error;

    (void)state;
    welcome.model_folder = text("/models/x");
    assert_int_equal(read_welcome(&welcome, &settings, &error), TCA_OK);
    assert_string_equal(settings.model_folder, "/models/x");
    assert_int_equal(settings.device, CONTROL_DEVICE_AUTO);
    assert_int_equal(settings.threads, 0);
    assert_int_equal(settings.chunk_tokens, 0);
    assert_true(settings.max_sequences > 0);
    assert_int_equal(settings.is_refused, 0);
    welcome.threads = 3;
    welcome.chunk_tokens = 256;
    welcome.max_sequences = 7;
    welcome.max_tokens = 5000;
    welcome.kv_memory_bytes = 1LL << 33;
    welcome.dummy_weights = 1;
    assert_int_equal(read_welcome(&welcome, &settings, &error), TCA_OK);
    assert_int_equal(settings.threads, 3);
    assert_int_equal(settings.chunk_tokens, 256);
    assert_int_equal(settings.max_sequences, 7);
    assert_int_equal(settings.max_positions, 5000);
    assert_true(settings.kv_memory_bytes == 1LL << 33);
    assert_int_equal(settings.has_dummy_weights, 1);
}

static void a_bad_welcome_is_refused(void **state)
{
    Tca__Control__V1__Welcome good = TCA__CONTROL__V1__WELCOME__INIT;
    Tca__Control__V1__Welcome bad;
    struct group_settings settings;
    struct tca_error error;
    char longest[CONTROL_FOLDER_BYTES + 1];
    struct bytes noise = {.data = (uint8_t *)longest, .size = 16};

    (void)state;
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(control_read_welcome(&noise, &settings, &error), TCA_ERR_INVALID);
    bad = good;
    assert_int_equal(read_welcome(&bad, &settings, &error), TCA_ERR_INVALID); /* no folder */
    assert_non_null(strstr(error.text, "model_folder"));
    bad.model_folder = text(longest);
    assert_int_equal(read_welcome(&bad, &settings, &error), TCA_ERR_INVALID);
    good.model_folder = text("/m");
    good.model_folder.len = 3; /* a NUL inside */
    assert_int_equal(read_welcome(&good, &settings, &error), TCA_ERR_INVALID);
    good.model_folder.len = 2;
    bad = good;
    bad.chunk_tokens = UINT32_MAX;
    assert_int_equal(read_welcome(&bad, &settings, &error), TCA_ERR_INVALID);
    bad = good;
    bad.max_tokens = UINT64_MAX;
    assert_int_equal(read_welcome(&bad, &settings, &error), TCA_ERR_INVALID);
    bad = good;
    bad.device = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)longest};
    assert_int_equal(read_welcome(&bad, &settings, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "device"));
}

static worker_message *unpack(const struct bytes *packed)
{
    worker_message *message =
        tca__control__v1__worker_message__unpack(NULL, packed->size, packed->data);

    assert_non_null(message);
    return message;
}

static void ready_tells_the_least_capacity_and_the_sum_per_token(void **state)
{
    struct rank_report reports[2] = {
        {.host = "a", .device = "cpu, 2 threads", .facts = {.kv_capacity_tokens = 500}},
        {.host = "b", .device = "cpu, 1 thread", .facts = {.kv_capacity_tokens = 400}},
    };
    struct bytes packed = {0};
    worker_message *message;

    (void)state;
    reports[0].facts.kv_bytes_per_token = 256;
    reports[1].facts.kv_bytes_per_token = 128;
    reports[1].facts.shard.kv_head_first = 2;
    reports[1].facts.shard.kv_heads = 1;
    strcpy(reports[0].facts.fingerprint, "abc");
    assert_int_equal(control_pack_ready(reports, 2, &packed), TCA_OK);
    message = unpack(&packed);
    assert_int_equal(message->body_case, TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY);
    assert_int_equal(message->ready->kv_capacity_tokens, 400);
    assert_int_equal(message->ready->kv_bytes_per_token, 384);
    assert_int_equal(message->ready->n_ranks, 2);
    assert_int_equal(message->ready->ranks[1]->rank, 1);
    assert_int_equal(message->ready->ranks[1]->kv_head_first, 2);
    assert_memory_equal(message->ready->ranks[0]->device.data, "cpu, 2 threads", 14);
    assert_memory_equal(message->ready->fingerprint.data, "abc", 3);
    tca__control__v1__worker_message__free_unpacked(message, NULL);
    bytes_free(&packed);
}

static void events_carry_their_numbers_and_codes(void **state)
{
    const struct sampled_token token = {
        .chosen = {.id = 7, .logprob = -1.5F},
        .top = 2,
        .best = {{.id = 9, .logprob = -0.5F}, {.id = 7, .logprob = -1.5F}}};
    struct engine_event event = {.kind = ENGINE_QUESTION_TOKEN, .key = 5, .token = &token};
    struct bytes packed = {0};
    worker_message *message;

    (void)state;
    assert_int_equal(control_pack_event(&event, &packed), TCA_OK);
    message = unpack(&packed);
    assert_int_equal(message->question_tokens->key, 5);
    assert_int_equal(message->question_tokens->n_tokens, 1);
    assert_int_equal(message->question_tokens->tokens[0]->token_id, 7);
    assert_true(message->question_tokens->tokens[0]->logprob == -1.5F);
    assert_int_equal(message->question_tokens->tokens[0]->n_top, 2);
    assert_int_equal(message->question_tokens->tokens[0]->top[0]->token_id, 9);
    tca__control__v1__worker_message__free_unpacked(message, NULL);

    event = (struct engine_event){
        .kind = ENGINE_DOCUMENT_FAILED, .key = 6, .status = TCA_ERR_RANGE, .message = "too long"};
    assert_int_equal(control_pack_event(&event, &packed), TCA_OK);
    message = unpack(&packed);
    assert_int_equal(message->document_done->state, TCA__CONTROL__V1__DOCUMENT_DONE__STATE__FAILED);
    assert_int_equal(message->document_done->code, RPC_OUT_OF_RANGE);
    assert_memory_equal(message->document_done->message.data, "too long", 8);
    tca__control__v1__worker_message__free_unpacked(message, NULL);

    event = (struct engine_event){
        .kind = ENGINE_QUESTION_DONE,
        .key = 8,
        .message = "",
        .end = QUESTION_EOS,
        .usage = {.question_ms = 1, .full_kv_bytes = 1LL << 40, .kept_share = 0.25}};
    assert_int_equal(control_pack_event(&event, &packed), TCA_OK);
    message = unpack(&packed);
    assert_int_equal(message->question_done->reason, TCA__CONTROL__V1__QUESTION_DONE__REASON__EOS);
    assert_int_equal(message->question_done->code, 0);
    assert_true(message->question_done->full_kv_bytes == 1LL << 40);
    assert_true(message->question_done->kept_share == 0.25);
    tca__control__v1__worker_message__free_unpacked(message, NULL);
    bytes_free(&packed);
}

static void what_cannot_be_read_is_refused(void **state)
{
    Tca__Control__V1__CoordinatorMessage message = TCA__CONTROL__V1__COORDINATOR_MESSAGE__INIT;
    Tca__Control__V1__Welcome welcome = TCA__CONTROL__V1__WELCOME__INIT;
    Tca__Control__V1__DocumentTokens tokens = TCA__CONTROL__V1__DOCUMENT_TOKENS__INIT;
    struct bytes packed = {.data = (uint8_t[]){0x0a, 0xff}, .size = 2};
    struct tca_error error;
    bool is_stop;

    (void)state;
    assert_int_equal(control_apply(&packed, NULL, &is_stop, &error), TCA_ERR_INVALID);
    packed = pack(&message); /* no body at all */
    assert_int_equal(control_apply(&packed, NULL, &is_stop, &error), TCA_ERR_INVALID);
    bytes_free(&packed);
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    packed = pack(&message); /* a second Welcome */
    assert_int_equal(control_apply(&packed, NULL, &is_stop, &error), TCA_ERR_INVALID);
    bytes_free(&packed);
    tokens.token_ids = text("seven b");
    message.body_case = TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_TOKENS;
    message.document_tokens = &tokens;
    packed = pack(&message); /* not whole ids */
    assert_int_equal(control_apply(&packed, NULL, &is_stop, &error), TCA_ERR_INVALID);
    bytes_free(&packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_welcome_sets_what_it_names_and_the_defaults),
        cmocka_unit_test(a_bad_welcome_is_refused),
        cmocka_unit_test(ready_tells_the_least_capacity_and_the_sum_per_token),
        cmocka_unit_test(events_carry_their_numbers_and_codes),
        cmocka_unit_test(what_cannot_be_read_is_refused),
    };
    return cmocka_run_group_tests_name("control_message", tests, NULL, NULL);
}
