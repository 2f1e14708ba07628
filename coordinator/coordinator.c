#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/program_files.h"
#include "coordinator/question_flow.h"
#include "coordinator/restore.h"
#include "coordinator/scheduler.h"
#include "coordinator/services.h"
#include "coordinator/timer.h"
#include "model/shard_plan.h"
#include "proto/health.h"
#include "proto/reflection.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    STOP_GRACE_MS = 5000,       /* for the last statuses to reach the clients */
    GROUP_STOP_GRACE_MS = 3000, /* for the group to leave */
    SEQUENCE_EPOCH_SHIFT = 32,
};

static const char *const services[] = {"tca.v1.Documents", "tca.v1.Generation"};

uint64_t coordinator_next_sequence(struct coordinator *coordinator)
{
    return ++coordinator->last_sequence;
}

struct document_facts coordinator_facts(const struct coordinator *coordinator)
{
    const Tca__Control__V1__Ready *ready = coordinator->link.ready;

    return (struct document_facts){
        .model = coordinator->model_name,
        .kv_bytes_per_token = ready == NULL ? 0 : (int64_t)ready->kv_bytes_per_token,
    };
}

static void add_profile(const struct coordinator *coordinator, struct attention_defaults *defaults)
{
    const Tca__Control__V1__Ready *ready = coordinator->link.ready;

    defaults->dense_below_tokens = coordinator->options->dense_below;
    defaults->has_profile = ready == NULL || ready->profile_id.len > 0;
    defaults->has_tca_profile = ready == NULL || ready->has_tca_profile;
}

struct attention_defaults coordinator_question_defaults(const struct coordinator *coordinator)
{
    const struct coordinator_options *options = coordinator->options;
    struct attention_defaults defaults = {
        .rule = attention_rules[options->rule], .keep = options->keep, .tau = options->tau};

    add_profile(coordinator, &defaults);
    return defaults;
}

struct attention_defaults coordinator_prefill_defaults(const struct coordinator *coordinator)
{
    const struct coordinator_options *options = coordinator->options;
    struct attention_defaults defaults = {.rule = attention_rules[options->prefill_rule],
                                          .keep = options->prefill_keep};

    add_profile(coordinator, &defaults);
    return defaults;
}

/* Phases. */

static enum health_state serving_if(bool is_serving)
{
    return is_serving ? HEALTH_SERVING : HEALTH_NOT_SERVING;
}

static void publish_health(struct coordinator *coordinator)
{
    const bool is_serving = coordinator->phase == COORDINATOR_SERVING;
    const bool has_documents =
        coordinator->phase != COORDINATOR_DRAINING && coordinator->phase != COORDINATOR_DRAINED;

    /* The table has room for these names: nothing to report. */
    health_set(coordinator->health, "", serving_if(is_serving));
    health_set(coordinator->health, services[0], serving_if(has_documents));
    health_set(coordinator->health, services[1], serving_if(is_serving));
}

/* With the lock: the phase and what the world may know of it. */
static void set_phase(struct coordinator *coordinator, enum coordinator_phase phase)
{
    coordinator->phase = phase;
    publish_health(coordinator);
    pthread_cond_broadcast(&coordinator->changed);
}

static bool has_ended(const struct coordinator *coordinator)
{
    return coordinator->phase == COORDINATOR_DRAINED || coordinator->phase == COORDINATOR_LOST;
}

enum tca_status coordinator_check_open(const struct coordinator *coordinator, bool needs_group,
                                       struct tca_error *error)
{
    switch (coordinator->phase) {
    case COORDINATOR_STARTING:
        return needs_group ? tca_fail(error, TCA_ERR_UNAVAILABLE, "the workers are starting")
                           : TCA_OK;
    case COORDINATOR_SERVING:
        return TCA_OK;
    case COORDINATOR_DRAINING:
    case COORDINATOR_DRAINED:
        return tca_fail(error, TCA_ERR_UNAVAILABLE, "the server is draining");
    case COORDINATOR_LOST:
        return tca_fail(error, TCA_ERR_UNAVAILABLE, "the workers are lost");
    }
    return TCA_OK;
}

