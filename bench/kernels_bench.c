/* tca-bench-kernels: how close the CPU kernels come to what the processor can do.
 * Usage: tca-bench-kernels [--threads N] [--sparse] [--device cpu|cuda] [--json]
 *                          [--prefill TOKENS:KEEP[,..]] [--chunk POSITION:KEEP[,..]]
 *                          [--warm-up-s SECONDS]
 *
 * --sparse: instead of the single operations, the attention of one prefill chunk, sparse against
 * dense, at growing positions, in milliseconds by part. --device cuda: that, and decode steps over
 * core caches, on a GPU. --prefill, --chunk: only one layer's attention over whole documents (keep 1:
 * dense) and that of single chunks, after a warm-up.
 *
 * Every figure stands beside the bf16 peak measured in the same second on the same threads: a
 * busy machine lowers both. */
#include "base/clock.h"
#include "bench/bench_sparse.h"
#include "bench/bf16_peak.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MOST = 256, REPEATS = 7, POINTS_MOST = 16 };

/* "131072:0.1,131072:0.03" */
struct points {
    int count;
    int64_t tokens[POINTS_MOST];
    double keep[POINTS_MOST];
};

struct bench {
    const struct kernel_backend *cpu;
    struct kernel_queue *queue;
    struct thread_pool *pool;
    int threads;
    bool is_json;
    bool is_sparse;
    struct points prefills, chunks;
    double warm_up_s; /* of prefills and chunks */
};

/* Times one call of an operation; flops and bytes are what one call does. */
struct bench_case {
    char name[64];
    enum tca_status (*run)(struct bench *bench, void *context);
    void *context;
    double flops;
    double bytes;
};

static void die(const char *what)
{
    fprintf(stderr, "tca-bench-kernels: %s\n", what);
    exit(1);
}

static void check(enum tca_status status)
{
    if (status != TCA_OK)
        die(tca_status_text(status));
}

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
    check(c->run(bench, c->context));
    double once = (double)(clock_monotonic_ns() - start) * 1e-9;
    int calls = once < 0.02 ? (int)(0.02 / (once + 1e-7)) + 1 : 1;
    for (int i = 0; i < REPEATS; i++) {
        start = clock_monotonic_ns();
        for (int call = 0; call < calls; call++)
            check(c->run(bench, c->context));
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

/* Small numbers in both signs, so that no path meets only zeros. */
static void *new_bf16s(struct bench *bench, size_t count)
{
    void *array;
    check(bench->cpu->alloc(0, count * sizeof(uint16_t), &array));
    uint16_t *values = array;
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (uint16_t)(0x3c00u | ((state >> 16) & 0x81ffu));
    }
    return array;
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
    struct attention_context c = {
        .shape = {q_heads, kv_heads, head_dim, 1.0f / sqrtf((float)head_dim)},
        .q = new_bf16s(bench, q_count),
        .out = new_bf16s(bench, q_count)};
    uint16_t *k = new_bf16s(bench, kv_count);
    uint16_t *v = new_bf16s(bench, kv_count);
    struct attention_segment segment = {
        .k = k, .v = v, .head_stride = (int64_t)keys * head_dim, .rows = keys, .causal = true};
    c.item = (struct attention_item){.queries = queries, .segments = 1, .segment = {segment}};
    double scores = (double)queries * (keys - 0.5 * (queries - 1)) * q_heads;
    struct bench_case test = {.run = run_attention,
                              .context = &c,
                              .flops = 4.0 * head_dim * scores,
                              .bytes = 4.0 * (double)kv_count};
    snprintf(test.name, sizeof(test.name), "attention %d/%d heads of %d, %d of %d", q_heads,
             kv_heads, head_dim, queries, keys);
    report(bench, &test);
    bench->cpu->free(0, c.q, q_count * 2);
    bench->cpu->free(0, c.out, q_count * 2);
    bench->cpu->free(0, k, kv_count * 2);
    bench->cpu->free(0, v, kv_count * 2);
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
    static const int rows[] = {1, 4, 16, 128, 1024};
    size_t most = 1024;
    struct linear_context c = {.x = new_bf16s(bench, most * (size_t)in)};
    size_t out_bytes = most * (size_t)out * sizeof(float);
    check(bench->cpu->alloc(0, out_bytes, &c.out));
    uint16_t *host = new_bf16s(bench, (size_t)out * (size_t)in);
    check(bench->cpu->weight_create(bench->queue, host, out, in, false, &c.weight));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        c.rows = rows[i];
        struct bench_case test = {.run = run_linear,
                                  .context = &c,
                                  .flops = 2.0 * rows[i] * out * in,
                                  .bytes = 2.0 * out * in};
        snprintf(test.name, sizeof(test.name), "linear %d x %d, %d rows", out, in, rows[i]);
        report(bench, &test);
    }
    bench->cpu->weight_destroy(bench->queue, c.weight);
    bench->cpu->free(0, host, (size_t)out * (size_t)in * 2);
    bench->cpu->free(0, c.out, out_bytes);
    bench->cpu->free(0, c.x, most * (size_t)in * 2);
}

static struct points parse_points(const char *text)
{
    struct points points = {.count = 0};
    long long tokens;
    double keep;
    int length = 0;

