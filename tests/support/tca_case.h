/* Queries, keys and values for tests of the TCA operations, and the plain double-precision scores
 * that they are compared with. */
#ifndef TESTS_SUPPORT_TCA_CASE_H
#define TESTS_SUPPORT_TCA_CASE_H

#include "tests/support/numbers.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

enum { TCA_OBSERVERS_MOST = 80 };

/* A chunk of `queries` after `earlier` tokens, `observers` of them observing. */
struct tca_case {
    const char *what;
    int kv_heads, group, head_dim;
    int queries, observers;
    int earlier;
};

struct tca_tensors {
    struct attention_shape shape;
    int queries;
    int count; /* of observers */
    int32_t observers[TCA_OBSERVERS_MOST];
    int64_t tokens; /* earlier and own */
    uint16_t *q;
    uint16_t *k, *v; /* [kv_heads, tokens + 3, head_dim]; the 3 rows are NaN */
    struct attention_segment earlier, own;
};

static inline void tca_tensors_init(struct tca_tensors *t, const struct tca_case *c)
{
    uint64_t random = 7;
    size_t dim = (size_t)c->head_dim;
    *t = (struct tca_tensors){.shape = {.q_heads = c->kv_heads * c->group,
                                        .kv_heads = c->kv_heads,
                                        .head_dim = c->head_dim,
                                        .scale = 1.0f / sqrtf((float)c->head_dim)},
                              .queries = c->queries,
                              .count = c->observers,
                              .tokens = c->earlier + c->queries};
    size_t stride = (size_t)(t->tokens + 3) * dim;
    size_t elements = stride * (size_t)c->kv_heads;
    t->q = new_bf16s((size_t)(c->queries * t->shape.q_heads) * dim, 4, &random);
    t->k = new_bf16s(elements, 4, &random);
    t->v = new_bf16s(elements, 3, &random);
    for (size_t h = 0; h < (size_t)c->kv_heads; h++) {
        size_t first = h * stride + (size_t)t->tokens * dim;
        memset(t->k + first, 0xff, 3 * dim * sizeof(*t->k));
        memset(t->v + first, 0xff, 3 * dim * sizeof(*t->v));
    }
    for (int i = 0; i < c->observers; i++) /* strided evenly, the last included */
        t->observers[i] = (i + 1) * c->queries / c->observers - 1;
    t->earlier = (struct attention_segment){
        .k = t->k, .v = t->v, .head_stride = (int64_t)stride, .rows = c->earlier};
    t->own = (struct attention_segment){.k = t->k + (size_t)c->earlier * dim,
                                        .v = t->v + (size_t)c->earlier * dim,
                                        .head_stride = (int64_t)stride,
                                        .rows = c->queries,
                                        .causal = true};
}

static inline void tca_tensors_deinit(struct tca_tensors *t)
{
    free(t->v);
    free(t->k);
    free(t->q);
}

/* scale * q . k of a query head and a token, in double. */
static inline double tca_score(const struct tca_tensors *t, int query, int head, int64_t token)
{
    int dim = t->shape.head_dim;
    int kv_head = head / (t->shape.q_heads / t->shape.kv_heads);
    const uint16_t *q = t->q + (size_t)(query * t->shape.q_heads + head) * (size_t)dim;
    const uint16_t *k = t->earlier.k + kv_head * t->earlier.head_stride + token * dim;
    double sum = 0;
    for (int i = 0; i < dim; i++)
        sum += (double)float_of_bf16(q[i]) * (double)float_of_bf16(k[i]);
    return sum * (double)t->shape.scale;
}

/* Log-sum-exp of a query head over tokens first .. end - 1. */
static inline double tca_lse(const struct tca_tensors *t, int query, int head, int64_t first,
                             int64_t end)
{
    double most = -INFINITY;
    double sum = 0;
    for (int64_t i = first; i < end; i++)
        most = fmax(most, tca_score(t, query, head, i));
    for (int64_t i = first; i < end; i++)
        sum += exp(tca_score(t, query, head, i) - most);
    return sum > 0 ? most + log(sum) : -INFINITY;
}

static inline struct kernel_queue *tca_queue(enum cpu_isa isa, int threads)
{
    struct kernel_queue *queue;
    assert_int_equal(cpu_queue_create(threads, isa, &queue), TCA_OK);
    return queue;
}

#endif
