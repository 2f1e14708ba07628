#include "worker/selection_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum tca_status add_heads(const struct core_cache *core, const int32_t *counts,
                                 const float *masses, int queries, struct selection_report *report)
{
    for (int64_t at = 0; at < report->heads; at++) {
        const int32_t whole = core->whole_rows[at];

        report->kept_rows += whole > 0 ? whole : counts[at];
        report->mass_sum += (double)masses[2 * at] / queries;
        report->mass_min = fmin(report->mass_min, (double)masses[2 * at + 1]);
    }
    return TCA_OK;
}

/* Stripes other than the first tell their rows alone. */
static void leave_to_first(const struct shard *shard, struct selection_report *report)
{
    if (shard->stripe > 0)
        *report = (struct selection_report){.kept_rows = report->kept_rows, .mass_min = 1.0};
}

enum tca_status selection_report_make(const struct device *device, const struct core_cache *core,
                                      const struct kv_shape *shape, const struct shard *shard,
                                      int64_t base_tokens, int rows,
                                      struct selection_report *report_out)
{
    const size_t heads = (size_t)shape->layers * (size_t)shape->kv_heads;
    int32_t *counts;
    float *masses;
    enum tca_status status = TCA_ERR_NO_MEMORY;

    *report_out = (struct selection_report){.heads = (int64_t)heads, .mass_min = 1.0};
    if (core == NULL) {
        report_out->kept_rows = (int64_t)heads * shard_plan_rows(shard, base_tokens);
        report_out->mass_sum = (double)heads;
        leave_to_first(shard, report_out);
        return TCA_OK;
    }
    counts = malloc(heads * sizeof(*counts));
    masses = malloc(heads * 2 * sizeof(*masses));
    if (counts != NULL && masses != NULL)
        status =
            device->backend->download(device->queue, counts, core->counts, heads * sizeof(*counts));
    if (status == TCA_OK)
        status = device->backend->download(device->queue, masses, core->masses,
                                           heads * 2 * sizeof(*masses));
    if (status == TCA_OK)
        status =
            add_heads(core, counts, masses, rows * (shard->q_heads / shape->kv_heads), report_out);
    leave_to_first(shard, report_out);
    free(counts);
    free(masses);
    return status;
}

enum tca_status selection_report_gather(struct comm_group *group, struct selection_report *report,
                                        int timeout_ms)
{
    struct selection_report all[COMM_RANKS_MAX];

    TCA_TRY(group->ops->gather(group, group->rank == 0 ? all : NULL, report, sizeof(*report), 0,
                               timeout_ms));
    if (group->rank != 0)
        return TCA_OK;
    for (int rank = 1; rank < group->ranks; rank++) {
        report->heads += all[rank].heads;
        report->kept_rows += all[rank].kept_rows;
        report->mass_sum += all[rank].mass_sum;
        report->mass_min = fmin(report->mass_min, all[rank].mass_min);
    }
    return TCA_OK;
}

/* Bins of a head that keeps everything. */
static void fill_whole(int64_t tokens, uint32_t *bins)
{
    memset(bins, 0, CORE_CACHE_BINS * sizeof(*bins));
    for (int64_t i = 0; i < tokens; i++)
        bins[i * CORE_CACHE_BINS / tokens]++;
}

/* A rank's bins as they travel: [layers, most heads of any rank, CORE_CACHE_BINS]. */
static void fill_own(const struct core_cache *core, const struct kv_shape *shape,
                     int64_t base_tokens, int most_heads, uint32_t *out)
{
    for (int layer = 0; layer < shape->layers; layer++)
        for (int head = 0; head < shape->kv_heads; head++) {
            uint32_t *to = out + ((ptrdiff_t)layer * most_heads + head) * CORE_CACHE_BINS;

            if (core == NULL)
                fill_whole(base_tokens, to);
            else
                memcpy(to,
                       core->bins + ((ptrdiff_t)layer * shape->kv_heads + head) * CORE_CACHE_BINS,
                       CORE_CACHE_BINS * sizeof(*to));
        }
}

static void spread(const uint32_t *gathered, const int *kv_heads, int ranks, int layers,
                   int most_heads, uint32_t *out)
{
    for (int layer = 0; layer < layers; layer++)
        for (int rank = 0; rank < ranks; rank++) {
            const size_t count = (size_t)kv_heads[rank] * CORE_CACHE_BINS;

            memcpy(out,
                   gathered + ((ptrdiff_t)rank * layers + layer) * most_heads * CORE_CACHE_BINS,
                   count * sizeof(*out));
            out += count;
        }
}

enum tca_status selection_bins_gather(struct comm_group *group, const struct core_cache *core,
                                      const struct kv_shape *shape, int64_t base_tokens,
                                      const int *kv_heads, uint32_t *bins_out, int timeout_ms)
{
    int most_heads = 0;
    size_t bytes;
    uint32_t *own, *gathered = NULL;
    enum tca_status status = TCA_ERR_NO_MEMORY;

    for (int rank = 0; rank < group->ranks; rank++)
        most_heads = kv_heads[rank] > most_heads ? kv_heads[rank] : most_heads;
    bytes = (size_t)shape->layers * (size_t)most_heads * CORE_CACHE_BINS * sizeof(*own);
    own = calloc(1, bytes);
    if (group->rank == 0)
        gathered = malloc(bytes * (size_t)group->ranks);
    if (own != NULL && (group->rank != 0 || gathered != NULL)) {
        fill_own(core, shape, base_tokens, most_heads, own);
        status = group->ops->gather(group, gathered, own, bytes, 0, timeout_ms);
    }
    if (status == TCA_OK && group->rank == 0)
        spread(gathered, kv_heads, group->ranks, shape->layers, most_heads, bins_out);
    free(gathered);
    free(own);
    return status;
}
