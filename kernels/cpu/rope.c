/* Rotary positions: the step's table of angles, and the split of a fused projection into rotated
 * queries and appended keys and values. The threads share the tokens. */
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rows.h"

#include <math.h>
#include <string.h>

struct table_job {
    float *table;
    const int32_t *positions;
    const float *inv_freq;
    int half;
    float magnitude;
};

static void table_rows(void *context, int first, int rows)
{
    const struct table_job *job = context;
    for (int row = first; row < first + rows; row++) {
        float *out = job->table + (size_t)row * 2 * (size_t)job->half;
        for (int i = 0; i < job->half; i++) {
            /* At a million tokens the rounding of the f32 product is what Hugging Face's models
             * were run with; sine and cosine of that product are exact to f32. */
            float angle = (float)job->positions[row] * job->inv_freq[i];
            out[2 * i] = (float)cos((double)angle) * job->magnitude;
            out[2 * i + 1] = (float)sin((double)angle) * job->magnitude;
        }
    }
}

enum tca_status cpu_rope_table(struct kernel_queue *base, float *table_out,
                               const int32_t *positions, int rows, const float *inv_freq, int half,
                               float magnitude)
{
    struct table_job job = {.table = table_out,
                            .positions = positions,
                            .inv_freq = inv_freq,
                            .half = half,
                            .magnitude = magnitude};
    cpu_queue_run_rows(cpu_queue_from(base), rows, 16, table_rows, &job);
    return TCA_OK;
}

struct append_job {
    const struct cpu_rows *kernels;
    const struct attention_shape *shape;
    const struct qk_norm *norm;
    const struct kv_append *append;
    uint16_t *q;
    const float *qkv;
    const float *rope;
};

static void turn_head(const struct append_job *job, uint16_t *out, const float *head,
                      const float *weight, const float *table)
{
    float normed[256];
    if (weight) {
        job->kernels->norm(normed, head, weight, job->shape->head_dim, job->norm->eps);
        head = normed;
    }
    job->kernels->rotate(out, head, table, job->shape->head_dim / 2);
}

static void append_token(const struct append_job *job, int index)
{
    const struct attention_shape *shape = job->shape;
    const struct kv_append *append = job->append;
    const float *q_norm = job->norm ? job->norm->q : NULL;
    const float *k_norm = job->norm ? job->norm->k : NULL;
    int dim = shape->head_dim;
    size_t token = (size_t)append->first_token + (size_t)index;
    size_t row_floats = (size_t)(shape->q_heads + 2 * shape->kv_heads) * (size_t)dim;
    const float *in = job->qkv + token * row_floats;
    const float *table = job->rope + token * (size_t)dim;

    uint16_t *q = job->q + token * (size_t)shape->q_heads * (size_t)dim;
    for (int head = 0; head < shape->q_heads; head++, in += dim, q += dim)
        turn_head(job, q, in, q_norm, table);
    int64_t at = (append->first_row + index) * dim;
    for (int head = 0; head < shape->kv_heads; head++, in += dim)
        turn_head(job, append->k + head * append->head_stride + at, in, k_norm, table);
    for (int head = 0; head < shape->kv_heads; head++, in += dim)
        job->kernels->to_bf16(append->v + head * append->head_stride + at, in, dim);
}

static void append_tokens(void *context, int first, int count)
{
    for (int index = first; index < first + count; index++)
        append_token(context, index);
}

enum tca_status cpu_rope_append(struct kernel_queue *base, uint16_t *q_out,
                                const struct kv_append *appends, int append_count, const void *qkv,
                                const struct attention_shape *shape, const float *rope,
                                const struct qk_norm *norm)
{
    struct cpu_queue *queue = cpu_queue_from(base);
    struct append_job job = {.kernels = cpu_rows(queue->isa),
                             .shape = shape,
                             .norm = norm,
                             .q = q_out,
                             .qkv = qkv,
                             .rope = rope};
    for (int i = 0; i < append_count; i++) {
        job.append = &appends[i];
        cpu_queue_run_rows(queue, appends[i].tokens, 8, append_tokens, &job);
    }
    return TCA_OK;
}
