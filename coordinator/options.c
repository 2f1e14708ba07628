#include "coordinator/options.h"

#include "coordinator/attention.h"
#include "model/shard_plan.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
static const char *const weights[] = {"files", "dummy", NULL};
static const char *const policies[] = {"lru", "refuse", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug", NULL};

#define FIELD(field) SETTING_FIELD(struct coordinator_options, field)

static const struct setting rows[] = {
    {FIELD(model), .name = "model", .metavar = "DIR",
     .help = "folder of the model: config.json, *.safetensors, tokenizer.json"},
    {FIELD(tokenizer), .name = "tokenizer", .metavar = "DIR",
     .help = "folder of tokenizer.json; default: the model's, or of made-up weights needle-9m's"},
    {FIELD(listen), .name = "listen", .initial = "127.0.0.1:50051", .metavar = "ADDR:PORT",
     .help = "where clients connect; port 0 picks a free one and prints it"},
    {FIELD(workers), .name = "workers", .initial = "1", .metavar = "N", .min = 1,
     .max = SHARD_RANKS_MAX, .help = "ranks to start, each holds a part of the model"},
    {FIELD(threads), .name = "threads", .initial = "0", .metavar = "N", .min = 0, .max = 1024,
     .help = "CPU threads a worker; 0: the host's cores shared among its workers"},
    {FIELD(device), .name = "device", .initial = "auto", .choices = devices, .metavar = "NAME",
     .help = "what the workers compute on"},
    {FIELD(weights), .name = "weights", .initial = "files", .choices = weights, .metavar = "KIND",
     .help = "dummy makes up weights of config.json's shape, to try sizes and speed"},
    {FIELD(state_dir), .name = "state-dir", .metavar = "DIR",
     .help = "where documents live; default: $XDG_STATE_HOME/tca or ~/.local/state/tca"},
    {FIELD(no_launch), .name = "no-launch",
     .help = "start no workers, wait for a group that somebody else starts"},
    {FIELD(worker_listen), .name = "worker-listen", .initial = "127.0.0.1:0",
     .metavar = "ADDR:PORT", .help = "where the workers connect; never a public address"},
    {FIELD(launch_command), .name = "launch-command", .metavar = "CMD",
     .help = "shell command that starts the workers instead of mpirun; it sees TCA_WORKERS, "
             "TCA_WORKER (the program), TCA_COORDINATOR (its --coordinator) and TCA_WORKER_SECRET"},
    {FIELD(secret_file), .name = "secret-file", .metavar = "FILE",
     .help = "the workers' secret, made with mode 0600 where it is missing; default with "
             "no-launch: worker-secret in the state-dir"},
    {FIELD(kv_memory), .name = "kv-memory", .initial = "0", .is_bytes = true, .metavar = "BYTES",
     .min = 0, .max = INT64_MAX,
     .help = "KV memory a worker, up to what is free after the weights; 0: half of that"},
    {FIELD(kv_policy), .name = "kv-policy", .initial = "lru", .choices = policies,
     .metavar = "NAME",
     .help = "when KV memory is short: lru stores the least recently used document, refuse "
             "refuses the new one"},
    {FIELD(question_kv), .name = "question-kv", .initial = "0.1", .metavar = "SHARE",
     .real_min = 0.001, .real_max = 0.9, .help = "share of the KV memory reserved for questions"},
    {FIELD(rule), .name = "rule", .initial = "pooled", .choices = attention_rules,
     .metavar = "RULE", .help = "which tokens of its document a question keeps to answer"},
    {FIELD(keep), .name = "keep", .initial = "0.03", .metavar = "SHARE", .real_min = 0.0001,
     .real_max = 1.0, .help = "share of the document's tokens that a question keeps"},
    {FIELD(tau), .name = "tau", .initial = "0", .metavar = "MASS", .real_min = 0.0, .real_max = 1.0,
     .help = "attention mass that a question keeps of its document, instead of a share; needs a "
             "profile; 0: off"},
    {FIELD(prefill_rule), .name = "prefill-rule", .initial = "block", .choices = attention_rules,
     .metavar = "RULE", .help = "which earlier tokens a document's chunk attends to"},
    {FIELD(prefill_keep), .name = "prefill-keep", .initial = "0.1", .metavar = "SHARE",
     .real_min = 0.0001, .real_max = 1.0,
     .help = "share of the earlier tokens that a document's chunk attends to"},
    {FIELD(dense_below), .name = "dense-below", .initial = "8192", .metavar = "N", .min = 0,
     .max = INT32_MAX,
     .help = "where no rule is named, documents of fewer tokens are read densely, and so are "
             "chunks that begin before this position"},
    {FIELD(window), .name = "window", .initial = "1024", .metavar = "N", .min = 64, .max = 65536,
     .help = "last tokens that every rule keeps"},
    {FIELD(refresh_every), .name = "refresh-every", .initial = "0", .metavar = "N", .min = 0,
     .max = INT32_MAX, .help = "tokens of an answer after which it selects again; 0: never"},
    {FIELD(profile), .name = "profile", .metavar = "FILE",
     .help = "what tca-calibrate made, or none; default: tca-profile.json of the model's folder, "
             "where there is one"},
    {FIELD(chunk), .name = "chunk", .initial = "0", .metavar = "N", .min = 0, .max = 65536,
     .help = "tokens a prefill step; 0: 1024 on CPUs, 4096 on GPUs"},
    {FIELD(max_tokens), .name = "max-tokens", .initial = "0", .metavar = "N", .min = 0,
     .max = INT32_MAX,
     .help = "longest sequence: document, question and answer; 0: the model's, which only made-up "
             "weights may pass"},
    {FIELD(max_waiting), .name = "max-waiting", .initial = "256", .metavar = "N", .min = 0,
     .max = 100000, .help = "questions that may wait; one more is refused"},
    {FIELD(max_running), .name = "max-running", .initial = "16", .metavar = "N", .min = 1,
     .max = 1024, .help = "questions answered at once"},
    {FIELD(max_documents), .name = "max-documents", .initial = "10000", .metavar = "N", .min = 1,
     .max = 1000000, .help = "documents kept; one more is refused"},
    {FIELD(max_document_bytes), .name = "max-document-bytes", .initial = "64M", .is_bytes = true,
     .metavar = "BYTES", .min = 1, .max = INT64_C(1) << 32, .help = "bytes of one document"},
    {FIELD(start_timeout), .name = "start-timeout", .initial = "600", .metavar = "S", .min = 1,
     .max = 86400, .help = "seconds for launched workers to become ready"},
    {FIELD(worker_timeout), .name = "worker-timeout", .initial = "300", .metavar = "S", .min = 1,
     .max = 86400, .help = "seconds without an answer of any rank until the group counts as lost"},
    {FIELD(restarts), .name = "restarts", .initial = "3", .metavar = "N", .min = 0, .max = 1000000,
     .help = "times in a row that a lost group is started again; 0: the coordinator ends"},
    {FIELD(drain_timeout), .name = "drain-timeout", .initial = "60", .metavar = "S", .min = 0,
     .max = 86400, .help = "seconds that running questions have to end when draining"},
    {FIELD(log_level), .name = "log-level", .initial = "info", .choices = levels, .metavar = "NAME",
     .help = "least urgent lines of the log on stderr"},
    {FIELD(config), .name = "config", .metavar = "FILE",
     .help = "file of `name = value` lines; the command line wins"},
};

const struct settings_table options_table = {
    .program = "tca-coordinator",
    .rows = rows,
    .count = sizeof(rows) / sizeof(*rows),
    .config = "config",
};

const char *options_device_name(int device)
{
    return devices[device];
}

const char *options_weights_name(int kind)
{
    return weights[kind];
}

enum tca_status options_state_dir(const struct coordinator_options *options, char *folder_out,
                                  size_t bytes, struct tca_error *error)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int wanted;

    if (options->state_dir != NULL)
        wanted = snprintf(folder_out, bytes, "%s", options->state_dir);
    else if (state != NULL && state[0] == '/')
        wanted = snprintf(folder_out, bytes, "%s/tca", state);
    else if (home != NULL && home[0] == '/')
        wanted = snprintf(folder_out, bytes, "%s/.local/state/tca", home);
    else
        return tca_fail(error, TCA_ERR_INVALID,
                        "state-dir: not given, and neither XDG_STATE_HOME nor HOME names a folder");
    if (wanted < 0 || (size_t)wanted >= bytes)
        return tca_fail(error, TCA_ERR_INVALID, "state-dir: has %d bytes, allowed: up to %zu",
                        wanted, bytes - 1);
    return TCA_OK;
}