static void log_memory(const struct coordinator *coordinator)
{
    const Tca__Control__V1__Ready *ready = coordinator->link.ready;
    const struct admission *admission = &coordinator->admission;

    for (size_t i = 0; i < ready->n_ranks; i++) {
        const Tca__Control__V1__RankInfo *rank = ready->ranks[i];

        log_info("worker %u on %.*s (%.*s): weights %" PRIu64 " MiB, workspace %" PRIu64
                 " MiB, KV %" PRIu64 " MiB for %u KV heads, memory %" PRIu64 " MiB",
                 rank->rank, (int)rank->host.len, (const char *)rank->host.data,
                 (int)rank->device.len, (const char *)rank->device.data, rank->weight_bytes >> 20,
                 rank->workspace_bytes >> 20, rank->kv_bytes >> 20, rank->kv_heads,
                 rank->memory_bytes >> 20);
    }
    log_info("KV memory holds %" PRIu64 " tokens of %" PRIu64 " bytes: %" PRId64
             " for documents, %" PRId64 " for questions; the longest sequence has %" PRId64,
             ready->kv_capacity_tokens, ready->kv_bytes_per_token, admission->document_pool,
             admission->question_pool, admission->max_tokens);
}

/* Settings that need a profile, and there is none: say so before the first request fails of it. */
static void warn_of_defaults(const struct coordinator *coordinator)
{
    const struct attention_defaults questions = coordinator_question_defaults(coordinator);
    const struct attention_defaults prefills = coordinator_prefill_defaults(coordinator);
    const struct attention_wish nothing = {0};
    struct attention attention;
    struct tca_error error;

    if (attention_of_question(&nothing, &questions, INT64_MAX, &attention, &error) != TCA_OK)
        log_warn("questions that name no rule are refused: %s", error.text);
    if (attention_of_prefill(&nothing, &prefills, &attention, &error) != TCA_OK)
        log_warn("documents that name no rule are refused: %s", error.text);
}

void coordinator_group_ready(struct coordinator *coordinator)
{
    const struct coordinator_options *options = coordinator->options;
    const Tca__Control__V1__Ready *ready = coordinator->link.ready;
    const uint64_t capacity = ready->kv_capacity_tokens;

    coordinator->admission = (struct admission){.policy = (enum admission_policy)options->kv_policy,
                                                .max_tokens = coordinator->max_tokens,
                                                .max_running = (int)options->max_running,
                                                .window_tokens = options->window,
                                                .kv_heads = coordinator->model.kv_heads,
                                                .ranks = (int)ready->n_ranks};
    admission_init(&coordinator->admission, capacity > INT64_MAX ? INT64_MAX : (int64_t)capacity,
                   options->question_kv);
    log_memory(coordinator);
    log_info("profile: %.*s", ready->profile_id.len > 0 ? (int)ready->profile_id.len : 4,
             ready->profile_id.len > 0 ? (const char *)ready->profile_id.data : "none");
    warn_of_defaults(coordinator);
    if (coordinator->phase == COORDINATOR_STARTING)
        set_phase(coordinator, COORDINATOR_SERVING);
    scheduler_run(coordinator);
}

/* End every call that waits for something that will not happen in this process any more. */
static void end_watchers(struct coordinator *coordinator, const char *reason)
{
    const struct document_table *table = &coordinator->documents;

    for (size_t i = 0; i < table->count; i++)
        document_flow_end_watchers(coordinator, table->rows[i], RPC_UNAVAILABLE, reason);
}

static void forget_kv(struct coordinator *coordinator)
{
    for (size_t i = coordinator->documents.count; i > 0; i--) {
        struct document *document = coordinator->documents.rows[i - 1];

        document->key = 0;
        document->kv_tokens = 0;
        document->is_closing = false;
        document_flow_go_on_deleting(coordinator, document);
    }
}

void coordinator_group_lost(struct coordinator *coordinator, const char *reason)
{
    const bool is_draining = coordinator->phase == COORDINATOR_DRAINING;

    if (has_ended(coordinator))
        return;
    log_error("the worker group is lost: %s", reason);
    set_phase(coordinator, COORDINATOR_LOST);
    /* Running questions have their end; the group will not say so any more. */
    question_flow_end_all(coordinator, NULL, RPC_UNAVAILABLE,
                          is_draining ? "the workers were lost while draining"
                                      : "the workers are lost");
    for (struct question *question = coordinator->questions, *next; question != NULL;
         question = next) {
        next = question->next;
        if (question->key != 0)
            question_flow_remove(coordinator, question);
    }
    end_watchers(coordinator, "the workers are lost");
    forget_kv(coordinator);
}

