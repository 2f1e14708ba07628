/* Selection, gathering and merging; and the whole of sparse attention against a plain one over
 * the tokens that were kept. */
#include "tests/support/tca_case.h"

enum { WINDOW = 100, HEADS_MOST = 8 };

/* Everything that one sparse chunk makes. */
struct sparse {
    float *lse_own, *lse_kept; /* [queries, q_heads]; lse_own is merged into */
    uint16_t *out, *out_kept;
    float *scores, *lse, *masses, *tokens;
    int32_t *kept; /* [kv_heads, budget of the most] */
    int32_t counts[HEADS_MOST];
    struct kv_copy copy;
    uint16_t *copied; /* K then V, owned */
    int64_t kept_stride;
};

struct rule_case {
    enum select_rule rule;
    enum select_redundancy redundancy;
};

static const struct rule_case rules[] = {
    {SELECT_WINDOW, SELECT_REDUNDANCY_SIMPSON}, {SELECT_BLOCK, SELECT_REDUNDANCY_SIMPSON},
    {SELECT_POOLED, SELECT_REDUNDANCY_SIMPSON}, {SELECT_TCA, SELECT_REDUNDANCY_SIMPSON},
    {SELECT_TCA, SELECT_REDUNDANCY_MASS},       {SELECT_DENSE, SELECT_REDUNDANCY_SIMPSON},
};

static void sparse_init(struct sparse *s, const struct tca_tensors *t)
{
    size_t heads = (size_t)(t->queries * t->shape.q_heads);
    size_t kv_heads = (size_t)t->shape.kv_heads;
    size_t dim = (size_t)t->shape.head_dim;
    int64_t blocks = select_blocks(t->earlier.rows);
    size_t rows = (size_t)(blocks + 3) * SELECT_BLOCK_TOKENS;
    *s = (struct sparse){.lse_own = new_floats(heads, NULL),
                         .lse_kept = new_floats(heads, NULL),
                         .out = new_array(heads * dim, sizeof(uint16_t)),
                         .out_kept = new_array(heads * dim, sizeof(uint16_t)),
                         .scores = new_floats((size_t)(t->count * t->shape.q_heads * blocks), NULL),
                         .lse = new_floats((size_t)(t->count * t->shape.q_heads), NULL),
                         .masses = new_floats(kv_heads * (size_t)blocks, NULL),
                         .tokens = new_floats(kv_heads * (size_t)t->earlier.rows, NULL),
                         .kept_stride = t->earlier.rows + 1};
    s->kept = new_array(kv_heads * (size_t)s->kept_stride, sizeof(*s->kept));
    size_t elements = kv_heads * rows * dim;
    s->copied = new_array(2 * elements, sizeof(*s->copied));
    memset(s->copied, 0xff, 2 * elements * sizeof(*s->copied)); /* NaN */
    s->copy = (struct kv_copy){.k = s->copied,
                               .v = s->copied + elements,
                               .head_stride = (int64_t)(rows * dim),
                               .rows = (int64_t)rows};
}

static void sparse_deinit(struct sparse *s)
{
    free(s->copied);
    free(s->kept);
    free(s->tokens);
    free(s->masses);
    free(s->lse);
    free(s->scores);
    free(s->out_kept);
    free(s->out);
    free(s->lse_kept);
    free(s->lse_own);
}

static int64_t budget_of(const struct tca_tensors *t, int head)
{
    /* Ragged: every head has its own. */
    int64_t least = SELECT_BLOCK_TOKENS + WINDOW;
    int64_t budget = least + (t->earlier.rows - least) * (head + 1) / 5;
    return t->earlier.rows < least ? t->earlier.rows : budget;
}

/* Own chunk, scores, LSE, masses, token scores: what selection needs. */
static void run_scores(struct kernel_queue *queue, const struct tca_tensors *t, struct sparse *s)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct attention_item own = {.queries = t->queries, .segments = 1, .segment = {t->own}};
    assert_int_equal(cpu->attention(queue, s->out, s->lse_own, t->q, &t->shape, &own, 1), TCA_OK);
    assert_int_equal(
        cpu->block_scores(queue, s->scores, t->q, &t->shape, t->observers, t->count, &t->earlier),
        TCA_OK);
    int64_t blocks = select_blocks(t->earlier.rows);
    assert_int_equal(cpu->observer_lse(queue, s->lse, s->scores, s->lse_own, t->observers, t->count,
                                       t->shape.q_heads, blocks),
                     TCA_OK);
    assert_int_equal(
        cpu->block_masses(queue, s->masses, s->scores, s->lse, t->count, &t->shape, blocks),
        TCA_OK);
    assert_int_equal(cpu->token_scores(queue, s->tokens, t->q, s->lse, &t->shape, t->observers,
                                       t->count, &t->earlier),
                     TCA_OK);
}

