/* What a question kept of its base, told to rank 0 by all ranks after the step that selected it.
 * Collective: every rank makes the same calls. */
#ifndef WORKER_SELECTION_REPORT_H
#define WORKER_SELECTION_REPORT_H

#include "comm/group.h"
#include "model/shard_plan.h"
#include "worker/core_cache.h"
#include "worker/device.h"

#include <stdint.h>

/* Sums over (layer, KV head) pairs, of one rank or of all. Plain data, gathered. */
struct selection_report {
    int64_t heads;     /* pairs */
    int64_t kept_rows; /* of the base */
    double mass_sum;   /* of each pair's mean over its queries and query heads */
    double mass_min;   /* least of any query */
};

/* This rank's part; ranks that share a KV head each report the rows that they hold, and the first
 * of them the pairs and masses. core NULL: everything is kept. rows:
 * queries that selected. Waits. */
enum tca_status selection_report_make(const struct device *device, const struct core_cache *core,
                                      const struct kv_shape *shape, const struct shard *shard,
                                      int64_t base_tokens, int rows,
                                      struct selection_report *report_out);

/* Rank 0 gets the sum over ranks in *report. TCA_ERR_COMM. */
enum tca_status selection_report_gather(struct comm_group *group, struct selection_report *report,
                                        int timeout_ms);

/* Rank 0 gets bins [layers, all heads, CORE_CACHE_BINS], the heads of a rank beside each other in
 * the order of ranks; kv_heads: host [ranks]. core NULL: everything is kept. bins_out: NULL
 * elsewhere. TCA_ERR_COMM, TCA_ERR_NO_MEMORY. */
enum tca_status selection_bins_gather(struct comm_group *group, const struct core_cache *core,
                                      const struct kv_shape *shape, int64_t base_tokens,
                                      const int *kv_heads, uint32_t *bins_out, int timeout_ms);

#endif