void coordinator_lose_group(struct coordinator *coordinator, const char *reason)
{
    pthread_mutex_lock(&coordinator->lock);
    coordinator_group_lost(coordinator, reason);
    pthread_mutex_unlock(&coordinator->lock);
}

void coordinator_drain(struct coordinator *coordinator)
{
    struct question *next;

    pthread_mutex_lock(&coordinator->lock);
    if (!has_ended(coordinator) && coordinator->phase != COORDINATOR_DRAINING) {
        log_info("draining: %d questions run", coordinator->admission.running);
        coordinator->drain_until_ms =
            clock_monotonic_ms() + coordinator->options->drain_timeout * 1000;
        set_phase(coordinator, COORDINATOR_DRAINING);
        for (struct question *question = coordinator->questions; question != NULL;
             question = next) {
            next = question->next;
            if (question->state != QUESTION_RUNNING)
                question_flow_end(coordinator, question, RPC_UNAVAILABLE, "the server is draining");
        }
        end_watchers(coordinator, "the server is draining");
    }
    pthread_mutex_unlock(&coordinator->lock);
}

bool coordinator_is_drain_wanted(struct coordinator *coordinator)
{
    bool is_wanted;

    pthread_mutex_lock(&coordinator->lock);
    is_wanted = coordinator->drain_until_ms != 0;
    pthread_mutex_unlock(&coordinator->lock);
    return is_wanted;
}

void coordinator_tick(struct coordinator *coordinator, int64_t now_ms)
{
    const struct coordinator_options *options = coordinator->options;
    bool is_answering = false;

    if (coordinator->phase == COORDINATOR_STARTING && !options->no_launch &&
        now_ms - coordinator->started_ms > options->start_timeout * 1000)
        coordinator_group_lost(coordinator, "it did not become ready within --start-timeout");
    if (coordinator->phase != COORDINATOR_DRAINING)
        return;
    for (const struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        is_answering |= question->call != NULL;
    if (is_answering && now_ms < coordinator->drain_until_ms)
        return;
    if (is_answering) {
        log_warn("draining: --drain-timeout is over, the questions that still run are cut off");
        question_flow_end_all(coordinator, NULL, RPC_UNAVAILABLE, "the server is draining");
    }
    log_info("drained");
    set_phase(coordinator, COORDINATOR_DRAINED);
}

/* Waiting. */

static enum tca_status end_status(const struct coordinator *coordinator)
{
    return coordinator->phase == COORDINATOR_DRAINED ? TCA_OK : TCA_ERR_UNAVAILABLE;
}

/* Until the phase is at least `phase`. With the lock. */
static bool wait_for(struct coordinator *coordinator, bool (*is_there)(const struct coordinator *),
                     int64_t timeout_ms)
{
    const int64_t until_ms = clock_monotonic_ms() + timeout_ms;
    const struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                                   .tv_nsec = (long)(until_ms % 1000) * 1000000};

    while (!is_there(coordinator))
        if (pthread_cond_timedwait(&coordinator->changed, &coordinator->lock, &until) == ETIMEDOUT)
            return is_there(coordinator);
    return true;
}

static bool has_started(const struct coordinator *coordinator)
{
    return coordinator->phase != COORDINATOR_STARTING;
}

enum tca_status coordinator_wait_ready(struct coordinator *coordinator, int64_t timeout_ms)
{
    enum tca_status status = TCA_ERR_DEADLINE;

    pthread_mutex_lock(&coordinator->lock);
    if (wait_for(coordinator, has_started, timeout_ms))
        status = coordinator->phase == COORDINATOR_SERVING ? TCA_OK
                 : coordinator->phase == COORDINATOR_LOST  ? TCA_ERR_UNAVAILABLE
                                                           : TCA_ERR_CANCELLED;
    pthread_mutex_unlock(&coordinator->lock);
    return status;
}

enum tca_status coordinator_wait(struct coordinator *coordinator, int64_t timeout_ms)
{
    enum tca_status status = TCA_ERR_DEADLINE;

    pthread_mutex_lock(&coordinator->lock);
    if (wait_for(coordinator, has_ended, timeout_ms))
        status = end_status(coordinator);
    pthread_mutex_unlock(&coordinator->lock);
    return status;
}

/* Starting. */