    for (const char *next = text;; next += length + 1) {
        if (points.count == POINTS_MOST ||
            sscanf(next, "%lld:%lf%n", &tokens, &keep, &length) < 2 || tokens < 1 ||
            tokens > INT32_MAX || !(keep > 0 && keep <= 1) ||
            (next[length] != ',' && next[length] != '\0'))
            die("--prefill and --chunk take up to 16 of TOKENS:KEEP with a comma between them, "
                "KEEP "
                "above 0 and at most 1");
        points.tokens[points.count] = tokens;
        points.keep[points.count++] = keep;
        if (next[length] == '\0')
            return points;
    }
}

/* False: none are asked for. */
static bool bench_points(const struct bench *bench, const struct sparse_bench *sparse)
{
    const int chunk = bench_chunk_tokens(sparse);
    double warm_up_s = bench->warm_up_s;

    for (int i = 0; i < bench->prefills.count; i++) {
        int64_t tokens = bench->prefills.tokens[i];

        if (tokens % chunk != 0 || tokens < 2 * chunk)
            die("--prefill takes a multiple of the chunk (8192 tokens, on CPUs 1024), at least "
                "two");
        bench_prefill(sparse, tokens, bench->prefills.keep[i], warm_up_s);
        warm_up_s = 0;
    }
    for (int i = 0; i < bench->chunks.count; i++)
        bench_chunk(sparse, bench->chunks.tokens[i], bench->chunks.keep[i]);
    return bench->prefills.count + bench->chunks.count > 0;
}

static void bench_all(struct bench *bench)
{
    struct sparse_bench sparse = {
        .backend = bench->cpu, .threads = bench->threads, .is_json = bench->is_json};

    check(bench->cpu->queue_create(0, bench->threads, &bench->queue));
    sparse.queue = bench->queue;
    if (bench_points(bench, &sparse) || bench->is_sparse) {
        if (bench->is_sparse)
            bench_sparse(&sparse);
        bench->cpu->queue_destroy(bench->queue);
        return;
    }
    check(thread_pool_create(bench->threads, &bench->pool));
    bench_attention(bench, 8, 4, 64, 8192, 8192);
    bench_attention(bench, 9, 3, 64, 8192, 8192);
    bench_attention(bench, 9, 3, 64, 1024, 2048);
    bench_attention(bench, 8, 2, 128, 4096, 4096);
    bench_attention(bench, 9, 3, 64, 1, 2048);
    bench_attention(bench, 8, 4, 64, 1, 131072);
    bench_linear(bench, 960, 576);   /* SmolLM2-135M: q, k, v */
    bench_linear(bench, 576, 576);   /* attention output */
    bench_linear(bench, 3072, 576);  /* gate, up */
    bench_linear(bench, 576, 1536);  /* down */
    bench_linear(bench, 49152, 576); /* logits: larger than the caches */
    bench_linear(bench, 1792, 320);  /* needle-9m: gate, up */
    thread_pool_destroy(bench->pool);
    bench->cpu->queue_destroy(bench->queue);
}

static void bench_cuda(const struct bench *bench)
{
    struct sparse_bench sparse = {
        .backend = kernel_backend_cuda(0, NULL), .is_async = true, .is_json = bench->is_json};

    if (sparse.backend == NULL)
        die("this build, or this machine, has no usable CUDA device");
    check(sparse.backend->queue_create(0, 1, &sparse.queue));
    if (!bench_points(bench, &sparse)) {
        bench_decode(&sparse);
        bench_sparse(&sparse);
    }
    sparse.backend->queue_destroy(sparse.queue);
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "usage: tca-bench-kernels [--threads N] [--sparse] [--device cpu|cuda] [--json] "
        "[--prefill TOKENS:KEEP[,..]] [--chunk POSITION:KEEP[,..]] [--warm-up-s SECONDS]";
    static const struct option options[] = {{"threads", required_argument, NULL, 't'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"sparse", no_argument, NULL, 's'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"prefill", required_argument, NULL, 'p'},
                                            {"chunk", required_argument, NULL, 'c'},
                                            {"warm-up-s", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct bench bench = {.cpu = kernel_backend_cpu(), .threads = 0};
    const char *device = "cpu";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 't')
            bench.threads = atoi(optarg);
        else if (option == 'j')
            bench.is_json = true;
        else if (option == 's')
            bench.is_sparse = true;
        else if (option == 'd')
            device = optarg;
        else if (option == 'p')
            bench.prefills = parse_points(optarg);
        else if (option == 'c')
            bench.chunks = parse_points(optarg);
        else if (option == 'w')
            bench.warm_up_s = atof(optarg);
        else if (option == 'h')
            return puts(usage) == EOF;
        else
            die(usage);
    }
    if (strcmp(device, "cuda") == 0) {
        bench_cuda(&bench);
        return 0;
    }
    if (strcmp(device, "cpu") != 0)
        die("--device must be cpu or cuda");
    if (bench.threads < 0 || bench.threads > THREADS_MOST)
        die("--threads must be 1 to 256, or 0 for both 1 and 2");
    if (bench.threads > 0) {
        bench_all(&bench);
        return 0;
    }
    for (bench.threads = 1; bench.threads <= 2; bench.threads++)
        bench_all(&bench);
    return 0;
}