/* The heads are first_head, .. of a model: budgets belong to heads. */
static void run_select(struct kernel_queue *queue, const struct tca_tensors *t, struct sparse *s,
                       struct rule_case rule, int first_head)
{
    float shares[HEADS_MOST][SELECT_TCA_SIZES];
    int64_t budgets[HEADS_MOST];
    struct select_input input = {.tokens = t->earlier.rows,
                                 .window = WINDOW,
                                 .token_scores = s->tokens,
                                 .block_masses = s->masses,
                                 .redundancy = rule.redundancy,
                                 .tca_shares = shares[0]};
    for (int head = 0; head < t->shape.kv_heads; head++)
        select_tca_shares(2 + (first_head + head) % 2, 1, shares[head]);
    for (int head = 0; head < t->shape.kv_heads; head++)
        budgets[head] =
            rule.rule == SELECT_DENSE ? t->earlier.rows : budget_of(t, first_head + head);
    assert_int_equal(kernel_backend_cpu()->select(queue, s->kept, s->kept_stride, s->counts,
                                                  rule.rule, &input, budgets, t->shape.kv_heads),
                     TCA_OK);
}

/* Attention over the gathered rows, merged with the own chunk's. */
static void run_kept(struct kernel_queue *queue, const struct tca_tensors *t, struct sparse *s)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct attention_item item = {.queries = t->queries,
                                  .segments = 1,
                                  .segment = {{.k = s->copy.k,
                                               .v = s->copy.v,
                                               .head_stride = s->copy.head_stride,
                                               .rows = s->copy.rows,
                                               .rows_per_head = s->counts}}};
    assert_int_equal(
        cpu->gather(queue, &s->copy, &t->earlier, s->kept, s->kept_stride, s->counts, &t->shape),
        TCA_OK);
    assert_int_equal(cpu->attention(queue, s->out_kept, s->lse_kept, t->q, &t->shape, &item, 1),
                     TCA_OK);
    assert_int_equal(cpu->attention_merge(queue, s->out, s->lse_own, s->out_kept, s->lse_kept,
                                          t->queries, &t->shape),
                     TCA_OK);
}

/* Dense attention of one query head in double, with every earlier token masked that is not kept. */
static void masked_dense(const struct tca_tensors *t, const uint8_t *is_kept, int query, int head,
                         double *out, double *lse_out)
{
    int dim = t->shape.head_dim;
    int kv_head = head / (t->shape.q_heads / t->shape.kv_heads);
    int64_t visible = t->earlier.rows + query + 1;
    double most = -INFINITY;
    double sum = 0;
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
            for (int d = 0; d < dim; d++)
                out[d] += p * (double)float_of_bf16(v[d]);
        }
    for (int d = 0; d < dim; d++)
        out[d] /= sum;
    *lse_out = most + log(sum);
}

static void check_against_masked(const struct tca_tensors *t, const struct sparse *s,
                                 const char *what)
{
    size_t dim = (size_t)t->shape.head_dim;
    int group = t->shape.q_heads / t->shape.kv_heads;
    uint8_t *is_kept = new_array((size_t)t->earlier.rows + 1, 1);
    double *want = new_array(dim, sizeof(*want));
    for (int head = 0; head < t->shape.q_heads; head++) {
        const int32_t *kept = s->kept + head / group * s->kept_stride;
        memset(is_kept, 0, (size_t)t->earlier.rows);
        for (int i = 0; i < s->counts[head / group]; i++)
            is_kept[kept[i]] = 1;
        for (int query = 0; query < t->queries; query++) {
            size_t row = (size_t)(query * t->shape.q_heads + head);
            double lse;
            masked_dense(t, is_kept, query, head, want, &lse);
            /* P and three outputs are rounded to bf16; |v| <= 3. */
            assert_close_bf16(s->out + row * dim, want, dim, 0.03, 1.0 / 64, what);
            assert_close(s->lse_own + row, &lse, 1, 1e-4, 1e-5, what);
        }
    }
    free(want);
    free(is_kept);
}