/* Can so many workers share the model? Said before they are started, not by each of them. */
static enum tca_status check_workers(const struct coordinator *coordinator, struct tca_error *error)
{
    const struct coordinator_options *options = coordinator->options;
    struct shard shard;

    return options->no_launch
               ? TCA_OK
               : shard_plan_make(&coordinator->model, 0, (int)options->workers, &shard, error);
}

static enum tca_status find_model(struct coordinator *coordinator, struct tca_error *error)
{
    const struct coordinator_options *options = coordinator->options;
    char *folder;
    const char *name;

    if (options->model == NULL)
        return tca_fail(error, TCA_ERR_INVALID, "model: is not set, allowed: a model's folder");
    folder = realpath(options->model, NULL);
    if (folder == NULL || strlen(folder) >= sizeof(coordinator->model_folder)) {
        free(folder);
        return tca_fail(error, TCA_ERR_NOT_FOUND, "model: \"%s\": %s", options->model,
                        strerror(errno));
    }
    snprintf(coordinator->model_folder, sizeof(coordinator->model_folder), "%s", folder);
    free(folder);
    name = strrchr(coordinator->model_folder, '/');
    coordinator->model_name = name == NULL ? coordinator->model_folder : name + 1;
    return TCA_OK;
}

/* Made-up weights were trained for no length. */
static enum tca_status limit_tokens(struct coordinator *coordinator, struct tca_error *error)
{
    const struct coordinator_options *options = coordinator->options;
    const bool is_free = options->weights == OPTIONS_WEIGHTS_DUMMY;
    const int most = is_free ? MODEL_POSITIONS_MAX : coordinator->model.max_positions;

    if (options->max_tokens > most)
        return tca_fail(error, TCA_ERR_INVALID, "max-tokens: %" PRId64 ", allowed: 0 to %d%s",
                        options->max_tokens, most, is_free ? "" : ", the model's positions");
    if (is_free && options->max_tokens > 0)
        coordinator->model.max_positions = (int)options->max_tokens;
    coordinator->max_tokens =
        options->max_tokens > 0 ? options->max_tokens : coordinator->model.max_positions;
    return TCA_OK;
}

/* The folder of tokenizer.json, which a shape without weights need not have. */
static const char *find_tokenizer(const struct coordinator *coordinator,
                                  char data_folder_out[PROGRAM_PATH_BYTES])
{
    const struct coordinator_options *options = coordinator->options;
    char path[sizeof(coordinator->model_folder) + sizeof("/tokenizer.json")];

    if (options->tokenizer != NULL)
        return options->tokenizer;
    snprintf(path, sizeof(path), "%s/tokenizer.json", coordinator->model_folder);
    if (options->weights == OPTIONS_WEIGHTS_DUMMY && access(path, F_OK) != 0 &&
        program_files_find_data("needle-9m", data_folder_out, NULL) == TCA_OK)
        return data_folder_out;
    return coordinator->model_folder;
}

static enum tca_status read_tokenizer(struct coordinator *coordinator, struct tca_error *error)
{
    char data_folder[PROGRAM_PATH_BYTES];
    const char *folder = find_tokenizer(coordinator, data_folder);

    TCA_TRY(tokenizer_open(folder, &coordinator->tokenizer, error));
    coordinator->chat = chat_format_detect(folder, coordinator->tokenizer);
    coordinator->vocab = tokenizer_vocab(coordinator->tokenizer);
    if (coordinator->vocab > coordinator->model.vocab)
        return tca_fail(error, TCA_ERR_INVALID,
                        "tokenizer: %s has ids up to %" PRId32
                        ", the model's vocabulary ends at %d",
                        folder, coordinator->vocab - 1, coordinator->model.vocab - 1);
    return TCA_OK;
}

static enum tca_status read_model(struct coordinator *coordinator, struct tca_error *error)
{
    TCA_TRY(find_model(coordinator, error));
    TCA_TRY(model_config_read(coordinator->model_folder, &coordinator->model, error));
    TCA_TRY(check_workers(coordinator, error));
    TCA_TRY(read_tokenizer(coordinator, error));
    TCA_TRY(limit_tokens(coordinator, error));
    log_info("model %s: %s, %d layers, %d KV heads, %" PRId64
             " parameters, %d positions, chat format %s",
             coordinator->model_name, coordinator->model.family, coordinator->model.layers,
             coordinator->model.kv_heads, model_config_parameters(&coordinator->model),
             coordinator->model.max_positions, chat_format_name(coordinator->chat));
    return TCA_OK;
}

