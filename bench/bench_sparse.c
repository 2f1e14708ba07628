#include "bench/bench_sparse.h"

#include "base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* needle-9m's shape; the chunk, observers and prefill keep of the CPU backend's documents. */
enum {
    Q_HEADS = 8,
    KV_HEADS = 4,
    HEAD_DIM = 64,
    CHUNK = 1024,
    OBSERVERS = 16,
    WINDOW = 1024,
    REPEATS = 3
};
static const double keep = 0.05;
static const int64_t positions[] = {8192, 16384, 32768, 65536, 131072, 262144};

enum part { OWN, SCORES, LSE, MASSES, SELECT, GATHER, KEPT, MERGE, DENSE, TOKEN_SCORES, PARTS };

static const char *const part_names[PARTS] = {
    "own", "scores", "lse", "masses", "select", "gather", "kept", "merge", "dense", "token_scores"};

struct chunk {
    struct kernel_queue *queue;
    struct attention_shape shape;
    int64_t earlier;
    int32_t observers[OBSERVERS];
    int64_t budgets[KV_HEADS];
    int64_t copy_rows;
    uint16_t *q;               /* [CHUNK, Q_HEADS, HEAD_DIM] */
    uint16_t *out, *out_kept;  /* as q */
    float *lse_own, *lse_kept; /* [CHUNK, Q_HEADS] */
    uint16_t *k, *v;           /* [KV_HEADS, earlier + CHUNK, HEAD_DIM] */
    float *scores;             /* [OBSERVERS, Q_HEADS, blocks] */
    float *lse;                /* [OBSERVERS, Q_HEADS] */
    float *masses;             /* [KV_HEADS, blocks] */
    float *tokens;             /* [KV_HEADS, earlier] */
    int32_t *kept;             /* [KV_HEADS, budget] */
    int32_t *counts;           /* [KV_HEADS] */
    uint16_t *kept_k, *kept_v; /* [KV_HEADS, copy_rows, HEAD_DIM] */
};

static void check(enum tca_status status)
{
    if (status == TCA_OK)
        return;
    fprintf(stderr, "tca-bench-kernels: %s\n", tca_status_text(status));
    exit(1);
}

static void *new_array(size_t count, size_t element_bytes)
{
    void *array = aligned_alloc(64, (count * element_bytes + 63) / 64 * 64);
    if (!array)
        check(TCA_ERR_NO_MEMORY);
    return array;
}

/* Small numbers in both signs. */
static uint16_t *new_bf16s(size_t count)
{
    uint16_t *values = new_array(count, sizeof(*values));
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (uint16_t)(0x3c00u | ((state >> 16) & 0x81ffu));
    }
    return values;
}

static void chunk_init(struct chunk *c, struct kernel_queue *queue, int64_t earlier)
{
    size_t q_count = (size_t)CHUNK * Q_HEADS * HEAD_DIM;
    size_t kv_count = (size_t)(earlier + CHUNK) * KV_HEADS * HEAD_DIM;
    size_t blocks = (size_t)select_blocks(earlier);
    int64_t budget = select_budget(keep, earlier, WINDOW);
    int64_t copy_rows = (budget + 127) / 128 * 128;
    size_t copy_count = (size_t)copy_rows * KV_HEADS * HEAD_DIM;
    *c = (struct chunk){
        .queue = queue,
        .shape = {Q_HEADS, KV_HEADS, HEAD_DIM, 1.0f / sqrtf((float)HEAD_DIM)},
        .earlier = earlier,
        .copy_rows = copy_rows,
        .q = new_bf16s(q_count),
        .out = new_bf16s(q_count),
        .out_kept = new_bf16s(q_count),
        .lse_own = new_array((size_t)CHUNK * Q_HEADS, sizeof(float)),
        .lse_kept = new_array((size_t)CHUNK * Q_HEADS, sizeof(float)),
        .k = new_bf16s(kv_count),
        .v = new_bf16s(kv_count),
        .scores = new_array((size_t)OBSERVERS * Q_HEADS * blocks, sizeof(float)),
        .lse = new_array((size_t)OBSERVERS * Q_HEADS, sizeof(float)),
        .masses = new_array(KV_HEADS * blocks, sizeof(float)),
        .tokens = new_array(KV_HEADS * (size_t)earlier, sizeof(float)),
        .kept = new_array(KV_HEADS * (size_t)budget, sizeof(int32_t)),
        .counts = new_array(KV_HEADS, sizeof(int32_t)),
        .kept_k = new_bf16s(copy_count),
        .kept_v = new_bf16s(copy_count),
    };
    for (int i = 0; i < OBSERVERS; i++)
        c->observers[i] = (i + 1) * CHUNK / OBSERVERS - 1;
    for (int i = 0; i < KV_HEADS; i++)
        c->budgets[i] = budget;
}

static void chunk_deinit(struct chunk *c)
{
    void *const arrays[] = {c->q,      c->out,  c->out_kept, c->lse_own, c->lse_kept,
                            c->k,      c->v,    c->scores,   c->lse,     c->masses,
                            c->tokens, c->kept, c->counts,   c->kept_k,  c->kept_v};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        free(arrays[i]);
}

static struct attention_segment earlier_keys(const struct chunk *c)
{
    return (struct attention_segment){
        .k = c->k, .v = c->v, .head_stride = (c->earlier + CHUNK) * HEAD_DIM, .rows = c->earlier};
}

