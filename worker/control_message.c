#include "worker/control_message.h"

#include "control.pb-c.h"
#include "proto/rpc.h"

#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_SEQUENCES = 16,
    CHUNK_TOKENS_MAX = 1 << 20,
    SEQUENCES_MAX = 1024,
    THREADS_MAX = 1024,
};

static ProtobufCBinaryData text_bytes(const char *text)
{
    /* protobuf-c's type has no const; packing only reads. */
    union {
        const char *in;
        uint8_t *out;
    } data = {.in = text};

    return (ProtobufCBinaryData){.data = data.out, .len = strlen(text)};
}

static enum tca_status pack(const Tca__Control__V1__WorkerMessage *message, struct bytes *out)
{
    size_t size = tca__control__v1__worker_message__get_packed_size(message);

    bytes_clear(out);
    TCA_TRY(bytes_reserve(out, size));
    out->size = tca__control__v1__worker_message__pack(message, out->data);
    return TCA_OK;
}

enum tca_status control_pack_hello(const char *secret, const char *version, int ranks,
                                   struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__Hello hello = TCA__CONTROL__V1__HELLO__INIT;

    hello.secret = text_bytes(secret);
    hello.version = text_bytes(version);
    hello.ranks = (uint32_t)ranks;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_HELLO;
    message.hello = &hello;
    return pack(&message, out);
}

static void describe_rank(const struct rank_report *report, int rank,
                          Tca__Control__V1__RankInfo *info)
{
    tca__control__v1__rank_info__init(info);
    info->rank = (uint32_t)rank;
    info->device = text_bytes(report->device);
    info->host = text_bytes(report->host);
    info->memory_bytes = report->facts.memory_bytes;
    info->weight_bytes = report->facts.weight_bytes;
    info->workspace_bytes = report->facts.workspace_bytes;
    info->kv_bytes = report->facts.kv_bytes;
    info->kv_head_first = (uint32_t)report->facts.shard.kv_head_first;
    info->kv_heads = (uint32_t)report->facts.shard.kv_heads;
}

enum tca_status control_pack_ready(const struct rank_report *reports, int ranks, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__Ready ready = TCA__CONTROL__V1__READY__INIT;
    Tca__Control__V1__RankInfo *info = calloc((size_t)ranks, sizeof(*info));
    Tca__Control__V1__RankInfo **list = calloc((size_t)ranks, sizeof(void *));
    enum tca_status status = TCA_ERR_NO_MEMORY;

    if (info != NULL && list != NULL) {
        ready.fingerprint = text_bytes(reports[0].facts.fingerprint);
        ready.profile_id = text_bytes(reports[0].facts.profile_id);
        ready.has_tca_profile = reports[0].facts.has_tca_profile;
        ready.kv_capacity_tokens = (uint64_t)reports[0].facts.kv_capacity_tokens;
        for (int rank = 0; rank < ranks; rank++) {
            uint64_t capacity = (uint64_t)reports[rank].facts.kv_capacity_tokens;

            if (capacity < ready.kv_capacity_tokens)
                ready.kv_capacity_tokens = capacity;
            ready.kv_bytes_per_token += (uint64_t)reports[rank].facts.kv_bytes_per_token;
            describe_rank(&reports[rank], rank, &info[rank]);
            list[rank] = &info[rank];
        }
        ready.n_ranks = (size_t)ranks;
        ready.ranks = list;
        message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_READY;
        message.ready = &ready;
        status = pack(&message, out);
    }
    free(list);
    free(info);
    return status;
}

enum tca_status control_pack_alive(int64_t oldest_answer_ms, uint64_t steps, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__Alive alive = TCA__CONTROL__V1__ALIVE__INIT;

    alive.oldest_answer_ms = (uint64_t)oldest_answer_ms;
    alive.steps = steps;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_ALIVE;
    message.alive = &alive;
    return pack(&message, out);
}

enum tca_status control_pack_failure(const char *text, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__GroupFailed failed = TCA__CONTROL__V1__GROUP_FAILED__INIT;

    failed.message = text_bytes(text);
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_GROUP_FAILED;
    message.group_failed = &failed;
    return pack(&message, out);
}

