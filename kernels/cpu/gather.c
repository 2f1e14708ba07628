/* Selecting the tokens that every KV head keeps, a head a part of the work, and copying their K
 * and V rows together, a run of rows a part. */
#include "base/log.h"
#include "base/min.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"

#include <inttypes.h>
#include <string.h>

enum {
    PART_ROWS = 1024,
    TAIL_ROWS = 128 /* matrix kernels read whole tiles: 0 x NaN would be NaN */
};

struct select_job {
    enum select_rule rule;
    const struct select_input *input;
    const int64_t *budgets;
    int32_t *kept;
    int64_t kept_stride;
    int32_t *counts;
    unsigned char *scratch; /* [threads, thread_bytes] */
    size_t thread_bytes;
};

static void select_head(void *context, int head, int thread)
{
    const struct select_job *job = context;
    struct select_input input = *job->input;
    int64_t count = 0;
    if (input.token_scores)
        input.token_scores += head * input.tokens;
    if (input.block_masses)
        input.block_masses += head * select_blocks(input.tokens);
    if (input.tca_shares)
        input.tca_shares += (ptrdiff_t)head * SELECT_TCA_SIZES;
    /* Cannot fail: budgets were checked. */
    if (job->budgets[head] > 0)
        (void)select_run(job->rule, &input, job->budgets[head],
                         job->scratch + (size_t)thread * job->thread_bytes,
                         job->kept + head * job->kept_stride, &count);
    job->counts[head] = (int32_t)count;
}

static enum tca_status check_budgets(const struct select_job *job, int kv_heads)
{
    int64_t tokens = job->input->tokens;
    int64_t least = min_i64(tokens, SELECT_BLOCK_TOKENS + job->input->window);
    for (int head = 0; head < kv_heads; head++) {
        int64_t kept = min_i64(tokens, job->budgets[head]);
        if (kept == 0 || (kept >= least && kept <= job->kept_stride))
            continue;
        log_error("KV head %d: a budget of %" PRId64 " tokens is not in %" PRId64 "..%" PRId64,
                  head, job->budgets[head], least, job->kept_stride);
        return TCA_ERR_INVALID;
    }
    return TCA_OK;
}

enum tca_status cpu_select(struct kernel_queue *base, int32_t *kept_out, int64_t kept_stride,
                           int32_t *counts_out, enum select_rule rule,
                           const struct select_input *input, const int64_t *budgets, int kv_heads)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct select_job job = {.rule = rule,
                             .input = input,
                             .budgets = budgets,
                             .kept = kept_out,
                             .kept_stride = kept_stride,
                             .counts = counts_out};
    TCA_TRY(check_budgets(&job, kv_heads));
    job.thread_bytes = (select_scratch_bytes(input->tokens) + 63) / 64 * 64;
    job.scratch = cpu_queue_scratch(queue, (size_t)cpu_queue_threads(queue) * job.thread_bytes);
    if (!job.scratch)
        return TCA_ERR_NO_MEMORY;
    thread_pool_run(queue->pool, kv_heads, select_head, &job);
    return TCA_OK;
}

struct gather_job {
    const struct kv_copy *copy;
    const struct attention_segment *keys;
    const int32_t *kept;
    int64_t kept_stride;
    const int32_t *counts;
    size_t head_dim;
    int parts_per_head;
};

static void gather_part(void *context, int part, int thread)
{
    const struct gather_job *job = context;
    int head = part / job->parts_per_head;
    int64_t first = (int64_t)(part % job->parts_per_head) * PART_ROWS;
    int64_t end = min_i64(first + PART_ROWS, job->copy->rows);
    int64_t count = job->counts[head];
    int64_t with_tail = (count + TAIL_ROWS - 1) / TAIL_ROWS * TAIL_ROWS;
    const int32_t *kept = job->kept + head * job->kept_stride;
    const uint16_t *k = job->keys->k + cpu_segment_offset(job->keys, head);
    const uint16_t *v = job->keys->v + cpu_segment_offset(job->keys, head);
    const struct kv_copy *copy = job->copy;
    int64_t to = copy->head_offsets ? copy->head_offsets[head] : head * copy->head_stride;
    uint16_t *k_out = copy->k + to;
    uint16_t *v_out = copy->v + to;
    size_t dim = job->head_dim;
    (void)thread;
    int64_t i = first;
    for (; i < min_i64(end, count); i++) {
        size_t from = (size_t)kept[i] * dim;
        memcpy(k_out + (size_t)i * dim, k + from, dim * sizeof(*k));
        memcpy(v_out + (size_t)i * dim, v + from, dim * sizeof(*v));
    }
    if (i >= min_i64(end, with_tail))
        return;
    size_t bytes = (size_t)(min_i64(end, with_tail) - i) * dim * sizeof(*k);
    memset(k_out + (size_t)i * dim, 0, bytes);
    memset(v_out + (size_t)i * dim, 0, bytes);
}

enum tca_status cpu_gather(struct kernel_queue *base, const struct kv_copy *copy,
                           const struct attention_segment *keys, const int32_t *kept,
                           int64_t kept_stride, const int32_t *counts,
                           const struct attention_shape *shape)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct gather_job job = {.copy = copy,
                             .keys = keys,
                             .kept = kept,
                             .kept_stride = kept_stride,
                             .counts = counts,
                             .head_dim = (size_t)shape->head_dim,
                             .parts_per_head = (int)((copy->rows + PART_ROWS - 1) / PART_ROWS)};
    thread_pool_run(queue->pool, shape->kv_heads * job.parts_per_head, gather_part, &job);
    return TCA_OK;
}
