/* Checks an AskRequest field by field and reads it into the coordinator's terms. Pure. */
#ifndef COORDINATOR_ASK_REQUEST_H
#define COORDINATOR_ASK_REQUEST_H

#include "base/error.h"
#include "coordinator/attention.h"
#include "coordinator/document.h"
#include "tca.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ASK_MAX_TOKENS_DEFAULT = 256,
    ASK_LOGPROBS_MAX = 20,
    ASK_STOPS_MAX = 16,
    ASK_STOP_BYTES_MAX = 256,
    ASK_HISTORY_MAX = 1024,
};

struct sampling {
    double temperature;        /* 0: greedy */
    uint32_t top_k;            /* 0: off */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 1: off */
    uint64_t seed;             /* 0: to be picked */
};

struct ask_request {
    const Tca__V1__AskRequest *message; /* borrowed: its texts */
    char request_id[DOCUMENT_ID_BYTES]; /* "": to be made */
    bool has_document;
    char document_id[DOCUMENT_ID_BYTES];
    struct sampling sampling;
    int64_t max_tokens; /* 0: ASK_MAX_TOKENS_DEFAULT, less where less fits */
    int logprobs;
    struct attention_wish attention;
};

/* TCA_ERR_INVALID: the field, its value and what is allowed. */
enum tca_status ask_request_read(const Tca__V1__AskRequest *message,
                                 struct ask_request *request_out, struct tca_error *error);

#endif