static enum tca_status pack_document_progress(const struct engine_event *event, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__DocumentProgress progress = TCA__CONTROL__V1__DOCUMENT_PROGRESS__INIT;

    progress.key = event->key;
    progress.tokens_done = (uint64_t)event->tokens_done;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_PROGRESS;
    message.document_progress = &progress;
    return pack(&message, out);
}

static enum tca_status pack_document_done(const struct engine_event *event,
                                          Tca__Control__V1__DocumentDone__State state,
                                          struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__DocumentDone done = TCA__CONTROL__V1__DOCUMENT_DONE__INIT;

    done.key = event->key;
    done.state = state;
    if (event->kind == ENGINE_DOCUMENT_FAILED) {
        done.code = rpc_code_from_status(event->status);
        done.message = text_bytes(event->message);
    }
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_DOCUMENT_DONE;
    message.document_done = &done;
    return pack(&message, out);
}

static enum tca_status pack_question_progress(const struct engine_event *event, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__QuestionProgress progress = TCA__CONTROL__V1__QUESTION_PROGRESS__INIT;

    progress.key = event->key;
    progress.tokens_done = (uint64_t)event->tokens_done;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_PROGRESS;
    message.question_progress = &progress;
    return pack(&message, out);
}

static enum tca_status pack_question_token(const struct engine_event *event, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__QuestionTokens tokens = TCA__CONTROL__V1__QUESTION_TOKENS__INIT;
    Tca__Control__V1__SampledToken token = TCA__CONTROL__V1__SAMPLED_TOKEN__INIT;
    Tca__Control__V1__SampledToken *token_list[1] = {&token};
    Tca__Control__V1__TokenChance chance[SAMPLER_TOP_MAX];
    Tca__Control__V1__TokenChance *chance_list[SAMPLER_TOP_MAX];

    for (int i = 0; i < event->token->top; i++) {
        tca__control__v1__token_chance__init(&chance[i]);
        chance[i].token_id = event->token->best[i].id;
        chance[i].logprob = event->token->best[i].logprob;
        chance_list[i] = &chance[i];
    }
    token.token_id = event->token->chosen.id;
    token.logprob = event->token->chosen.logprob;
    token.n_top = (size_t)event->token->top;
    token.top = chance_list;
    tokens.key = event->key;
    tokens.n_tokens = 1;
    tokens.tokens = token_list;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_TOKENS;
    message.question_tokens = &tokens;
    return pack(&message, out);
}

static enum tca_status pack_question_selection(const struct engine_event *event, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__QuestionSelection selection = TCA__CONTROL__V1__QUESTION_SELECTION__INIT;
    uint32_t bins[ENGINE_SELECTION_BINS];

    memcpy(bins, event->bins, sizeof(bins));
    selection.key = event->key;
    selection.layer = (uint32_t)event->layer;
    selection.kv_head = (uint32_t)event->kv_head;
    selection.n_bins = ENGINE_SELECTION_BINS;
    selection.bins = bins;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_SELECTION;
    message.question_selection = &selection;
    return pack(&message, out);
}

static enum tca_status pack_question_evicted(const struct engine_event *event, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__QuestionEvicted evicted = TCA__CONTROL__V1__QUESTION_EVICTED__INIT;

    evicted.key = event->key;
    evicted.kv_tokens = (uint64_t)event->kv_tokens;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_EVICTED;
    message.question_evicted = &evicted;
    return pack(&message, out);
}

static Tca__Control__V1__QuestionDone__Reason reason_of(enum question_end end)
{
    switch (end) {
    case QUESTION_EOS:
        return TCA__CONTROL__V1__QUESTION_DONE__REASON__EOS;
    case QUESTION_LENGTH:
        return TCA__CONTROL__V1__QUESTION_DONE__REASON__LENGTH;
    case QUESTION_CANCELLED:
        return TCA__CONTROL__V1__QUESTION_DONE__REASON__CANCELLED;
    case QUESTION_FAILED:
        return TCA__CONTROL__V1__QUESTION_DONE__REASON__FAILED;
    }
    return TCA__CONTROL__V1__QUESTION_DONE__REASON__REASON_UNSPECIFIED;
}