/* Rows up to the next multiple of 128 are zeros, the rest is as it was. */
static void check_tails(const struct tca_tensors *t, const struct sparse *s)
{
    int64_t dim = t->shape.head_dim;
    for (int head = 0; head < t->shape.kv_heads; head++) {
        int64_t count = s->counts[head];
        int64_t end = (count + 127) / 128 * 128 * dim;
        end = end < s->copy.rows * dim ? end : s->copy.rows * dim;
        const uint16_t *k = s->copy.k + head * s->copy.head_stride;
        const uint16_t *v = s->copy.v + head * s->copy.head_stride;
        for (int64_t i = 0; i < count; i++) {
            int64_t from = head * t->earlier.head_stride + s->kept[head * s->kept_stride + i] * dim;
            size_t bytes = (size_t)dim * sizeof(*k);
            assert_memory_equal(k + i * dim, t->earlier.k + from, bytes);
            assert_memory_equal(v + i * dim, t->earlier.v + from, bytes);
        }
        for (int64_t i = count * dim; i < end; i++)
            assert_true(k[i] == 0 && v[i] == 0);
        for (int64_t i = end; i < s->copy.rows * dim; i++)
            assert_true(k[i] == 0xffff && v[i] == 0xffff);
    }
}

static const struct tca_case cases[] = {
    {"one token before one", 1, 1, 64, 1, 1, 1},  {"one block", 2, 2, 64, 3, 2, 64},
    {"less than the window", 2, 3, 64, 5, 5, 99}, {"sinks and window only", 1, 4, 64, 5, 5, 164},
    {"one token more", 2, 1, 64, 5, 5, 165},      {"grouped by 1", 4, 1, 64, 20, 16, 900},
    {"grouped by 2", 4, 2, 64, 20, 16, 1025},     {"grouped by 3", 3, 3, 64, 20, 16, 611},
    {"grouped by 4", 2, 4, 128, 11, 11, 770},     {"an odd head size", 1, 2, 40, 33, 5, 333},
};

static void sparse_equals_masked_dense(void **state)
{
    (void)state;
    static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t r = 0; r < sizeof(rules) / sizeof(rules[0]); r++) {
            struct kernel_queue *queue = tca_queue(isas[(i + r) % 3], (int)r % 3 + 1);
            struct tca_tensors t;
            struct sparse s;
            tca_tensors_init(&t, &cases[i]);
            sparse_init(&s, &t);
            run_scores(queue, &t, &s);
            run_select(queue, &t, &s, rules[r], 0);
            for (int head = 0; head < t.shape.kv_heads; head++) {
                int64_t most = rules[r].rule == SELECT_DENSE ? t.earlier.rows : budget_of(&t, head);
                assert_in_range(s.counts[head], 1, most);
                if (rules[r].rule == SELECT_DENSE)
                    assert_int_equal(s.counts[head], t.earlier.rows);
            }
            run_kept(queue, &t, &s);
            check_tails(&t, &s);
            check_against_masked(&t, &s, cases[i].what);
            sparse_deinit(&s);
            tca_tensors_deinit(&t);
            cpu_queue_destroy(queue);
        }
}

/* The tensors of a rank that has KV heads first .. first + heads - 1. */
static void shard_init(struct tca_tensors *shard, const struct tca_tensors *t, int first, int heads)
{
    int group = t->shape.q_heads / t->shape.kv_heads;
    size_t row = (size_t)(group * t->shape.head_dim);
    *shard = *t;
    shard->shape.kv_heads = heads;
    shard->shape.q_heads = heads * group;
    shard->k = shard->v = NULL;
    shard->q = new_array((size_t)(t->queries * heads) * row, sizeof(*shard->q));
    for (size_t query = 0; query < (size_t)t->queries; query++)
        memcpy(shard->q + query * (size_t)heads * row,
               t->q + (query * (size_t)t->shape.kv_heads + (size_t)first) * row,
               (size_t)heads * row * sizeof(*shard->q));
    shard->earlier.k += first * t->earlier.head_stride;
    shard->earlier.v += first * t->earlier.head_stride;
    shard->own.k += first * t->own.head_stride;
    shard->own.v += first * t->own.head_stride;
}