static enum tca_status find_profile(struct coordinator *coordinator, struct tca_error *error)
{
    const char *profile = coordinator->options->profile;
    char *path;

    if (profile == NULL)
        return TCA_OK;
    path = strcmp(profile, "none") == 0 ? strdup(profile) : realpath(profile, NULL);
    if (path == NULL || strlen(path) >= sizeof(coordinator->profile)) {
        free(path);
        return tca_fail(error, TCA_ERR_NOT_FOUND, "profile: \"%s\": %s", profile, strerror(errno));
    }
    snprintf(coordinator->profile, sizeof(coordinator->profile), "%s", path);
    free(path);
    return TCA_OK;
}

static enum tca_status open_store(struct coordinator *coordinator, struct tca_error *error)
{
    char folder[4096];

    TCA_TRY(options_state_dir(coordinator->options, folder, sizeof(folder), error));
    TCA_TRY(store_open(folder, &coordinator->store, error));
    coordinator->last_sequence = store_epoch(coordinator->store) << SEQUENCE_EPOCH_SHIFT;
    return restore_documents(coordinator, error);
}

static enum tca_status make_health(struct coordinator *coordinator)
{
    TCA_TRY(health_create(&coordinator->health));
    TCA_TRY(reflection_create(&coordinator->reflection));
    publish_health(coordinator);
    return TCA_OK;
}

static enum tca_status start_threads(struct coordinator *coordinator)
{
    TCA_TRY(task_queue_start(&coordinator->disk));
    TCA_TRY(task_queue_start(&coordinator->document_tokenizer));
    return task_queue_start(&coordinator->request_tokenizer);
}

/* "ADDR:PORT" with the port in use. */
static enum tca_status write_address(const char *setting, const char *listen, int port,
                                     char address_out[COORDINATOR_ADDRESS_BYTES],
                                     struct tca_error *error)
{
    const char *colon = strrchr(listen, ':');
    const int host = colon == NULL ? (int)strlen(listen) : (int)(colon - listen);

    if (host >= COORDINATOR_ADDRESS_BYTES - 16)
        return tca_fail(error, TCA_ERR_INVALID, "%s: is too long", setting);
    snprintf(address_out, COORDINATOR_ADDRESS_BYTES, "%.*s:%d", host, listen, port);
    return TCA_OK;
}

static enum tca_status listen_to_workers(struct coordinator *coordinator, struct tca_error *error)
{
    const char *address = coordinator->options->worker_listen;
    int port;

    TCA_TRY(rpc_check_address("worker-listen", address, error));
    coordinator->worker_method = worker_link_method(coordinator);
    TCA_TRY(rpc_server_start(address, &coordinator->worker_method, 1, 1,
                             &coordinator->worker_server, &port, error));
    return write_address("worker-listen", address, port, coordinator->worker_address, error);
}

static enum tca_status listen_to_clients(struct coordinator *coordinator, struct tca_error *error)
{
    const char *address = coordinator->options->listen;
    struct rpc_method *methods = coordinator->methods;
    size_t count = 0;
    int port;

    TCA_TRY(rpc_check_address("listen", address, error));
    count += service_upload_methods(coordinator, methods + count);
    count += service_documents_methods(coordinator, methods + count);
    count += service_generation_methods(coordinator, methods + count);
    count += service_admin_methods(coordinator, methods + count);
    health_methods(coordinator->health, methods + count);
    count += HEALTH_METHODS;
    reflection_methods(coordinator->reflection, methods + count);
    count += REFLECTION_METHODS;
    TCA_TRY(rpc_server_start(address, methods, count, SERVER_THREADS, &coordinator->server, &port,
                             error));
    return write_address("listen", address, port, coordinator->address, error);
}

static enum tca_status start_parts(struct coordinator *coordinator, struct tca_error *error)
{
    enum tca_status status;

