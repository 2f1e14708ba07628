/* tca.v1.Admin: GetServerInfo, Drain. */
#include "base/clock.h"
#include "base/log.h"
#include "base/version.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/reply.h"
#include "coordinator/services.h"
#include "proto/message.h"

#include <stdlib.h>

static void fill_model(const struct coordinator *coordinator, Tca__V1__ServerInfo__Model *model)
{
    const Tca__Control__V1__Ready *ready = coordinator->link.ready;

    tca__v1__server_info__model__init(model);
    model->name = message_text(coordinator->model_name);
    model->profile = message_text("none");
    if (ready != NULL)
        model->fingerprint = ready->fingerprint;
    if (ready != NULL && ready->profile_id.len > 0)
        model->profile = ready->profile_id;
    model->family = message_text(coordinator->model.family);
    model->parameters = (uint64_t)model_config_parameters(&coordinator->model);
    model->max_tokens = (uint64_t)coordinator->max_tokens;
    model->weights = message_text(options_weights_name(coordinator->options->weights));
}

static void fill_worker(const struct coordinator *coordinator, size_t rank,
                        Tca__V1__ServerInfo__Worker *worker)
{
    const Tca__Control__V1__Ready *ready = coordinator->link.ready;

    tca__v1__server_info__worker__init(worker);
    worker->rank = (uint32_t)rank;
    worker->state = coordinator->phase == COORDINATOR_LOST
                        ? TCA__V1__SERVER_INFO__WORKER__STATE__LOST
                    : ready == NULL ? TCA__V1__SERVER_INFO__WORKER__STATE__STARTING
                                    : TCA__V1__SERVER_INFO__WORKER__STATE__READY;
    if (ready == NULL)
        return;
    worker->rank = ready->ranks[rank]->rank;
    worker->device = ready->ranks[rank]->device;
    worker->memory_bytes = ready->ranks[rank]->memory_bytes;
    worker->kv_heads = ready->ranks[rank]->kv_heads;
}

static void fill_counts(const struct coordinator *coordinator, Tca__V1__ServerInfo *info)
{
    const struct admission *admission = &coordinator->admission;

    info->kv_capacity_tokens = (uint64_t)(admission->document_pool + admission->question_pool);
    info->kv_used_tokens = (uint64_t)(admission->document_used + admission->question_used);
    info->running = (uint32_t)admission->running;
    for (const struct question *question = coordinator->questions; question != NULL;
         question = question->next)
        info->waiting +=
            question->state == QUESTION_TOKENIZING || question->state == QUESTION_WAITING;
    info->uptime_s = (uint64_t)(clock_monotonic_ms() - coordinator->started_ms) / 1000;
}

static void on_info(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    struct coordinator *coordinator = context;
    Tca__V1__ServerInfo info = TCA__V1__SERVER_INFO__INIT;
    Tca__V1__ServerInfo__Model model;
    Tca__V1__ServerInfo__Worker *workers;
    Tca__V1__ServerInfo__Worker **list;
    size_t count;

    (void)data; /* the request has no fields */
    (void)bytes;
    pthread_mutex_lock(&coordinator->lock);
    count = coordinator->link.ready != NULL ? coordinator->link.ready->n_ranks
                                            : (size_t)coordinator->options->workers;
    workers = calloc(count, sizeof(*workers));
    list = calloc(count, sizeof(Tca__V1__ServerInfo__Worker *));
    if (workers == NULL || list == NULL) {
        reply_code(call, RPC_RESOURCE_EXHAUSTED, "no memory for the answer");
    } else {
        fill_model(coordinator, &model);
        fill_counts(coordinator, &info);
        for (size_t i = 0; i < count; i++) {
            fill_worker(coordinator, i, &workers[i]);
            list[i] = &workers[i];
        }
        info.version = message_text(tca_version());
        info.model = &model;
        info.n_workers = count;
        info.workers = list;
        rpc_call_reply(call, &info);
    }
    pthread_mutex_unlock(&coordinator->lock);
    free(list);
    free(workers);
}

static void on_drain(struct rpc_call *call, void *context, const uint8_t *data, size_t bytes)
{
    Tca__V1__DrainResponse response = TCA__V1__DRAIN_RESPONSE__INIT;

    (void)data; /* the request has no fields */
    (void)bytes;
    log_info("%s asks to drain", rpc_call_peer(call));
    rpc_call_reply(call, &response); /* before the end, which may come at once */
    coordinator_drain(context);
}

size_t service_admin_methods(struct coordinator *coordinator, struct rpc_method *methods_out)
{
    methods_out[0] = (struct rpc_method){
        .path = "/tca.v1.Admin/GetServerInfo", .context = coordinator, .message = on_info};
    methods_out[1] = (struct rpc_method){
        .path = "/tca.v1.Admin/Drain", .context = coordinator, .message = on_drain};
    return 2;
}