/* A rank with `heads` of the whole's KV heads, from `first` on, finds what the whole found. */
static void check_shard(struct kernel_queue *queue, const struct tca_tensors *t,
                        const struct sparse *whole, struct rule_case rule, int first, int heads)
{
    int64_t blocks = select_blocks(t->earlier.rows);
    struct tca_tensors shard;
    struct sparse s;
    shard_init(&shard, t, first, heads);
    sparse_init(&s, &shard);
    run_scores(queue, &shard, &s);
    run_select(queue, &shard, &s, rule, first);
    assert_memory_equal(s.masses, whole->masses + first * blocks,
                        (size_t)(heads * blocks) * sizeof(*s.masses));
    assert_memory_equal(s.tokens, whole->tokens + first * t->earlier.rows,
                        (size_t)(heads * t->earlier.rows) * sizeof(*s.tokens));
    for (int head = 0; head < heads; head++) {
        assert_int_equal(s.counts[head], whole->counts[first + head]);
        assert_memory_equal(s.kept + head * s.kept_stride,
                            whole->kept + (first + head) * whole->kept_stride,
                            (size_t)s.counts[head] * sizeof(*s.kept));
    }
    sparse_deinit(&s);
    free(shard.q);
}

static void sharded_heads_keep_the_same_tokens(void **state)
{
    (void)state;
    static const struct tca_case c = {"sharded", 4, 2, 64, 64, 16, 3000};
    static const int plans[][4] = {{2, 2}, {2, 1, 1}, {1, 1, 1, 1}, {3, 1}};
    struct kernel_queue *queue = tca_queue(cpu_isa_detect(), 3);
    struct kernel_queue *rank_queue = tca_queue(cpu_isa_detect(), 1);
    struct tca_tensors t;
    tca_tensors_init(&t, &c);
    for (size_t r = 0; r < sizeof(rules) / sizeof(rules[0]); r++) {
        struct sparse whole;
        sparse_init(&whole, &t);
        run_scores(queue, &t, &whole);
        run_select(queue, &t, &whole, rules[r], 0);
        for (size_t plan = 0; plan < sizeof(plans) / sizeof(plans[0]); plan++)
            for (int rank = 0, first = 0; rank < 4; first += plans[plan][rank++])
                if (plans[plan][rank] > 0)
                    check_shard(rank_queue, &t, &whole, rules[r], first, plans[plan][rank]);
        sparse_deinit(&whole);
    }
    tca_tensors_deinit(&t);
    cpu_queue_destroy(rank_queue);
    cpu_queue_destroy(queue);
}

static void impossible_budgets_are_refused(void **state)
{
    (void)state;
    struct kernel_queue *queue = tca_queue(cpu_isa_detect(), 2);
    struct select_input input = {.tokens = 1000, .window = WINDOW};
    int32_t kept[2 * 200];
    int32_t counts[2] = {-7, -7};
    int64_t budgets[2] = {164, 163};
    enum tca_status (*run)(struct kernel_queue *, int32_t *, int64_t, int32_t *, enum select_rule,
                           const struct select_input *, const int64_t *, int) =
        kernel_backend_cpu()->select;
    assert_int_equal(run(queue, kept, 200, counts, SELECT_WINDOW, &input, budgets, 2),
                     TCA_ERR_INVALID);
    budgets[1] = 201; /* more than there is room for */
    assert_int_equal(run(queue, kept, 200, counts, SELECT_WINDOW, &input, budgets, 2),
                     TCA_ERR_INVALID);
    assert_true(counts[0] == -7 && counts[1] == -7);
    budgets[1] = 200;
    assert_int_equal(run(queue, kept, 200, counts, SELECT_WINDOW, &input, budgets, 2), TCA_OK);
    assert_true(counts[0] == 164 && counts[1] == 200);
    assert_true(kept[63] == 63 && kept[64] == 900 && kept[200 + 64] == 864);
    cpu_queue_destroy(queue);
}