    TCA_TRY(read_model(coordinator, error));
    TCA_TRY(find_profile(coordinator, error));
    TCA_TRY(open_store(coordinator, error));
    coordinator->methods = calloc(SERVICE_METHODS + HEALTH_METHODS + REFLECTION_METHODS,
                                  sizeof(*coordinator->methods));
    status = coordinator->methods == NULL ? TCA_ERR_NO_MEMORY : make_health(coordinator);
    if (status == TCA_OK)
        status = start_threads(coordinator);
    if (status != TCA_OK)
        return tca_fail(error, status, "no memory or threads to start");
    TCA_TRY(listen_to_workers(coordinator, error));
    TCA_TRY(listen_to_clients(coordinator, error));
    status = timer_start(coordinator, &coordinator->timer);
    return status == TCA_OK ? TCA_OK : tca_fail(error, status, "no thread for the timer");
}

/* Documents whose tokens were never counted are counted before the group is there. */
static void tokenize_restored(struct coordinator *coordinator)
{
    pthread_mutex_lock(&coordinator->lock);
    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct document *document = coordinator->documents.rows[i];

        if (document->state == DOCUMENT_QUEUED && document->token_count == 0)
            document_flow_tokenize(coordinator, document);
    }
    pthread_mutex_unlock(&coordinator->lock);
}

enum tca_status coordinator_start(const struct coordinator_options *options, const char *secret,
                                  struct coordinator **coordinator_out, struct tca_error *error)
{
    struct coordinator *coordinator = calloc(1, sizeof(*coordinator));
    pthread_condattr_t monotonic;
    enum tca_status status = TCA_OK;

    if (coordinator == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the coordinator");
    coordinator->options = options;
    coordinator->started_ms = clock_monotonic_ms();
    pthread_mutex_init(&coordinator->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&coordinator->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (secret[0] == '\0' || strlen(secret) >= sizeof(coordinator->secret))
        status = tca_fail(error, TCA_ERR_INVALID, "secret: %zu bytes, allowed: 1 to %zu",
                          strlen(secret), sizeof(coordinator->secret) - 1);
    if (status == TCA_OK) {
        snprintf(coordinator->secret, sizeof(coordinator->secret), "%s", secret);
        status = start_parts(coordinator, error);
    }
    if (status != TCA_OK) {
        coordinator_stop(coordinator);
        return status;
    }
    tokenize_restored(coordinator);
    *coordinator_out = coordinator;
    return TCA_OK;
}

const char *coordinator_address(const struct coordinator *coordinator)
{
    return coordinator->address;
}

const char *coordinator_worker_address(const struct coordinator *coordinator)
{
    return coordinator->worker_address;
}

/* Stopping. */

static void end_everything(struct coordinator *coordinator)
{
    pthread_mutex_lock(&coordinator->lock);
    if (!has_ended(coordinator))
        set_phase(coordinator, COORDINATOR_DRAINED);
    question_flow_end_all(coordinator, NULL, RPC_UNAVAILABLE, "the server is stopping");
    end_watchers(coordinator, "the server is stopping");
    health_end_watches(coordinator->health);
    worker_link_stop(&coordinator->link);
    pthread_mutex_unlock(&coordinator->lock);
}

/* Last uses are worth a write only now. */
static void save_uses(struct coordinator *coordinator)
{
    pthread_mutex_lock(&coordinator->lock);
    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct document *document = coordinator->documents.rows[i];

        if (document->state == DOCUMENT_READY)
            document_flow_save(coordinator, document);
    }
    pthread_mutex_unlock(&coordinator->lock);
}

void coordinator_stop(struct coordinator *coordinator)
{
    if (coordinator == NULL)
        return;
    if (coordinator->server != NULL)
        end_everything(coordinator);
    timer_stop(coordinator->timer);
    rpc_server_stop(coordinator->server, STOP_GRACE_MS);
    rpc_server_stop(coordinator->worker_server, GROUP_STOP_GRACE_MS);
    task_queue_stop(coordinator->request_tokenizer);
    task_queue_stop(coordinator->document_tokenizer);
    if (coordinator->disk != NULL)
        save_uses(coordinator);
    task_queue_stop(coordinator->disk);
    health_destroy(coordinator->health);
    reflection_destroy(coordinator->reflection);
    free(coordinator->methods);
    while (coordinator->questions != NULL) {
        struct question *question = coordinator->questions;

        coordinator->questions = question->next;
        question_free(question);
    }
    document_table_free(&coordinator->documents);
    worker_link_free(&coordinator->link);
    store_close(coordinator->store);
    tokenizer_close(coordinator->tokenizer);
    pthread_cond_destroy(&coordinator->changed);
    pthread_mutex_destroy(&coordinator->lock);
    free(coordinator);
}