static enum tca_status pack_question_done(const struct engine_event *event, struct bytes *out)
{
    Tca__Control__V1__WorkerMessage message = TCA__CONTROL__V1__WORKER_MESSAGE__INIT;
    Tca__Control__V1__QuestionDone done = TCA__CONTROL__V1__QUESTION_DONE__INIT;

    done.key = event->key;
    done.reason = reason_of(event->end);
    if (event->end == QUESTION_FAILED) {
        done.code = rpc_code_from_status(event->status);
        done.message = text_bytes(event->message);
    }
    done.question_ms = (uint64_t)event->usage.question_ms;
    done.first_token_ms = (uint64_t)event->usage.first_token_ms;
    done.decode_ms = (uint64_t)event->usage.decode_ms;
    done.core_cache_bytes = (uint64_t)event->usage.core_cache_bytes;
    done.full_kv_bytes = (uint64_t)event->usage.full_kv_bytes;
    done.exchanged_bytes = (uint64_t)event->usage.exchanged_bytes;
    done.kept_share = event->usage.kept_share;
    done.kept_mass_mean = event->usage.kept_mass_mean;
    done.kept_mass_min = event->usage.kept_mass_min;
    message.body_case = TCA__CONTROL__V1__WORKER_MESSAGE__BODY_QUESTION_DONE;
    message.question_done = &done;
    return pack(&message, out);
}

enum tca_status control_pack_event(const struct engine_event *event, struct bytes *out)
{
    switch (event->kind) {
    case ENGINE_DOCUMENT_PROGRESS:
        return pack_document_progress(event, out);
    case ENGINE_DOCUMENT_READY:
        return pack_document_done(event, TCA__CONTROL__V1__DOCUMENT_DONE__STATE__READY, out);
    case ENGINE_DOCUMENT_CLOSED:
        return pack_document_done(event, TCA__CONTROL__V1__DOCUMENT_DONE__STATE__CLOSED, out);
    case ENGINE_DOCUMENT_FAILED:
        return pack_document_done(event, TCA__CONTROL__V1__DOCUMENT_DONE__STATE__FAILED, out);
    case ENGINE_QUESTION_PROGRESS:
        return pack_question_progress(event, out);
    case ENGINE_QUESTION_SELECTION:
        return pack_question_selection(event, out);
    case ENGINE_QUESTION_EVICTED:
        return pack_question_evicted(event, out);
    case ENGINE_QUESTION_TOKEN:
        return pack_question_token(event, out);
    case ENGINE_QUESTION_DONE:
        return pack_question_done(event, out);
    }
    return TCA_ERR_INVALID;
}

static bool bytes_equal(const ProtobufCBinaryData *data, const char *text)
{
    return data->len == strlen(text) && memcmp(data->data, text, data->len) == 0;
}

static enum tca_status read_device(const ProtobufCBinaryData *name, int32_t *device_out,
                                   struct tca_error *error)
{
    static const char *const names[] = {"auto", "cpu", "cuda"}; /* by enum control_device */

    *device_out = CONTROL_DEVICE_AUTO;
    if (name->len == 0)
        return TCA_OK;
    for (int i = 0; i < 3; i++) {
        *device_out = i;
        if (bytes_equal(name, names[i]))
            return TCA_OK;
    }
    return tca_fail(error, TCA_ERR_INVALID, "device: \"%.*s\" is not auto, cpu or cuda",
                    name->len > 32 ? 32 : (int)name->len, (const char *)name->data);
}

static enum tca_status read_settings(const Tca__Control__V1__Welcome *welcome,
                                     struct group_settings *settings, struct tca_error *error)
{
    const ProtobufCBinaryData *folder = &welcome->model_folder;

