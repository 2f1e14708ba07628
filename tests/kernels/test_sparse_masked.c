/* The whole of sparse attention on the GPU, from scores to the merge, against a plain attention in
 * double precision in which every token that was not kept is masked. */
#include "tests/kernels/tca_sides.h"

enum { WINDOW = 100 };

struct rule_case {
    enum select_rule rule;
    enum select_redundancy redundancy;
};

static const struct rule_case rules[] = {
    {SELECT_WINDOW, SELECT_REDUNDANCY_SIMPSON}, {SELECT_BLOCK, SELECT_REDUNDANCY_SIMPSON},
    {SELECT_POOLED, SELECT_REDUNDANCY_SIMPSON}, {SELECT_TCA, SELECT_REDUNDANCY_SIMPSON},
    {SELECT_TCA, SELECT_REDUNDANCY_MASS},       {SELECT_DENSE, SELECT_REDUNDANCY_SIMPSON},
};

/* What comes back to the host. */
struct result {
    uint16_t *out;
    float *lse, *masses;
    int32_t *kept, *counts;
    int64_t kept_stride;
};

/* Sizes in bytes of what lies on the device. */
struct sizes {
    size_t out, lse, scores, observer_lse, block_masses, tokens, kept, counts, copy, masses;
};

static struct sizes sizes_of(const struct tca_tensors *t, int64_t copy_rows)
{
    size_t heads = (size_t)(t->queries * t->shape.q_heads);
    size_t rows = (size_t)(t->count * t->shape.q_heads);
    size_t kv_heads = (size_t)t->shape.kv_heads, dim = (size_t)t->shape.head_dim;
    size_t blocks = (size_t)select_blocks(t->earlier.rows);

    return (struct sizes){.out = heads * dim * sizeof(uint16_t),
                          .lse = heads * sizeof(float),
                          .scores = rows * blocks * sizeof(float),
                          .observer_lse = rows * sizeof(float),
                          .block_masses = kv_heads * blocks * sizeof(float),
                          .tokens = kv_heads * (size_t)t->earlier.rows * sizeof(float),
                          .kept = kv_heads * (size_t)t->earlier.rows * sizeof(int32_t),
                          .counts = kv_heads * sizeof(int32_t),
                          .copy = kv_heads * (size_t)copy_rows * dim * sizeof(uint16_t),
                          .masses = kv_heads * 2 * sizeof(float)};
}

static void make_budgets(const struct tca_tensors *t, enum select_rule rule, int64_t *budgets,
                         float shares[][SELECT_TCA_SIZES])
{
    int64_t least = SELECT_BLOCK_TOKENS + WINDOW;

    for (int head = 0; head < t->shape.kv_heads; head++) {
        select_tca_shares(2 + head % 2, 1, shares[head]);
        budgets[head] = least + (t->earlier.rows - least) * (head + 1) / 5;
        if (rule == SELECT_DENSE || t->earlier.rows < least)
            budgets[head] = t->earlier.rows;
    }
}

static struct result run(const struct side *side, const struct tca_tensors *t,
                         struct rule_case rule)
{
    const struct kernel_backend *cuda = side->backend;
    struct kernel_queue *queue = side->queue;
    const struct attention_shape *shape = &t->shape;
    int64_t tokens = t->earlier.rows, blocks = select_blocks(tokens);
    int64_t copy_rows = (blocks + 3) * SELECT_BLOCK_TOKENS;
    struct sizes n = sizes_of(t, copy_rows);
    float shares[TCA_HEADS_MOST][SELECT_TCA_SIZES];
    int64_t budgets[TCA_HEADS_MOST];
    struct tca_device d;

    tca_put(side, t, TCA_BY_STRIDE, &d);
    make_budgets(t, rule.rule, budgets, shares);
    void *out = put(side, NULL, n.out), *out_kept = put(side, NULL, n.out);
    void *lse = put(side, NULL, n.lse), *lse_kept = put(side, NULL, n.lse);
    float *scores = put(side, NULL, n.scores), *observer_lse = put(side, NULL, n.observer_lse);
    float *masses = put(side, NULL, n.block_masses), *token_scores = put(side, NULL, n.tokens);
    int32_t *kept = put(side, NULL, n.kept), *counts = put(side, NULL, n.counts);
    float *kept_masses = put(side, NULL, n.masses);
    struct kv_copy copy = {.k = put(side, NULL, n.copy),
                           .v = put(side, NULL, n.copy),
                           .head_stride = copy_rows * shape->head_dim,
                           .rows = copy_rows};
    struct attention_item own = {.queries = t->queries, .segments = 1, .segment = {d.own}};
    struct attention_item gathered = {.queries = t->queries,
                                      .segments = 1,
                                      .segment = {{.k = copy.k,
                                                   .v = copy.v,
                                                   .head_stride = copy.head_stride,
                                                   .rows = copy_rows,
                                                   .rows_per_head = counts}}};
    struct select_input input = {.tokens = tokens,
                                 .window = WINDOW,
                                 .token_scores = token_scores,
                                 .block_masses = masses,
                                 .redundancy = rule.redundancy,
                                 .tca_shares = shares[0]};

