#include "worker/logits.h"

#include "model/shard_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct logits {
    struct device device;
    struct comm_group *group;
    int timeout_ms;
    int vocab;
    int *part_first;  /* owned [ranks]: first vocabulary row of each rank */
    int *part_count;  /* owned [ranks] */
    int part_max;     /* most of any rank */
    int rows, top;    /* of the last gather */
    char *send;       /* owned: this rank's message */
    char *receive;    /* owned, rank 0: [ranks, message] */
    float *full;      /* owned, rank 0: [vocab] */
    float *row_value; /* owned, rank 0: [top]: the row being merged */
    int32_t *row_id;  /* owned, rank 0: [top] */
};

/* A candidate message: values [rows, top] f32, ids [rows, top] i32, lse [rows] f32. */
static size_t top_message_bytes(int rows, int top)
{
    return (size_t)rows * (2 * (size_t)top + 1) * sizeof(float);
}

static enum tca_status list_parts(struct logits *logits, const struct model_config *config,
                                  struct tca_error *error)
{
    int ranks = logits->group->ranks;

    logits->part_first = calloc((size_t)ranks, sizeof(*logits->part_first));
    logits->part_count = calloc((size_t)ranks, sizeof(*logits->part_count));
    if (logits->part_first == NULL || logits->part_count == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the list of ranks");
    for (int rank = 0; rank < ranks; rank++) {
        struct shard shard;

        TCA_TRY(shard_plan_make(config, rank, ranks, &shard, error));
        logits->part_first[rank] = shard.vocab_first;
        logits->part_count[rank] = shard.vocab;
        if (shard.vocab > logits->part_max)
            logits->part_max = shard.vocab;
    }
    return TCA_OK;
}

enum tca_status logits_create(const struct device *device, struct comm_group *group,
                              const struct model_config *config, int rows, int top, int timeout_ms,
                              struct logits **logits_out, struct tca_error *error)
{
    struct logits *logits = calloc(1, sizeof(*logits));
    enum tca_status status;
    size_t message;

    if (logits == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for logits");
    *logits = (struct logits){
        .device = *device, .group = group, .timeout_ms = timeout_ms, .vocab = config->vocab};
    status = list_parts(logits, config, error);
    if (status != TCA_OK)
        goto err;
    message = top_message_bytes(rows, top);
    if (message < (size_t)logits->part_max * sizeof(float))
        message = (size_t)logits->part_max * sizeof(float);
    logits->send = calloc(1, message);
    logits->full = calloc((size_t)config->vocab, sizeof(*logits->full));
    logits->row_value = calloc((size_t)top, sizeof(*logits->row_value));
    logits->row_id = calloc((size_t)top, sizeof(*logits->row_id));
    if (group->rank == 0)
        logits->receive = calloc((size_t)group->ranks, message);
    if (logits->send == NULL || logits->full == NULL || logits->row_value == NULL ||
        logits->row_id == NULL || (group->rank == 0 && logits->receive == NULL)) {
        status = tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for logits");
        goto err;
    }
    *logits_out = logits;
    return TCA_OK;
err:
    logits_destroy(logits);
    return status;
}

void logits_destroy(struct logits *logits)
{
    if (logits == NULL)
        return;
    free(logits->part_first);
    free(logits->part_count);
    free(logits->send);
    free(logits->receive);
    free(logits->full);
    free(logits->row_value);
    free(logits->row_id);
    free(logits);
}

enum tca_status logits_gather_top(struct logits *logits, const float *part, int rows, int top)
{
    const struct device *device = &logits->device;
    struct comm_group *group = logits->group;
    int own = logits->part_count[group->rank];
    int found = top < own ? top : own;
    float *values = (void *)logits->send;
    int32_t *ids = (void *)(logits->send + (size_t)rows * (size_t)top * sizeof(float));
    float *lse = (void *)(logits->send + 2 * (size_t)rows * (size_t)top * sizeof(float));

    logits->rows = rows;
    logits->top = top;
    TCA_TRY(device->backend->logits_top(device->queue, values, ids, lse, part, rows, own, found));
    /* A part smaller than `top` fills its rows up with candidates that never win. */
    for (int row = rows - 1; row >= 0; row--) {
        for (int i = top - 1; i >= 0; i--) {
            size_t to = (size_t)row * (size_t)top + (size_t)i;
            size_t from = (size_t)row * (size_t)found + (size_t)i;

            values[to] = i < found ? values[from] : -INFINITY;
            ids[to] = i < found ? ids[from] + logits->part_first[group->rank] : INT32_MAX;
        }
    }
    return group->ops->gather(group, logits->receive, logits->send, top_message_bytes(rows, top), 0,
                              logits->timeout_ms);
}

/* log(e^a + e^b) */
static float log_add(float a, float b)
{
    float most = a > b ? a : b;

    if (most == -INFINITY)
        return most;
    return most + logf(expf(a - most) + expf(b - most));
}

/* Put a candidate into its place among the row's best; false when it is worse than all. */
static bool insert_candidate(struct logits *logits, int *found, float value, int32_t id)
{
    int place = *found;

    while (place > 0 && (value > logits->row_value[place - 1] ||
                         (value == logits->row_value[place - 1] && id < logits->row_id[place - 1])))
        place--;
    if (place == logits->top)
        return false;
    if (*found < logits->top)
        ++*found;
    for (int i = *found - 1; i > place; i--) {
        logits->row_value[i] = logits->row_value[i - 1];
        logits->row_id[i] = logits->row_id[i - 1];
    }
    logits->row_value[place] = value;
    logits->row_id[place] = id;
    return true;
}

struct logits_row logits_top_row(struct logits *logits, int row)
{
    size_t message = top_message_bytes(logits->rows, logits->top);
    size_t top = (size_t)logits->top;
    float lse = -INFINITY;
    int found = 0;

    for (int rank = 0; rank < logits->group->ranks; rank++) {
        const char *from = logits->receive + (size_t)rank * message;
        const float *values = (const void *)from;
        const int32_t *ids = (const void *)(from + (size_t)logits->rows * top * sizeof(float));
        const float *sums = (const void *)(from + 2 * (size_t)logits->rows * top * sizeof(float));

        lse = log_add(lse, sums[row]);
        for (size_t i = 0; i < top; i++) {
            size_t at = (size_t)row * top + i;

            if (ids[at] == INT32_MAX || !insert_candidate(logits, &found, values[at], ids[at]))
                break;
        }
    }
    return (struct logits_row){.top = found,
                               .top_value = logits->row_value,
                               .top_id = logits->row_id,
                               .lse = lse,
                               .vocab = logits->vocab};
}

enum tca_status logits_gather_full(struct logits *logits, const float *part,
                                   struct logits_row *row_out)
{
    const struct device *device = &logits->device;
    struct comm_group *group = logits->group;
    size_t message = (size_t)logits->part_max * sizeof(float);

    TCA_TRY(device->backend->download(device->queue, logits->send, part,
                                      (size_t)logits->part_count[group->rank] * sizeof(float)));
    TCA_TRY(
        group->ops->gather(group, logits->receive, logits->send, message, 0, logits->timeout_ms));
    if (group->rank != 0)
        return TCA_OK;
    for (int rank = 0; rank < group->ranks; rank++)
        memcpy(logits->full + logits->part_first[rank], logits->receive + (size_t)rank * message,
               (size_t)logits->part_count[rank] * sizeof(float));
    *row_out = (struct logits_row){.full = logits->full, .vocab = logits->vocab};
    return TCA_OK;
}
