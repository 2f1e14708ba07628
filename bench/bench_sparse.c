#include "bench/bench_sparse.h"

#include "base/clock.h"
#include "bench/bench_memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { REPEATS = 3, WINDOW = 1024, OBSERVERS_MOST = 64, KV_HEADS_MOST = 8 };

/* A chunk at several positions. */
struct chunk_case {
    int q_heads, kv_heads, head_dim;
    int queries, observers;
    double keep;
    bool is_ragged;
    int positions;
    int64_t position[6];
};

/* needle-9m's shape; the chunk, observers and prefill keep of the CPU backend's documents. */
static const struct chunk_case cpu_cases[] = {
    {8, 4, 64, 1024, 16, 0.05, false, 6, {8192, 16384, 32768, 65536, 131072, 262144}}};

/* Llama-3.1-8B's. */
static const struct chunk_case cuda_cases[] = {
    {32, 8, 128, 8192, 64, 0.10, false, 3, {32768, 131072, 1048576}},
    {32, 8, 128, 8192, 64, 0.03, false, 3, {32768, 131072, 1048576}},
    {32, 8, 128, 4096, 32, 0.10, false, 3, {32768, 131072, 1048576}},
    {32, 8, 128, 4096, 32, 0.03, false, 3, {32768, 131072, 1048576}}};

enum part {
    OWN,
    SCORES,
    LSE,
    MASSES,
    SELECT,
    GATHER,
    KEPT,
    MERGE,
    DENSE,
    TOKEN_SCORES,
    SELECT_TOKENS,
    PARTS
};

static const char *const part_names[PARTS] = {"own",    "scores",       "lse",          "masses",
                                              "select", "gather",       "kept",         "merge",
                                              "dense",  "token_scores", "select_tokens"};

struct chunk {
    const struct sparse_bench *bench;
    const struct chunk_case *shape_case;
    struct attention_shape shape;
    int queries, observer_count;
    int64_t capacity; /* rows of a head of k and v */
    int64_t earlier;  /* rows before the chunk */
    int32_t observers[OBSERVERS_MOST];
    int64_t budgets[KV_HEADS_MOST];
    bool is_ragged; /* budgets between half and one and a half times the mean */
    int64_t kept_stride;
    int64_t copy_rows;
    uint16_t *q;               /* [queries, q_heads, head_dim] */
    uint16_t *out, *out_kept;  /* as q */
    float *lse_own, *lse_kept; /* [queries, q_heads] */
    uint16_t *k, *v;           /* [kv_heads, capacity, head_dim] */
    float *scores;             /* [observers, q_heads, blocks] */
    float *lse;                /* [observers, q_heads] */
    float *masses;             /* [kv_heads, blocks] */
    float *tokens;             /* [kv_heads, earlier] */
    int32_t *kept;             /* [kv_heads, kept_stride] */
    int32_t *counts;           /* [kv_heads] */
    uint16_t *kept_k, *kept_v; /* [kv_heads, copy_rows, head_dim] */
    struct bench_memory memory;
};

/* Put the chunk behind `earlier` rows; returns the largest budget of a head. */
static int64_t chunk_move(struct chunk *c, int64_t earlier)
{
    int64_t mean = select_budget(c->shape_case->keep, earlier, WINDOW);
    const int64_t least = SELECT_BLOCK_TOKENS + WINDOW; /* of the rule: sinks and window */
    int64_t most = 0;
    int heads = c->shape.kv_heads;

    c->earlier = earlier;
    for (int i = 0; i < heads; i++) {
        int place = i * 3 % heads;

        c->budgets[i] = c->is_ragged ? mean / 2 + mean * (2 * place + 1) / (2 * heads) : mean;
        if (c->budgets[i] < least)
            c->budgets[i] = least;
        most = c->budgets[i] > most ? c->budgets[i] : most;
    }
    return most;
}

