/* Softmax attention with a running maximum and sum, so that nothing grows with queries x keys.
 * The threads share (item, query head, block of queries). */
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/ops.h"

#include <math.h>
#include <string.h>

enum { QUERY_BLOCK = 32, KEY_BLOCK = 64, HEAD_DIM_MOST = 256 };

struct attention_job {
    const struct attention_shape *shape;
    const struct attention_item *items;
    uint16_t *out;
    float *lse;
    const uint16_t *q;
};

/* The running softmax of one query: sum = sum of exp(score - most), acc the weighted values. */
struct softmax_state {
    float most;
    float sum;
    float acc[HEAD_DIM_MOST];
};

static float dot(const float *q, const uint16_t *k, int dim)
{
    float sum = 0;
    for (int i = 0; i < dim; i++)
        sum += q[i] * bf16_to_float(k[i]);
    return sum;
}

static void add_keys(struct softmax_state *state, const float *q, const uint16_t *k,
                     const uint16_t *v, int keys, int dim)
{
    float scores[KEY_BLOCK];
    float most = state->most;
    for (int key = 0; key < keys; key++) {
        scores[key] = dot(q, k + (size_t)key * (size_t)dim, dim);
        most = fmaxf(most, scores[key]);
    }
    float rescale = expf(state->most - most);
    state->sum *= rescale;
    for (int i = 0; i < dim; i++)
        state->acc[i] *= rescale;
    for (int key = 0; key < keys; key++) {
        float p = expf(scores[key] - most);
        state->sum += p;
        const uint16_t *row = v + (size_t)key * (size_t)dim;
        for (int i = 0; i < dim; i++)
            state->acc[i] += p * bf16_to_float(row[i]);
    }
    state->most = most;
}

static int64_t visible_rows(const struct attention_segment *segment, int kv_head, int query,
                            int queries)
{
    if (segment->rows_per_head)
        return segment->rows_per_head[kv_head];
    if (!segment->causal)
        return segment->rows;
    int64_t rows = segment->rows - queries + query + 1;
    return rows > 0 ? rows : 0;
}

static void attend(const struct attention_job *job, const struct attention_item *item, int head,
                   int query)
{
    const struct attention_shape *shape = job->shape;
    int dim = shape->head_dim;
    int kv_head = head / (shape->q_heads / shape->kv_heads);
    size_t row = (size_t)(item->first_query + query) * (size_t)shape->q_heads + (size_t)head;

    float q[HEAD_DIM_MOST];
    for (int i = 0; i < dim; i++)
        q[i] = bf16_to_float(job->q[row * (size_t)dim + (size_t)i]) * shape->scale;
    struct softmax_state state = {.most = -INFINITY};
    for (int s = 0; s < item->segments; s++) {
        const struct attention_segment *segment = &item->segment[s];
        int64_t rows = visible_rows(segment, kv_head, query, item->queries);
        const uint16_t *k = segment->k + kv_head * segment->head_stride;
        const uint16_t *v = segment->v + kv_head * segment->head_stride;
        for (int64_t key = 0; key < rows; key += KEY_BLOCK) {
            int keys = rows - key < KEY_BLOCK ? (int)(rows - key) : KEY_BLOCK;
            add_keys(&state, q, k + key * dim, v + key * dim, keys, dim);
        }
    }
    float scale = state.sum > 0 ? 1.0f / state.sum : 0.0f;
    for (int i = 0; i < dim; i++)
        job->out[row * (size_t)dim + (size_t)i] = bf16_from_float(state.acc[i] * scale);
    if (job->lse)
        job->lse[row] = state.sum > 0 ? state.most + logf(state.sum) : -INFINITY;
}

static void attend_part(void *context, int part, int thread)
{
    (void)thread;
    const struct attention_job *job = context;
    const struct attention_item *item = job->items;
    int blocks = (item->queries + QUERY_BLOCK - 1) / QUERY_BLOCK;
    while (part >= blocks * job->shape->q_heads) {
        part -= blocks * job->shape->q_heads;
        item++;
        blocks = (item->queries + QUERY_BLOCK - 1) / QUERY_BLOCK;
    }
    int first = part % blocks * QUERY_BLOCK;
    for (int query = first; query < first + QUERY_BLOCK && query < item->queries; query++)
        attend(job, item, part / blocks, query);
}

enum tca_status cpu_attention(struct kernel_queue *base, uint16_t *out, float *lse,
                              const uint16_t *q, const struct attention_shape *shape,
                              const struct attention_item *items, int item_count)
{
    struct attention_job job = {.shape = shape, .items = items, .out = out, .lse = lse, .q = q};
    int parts = 0;
    for (int i = 0; i < item_count; i++)
        parts += (items[i].queries + QUERY_BLOCK - 1) / QUERY_BLOCK * shape->q_heads;
    thread_pool_run(cpu_queue_from(base)->pool, parts, attend_part, &job);
    return TCA_OK;
}
