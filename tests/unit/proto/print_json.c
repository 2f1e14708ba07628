/* For test_message_json.py: reads messages from stdin, each a line "TYPE BYTES" and then as many
 * wire bytes, and prints each as a line of JSON. */
#include "proto/message.h"
#include "proto/message_json.h"
#include "tca.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ProtobufCMessageDescriptor *const types[] = {
    &tca__v1__upload_request__descriptor,    &tca__v1__document__descriptor,
    &tca__v1__document_event__descriptor,    &tca__v1__list_documents_response__descriptor,
    &tca__v1__ask_request__descriptor,       &tca__v1__ask_event__descriptor,
    &tca__v1__tokenize_response__descriptor, &tca__v1__server_info__descriptor,
};

static int print_one(const ProtobufCMessageDescriptor *type, const void *wire, size_t bytes)
{
    struct bytes json = {0};
    struct tca_error error;
    enum tca_status status;
    void *message;

    if (message_unpack(type, wire, bytes, &message, &error) != TCA_OK) {
        fprintf(stderr, "%s\n", error.text);
        return EXIT_FAILURE;
    }
    status = message_print_json(message, &json);
    if (status == TCA_OK)
        printf("%.*s\n", (int)json.size, (char *)json.data);
    else
        printf("%s\n", tca_status_text(status));
    bytes_free(&json);
    message_free(message);
    return EXIT_SUCCESS;
}

int main(void)
{
    const ProtobufCMessageDescriptor *type;
    char name[128];
    size_t bytes;

    while (scanf("%127s %zu", name, &bytes) == 2) {
        void *wire = malloc(bytes + 1);
        int failure;

        type = NULL;
        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
            if (strcmp(types[i]->name, name) == 0)
                type = types[i];
        if (type == NULL || wire == NULL || getchar() != '\n' ||
            fread(wire, 1, bytes, stdin) != bytes) {
            free(wire);
            return EXIT_FAILURE;
        }
        failure = print_one(type, wire, bytes);
        free(wire);
        if (failure != EXIT_SUCCESS)
            return failure;
    }
    return EXIT_SUCCESS;
}