static void chunk_init(struct chunk *c, const struct sparse_bench *bench,
                       const struct chunk_case *from, int64_t earlier)
{
    struct bench_memory *memory = &c->memory;
    size_t heads = (size_t)from->queries * (size_t)from->q_heads;
    size_t dim = (size_t)from->head_dim, kv_heads = (size_t)from->kv_heads;
    size_t kv_count = (size_t)(earlier + from->queries) * kv_heads * dim;
    size_t blocks = (size_t)select_blocks(earlier);
    size_t rows = (size_t)from->observers * (size_t)from->q_heads;
    size_t copy_count;

    *c = (struct chunk){.bench = bench,
                        .shape_case = from,
                        .shape = {from->q_heads, from->kv_heads, from->head_dim,
                                  1.0f / sqrtf((float)from->head_dim)},
                        .queries = from->queries,
                        .observer_count = from->observers,
                        .is_ragged = from->is_ragged,
                        .capacity = earlier + from->queries};
    c->kept_stride = chunk_move(c, earlier);
    c->copy_rows = (c->kept_stride + 127) / 128 * 128;
    copy_count = (size_t)c->copy_rows * kv_heads * dim;
    bench_memory_init(memory, bench->backend, bench->queue);
    c->q = bench_new_bf16s(memory, heads * dim);
    c->out = bench_new_bf16s(memory, heads * dim);
    c->out_kept = bench_new_bf16s(memory, heads * dim);
    c->lse_own = bench_new(memory, heads * sizeof(float));
    c->lse_kept = bench_new(memory, heads * sizeof(float));
    c->k = bench_new_bf16s(memory, kv_count);
    c->v = bench_new_bf16s(memory, kv_count);
    c->scores = bench_new(memory, rows * blocks * sizeof(float));
    c->lse = bench_new(memory, rows * sizeof(float));
    c->masses = bench_new(memory, kv_heads * blocks * sizeof(float));
    c->tokens = bench_new(memory, kv_heads * (size_t)earlier * sizeof(float));
    c->kept = bench_new(memory, kv_heads * (size_t)c->kept_stride * sizeof(int32_t));
    c->counts = bench_new(memory, kv_heads * sizeof(int32_t));
    c->kept_k = bench_new_bf16s(memory, copy_count);
    c->kept_v = bench_new_bf16s(memory, copy_count);
    for (int i = 0; i < from->observers; i++)
        c->observers[i] = (i + 1) * from->queries / from->observers - 1;
}

static struct attention_segment earlier_keys(const struct chunk *c)
{
    return (struct attention_segment){
        .k = c->k, .v = c->v, .head_stride = c->capacity * c->shape.head_dim, .rows = c->earlier};
}

static enum tca_status attend(struct chunk *c, enum part part)
{
    struct attention_item item = {.queries = c->queries, .segments = 1};
    struct attention_segment all = earlier_keys(c);
    all.rows = c->earlier + c->queries;
    all.causal = true;
    struct attention_segment own = all;
    own.k += c->earlier * c->shape.head_dim;
    own.v += c->earlier * c->shape.head_dim;
    own.rows = c->queries;
    struct attention_segment kept = {.k = c->kept_k,
                                     .v = c->kept_v,
                                     .head_stride = c->copy_rows * c->shape.head_dim,
                                     .rows = c->copy_rows,
                                     .rows_per_head = c->counts,
                                     .has_tail = true};
    item.segment[0] = part == DENSE ? all : part == OWN ? own : kept;
    return c->bench->backend->attention(c->bench->queue, part == KEPT ? c->out_kept : c->out,
                                        part == KEPT ? c->lse_kept : c->lse_own, c->q, &c->shape,
                                        &item, 1);
}

static enum tca_status run_part(struct chunk *c, enum part part)
{
    const struct kernel_backend *backend = c->bench->backend;
    struct kernel_queue *queue = c->bench->queue;
    struct attention_segment keys = earlier_keys(c);
    struct kv_copy copy = {.k = c->kept_k,
                           .v = c->kept_v,
                           .head_stride = c->copy_rows * c->shape.head_dim,
                           .rows = c->copy_rows};
    struct select_input input = {.tokens = c->earlier, .window = WINDOW, .block_masses = c->masses};
    int64_t blocks = select_blocks(c->earlier);
    switch (part) {
    case OWN:
    case KEPT:
    case DENSE:
        return attend(c, part);
    case SCORES:
        return backend->block_scores(queue, c->scores, c->q, &c->shape, c->observers,
                                     c->observer_count, &keys);
    case LSE:
        return backend->observer_lse(queue, c->lse, c->scores, c->lse_own, c->observers,
                                     c->observer_count, c->shape.q_heads, blocks);
    case MASSES:
        return backend->block_masses(queue, c->masses, c->scores, c->lse, c->observer_count,
                                     &c->shape, blocks);
    case SELECT:
        return backend->select(queue, c->kept, c->kept_stride, c->counts, SELECT_BLOCK, &input,
                               c->budgets, c->shape.kv_heads);
    case GATHER:
        return backend->gather(queue, &copy, &keys, c->kept, c->kept_stride, c->counts, &c->shape);
    case MERGE:
        return backend->attention_merge(queue, c->out, c->lse_own, c->out_kept, c->lse_kept,
                                        c->queries, &c->shape);
    case SELECT_TOKENS: /* what a question does: pooled, by token scores */
        input.token_scores = c->tokens;
        return backend->select(queue, c->kept, c->kept_stride, c->counts, SELECT_POOLED, &input,
                               c->budgets, c->shape.kv_heads);
    case TOKEN_SCORES:
        return backend->token_scores(queue, c->tokens, c->q, c->lse, &c->shape, c->observers,
                                     c->observer_count, &keys);
    case PARTS:
        break;
    }
    return TCA_ERR_INVALID;
}