static void gathering_ends_with_the_copy(void **state)
{
    (void)state;
    static const struct tca_case c = {"tight", 2, 1, 16, 1, 1, 3000};
    enum { ROWS = 2050, ELEMENTS = (ROWS + 1) * 16 };
    struct kernel_queue *queue = tca_queue(cpu_isa_detect(), 2);
    struct tca_tensors t;
    tca_tensors_init(&t, &c);
    uint16_t *copied = new_array(4 * ELEMENTS, sizeof(*copied));
    memset(copied, 0xff, 4 * ELEMENTS * sizeof(*copied));
    struct kv_copy copy = {
        .k = copied, .v = copied + 2 * ELEMENTS, .head_stride = ELEMENTS, .rows = ROWS};
    int32_t *kept = new_array(2 * ROWS, sizeof(*kept));
    static const int32_t counts[] = {ROWS - 1, 0};
    for (int i = 0; i < ROWS; i++)
        kept[i] = 2999 - i; /* any order is copied */
    assert_int_equal(
        kernel_backend_cpu()->gather(queue, &copy, &t.earlier, kept, ROWS, counts, &t.shape),
        TCA_OK);
    for (int i = 0; i < ROWS - 1; i++)
        assert_memory_equal(copied + i * 16, t.k + (2999 - i) * 16, 32);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(copied[(ROWS - 1) * 16 + i], 0);
        assert_int_equal(copied[ROWS * 16 + i], 0xffff); /* beyond the copy */
    }
    assert_int_equal(copied[ELEMENTS], 0xffff); /* nothing kept: nothing to pad */
    free(kept);
    free(copied);
    tca_tensors_deinit(&t);
    cpu_queue_destroy(queue);
}

static void merging_weighs_by_the_exponentials(void **state)
{
    (void)state;
    static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
    static const float pairs[][2] = {
        {0, 0},      {1, -2},        {-300, -301},   {500, -500},
        {-1000, 90}, {-INFINITY, 3}, {3, -INFINITY}, {-INFINITY, -INFINITY}};
    enum { ROWS = 8, DIM = 40 };
    struct attention_shape shape = {.q_heads = 1, .kv_heads = 1, .head_dim = DIM, .scale = 1};
    for (int isa = 0; isa < 3; isa++) {
        struct kernel_queue *queue = tca_queue(isas[isa], isa + 1);
        uint64_t random = 5;
        uint16_t *out = new_bf16s(ROWS * DIM, 3, &random);
        uint16_t *other = new_bf16s(ROWS * DIM, 3, &random);
        float lse[ROWS], lse_other[ROWS];
        double want[ROWS][DIM], want_lse[ROWS];
        for (int row = 0; row < ROWS; row++) {
            lse[row] = pairs[row][0];
            lse_other[row] = pairs[row][1];
            double most = fmax((double)lse[row], (double)lse_other[row]);
            double a = most > -INFINITY ? exp((double)lse[row] - most) : 0;
            double b = most > -INFINITY ? exp((double)lse_other[row] - most) : 0;
            want_lse[row] = most > -INFINITY ? most + log(a + b) : -INFINITY;
            for (int d = 0; d < DIM; d++)
                want[row][d] = a + b > 0 ? (a * (double)float_of_bf16(out[row * DIM + d]) +
                                            b * (double)float_of_bf16(other[row * DIM + d])) /
                                               (a + b)
                                         : 0;
            /* What has no weight may hold anything. */
            if (lse[row] == -INFINITY)
                memset(out + row * DIM, 0xff, DIM * sizeof(*out));
            if (lse_other[row] == -INFINITY)
                memset(other + row * DIM, 0xff, DIM * sizeof(*other));
        }
        assert_int_equal(
            kernel_backend_cpu()->attention_merge(queue, out, lse, other, lse_other, ROWS, &shape),
            TCA_OK);
        for (int row = 0; row < ROWS; row++) {
            assert_close_bf16(out + row * DIM, want[row], DIM, 1e-6, 1.0 / 256, "merge");
            if (want_lse[row] == -INFINITY)
                assert_true(lse[row] == -INFINITY);
            else
                assert_close(lse + row, want_lse + row, 1, 1e-6, 1e-6, "merge");
        }
        free(other);
        free(out);
        cpu_queue_destroy(queue);
    }
}