static enum tca_status attend(const struct kernel_backend *backend, struct chunk *c, enum part part)
{
    struct attention_item item = {.queries = CHUNK, .segments = 1};
    struct attention_segment all = earlier_keys(c);
    all.rows = c->earlier + CHUNK;
    all.causal = true;
    struct attention_segment own = all;
    own.k += c->earlier * HEAD_DIM;
    own.v += c->earlier * HEAD_DIM;
    own.rows = CHUNK;
    struct attention_segment kept = {.k = c->kept_k,
                                     .v = c->kept_v,
                                     .head_stride = c->copy_rows * HEAD_DIM,
                                     .rows = c->copy_rows,
                                     .rows_per_head = c->counts};
    item.segment[0] = part == DENSE ? all : part == OWN ? own : kept;
    return backend->attention(c->queue, part == KEPT ? c->out_kept : c->out,
                              part == KEPT ? c->lse_kept : c->lse_own, c->q, &c->shape, &item, 1);
}

static enum tca_status run_part(const struct kernel_backend *backend, struct chunk *c,
                                enum part part)
{
    struct attention_segment keys = earlier_keys(c);
    struct kv_copy copy = {.k = c->kept_k,
                           .v = c->kept_v,
                           .head_stride = c->copy_rows * HEAD_DIM,
                           .rows = c->copy_rows};
    struct select_input input = {.tokens = c->earlier, .window = WINDOW, .block_masses = c->masses};
    int64_t blocks = select_blocks(c->earlier);
    switch (part) {
    case OWN:
    case KEPT:
    case DENSE:
        return attend(backend, c, part);
    case SCORES:
        return backend->block_scores(c->queue, c->scores, c->q, &c->shape, c->observers, OBSERVERS,
                                     &keys);
    case LSE:
        return backend->observer_lse(c->queue, c->lse, c->scores, c->lse_own, c->observers,
                                     OBSERVERS, Q_HEADS, blocks);
    case MASSES:
        return backend->block_masses(c->queue, c->masses, c->scores, c->lse, OBSERVERS, &c->shape,
                                     blocks);
    case SELECT:
        return backend->select(c->queue, c->kept, c->budgets[0], c->counts, SELECT_BLOCK, &input,
                               c->budgets, KV_HEADS);
    case GATHER:
        return backend->gather(c->queue, &copy, &keys, c->kept, c->budgets[0], c->counts,
                               &c->shape);
    case MERGE:
        return backend->attention_merge(c->queue, c->out, c->lse_own, c->out_kept, c->lse_kept,
                                        CHUNK, &c->shape);
    case TOKEN_SCORES:
        return backend->token_scores(c->queue, c->tokens, c->q, c->lse, &c->shape, c->observers,
                                     OBSERVERS, &keys);
    case PARTS:
        break;
    }
    return TCA_ERR_INVALID;
}

static double middle_of_3(const double x[REPEATS])
{
    return fmax(fmin(x[0], x[1]), fmin(fmax(x[0], x[1]), x[2]));
}

static void report(const struct chunk *c, const double ms[PARTS], int threads, bool is_json)
{
    double attention = ms[OWN] + ms[KEPT] + ms[MERGE];
    double selection = ms[SCORES] + ms[LSE] + ms[MASSES] + ms[SELECT] + ms[GATHER];
    double sparse = attention + selection;
    if (is_json)
        printf("{\"name\": \"chunk of %d\", \"threads\": %d, \"position\": %" PRId64
               ", \"kept\": %" PRId64 ", \"sparse_ms\": %.3f, \"speedup\": %.3f, "
               "\"selection_share\": %.3f",
               CHUNK, threads, c->earlier, c->budgets[0], sparse, ms[DENSE] / sparse,
               selection / sparse);
    else
        printf("chunk of %d at %6" PRId64 ", %5" PRId64 " kept, %d threads: dense %8.2f ms, sparse "
               "%7.2f (%.1fx), selection %.1f %% of it\n   ",
               CHUNK, c->earlier, c->budgets[0], threads, ms[DENSE], sparse, ms[DENSE] / sparse,
               100 * selection / sparse);
    for (int part = 0; part < PARTS; part++)
        printf(is_json ? ", \"%s_ms\": %.3f" : " %s %.2f", part_names[part], ms[part]);
    printf(is_json ? "}\n" : "\n");
    fflush(stdout);
}

void bench_sparse(const struct kernel_backend *backend, struct kernel_queue *queue, int threads,
                  bool is_json)
{
    for (size_t i = 0; i < sizeof(positions) / sizeof(positions[0]); i++) {
        struct chunk c;
        double ms[PARTS];
        double seen[PARTS][REPEATS];
        chunk_init(&c, queue, positions[i]);
        /* Whole chunks, one after the other, so that every part finds the caches as in a step. */
        for (int repeat = -1; repeat < REPEATS; repeat++)
            for (int part = 0; part < PARTS; part++) {
                int64_t start = clock_monotonic_ns();
                check(run_part(backend, &c, (enum part)part));
                if (repeat >= 0)
                    seen[part][repeat] = (double)(clock_monotonic_ns() - start) * 1e-6;
            }
        for (int part = 0; part < PARTS; part++)
            ms[part] = middle_of_3(seen[part]);
        report(&c, ms, threads, is_json);
        chunk_deinit(&c);
    }
}
