/* v1 and v1alpha differ in their package's name only, so one set of callbacks serves both. */
#include "proto/reflection.h"

#include "proto/descriptor_set.h"
#include "proto/message.h"
#include "proto/reply.h"

#include <grpc/reflection/v1/reflection.pb-c.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVICE_NAME_BYTES = 128, SERVICES_MAX = 16, FILES_MAX = 16 };

struct service_name {
    char text[SERVICE_NAME_BYTES];
};

struct reflection {
    struct descriptor_set set;
    struct service_name services[SERVICES_MAX];
    size_t service_count;
};

enum tca_status reflection_create(struct reflection **reflection_out)
{
    struct reflection *reflection = calloc(1, sizeof(*reflection));
    enum tca_status status;

    if (reflection == NULL)
        return TCA_ERR_NO_MEMORY;
    status = descriptor_set_init(&reflection->set);
    if (status != TCA_OK) {
        free(reflection);
        return status;
    }
    for (size_t i = 0; i < reflection->set.files->n_file; i++) {
        const Google__Protobuf__FileDescriptorProto *file = reflection->set.files->file[i];

        for (size_t k = 0; k < file->n_service && reflection->service_count < SERVICES_MAX; k++)
            snprintf(reflection->services[reflection->service_count++].text, SERVICE_NAME_BYTES,
                     "%.*s.%.*s", (int)file->package.len, (const char *)file->package.data,
                     (int)file->service[k]->name.len, (const char *)file->service[k]->name.data);
    }
    *reflection_out = reflection;
    return TCA_OK;
}

void reflection_destroy(struct reflection *reflection)
{
    if (reflection == NULL)
        return;
    descriptor_set_deinit(&reflection->set);
    free(reflection);
}

static Grpc__Reflection__V1__ServerReflectionResponse
response_to(Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

    response.valid_host = request->host;
    response.original_request = request;
    return response;
}

static void send_response(struct rpc_call *call,
                          const Grpc__Reflection__V1__ServerReflectionResponse *response)
{
    if (rpc_call_send_message(call, response) == TCA_ERR_BUSY)
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "read the answers first", NULL, 0);
}

static void answer_error(struct rpc_call *call,
                         Grpc__Reflection__V1__ServerReflectionRequest *request, enum rpc_code code,
                         const char *text)
{
    Grpc__Reflection__V1__ServerReflectionResponse response = response_to(request);
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

    error.error_code = (int32_t)code;
    error.error_message = message_text(text);
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response.error_response = &error;
    send_response(call, &response);
}

static void answer_services(struct rpc_call *call, const struct reflection *reflection,
                            Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse response = response_to(request);
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse services[SERVICES_MAX];
    Grpc__Reflection__V1__ServiceResponse *pointers[SERVICES_MAX];

    for (size_t i = 0; i < reflection->service_count; i++) {
        grpc__reflection__v1__service_response__init(&services[i]);
        services[i].name = message_text(reflection->services[i].text);
        pointers[i] = &services[i];
    }
    list.n_service = reflection->service_count;
    list.service = pointers;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response.list_services_response = &list;
    send_response(call, &response);
}

/* The file, then all it imports, each once: a client can build them without asking again. */
static size_t files_with_imports(const struct descriptor_set *set, int file, int files[FILES_MAX])
{
    size_t count = 1;

    files[0] = file;
    for (size_t i = 0; i < count; i++) {
        const Google__Protobuf__FileDescriptorProto *importer = set->files->file[files[i]];

        for (size_t k = 0; k < importer->n_dependency && count < FILES_MAX; k++) {
            const int import = descriptor_set_find_file(set, importer->dependency[k].data,
                                                        importer->dependency[k].len);
            bool is_new = import >= 0;

            for (size_t j = 0; j < count; j++)
                is_new = is_new && files[j] != import;
            if (is_new)
                files[count++] = import;
        }
    }
    return count;
}

static void answer_file(struct rpc_call *call, const struct reflection *reflection, int file,
                        Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    Grpc__Reflection__V1__ServerReflectionResponse response = response_to(request);
    Grpc__Reflection__V1__FileDescriptorResponse answer =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData protos[FILES_MAX];
    int files[FILES_MAX];

    if (file < 0) {
        answer_error(call, request, RPC_NOT_FOUND, "no such file or symbol");
        return;
    }
    answer.n_file_descriptor_proto = files_with_imports(&reflection->set, file, files);
    answer.file_descriptor_proto = protos;
    for (size_t i = 0; i < answer.n_file_descriptor_proto; i++) {
        const struct bytes *packed = &reflection->set.packed[files[i]];

        protos[i] = message_text_bytes(packed->data, packed->size);
    }
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    response.file_descriptor_response = &answer;
    send_response(call, &response);
}

static void answer(struct rpc_call *call, const struct reflection *reflection,
                   Grpc__Reflection__V1__ServerReflectionRequest *request)
{
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        answer_file(call, reflection,
                    descriptor_set_find_file(&reflection->set, request->file_by_filename.data,
                                             request->file_by_filename.len),
                    request);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        answer_file(call, reflection,
                    descriptor_set_find_symbol(&reflection->set,
                                               request->file_containing_symbol.data,
                                               request->file_containing_symbol.len),
                    request);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        answer_services(call, reflection, request);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        answer_error(call, request, RPC_NOT_FOUND, "there are no extensions");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
    case _GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__CASE_IS_INT_SIZE:
        break;
    }
    answer_error(call, request, RPC_INVALID_ARGUMENT, "message_request: none is set");
}

static void info(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct tca_error error;
    void *message;
    const enum tca_status status =
        message_unpack(&grpc__reflection__v1__server_reflection_request__descriptor, data, bytes,
                       &message, &error);

    if (status != TCA_OK) {
        rpc_call_refuse(call, rpc_code_from_status(status), error.text, 0);
        return;
    }
    answer(call, context, message);
    message_free(message);
    rpc_call_read_next(call);
}

static void info_end(struct rpc_call *call, void *context)
{
    (void)context;
    rpc_call_finish(call, RPC_OK, "", NULL, 0);
}

void reflection_methods(struct reflection *reflection,
                        struct rpc_method methods_out[REFLECTION_METHODS])
{
    static const char *const paths[REFLECTION_METHODS] = {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

    for (int i = 0; i < REFLECTION_METHODS; i++)
        methods_out[i] = (struct rpc_method){.path = paths[i],
                                             .client_streams = true,
                                             .context = reflection,
                                             .message = info,
                                             .half_close = info_end};
}