static double middle_of_3(const double x[REPEATS])
{
    return fmax(fmin(x[0], x[1]), fmin(fmax(x[0], x[1]), x[2]));
}

static double time_part(struct chunk *c, enum part part)
{
    const struct sparse_bench *bench = c->bench;
    /* Where calls only enqueue, a long row of short ones hides what it takes to wait. */
    int calls = bench->is_async && part != DENSE ? 20 : 1;
    int64_t start = clock_monotonic_ns();

    for (int i = 0; i < calls; i++)
        bench_check(run_part(c, part));
    bench_check(bench->backend->queue_wait(bench->queue));
    return (double)(clock_monotonic_ns() - start) * 1e-6 / calls;
}

/* Tera floating-point operations of an attention over `keys` of every query, on average. */
static double attention_tflop(const struct chunk *c, double keys)
{
    return 4.0 * c->shape.head_dim * c->shape.q_heads * c->queries * keys * 1e-12;
}

/* Of all heads. */
static double mean_budget(const struct chunk *c)
{
    double sum = 0;

    for (int i = 0; i < c->shape.kv_heads; i++)
        sum += (double)c->budgets[i];
    return sum / c->shape.kv_heads;
}

static void report(const struct chunk *c, const double ms[PARTS])
{
    const struct sparse_bench *bench = c->bench;
    double attention = ms[OWN] + ms[KEPT] + ms[MERGE];
    double selection = ms[SCORES] + ms[LSE] + ms[MASSES] + ms[SELECT] + ms[GATHER];
    double sparse = attention + selection;
    double own_keys = (c->queries + 1) / 2.0;
    double own_rate = attention_tflop(c, own_keys) / ms[OWN] * 1e3;
    double kept_tflop = attention_tflop(c, mean_budget(c));
    double kept_rate = kept_tflop / ms[KEPT] * 1e3;
    double merged_rate = kept_tflop / (ms[KEPT] + ms[MERGE]) * 1e3;
    double dense_rate = attention_tflop(c, own_keys + (double)c->earlier) / ms[DENSE] * 1e3;

    if (bench->is_json)
        printf("{\"name\": \"chunk of %d\", \"backend\": \"%s\", \"threads\": %d, "
               "\"position\": %" PRId64 ", \"keep\": %g, \"ragged\": %s, \"kept\": %.0f"
               ", \"sparse_ms\": %.3f, \"speedup\": %.3f, \"selection_share\": %.3f, "
               "\"own_tflops\": %.3f, \"kept_tflops\": %.3f, "
               "\"merged_tflops\": %.3f, \"dense_tflops\": %.3f",
               c->queries, bench->backend->name, bench->threads, c->earlier, c->shape_case->keep,
               c->is_ragged ? "true" : "false", mean_budget(c), sparse, ms[DENSE] / sparse,
               selection / sparse, own_rate, kept_rate, merged_rate, dense_rate);
    else
        printf("chunk of %d at %7" PRId64 ", %6.0f kept: dense %8.2f ms (%.1f TFLOP/s), "
               "sparse %7.2f (%.1fx; own %.1f, kept %.1f TFLOP/s), selection %.1f %% of it\n   ",
               c->queries, c->earlier, mean_budget(c), ms[DENSE], dense_rate, sparse,
               ms[DENSE] / sparse, own_rate, kept_rate, 100 * selection / sparse);
    for (int part = 0; part < PARTS; part++)
        printf(bench->is_json ? ", \"%s_ms\": %.4f" : " %s %.3f", part_names[part], ms[part]);
    printf(bench->is_json ? "}\n" : "\n");
    fflush(stdout);
}