    if (folder->len == 0 || folder->len >= sizeof(settings->model_folder) ||
        memchr(folder->data, 0, folder->len) != NULL)
        return tca_fail(error, TCA_ERR_INVALID, "model_folder: %zu bytes, not 1 to %d", folder->len,
                        CONTROL_FOLDER_BYTES - 1);
    if (welcome->threads > THREADS_MAX || welcome->chunk_tokens > CHUNK_TOKENS_MAX ||
        welcome->max_sequences > SEQUENCES_MAX || welcome->max_tokens > INT32_MAX ||
        welcome->kv_memory_bytes > INT64_MAX)
        return tca_fail(error, TCA_ERR_INVALID,
                        "%u threads, %u tokens a chunk, %u sequences, %llu tokens: not within %d, "
                        "%d, %d, %d",
                        welcome->threads, welcome->chunk_tokens, welcome->max_sequences,
                        (unsigned long long)welcome->max_tokens, THREADS_MAX, CHUNK_TOKENS_MAX,
                        SEQUENCES_MAX, INT32_MAX);
    if (welcome->profile.len >= sizeof(settings->profile) ||
        (welcome->profile.len > 0 && memchr(welcome->profile.data, 0, welcome->profile.len)))
        return tca_fail(error, TCA_ERR_INVALID, "profile: %zu bytes, not 0 to %d",
                        welcome->profile.len, CONTROL_FOLDER_BYTES - 1);
    TCA_TRY(read_device(&welcome->device, &settings->device, error));
    if (welcome->profile.len > 0)
        memcpy(settings->profile, welcome->profile.data, welcome->profile.len);
    settings->window_tokens = welcome->window_tokens;
    settings->refresh_every = welcome->refresh_every;
    memcpy(settings->model_folder, folder->data, folder->len);
    settings->threads = (int32_t)welcome->threads;
    settings->kv_memory_bytes = (int64_t)welcome->kv_memory_bytes;
    settings->chunk_tokens = (int32_t)welcome->chunk_tokens;
    settings->max_sequences =
        welcome->max_sequences == 0 ? DEFAULT_SEQUENCES : (int32_t)welcome->max_sequences;
    settings->max_positions = (int64_t)welcome->max_tokens;
    settings->has_dummy_weights = welcome->dummy_weights != 0;
    return TCA_OK;
}

enum tca_status control_read_welcome(const struct bytes *message,
                                     struct group_settings *settings_out, struct tca_error *error)
{
    Tca__Control__V1__CoordinatorMessage *read =
        tca__control__v1__coordinator_message__unpack(NULL, message->size, message->data);
    enum tca_status status;

    *settings_out = (struct group_settings){0};
    if (read == NULL || read->body_case != TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_WELCOME)
        status = tca_fail(error, TCA_ERR_INVALID, "the coordinator's first message is no Welcome");
    else
        status = read_settings(read->welcome, settings_out, error);
    tca__control__v1__coordinator_message__free_unpacked(read, NULL);
    return status;
}

static int64_t clamped(uint64_t tokens)
{
    return tokens > INT64_MAX ? INT64_MAX : (int64_t)tokens;
}

static enum tca_status read_sparsity(ProtobufCBinaryData rule, double keep, double tau,
                                     struct sparsity *sparsity_out, struct tca_error *error)
{
    *sparsity_out = (struct sparsity){.keep = keep, .tau = tau};
    if (rule.len == 0)
        return TCA_OK;
    if (!select_method_parse((const char *)rule.data, rule.len, &sparsity_out->method))
        return tca_fail(error, TCA_ERR_INVALID, "rule: \"%.*s\" is unknown",
                        rule.len > 32 ? 32 : (int)rule.len, (const char *)rule.data);
    if (!(keep > 0.0 && keep <= 1.0) || !(tau >= 0.0 && tau <= 1.0))
        return tca_fail(error, TCA_ERR_INVALID, "keep %g, tau %g: not within (0, 1] and [0, 1]",
                        keep, tau);
    return TCA_OK;
}

static void open_document(const Tca__Control__V1__DocumentOpen *open, struct engine *engine)
{
    struct sparsity prefill;
    struct tca_error error;
    enum tca_status status = read_sparsity(open->rule, open->keep, 0.0, &prefill, &error);

    if (status != TCA_OK) {
        engine_refuse_document(engine, open->key, status, error.text);
        return;
    }
    prefill.dense_below_tokens = clamped(open->dense_below_tokens);
    engine_open_document(engine, open->key, clamped(open->token_count), &prefill);
}

