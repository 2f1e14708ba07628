/* `tca tokenize`, `info`, `health`, `drain`. */
#include "client/commands.h"
#include "client/format.h"
#include "client/input.h"
#include "client/session.h"
#include "client/table.h"
#include "grpc/health/v1/health.pb-c.h"
#include "proto/message.h"

#include <inttypes.h>

static enum tca_status tokens_format(struct bytes *out, const Tca__V1__TokenizeResponse *response)
{
    char text[16];

    for (size_t i = 0; i < response->n_token_ids; i++) {
        snprintf(text, sizeof(text), "%s%" PRId32, i > 0 ? " " : "", response->token_ids[i]);
        TCA_TRY(bytes_append_text(out, text));
    }
    return bytes_append_text(out, "\n");
}

static enum tca_status info_format(struct bytes *out, const Tca__V1__ServerInfo *info)
{
    const Tca__V1__ServerInfo__Model *model = info->model;
    struct table table = {.columns = 2};
    char uptime[FORMAT_BYTES];

    table_add_text(&table, "version");
    table_add(&table, info->version.data, info->version.len);
    if (model != NULL) {
        table_add_text(&table, "model");
        table_add(&table, model->name.data, model->name.len);
        table_add_text(&table, "family");
        table_add(&table, model->family.data, model->family.len);
        table_add_text(&table, "parameters");
        table_add_count(&table, model->parameters);
        table_add_text(&table, "max tokens");
        table_add_count(&table, model->max_tokens);
        table_add_text(&table, "weights");
        table_add(&table, model->weights.data, model->weights.len);
        table_add_text(&table, "profile");
        table_add(&table, model->profile.data, model->profile.len);
        table_add_text(&table, "fingerprint");
        table_add(&table, model->fingerprint.data, model->fingerprint.len);
    }
    table_add_text(&table, "KV capacity, tokens");
    table_add_count(&table, info->kv_capacity_tokens);
    table_add_text(&table, "KV in use, tokens");
    table_add_count(&table, info->kv_used_tokens);
    table_add_text(&table, "questions running");
    table_add_count(&table, info->running);
    table_add_text(&table, "questions waiting");
    table_add_count(&table, info->waiting);
    format_duration(info->uptime_s < UINT64_MAX / 1000 ? info->uptime_s * 1000 : 0, uptime);
    table_add_text(&table, "up for");
    table_add_text(&table, uptime);
    return table_finish(&table, out);
}

static enum tca_status workers_format(struct bytes *out, const Tca__V1__ServerInfo *info)
{
    static const char *const heading[] = {"RANK", "STATE", "DEVICE", "MEMORY", "KV HEADS"};
    struct table table = {.columns = sizeof(heading) / sizeof(*heading)};
    char rank[16];

    for (size_t i = 0; i < table.columns; i++)
        table_add_text(&table, heading[i]);
    for (size_t i = 0; i < info->n_workers; i++) {
        const Tca__V1__ServerInfo__Worker *worker = info->workers[i];
        const ProtobufCEnumValue *state = protobuf_c_enum_descriptor_get_value(
            &tca__v1__server_info__worker__state__descriptor, (int)worker->state);

        snprintf(rank, sizeof(rank), "%" PRIu32, worker->rank);
        table_add_text(&table, rank);
        table_add_text(&table, state != NULL ? state->name : "UNKNOWN");
        table_add(&table, worker->device.data, worker->device.len);
        table_add_size(&table, worker->memory_bytes);
        table_add_count(&table, worker->kv_heads);
    }
    return table_finish(&table, out);
}

COMMAND_FUNCTION(tokenize)
{
    Tca__V1__TokenizeRequest request = TCA__V1__TOKENIZE_REQUEST__INIT;
    void *response;
    struct tca_error error = {0};
    struct bytes text = {0}, out = {0};
    int code;

    if (input_text(arguments[0], &text, &error) != TCA_OK) {
        bytes_free(&text);
        return session_fail_here(session, error.text);
    }
    request.text = (ProtobufCBinaryData){.len = text.size, .data = text.data};
    request.parse_special = options->parse_special;
    code = call_unary(session, "/tca.v1.Generation/Tokenize", &request.base,
                      &tca__v1__tokenize_response__descriptor, &response);
    bytes_free(&text);
    if (code != EXIT_DONE)
        return code;
    return session_print_response(session, response, tokens_format(&out, response), &out);
}

COMMAND_FUNCTION(info)
{
    Tca__V1__GetServerInfoRequest request = TCA__V1__GET_SERVER_INFO_REQUEST__INIT;
    void *response;
    struct bytes out = {0};
    enum tca_status built;
    int code;

    (void)options, (void)arguments;
    code = call_unary(session, "/tca.v1.Admin/GetServerInfo", &request.base,
                      &tca__v1__server_info__descriptor, &response);
    if (code != EXIT_DONE)
        return code;
    built = info_format(&out, response);
    if (built == TCA_OK)
        built = workers_format(&out, response);
    return session_print_response(session, response, built, &out);
}

COMMAND_FUNCTION(health)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    const Grpc__Health__V1__HealthCheckResponse *health;
    const ProtobufCEnumValue *value;
    struct bytes out = {0};
    enum tca_status built;
    void *response;
    bool is_serving;
    int code;

    (void)options, (void)arguments;
    code = call_unary(session, "/grpc.health.v1.Health/Check", &request.base,
                      &grpc__health__v1__health_check_response__descriptor, &response);
    if (code != EXIT_DONE)
        return code;
    health = response;
    is_serving = health->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    value = protobuf_c_enum_descriptor_get_value(
        &grpc__health__v1__health_check_response__serving_status__descriptor, (int)health->status);
    built = bytes_append_text(&out, value != NULL ? value->name : "UNKNOWN");
    if (built == TCA_OK)
        built = bytes_append_text(&out, "\n");
    code = session_print_response(session, response, built, &out);
    return is_serving ? code : EXIT_REFUSED;
}

COMMAND_FUNCTION(drain)
{
    Tca__V1__DrainRequest request = TCA__V1__DRAIN_REQUEST__INIT;
    void *response;
    struct bytes nothing = {0};
    int code;

    (void)options, (void)arguments;
    code = call_unary(session, "/tca.v1.Admin/Drain", &request.base,
                      &tca__v1__drain_response__descriptor, &response);
    return code == EXIT_DONE ? session_print_response(session, response, TCA_OK, &nothing) : code;
}