static void run_case(const struct sparse_bench *bench, const struct chunk_case *from,
                     int64_t earlier)
{
    struct chunk c;
    double ms[PARTS];
    double seen[PARTS][REPEATS];

    chunk_init(&c, bench, from, earlier);
    /* Whole chunks, one after the other, so that every part finds the caches as in a step. */
    for (int repeat = -1; repeat < REPEATS; repeat++)
        for (int part = 0; part < PARTS; part++) {
            double once = time_part(&c, (enum part)part);

            if (repeat >= 0)
                seen[part][repeat] = once;
        }
    for (int part = 0; part < PARTS; part++)
        ms[part] = middle_of_3(seen[part]);
    report(&c, ms);
    bench_memory_deinit(&c.memory);
}

void bench_sparse(const struct sparse_bench *bench)
{
    const struct chunk_case *cases = bench->is_async ? cuda_cases : cpu_cases;
    size_t count = bench->is_async ? sizeof(cuda_cases) / sizeof(cuda_cases[0])
                                   : sizeof(cpu_cases) / sizeof(cpu_cases[0]);

    for (size_t i = 0; i < count; i++)
        for (int j = 0; j < cases[i].positions; j++)
            run_case(bench, &cases[i], cases[i].position[j]);
}

/* One chunk's attention as a prefill enqueues it. */
static enum tca_status enqueue_chunk(struct chunk *c, bool is_dense)
{
    if (c->earlier == 0)
        return run_part(c, OWN);
    if (is_dense)
        return run_part(c, DENSE);
    for (int part = OWN; part < DENSE; part++)
        TCA_TRY(run_part(c, (enum part)part));
    return TCA_OK;
}

/* Milliseconds of one layer's attention over a document, chunk by chunk. */
static double time_prefill(struct chunk *c, bool is_dense)
{
    int64_t start = clock_monotonic_ns();

    for (int64_t position = 0; position < c->capacity; position += c->queries) {
        chunk_move(c, position);
        bench_check(enqueue_chunk(c, is_dense));
    }
    bench_check(c->bench->backend->queue_wait(c->bench->queue));
    return (double)(clock_monotonic_ns() - start) * 1e-6;
}

static struct chunk_case case_at(const struct sparse_bench *bench, double keep)
{
    struct chunk_case at = bench->is_async ? cuda_cases[0] : cpu_cases[0];

    at.keep = keep;
    return at;
}

int bench_chunk_tokens(const struct sparse_bench *bench)
{
    return case_at(bench, 1).queries;
}

void bench_prefill(const struct sparse_bench *bench, int64_t tokens, double keep, double warm_up_s)
{
    const struct chunk_case at = case_at(bench, keep);
    int64_t end_ns = clock_monotonic_ns() + (int64_t)(warm_up_s * 1e9);
    bool is_dense = keep >= 1;
    double ms[REPEATS];
    struct chunk c;

    chunk_init(&c, bench, &at, tokens - at.queries);
    do
        time_prefill(&c, is_dense);
    while (clock_monotonic_ns() < end_ns);
    for (int i = 0; i < REPEATS; i++)
        ms[i] = time_prefill(&c, is_dense);
    if (bench->is_json)
        printf("{\"name\": \"prefill\", \"backend\": \"%s\", \"threads\": %d, \"chunk\": %d, "
               "\"tokens\": %" PRId64 ", \"keep\": %g, \"ms\": %.3f, "
               "\"runs_ms\": [%.3f, %.3f, %.3f]}\n",
               bench->backend->name, bench->threads, c.queries, tokens, keep, middle_of_3(ms),
               ms[0], ms[1], ms[2]);
    else
        printf("a layer's attention of %7" PRId64 " tokens in chunks of %d, keep %g: %10.2f ms\n",
               tokens, c.queries, keep, middle_of_3(ms));
    fflush(stdout);
    bench_memory_deinit(&c.memory);
}

void bench_chunk(const struct sparse_bench *bench, int64_t position, double keep)
{
    struct chunk_case at = case_at(bench, keep);

    at.is_ragged = true;
    run_case(bench, &at, position);
}
