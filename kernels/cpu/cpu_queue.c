#include "kernels/cpu/cpu_queue.h"

#include "base/log.h"
#include "kernels/cpu/matmul_cache.h"
#include "kernels/cpu/memory.h"

#include <stdlib.h>

enum cpu_isa cpu_isa_detect(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return CPU_ISA_AVX512_BF16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return CPU_ISA_AVX2;
#endif
    return CPU_ISA_PORTABLE;
}

enum tca_status cpu_queue_create(int threads, enum cpu_isa isa, struct kernel_queue **queue_out)
{
    struct cpu_queue *queue = calloc(1, sizeof(*queue));
    if (!queue) {
        log_error("no memory for a queue");
        return TCA_ERR_NO_MEMORY;
    }
    enum cpu_isa best = cpu_isa_detect();
    queue->isa = isa < best ? isa : best;
    threads = threads < 1 ? 1 : threads;
    enum tca_status status = thread_pool_create(threads, &queue->pool);
    if (status == TCA_OK)
        status = matmul_cache_create(threads, &queue->matmuls);
    if (status != TCA_OK) {
        cpu_queue_destroy(&queue->base);
        return status;
    }
    *queue_out = &queue->base;
    return TCA_OK;
}

void cpu_queue_destroy(struct kernel_queue *base)
{
    if (!base)
        return;
    struct cpu_queue *queue = cpu_queue_from(base);
    matmul_cache_destroy(queue->matmuls);
    thread_pool_destroy(queue->pool);
    cpu_free(queue->scratch, queue->scratch_bytes);
    free(queue);
}

struct cpu_queue *cpu_queue_from(struct kernel_queue *base)
{
    return (struct cpu_queue *)base;
}

int cpu_queue_threads(const struct cpu_queue *queue)
{
    return thread_pool_threads(queue->pool);
}

void *cpu_queue_scratch(struct cpu_queue *queue, size_t bytes)
{
    if (bytes <= queue->scratch_bytes)
        return queue->scratch;
    cpu_free(queue->scratch, queue->scratch_bytes);
    queue->scratch = NULL;
    queue->scratch_bytes = 0;
    if (cpu_alloc(bytes, &queue->scratch) != TCA_OK)
        return NULL;
    queue->scratch_bytes = bytes;
    return queue->scratch;
}

struct rows_job {
    cpu_rows_fn run;
    void *context;
    int rows;
    int parts;
};

static void run_part(void *context, int part, int thread)
{
    (void)thread;
    const struct rows_job *job = context;
    int first = (int)((int64_t)job->rows * part / job->parts);
    int end = (int)((int64_t)job->rows * (part + 1) / job->parts);
    job->run(job->context, first, end - first);
}

void cpu_queue_run_rows(struct cpu_queue *queue, int rows, int grain, cpu_rows_fn run,
                        void *context)
{
    /* A few parts a thread, so that one delayed thread does not hold the others up. */
    int parts = rows / (grain < 1 ? 1 : grain);
    int most = 4 * cpu_queue_threads(queue);
    if (parts > most)
        parts = most;
    if (parts < 1)
        parts = rows > 0 ? 1 : 0;
    struct rows_job job = {.run = run, .context = context, .rows = rows, .parts = parts};
    thread_pool_run(queue->pool, parts, run_part, &job);
}