static void open_question(const Tca__Control__V1__QuestionOpen *open, struct engine *engine)
{
    struct question_params params = {
        .key = open->key,
        .document_key = open->document_key,
        .tokens = clamped(open->token_count),
        .max_tokens = open->max_tokens,
        .sampling = {.temperature = open->temperature,
                     .top_k = open->top_k > INT32_MAX ? INT32_MAX : (int)open->top_k,
                     .top_p = open->top_p == 0.0 ? 1.0 : open->top_p,
                     .min_p = open->min_p,
                     .repetition_penalty =
                         open->repetition_penalty == 0.0 ? 1.0 : open->repetition_penalty,
                     .seed = open->seed,
                     .logprobs = open->logprobs > INT32_MAX ? INT32_MAX : (int)open->logprobs}};

    struct tca_error error;
    enum tca_status status =
        read_sparsity(open->rule, open->keep, open->tau, &params.sparsity, &error);

    if (status != TCA_OK) {
        engine_refuse_question(engine, open->key, status, error.text);
        return;
    }
    params.sparsity.core_tokens = clamped(open->core_tokens);
    params.evicts = open->evict != 0;
    params.reports_selection = open->report_selection != 0;
    if (open->n_end_token > QUESTION_END_TOKENS_MAX) {
        engine_refuse_question(engine, open->key, TCA_ERR_INVALID, "end_token: too many");
        return;
    }
    params.end_tokens = (int)open->n_end_token;
    for (int i = 0; i < params.end_tokens; i++)
        params.end_token[i] = open->end_token[i];
    engine_open_question(engine, &params);
}

/* Tokens travel as little-endian 32-bit integers; the hosts this runs on are little-endian too. */
static enum tca_status
receive_tokens(uint64_t key, const ProtobufCBinaryData *data, struct engine *engine,
               void (*receive)(struct engine *, uint64_t, const int32_t *, int64_t))
{
    int32_t *ids;

    if (data->len % sizeof(*ids) != 0)
        return TCA_ERR_INVALID;
    if (data->len == 0)
        return TCA_OK;
    ids = malloc(data->len);
    if (ids == NULL)
        return TCA_ERR_NO_MEMORY;
    memcpy(ids, data->data, data->len);
    receive(engine, key, ids, (int64_t)(data->len / sizeof(*ids)));
    free(ids);
    return TCA_OK;
}

static enum tca_status apply(const Tca__Control__V1__CoordinatorMessage *message,
                             struct engine *engine, bool *is_stop_out)
{
    switch (message->body_case) {
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_OPEN:
        open_document(message->document_open, engine);
        return TCA_OK;
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_TOKENS:
        return receive_tokens(message->document_tokens->key, &message->document_tokens->token_ids,
                              engine, engine_receive_document);
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_DOCUMENT_CLOSE:
        engine_close_document(engine, message->document_close->key);
        return TCA_OK;
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_OPEN:
        open_question(message->question_open, engine);
        return TCA_OK;
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_INPUT:
        return receive_tokens(message->question_input->key, &message->question_input->token_ids,
                              engine, engine_receive_question);
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_QUESTION_CANCEL:
        engine_cancel_question(engine, message->question_cancel->key);
        return TCA_OK;
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_STOP:
        *is_stop_out = true;
        return TCA_OK;
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY_WELCOME:
    case TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY__NOT_SET:
    case _TCA__CONTROL__V1__COORDINATOR_MESSAGE__BODY__CASE_IS_INT_SIZE:
        break;
    }
    return TCA_ERR_INVALID;
}

enum tca_status control_apply(const struct bytes *message, struct engine *engine, bool *is_stop_out,
                              struct tca_error *error)
{
    Tca__Control__V1__CoordinatorMessage *read =
        tca__control__v1__coordinator_message__unpack(NULL, message->size, message->data);
    enum tca_status status;

    *is_stop_out = false;
    status = read == NULL ? TCA_ERR_INVALID : apply(read, engine, is_stop_out);
    if (status != TCA_OK)
        tca_fail(error, status, "a message of the coordinator cannot be accepted: kind %d, %s",
                 read == NULL ? -1 : (int)read->body_case, tca_status_text(status));
    tca__control__v1__coordinator_message__free_unpacked(read, NULL);
    return status;
}
