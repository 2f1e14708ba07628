/* tca-bench-kernels: how close the kernels come to what their device can do.
 *
 * On CPUs the single operations, each figure beside the bf16 peak measured in the same second on
 * the same threads: a busy machine lowers both. With --sparse, and on GPUs, which time decode steps
 * over core caches too: the attention of one prefill chunk, sparse against dense, at growing
 * positions, in milliseconds by part. With --prefill and --chunk that of one layer over whole
 * documents and of single chunks. */
#include "base/clock.h"
#include "base/settings.h"
#include "bench/bench_memory.h"
#include "bench/bench_sparse.h"
#include "bench/bf16_peak.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS_MOST = 256, REPEATS = 7, POINTS_MOST = 16 };

enum bench_device { BENCH_CPU, BENCH_CUDA };

struct options {
    int64_t threads;
    bool sparse;
    int device;
    bool json;
    char *prefill, *chunk;
    double warm_up_s;
};

static const char *const devices[] = {"cpu", "cuda", NULL}; /* enum bench_device */

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, threads), .name = "threads", .metavar = "N",
     .help = "threads of the CPU; 0: one, then two", .max = THREADS_MOST},
    {SETTING_FIELD(struct options, sparse), .name = "sparse",
     .help = "a prefill chunk's attention at growing positions instead of single operations"},
    {SETTING_FIELD(struct options, device), .name = "device", .initial = "cpu", .choices = devices,
     .metavar = "NAME", .help = "what computes"},
    {SETTING_FIELD(struct options, json), .name = "json", .help = "print JSON objects, one a line"},
    {SETTING_FIELD(struct options, prefill), .name = "prefill", .metavar = "TOKENS:KEEP[,..]",
     .help = "only one layer's attention over whole documents; KEEP 1: dense"},
    {SETTING_FIELD(struct options, chunk), .name = "chunk", .metavar = "POSITION:KEEP[,..]",
     .help = "only the attention of single chunks"},
    {SETTING_FIELD(struct options, warm_up_s), .name = "warm-up-s", .metavar = "SECONDS",
     .help = "repeat the first of --prefill so long before it counts", .real_max = 3600},
};

static const struct settings_table table = {
    .program = "tca-bench-kernels", .rows = rows, .count = sizeof(rows) / sizeof(*rows)};

/* "131072:0.1,131072:0.03" */
struct points {
    int count;
    int64_t tokens[POINTS_MOST];
    double keep[POINTS_MOST];
};

struct bench {
    const struct kernel_backend *cpu;
    struct kernel_queue *queue;
    struct thread_pool *pool; /* for the peak */
    int threads;
    bool is_json;
};

/* Times one call of an operation; flops and bytes are what one call does. */
struct bench_case {
    char name[64];
    enum tca_status (*run)(struct bench *bench, void *context);
    void *context;
    double flops;
    double bytes;
};

static void peak_of_thread(void *context, int part, int thread)
{
    (void)thread;
    double *gflops = context;
    gflops[part] = bf16_peak_gflops(0.05);
}