/* Where ragged heads begin: rows of 128 each, in an order of their own, with a gap between. */
static void lay_ragged(const struct tca_tensors *t, const int64_t *budgets, int64_t *offsets)
{
    int64_t rows = 3;
    for (int head = t->shape.kv_heads - 1; head >= 0; head--) {
        offsets[head] = rows * t->shape.head_dim;
        rows += (budgets[head] + 127) / 128 * 128;
    }
}

/* A question's pass: each head keeps its budget in a ragged core, or (budget 0) reads in place.
 * What it then attends to, and the mass of that, against a dense attention over the kept tokens. */
static void a_ragged_core_is_attended_to_and_weighed(void **state)
{
    (void)state;
    struct tca_case c = {"core", 4, 2, 64, 9, 9, 1500};
    struct kernel_queue *queue = tca_queue(cpu_isa_detect(), 2);
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct tca_tensors t;
    tca_tensors_init(&t, &c);
    struct sparse s;
    sparse_init(&s, &t);
    const int64_t budgets[] = {400, 0, 165, 700};
    int32_t whole[] = {0, 1500, 0, 0};
    int64_t offsets[4];
    lay_ragged(&t, budgets, offsets);
    s.copy.head_offsets = offsets;
    s.copy.rows = 768;
    struct attention_item dense = {
        .queries = t.queries, .segments = 2, .segment = {t.earlier, t.own}};
    assert_int_equal(cpu->attention(queue, s.out, s.lse_own, t.q, &t.shape, &dense, 1), TCA_OK);
    assert_int_equal(cpu->token_scores(queue, s.tokens, t.q, s.lse_own, &t.shape, t.observers,
                                       t.count, &t.earlier),
                     TCA_OK);
    struct select_input input = {.tokens = 1500, .window = WINDOW, .token_scores = s.tokens};
    assert_int_equal(
        cpu->select(queue, s.kept, s.kept_stride, s.counts, SELECT_POOLED, &input, budgets, 4),
        TCA_OK);
    for (int head = 0; head < 4; head++)
        assert_int_equal(s.counts[head], budgets[head]);
    assert_int_equal(
        cpu->gather(queue, &s.copy, &t.earlier, s.kept, s.kept_stride, s.counts, &t.shape), TCA_OK);
    struct attention_item core = {.queries = t.queries,
                                  .segments = 3,
                                  .segment = {t.earlier,
                                              {.k = s.copy.k,
                                               .v = s.copy.v,
                                               .head_offsets = offsets,
                                               .rows = 768,
                                               .rows_per_head = s.counts},
                                              t.own}};
    core.segment[0].rows_per_head = whole;
    assert_int_equal(cpu->attention(queue, s.out_kept, s.lse_kept, t.q, &t.shape, &core, 1),
                     TCA_OK);
    float masses[4][2];
    assert_int_equal(cpu->kept_masses(queue, masses[0], s.lse_kept, s.lse_own, t.queries, &t.shape),
                     TCA_OK);
    for (int head = 0; head < 4; head++) {
        double sum = 0, least = 1;
        for (int query = 0; query < t.queries; query++)
            for (int g = 0; g < c.group; g++) {
                int q_head = head * c.group + g;
                double lse = tca_lse(&t, query, q_head, 0, c.earlier + query + 1);
                double mass = 1;
                int next = 0;
                for (int token = 0; token < c.earlier && budgets[head] > 0; token++) {
                    if (next < s.counts[head] && s.kept[head * s.kept_stride + next] == token)
                        next++;
                    else
                        mass -= exp(tca_score(&t, query, q_head, token) - lse);
                }
                sum += mass;
                least = fmin(least, mass);
            }
        assert_true(fabs((double)masses[head][0] - sum) < 1e-3 * t.queries * c.group);
        assert_true(fabs((double)masses[head][1] - least) < 1e-3);
        assert_true(budgets[head] > 0 ? least < 0.9 : least > 0.999);
    }
    sparse_deinit(&s);
    tca_tensors_deinit(&t);
    cpu_queue_destroy(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparse_equals_masked_dense),
        cmocka_unit_test(sharded_heads_keep_the_same_tokens),
        cmocka_unit_test(impossible_budgets_are_refused),
        cmocka_unit_test(gathering_ends_with_the_copy),
        cmocka_unit_test(merging_weighs_by_the_exponentials),
        cmocka_unit_test(a_ragged_core_is_attended_to_and_weighed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
