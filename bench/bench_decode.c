#include "base/clock.h"
#include "bench/bench_memory.h"
#include "bench/bench_sparse.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* Llama-3.1-8B's attention. */
enum {
    Q_HEADS = 32,
    KV_HEADS = 8,
    HEAD_DIM = 128,
    OWN_ROWS = 64,
    QUESTIONS_MOST = 16,
    REPEATS = 7
};

struct decode_case {
    int questions;
    int64_t rows;   /* of a head, in the mean */
    bool is_shared; /* all questions read the same rows, every head all of them: a document */
    int queries;    /* of a question: 1, or its own tokens in its pass over the document */
};

static const struct decode_case cases[] = {
    {1, 2048, false, 1},   {1, 4096, false, 1},  {1, 13312, false, 1},  {1, 131072, true, 1},
    {16, 2048, false, 1},  {16, 4096, false, 1}, {16, 13312, false, 1}, {16, 131072, true, 1},
    {1, 131072, true, 64}, {4, 131072, true, 64}};

struct decode {
    struct attention_shape shape;
    struct attention_item items[QUESTIONS_MOST];
    uint16_t *q, *out;
    int64_t keys; /* of all heads and questions */
};

/* Heads between half and one and a half times the mean, one behind the other. */
static struct attention_segment core_cache(struct bench_memory *memory, int64_t mean, int question)
{
    int64_t offsets[KV_HEADS], next = 0;
    int32_t rows[KV_HEADS];
    int64_t most = 0;

    for (int head = 0; head < KV_HEADS; head++) {
        /* Spread evenly over the range, in another order for every question. */
        int place = (head * 3 + question * 5) % KV_HEADS;

        rows[head] = (int32_t)(mean / 2 + mean * (2 * place + 1) / (2 * KV_HEADS));
        offsets[head] = next * HEAD_DIM;
        next += (rows[head] + 127) / 128 * 128;
        most = rows[head] > most ? rows[head] : most;
    }
    return (struct attention_segment){.k = bench_new_bf16s(memory, (size_t)(next * HEAD_DIM)),
                                      .v = bench_new_bf16s(memory, (size_t)(next * HEAD_DIM)),
                                      .head_offsets =
                                          bench_new_from(memory, offsets, sizeof(offsets)),
                                      .rows = most,
                                      .rows_per_head = bench_new_from(memory, rows, sizeof(rows))};
}

static struct attention_segment plain(struct bench_memory *memory, int64_t rows)
{
    size_t count = (size_t)(rows * KV_HEADS * HEAD_DIM);

    return (struct attention_segment){.k = bench_new_bf16s(memory, count),
                                      .v = bench_new_bf16s(memory, count),
                                      .head_stride = rows * HEAD_DIM,
                                      .rows = rows};
}

static void decode_init(struct decode *d, struct bench_memory *memory, const struct decode_case *c)
{
    size_t q_count = (size_t)(c->questions * c->queries) * Q_HEADS * HEAD_DIM;

    *d = (struct decode){.shape = {Q_HEADS, KV_HEADS, HEAD_DIM, 1.0f / sqrtf(HEAD_DIM)},
                         .q = bench_new_bf16s(memory, q_count),
                         .out = bench_new_bf16s(memory, q_count),
                         .keys = (c->rows + OWN_ROWS) * KV_HEADS * c->questions};
    for (int i = 0; i < c->questions; i++) {
        struct attention_item *item = &d->items[i];

        *item = (struct attention_item){
            .first_query = i * c->queries, .queries = c->queries, .segments = 2};
        if (!c->is_shared)
            item->segment[0] = core_cache(memory, c->rows, i);
        else
            item->segment[0] = i > 0 ? d->items[0].segment[0] : plain(memory, c->rows);
        item->segment[1] = plain(memory, OWN_ROWS);
        item->segment[1].causal = true;
    }
}

/* Milliseconds of a call in a long row of them: the least of some rows. */
static double time_calls(const struct sparse_bench *bench, const struct decode *d, int questions)
{
    int calls = bench->is_async ? 200 : 1;
    double least = INFINITY;

    for (int repeat = 0; repeat < REPEATS; repeat++) {
        int64_t start = clock_monotonic_ns();

        for (int i = 0; i < calls; i++)
            bench_check(bench->backend->attention(bench->queue, d->out, NULL, d->q, &d->shape,
                                                  d->items, questions));
        bench_check(bench->backend->queue_wait(bench->queue));
        least = fmin(least, (double)(clock_monotonic_ns() - start) * 1e-6 / calls);
    }
    return least;
}

void bench_decode(const struct sparse_bench *bench)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct decode_case *c = &cases[i];
        struct bench_memory memory;
        struct decode d;

        bench_memory_init(&memory, bench->backend, bench->queue);
        decode_init(&d, &memory, c);
        double ms = time_calls(bench, &d, c->questions);
        double rate = (double)d.keys * HEAD_DIM * 4 / ms * 1e-9;
        double tflops =
            4.0 * HEAD_DIM * Q_HEADS / KV_HEADS * (double)(d.keys * c->queries) / ms * 1e-9;
        if (bench->is_json)
            printf("{\"name\": \"decode\", \"backend\": \"%s\", \"questions\": %d, \"queries\": "
                   "%d, \"rows\": %" PRId64
                   ", \"shared\": %s, \"ms\": %.5f, \"terabytes_per_s\": %.3f, \"tflops\": %.2f}\n",
                   bench->backend->name, c->questions, c->queries, c->rows,
                   c->is_shared ? "true" : "false", ms, rate, tflops);
        else
            printf("%2d questions of %2d tokens over %s of %6" PRId64
                   " rows: %8.1f us, %.2f TB/s of keys and values%s, %.1f TFLOP/s\n",
                   c->questions, c->queries, c->is_shared ? "one document" : "core caches", c->rows,
                   ms * 1e3, rate, c->is_shared && c->questions > 1 ? ", counted for each" : "",
                   tflops);
        fflush(stdout);
        bench_memory_deinit(&memory);
    }
}
