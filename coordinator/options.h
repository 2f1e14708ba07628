/* The settings of tca-coordinator: one table for the command line, the config file and --help. */
#ifndef COORDINATOR_OPTIONS_H
#define COORDINATOR_OPTIONS_H

#include "base/settings.h"

#include <stdbool.h>
#include <stdint.h>

enum options_device { OPTIONS_DEVICE_AUTO, OPTIONS_DEVICE_CPU, OPTIONS_DEVICE_CUDA };
enum options_weights { OPTIONS_WEIGHTS_FILES, OPTIONS_WEIGHTS_DUMMY };

struct coordinator_options {
    char *model;
    char *tokenizer; /* folder; NULL: the model's */
    char *listen;
    int64_t workers;
    int64_t threads; /* a worker, 0: cores / workers of a host */
    int device;
    int weights;
    char *state_dir; /* NULL: the user's default, see options_state_dir */
    bool no_launch;
    char *worker_listen;
    char *launch_command;
    char *secret_file;
    int64_t kv_memory; /* bytes a worker, 0: half of what is free */
    int kv_policy;     /* enum admission_policy */
    double question_kv;
    int rule; /* of attention_rules */
    double keep;
    double tau; /* 0: off */
    int prefill_rule;
    double prefill_keep;
    int64_t dense_below;
    int64_t window;
    int64_t refresh_every; /* tokens, 0: never */
    char *profile;         /* file, or "none"; NULL: the model's, if it has one */
    int64_t chunk;
    int64_t max_tokens; /* 0: the model's */
    int64_t max_waiting;
    int64_t max_running;
    int64_t max_documents;
    int64_t max_document_bytes;
    int64_t start_timeout;  /* s */
    int64_t worker_timeout; /* s */
    int64_t restarts;       /* after lost groups in a row */
    int64_t drain_timeout;  /* s */
    int log_level;
    char *config;
};

extern const struct settings_table options_table;

/* Names as they go to the workers. */
const char *options_device_name(int device); /* "auto", "cpu", "cuda" */
const char *options_weights_name(int kind);  /* "files", "dummy" */

/* Write --state-dir, or $XDG_STATE_HOME/tca, or $HOME/.local/state/tca.
 * TCA_ERR_INVALID: none of them is set, or it is too long. */
enum tca_status options_state_dir(const struct coordinator_options *options, char *folder_out,
                                  size_t bytes, struct tca_error *error);

#endif
