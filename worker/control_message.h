/* Translates between control.proto's messages and the engine: pure but for memory. */
#ifndef WORKER_CONTROL_MESSAGE_H
#define WORKER_CONTROL_MESSAGE_H

#include "base/bytes.h"
#include "base/error.h"
#include "worker/engine.h"

#include <stdbool.h>
#include <stdint.h>

enum { CONTROL_FOLDER_BYTES = 4096, CONTROL_HOST_BYTES = 65, CONTROL_DEVICE_BYTES = 64 };

enum control_device { CONTROL_DEVICE_AUTO, CONTROL_DEVICE_CPU, CONTROL_DEVICE_CUDA };

/* What the coordinator wants of the group, with defaults filled in. Plain data: rank 0 broadcasts
 * it as it is. */
struct group_settings {
    char model_folder[CONTROL_FOLDER_BYTES];
    int32_t device;          /* enum control_device */
    int32_t threads;         /* of a rank, 0: the host's cores shared by its ranks */
    int64_t kv_memory_bytes; /* 0: by what is free */
    int32_t chunk_tokens;    /* 0: by the device */
    int32_t max_sequences;
    int64_t max_positions; /* 0: the model's */
    int32_t has_dummy_weights;
    int64_t window_tokens;              /* that every selection keeps at the end */
    int64_t refresh_every;              /* tokens of an answer until it selects again; 0: never */
    char profile[CONTROL_FOLDER_BYTES]; /* file; "": the model folder's, if there is one */
    int32_t is_refused;                 /* rank 0 has no coordinator: leave */
};

/* What one rank reports when it has loaded its part, or could not. Plain data, gathered. */
struct rank_report {
    int32_t status; /* enum tca_status */
    char message[TCA_ERROR_TEXT_BYTES];
    char host[CONTROL_HOST_BYTES];
    char device[CONTROL_DEVICE_BYTES];
    struct model_shard_facts facts;
};

enum tca_status control_pack_hello(const char *secret, const char *version, int ranks,
                                   struct bytes *out);
/* reports: [ranks] */
enum tca_status control_pack_ready(const struct rank_report *reports, int ranks, struct bytes *out);
enum tca_status control_pack_alive(int64_t oldest_answer_ms, uint64_t steps, struct bytes *out);
enum tca_status control_pack_failure(const char *text, struct bytes *out);
enum tca_status control_pack_event(const struct engine_event *event, struct bytes *out);

/* TCA_ERR_INVALID: not a Welcome, or a value out of its range, named. */
enum tca_status control_read_welcome(const struct bytes *message,
                                     struct group_settings *settings_out, struct tca_error *error);

/* Tell the engine what a message after the Welcome says. *is_stop_out: it was Stop.
 * TCA_ERR_INVALID: not a message that may come here; the group cannot go on. */
enum tca_status control_apply(const struct bytes *message, struct engine *engine, bool *is_stop_out,
                              struct tca_error *error);

#endif