    assert_int_equal(cuda->attention(queue, out, lse, d.q, shape, &own, 1), TCA_OK);
    assert_int_equal(
        cuda->block_scores(queue, scores, d.q, shape, t->observers, t->count, &d.earlier), TCA_OK);
    assert_int_equal(cuda->observer_lse(queue, observer_lse, scores, lse, t->observers, t->count,
                                        shape->q_heads, blocks),
                     TCA_OK);
    assert_int_equal(
        cuda->block_masses(queue, masses, scores, observer_lse, t->count, shape, blocks), TCA_OK);
    assert_int_equal(cuda->token_scores(queue, token_scores, d.q, observer_lse, shape, t->observers,
                                        t->count, &d.earlier),
                     TCA_OK);
    assert_int_equal(
        cuda->select(queue, kept, tokens, counts, rule.rule, &input, budgets, shape->kv_heads),
        TCA_OK);
    assert_int_equal(cuda->gather(queue, &copy, &d.earlier, kept, tokens, counts, shape), TCA_OK);
    assert_int_equal(cuda->attention(queue, out_kept, lse_kept, d.q, shape, &gathered, 1), TCA_OK);
    assert_int_equal(cuda->attention_merge(queue, out, lse, out_kept, lse_kept, t->queries, shape),
                     TCA_OK);
    assert_int_equal(cuda->kept_masses(queue, kept_masses, lse_kept, lse, t->queries, shape),
                     TCA_OK);
    struct result result = {.out = take(side, out, n.out),
                            .lse = take(side, lse, n.lse),
                            .masses = take(side, kept_masses, n.masses),
                            .kept = take(side, kept, n.kept),
                            .counts = take(side, counts, n.counts),
                            .kept_stride = tokens};
    drop(side, out_kept, n.out);
    drop(side, lse_kept, n.lse);
    drop(side, scores, n.scores);
    drop(side, observer_lse, n.observer_lse);
    drop(side, masses, n.block_masses);
    drop(side, token_scores, n.tokens);
    drop(side, copy.k, n.copy);
    drop(side, copy.v, n.copy);
    tca_drop(side, &d);
    return result;
}

/* Attention of one query head with every earlier token masked that is not kept. *mass_out: the
 * share that the kept earlier tokens have of all that is attended to here. */
static void masked_dense(const struct tca_tensors *t, const uint8_t *is_kept, int query, int head,
                         double *out, double *lse_out, double *mass_out)
{
    int dim = t->shape.head_dim;
    int kv_head = head / (t->shape.q_heads / t->shape.kv_heads);
    int64_t visible = t->earlier.rows + query + 1;
    double most = -INFINITY, sum = 0, earlier = 0;

    memset(out, 0, (size_t)dim * sizeof(*out));
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < visible; i++) {
            if (i < t->earlier.rows && !is_kept[i])
                continue;
            double score = tca_score(t, query, head, i);
            if (pass == 0) {
                most = fmax(most, score);
                continue;
            }
            const uint16_t *v = t->v + kv_head * t->earlier.head_stride + i * dim;
            double p = exp(score - most);
            sum += p;
            earlier += i < t->earlier.rows ? p : 0;
            for (int d = 0; d < dim; d++)
                out[d] += p * (double)float_of_bf16(v[d]);
        }
    for (int d = 0; d < dim; d++)
        out[d] /= sum;
    *lse_out = most + log(sum);
    *mass_out = earlier / sum;
}

static void check(const struct tca_tensors *t, const struct result *r, const char *what)
{
    size_t dim = (size_t)t->shape.head_dim;
    int group = t->shape.q_heads / t->shape.kv_heads;
    uint8_t *is_kept = new_array((size_t)t->earlier.rows + 1, 1);
    double *want = new_array(dim, sizeof(*want));

    for (int kv_head = 0; kv_head < t->shape.kv_heads; kv_head++) {
        const int32_t *kept = r->kept + kv_head * r->kept_stride;
        double sum = 0, least = 1;

        memset(is_kept, 0, (size_t)t->earlier.rows);
        for (int i = 0; i < r->counts[kv_head]; i++)
            is_kept[kept[i]] = 1;
        for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
            for (int query = 0; query < t->queries; query++) {
                size_t row = (size_t)(query * t->shape.q_heads + head);
                double lse, mass;

                masked_dense(t, is_kept, query, head, want, &lse, &mass);
                /* P and three outputs are rounded to bf16; |v| <= 3. */
                assert_close_bf16(r->out + row * dim, want, dim, 0.03, 1.0 / 64, what);
                assert_close(r->lse + row, &lse, 1, 1e-4, 1e-5, what);
                sum += mass;
                least = fmin(least, mass);
            }
        assert_close(r->masses + 2 * (size_t)kv_head, &sum, 1, 1e-4, 1e-4, what);
        assert_close(r->masses + 2 * (size_t)kv_head + 1, &least, 1, 1e-6, 1e-3, what);
    }
    free(want);
    free(is_kept);
}

static void sparse_equals_masked_dense(void **state)
{
    (void)state;
    static const struct tca_case cases[] = {
        {"one token before one", 1, 1, 64, 1, 1, 1},
        {"one block", 2, 2, 64, 3, 2, 64},
        {"less than the window", 2, 3, 64, 5, 5, 99},
        {"sinks and window only", 1, 4, 64, 5, 5, 164},
        {"one token more", 2, 1, 64, 5, 5, 165},
        {"grouped by 1", 4, 1, 64, 20, 16, 900},
        {"grouped by 2", 4, 2, 64, 20, 16, 1025},
        {"grouped by 3", 3, 3, 64, 20, 16, 611},
        {"grouped by 4", 2, 4, 128, 11, 11, 770},
        {"an odd head size", 1, 2, 40, 33, 5, 333},
        {"256 rows", 1, 4, 128, 64, 64, 1500},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t r = 0; r < sizeof(rules) / sizeof(rules[0]); r++) {
            struct tca_tensors t;

            tca_tensors_init(&t, &cases[i]);
            struct result result = run(&sides[SIDE_CUDA], &t, rules[r]);
            check(&t, &result, cases[i].what);
            free(result.out);
            free(result.lse);
            free(result.masses);
            free(result.kept);
            free(result.counts);
            tca_tensors_deinit(&t);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparse_equals_masked_dense),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