static double peak_gflops(struct bench *bench)
{
    double gflops[THREADS_MOST] = {0};
    double sum = 0;
    thread_pool_run(bench->pool, bench->threads, peak_of_thread, gflops);
    for (int i = 0; i < bench->threads; i++)
        sum += gflops[i];
    return sum;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median time of REPEATS calls (many, when they are short), after one to warm up. */
static double median_seconds(struct bench *bench, const struct bench_case *c)
{
    double seconds[REPEATS];
    int64_t start = clock_monotonic_ns();
    bench_check(c->run(bench, c->context));
    double once = (double)(clock_monotonic_ns() - start) * 1e-9;
    int calls = once < 0.02 ? (int)(0.02 / (once + 1e-7)) + 1 : 1;
    for (int i = 0; i < REPEATS; i++) {
        start = clock_monotonic_ns();
        for (int call = 0; call < calls; call++)
            bench_check(c->run(bench, c->context));
        seconds[i] = (double)(clock_monotonic_ns() - start) * 1e-9 / calls;
    }
    qsort(seconds, REPEATS, sizeof(seconds[0]), compare_doubles);
    return seconds[REPEATS / 2];
}

static void report(struct bench *bench, const struct bench_case *c)
{
    double before = peak_gflops(bench);
    double seconds = median_seconds(bench, c);
    double peak = (before + peak_gflops(bench)) / 2;
    double gflops = c->flops / seconds * 1e-9;
    double gigabytes = c->bytes / seconds * 1e-9;
    double share = peak > 0 ? gflops / peak : 0;
    if (bench->is_json)
        printf("{\"name\": \"%s\", \"threads\": %d, \"seconds\": %.6g, \"gflops\": %.1f, "
               "\"gigabytes_per_s\": %.2f, \"peak_gflops\": %.1f, \"share_of_peak\": %.3f}\n",
               c->name, bench->threads, seconds, gflops, gigabytes, peak, share);
    else
        printf("%-44s %2d threads %10.3f ms %8.1f GFLOP/s %7.1f GB/s %5.1f %% of %.0f\n", c->name,
               bench->threads, seconds * 1e3, gflops, gigabytes, 100 * share, peak);
    fflush(stdout);
}

struct attention_context {
    struct attention_shape shape;
    struct attention_item item;
    uint16_t *q, *out;
    float *lse;
};

static enum tca_status run_attention(struct bench *bench, void *context)
{
    struct attention_context *c = context;
    return bench->cpu->attention(bench->queue, c->out, c->lse, c->q, &c->shape, &c->item, 1);
}

/* `queries` at the end of `keys` tokens, causal. */
static void bench_attention(struct bench *bench, int q_heads, int kv_heads, int head_dim,
                            int queries, int keys)
{
    size_t q_count = (size_t)queries * (size_t)q_heads * (size_t)head_dim;
    size_t kv_count = (size_t)keys * (size_t)kv_heads * (size_t)head_dim;
    struct bench_memory memory;
    bench_memory_init(&memory, bench->cpu, bench->queue);
    struct attention_context c = {
        .shape = {q_heads, kv_heads, head_dim, 1.0f / sqrtf((float)head_dim)},
        .q = bench_new_bf16s(&memory, q_count),
        .out = bench_new_bf16s(&memory, q_count)};
    struct attention_segment segment = {.k = bench_new_bf16s(&memory, kv_count),
                                        .v = bench_new_bf16s(&memory, kv_count),
                                        .head_stride = (int64_t)keys * head_dim,
                                        .rows = keys,
                                        .causal = true};
    c.item = (struct attention_item){.queries = queries, .segments = 1, .segment = {segment}};
    double scores = (double)queries * (keys - 0.5 * (queries - 1)) * q_heads;
    struct bench_case test = {.run = run_attention,
                              .context = &c,
                              .flops = 4.0 * head_dim * scores,
                              .bytes = 4.0 * (double)kv_count};
    snprintf(test.name, sizeof(test.name), "attention %d/%d heads of %d, %d of %d", q_heads,
             kv_heads, head_dim, queries, keys);
    report(bench, &test);
    bench_memory_deinit(&memory);
}

struct linear_context {
    struct kernel_weight *weight;
    uint16_t *x;
    void *out;
    int rows;
};

static enum tca_status run_linear(struct bench *bench, void *context)
{
    struct linear_context *c = context;
    return bench->cpu->linear(bench->queue, c->out, KERNEL_F32, c->x, c->weight, NULL, c->rows);
}

static void bench_linear(struct bench *bench, int out, int in)
{
    static const int rows_of_x[] = {1, 4, 16, 128, 1024};
    const size_t most = 1024;
    struct bench_memory memory;
    bench_memory_init(&memory, bench->cpu, bench->queue);
    struct linear_context c = {.x = bench_new_bf16s(&memory, most * (size_t)in),
                               .out = bench_new(&memory, most * (size_t)out * sizeof(float))};
    const uint16_t *host = bench_new_bf16s(&memory, (size_t)out * (size_t)in);
    bench_check(bench->cpu->weight_create(bench->queue, host, out, in, false, &c.weight));
    for (size_t i = 0; i < sizeof(rows_of_x) / sizeof(rows_of_x[0]); i++) {
        c.rows = rows_of_x[i];
        struct bench_case test = {.run = run_linear,
                                  .context = &c,
                                  .flops = 2.0 * c.rows * out * in,
                                  .bytes = 2.0 * out * in};
        snprintf(test.name, sizeof(test.name), "linear %d x %d, %d rows", out, in, c.rows);
        report(bench, &test);
    }
    bench->cpu->weight_destroy(bench->queue, c.weight);
    bench_memory_deinit(&memory);
}

static void bench_operations(const struct sparse_bench *on)
{
    struct bench bench = {
        .cpu = on->backend, .queue = on->queue, .threads = on->threads, .is_json = on->is_json};

    bench_check(thread_pool_create(bench.threads, &bench.pool));
    bench_attention(&bench, 8, 4, 64, 8192, 8192);
    bench_attention(&bench, 9, 3, 64, 8192, 8192);
    bench_attention(&bench, 9, 3, 64, 1024, 2048);
    bench_attention(&bench, 8, 2, 128, 4096, 4096);
    bench_attention(&bench, 9, 3, 64, 1, 2048);
    bench_attention(&bench, 8, 4, 64, 1, 131072);
    bench_linear(&bench, 960, 576);   /* SmolLM2-135M: q, k, v */
    bench_linear(&bench, 576, 576);   /* attention output */
    bench_linear(&bench, 3072, 576);  /* gate, up */
    bench_linear(&bench, 576, 1536);  /* down */
    bench_linear(&bench, 49152, 576); /* logits: larger than the caches */
    bench_linear(&bench, 1792, 320);  /* needle-9m: gate, up */
    thread_pool_destroy(bench.pool);
}

/* The points of --`name`, none where `text` is NULL. False, and said why: not a list of them, or
 * tokens that are fewer than `least` or no multiple of `step`. */
static bool read_points(const char *name, const char *text, int least, int step,
                        struct points *points_out)
{
    const char *next = text;
    int length;

    *points_out = (struct points){.count = 0};
    while (next != NULL) {
        long long tokens;
        double keep;

        if (points_out->count == POINTS_MOST ||
            sscanf(next, "%lld:%lf%n", &tokens, &keep, &length) < 2 || tokens < least ||
            tokens > INT32_MAX || tokens % step != 0 || !(keep > 0 && keep <= 1) ||
            (next[length] != ',' && next[length] != '\0')) {
            fprintf(stderr,
                    "tca-bench-kernels: --%s: value \"%s\", allowed: 1 to %d of N:KEEP with commas "
                    "between them, N a multiple of %d from %d to %d, KEEP above 0 and at most 1\n",
                    name, text, POINTS_MOST, step, least, INT32_MAX);
            return false;
        }
        points_out->tokens[points_out->count] = tokens;
        points_out->keep[points_out->count++] = keep;
        next = next[length] == ',' ? next + length + 1 : NULL;
    }
    return true;
}

static void bench_points(const struct sparse_bench *on, const struct points *prefills,
                         const struct points *chunks, double warm_up_s)
{
    for (int i = 0; i < prefills->count; i++)
        bench_prefill(on, prefills->tokens[i], prefills->keep[i], i == 0 ? warm_up_s : 0);
    for (int i = 0; i < chunks->count; i++)
        bench_chunk(on, chunks->tokens[i], chunks->keep[i]);
}

static int bench_all(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;
    const bool is_cuda = options->device == BENCH_CUDA;
    const int only = is_cuda ? 1 : (int)options->threads; /* 0: one, then two */
    struct tca_error why;
    struct sparse_bench on = {.backend =
                                  is_cuda ? kernel_backend_cuda(0, &why) : kernel_backend_cpu(),
                              .is_async = is_cuda,
                              .is_json = options->json};
    const int chunk = bench_chunk_tokens(&on);
    struct points prefills, chunks;

    (void)arguments;
    if (!read_points("prefill", options->prefill, 2 * chunk, chunk, &prefills) ||
        !read_points("chunk", options->chunk, 1, 1, &chunks))
        return 2;
    if (on.backend == NULL) {
        fprintf(stderr, "tca-bench-kernels: --device cuda: %s\n", why.text);
        return EXIT_FAILURE;
    }
    for (int threads = only == 0 ? 1 : only; threads <= (only == 0 ? 2 : only); threads++) {
        on.threads = is_cuda ? 0 : threads;
        bench_check(on.backend->queue_create(0, threads, &on.queue));
        if (prefills.count + chunks.count > 0) {
            bench_points(&on, &prefills, &chunks, options->warm_up_s);
        } else if (is_cuda) {
            bench_decode(&on);
            bench_sparse(&on);
        } else if (options->sparse) {
            bench_sparse(&on);
        } else {
            bench_operations(&on);
        }
        on.backend->queue_destroy(on.queue);
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct options options;

    return settings_run(&table, argc, argv, &options, bench_all);
}
