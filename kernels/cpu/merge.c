/* Arithmetic on log-sum-exps, the threads sharing rows or columns: what blocks of keys weigh,
 * the union of two attentions, and what is kept of one. */
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <math.h>
#include <string.h>

enum {
    GRAIN_VALUES = 8192, /* values a thread should have before a second one is worth waking */
    MASS_BLOCKS = 256    /* blocks of a part of block_masses */
};

static float log_add_exp(float a, float b)
{
    float most = fmaxf(a, b);
    if (most == -INFINITY)
        return most;
    return most + log1pf(expf(fminf(a, b) - most));
}

struct lse_job {
    const struct cpu_rows *kernels;
    float *out;
    const float *scores;
    const float *own;
    const int32_t *observers;
    int q_heads;
    int64_t blocks;
};

/* Rows are (observer, head) pairs. */
static void lse_rows(void *context, int first, int rows)
{
    const struct lse_job *job = context;
    for (int row = first; row < first + rows; row++) {
        const float *scores = job->scores + row * job->blocks;
        size_t query = (size_t)job->observers[row / job->q_heads];
        float own = job->own[query * (size_t)job->q_heads + (size_t)(row % job->q_heads)];
        float most = -INFINITY;
        for (int64_t j = 0; j < job->blocks; j++)
            most = fmaxf(most, scores[j]);
        float earlier = -INFINITY;
        if (most > -INFINITY)
            earlier = most + logf(job->kernels->sum_exp(scores, most, (int)job->blocks));
        job->out[row] = log_add_exp(own, earlier);
    }
}

enum tca_status cpu_observer_lse(struct kernel_queue *base, float *lse_out, const float *scores,
                                 const float *lse_own, const int32_t *observers, int count,
                                 int q_heads, int64_t blocks)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct lse_job job = {.kernels = cpu_rows(queue->isa),
                          .out = lse_out,
                          .scores = scores,
                          .own = lse_own,
                          .observers = observers,
                          .q_heads = q_heads,
                          .blocks = blocks};
    int grain = 1 + (int)(GRAIN_VALUES / (blocks + 1));
    cpu_queue_run_rows(queue, count * q_heads, grain, lse_rows, &job);
    return TCA_OK;
}

struct mass_job {
    const struct cpu_rows *kernels;
    float *out;
    const float *scores;
    const float *lse;
    int count;
    int q_heads;
    int group;
    int64_t blocks;
    int parts_per_head;
};

static void mass_part(void *context, int part, int thread)
{
    const struct mass_job *job = context;
    int kv_head = part / job->parts_per_head;
    int64_t first = (int64_t)(part % job->parts_per_head) * MASS_BLOCKS;
    int64_t left = job->blocks - first;
    int blocks = left < MASS_BLOCKS ? (int)left : MASS_BLOCKS;
    float *out = job->out + kv_head * job->blocks + first;
    (void)thread;
    for (int j = 0; j < blocks; j++)
        out[j] = -INFINITY;
    for (int observer = 0; observer < job->count; observer++)
        for (int head = kv_head * job->group; head < (kv_head + 1) * job->group; head++) {
            int64_t row = (int64_t)observer * job->q_heads + head;
            if (job->lse[row] > -INFINITY)
                job->kernels->raise(out, job->scores + row * job->blocks + first, job->lse[row],
                                    blocks);
        }
    job->kernels->exp(out, blocks);
}

enum tca_status cpu_block_masses(struct kernel_queue *base, float *masses_out, const float *scores,
                                 const float *lse, int count, const struct attention_shape *shape,
                                 int64_t blocks)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct mass_job job = {.kernels = cpu_rows(queue->isa),
                           .out = masses_out,
                           .scores = scores,
                           .lse = lse,
                           .count = count,
                           .q_heads = shape->q_heads,
                           .group = shape->q_heads / shape->kv_heads,
                           .blocks = blocks,
                           .parts_per_head = (int)((blocks + MASS_BLOCKS - 1) / MASS_BLOCKS)};
    thread_pool_run(queue->pool, shape->kv_heads * job.parts_per_head, mass_part, &job);
    return TCA_OK;
}

struct merge_job {
    const struct cpu_rows *kernels;
    uint16_t *out;
    float *lse;
    const uint16_t *out_other;
    const float *lse_other;
    int head_dim;
};

/* Rows are (query, head) pairs. */
static void merge_rows(void *context, int first, int rows)
{
    const struct merge_job *job = context;
    size_t dim = (size_t)job->head_dim;
    for (int row = first; row < first + rows; row++) {
        float lse = job->lse[row];
        float other_lse = job->lse_other[row];
        uint16_t *out = job->out + (size_t)row * dim;
        const uint16_t *other = job->out_other + (size_t)row * dim;
        float both = log_add_exp(lse, other_lse);
        job->lse[row] = both;
        if (both == -INFINITY)
            memset(out, 0, dim * sizeof(*out));
        else if (lse == -INFINITY)
            memcpy(out, other, dim * sizeof(*out));
        else if (other_lse > -INFINITY)
            job->kernels->blend(out, expf(lse - both), other, expf(other_lse - both),
                                job->head_dim);
    }
}

enum tca_status cpu_attention_merge(struct kernel_queue *base, uint16_t *out, float *lse,
                                    const uint16_t *out_other, const float *lse_other, int rows,
                                    const struct attention_shape *shape)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct merge_job job = {.kernels = cpu_rows(queue->isa),
                            .out = out,
                            .lse = lse,
                            .out_other = out_other,
                            .lse_other = lse_other,
                            .head_dim = shape->head_dim};
    cpu_queue_run_rows(queue, rows * shape->q_heads, 1 + GRAIN_VALUES / shape->head_dim, merge_rows,
                       &job);
    return TCA_OK;
}

struct kept_job {
    float *out;
    const float *lse_kept;
    const float *lse;
    int rows;
    int q_heads;
    int group;
};

static void kept_head(void *context, int kv_head, int thread)
{
    const struct kept_job *job = context;
    double sum = 0;
    float least = 1;
    (void)thread;
    for (int row = 0; row < job->rows; row++)
        for (int head = kv_head * job->group; head < (kv_head + 1) * job->group; head++) {
            size_t at = (size_t)row * (size_t)job->q_heads + (size_t)head;
            float mass = 1;
            if (job->lse[at] > -INFINITY)
                mass = fminf(1.0f, expf(job->lse_kept[at] - job->lse[at]));
            sum += (double)mass;
            least = fminf(least, mass);
        }
    job->out[2 * kv_head] = (float)sum;
    job->out[2 * kv_head + 1] = least;
}

enum tca_status cpu_kept_masses(struct kernel_queue *base, float *masses_out, const float *lse_kept,
                                const float *lse, int rows, const struct attention_shape *shape)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct kept_job job = {.out = masses_out,
                           .lse_kept = lse_kept,
                           .lse = lse,
                           .rows = rows,
                           .q_heads = shape->q_heads,
                           .group = shape->q_heads / shape->kv_heads};
    thread_pool_run(queue->pool, shape->kv_heads, kept_head, &job);
    return TCA_OK;
}
