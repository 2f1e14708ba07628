/* The CPU backend's queue: a thread pool, scratch memory and the choice of instruction set.
 * Operations have finished when they return. Used by one thread. */
#ifndef KERNELS_CPU_CPU_QUEUE_H
#define KERNELS_CPU_CPU_QUEUE_H

#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

#include <stddef.h>

struct matmul_cache;

/* Each has all of those before it. */
enum cpu_isa { CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16 };

struct cpu_queue {
    struct kernel_queue base;
    enum cpu_isa isa;
    struct thread_pool *pool; /* owned */
    void *scratch;            /* owned, see cpu_queue_scratch() */
    size_t scratch_bytes;
    struct matmul_cache *matmuls; /* owned */
};

/* The best that this processor has. */
enum cpu_isa cpu_isa_detect(void);

/* As the table's queue_create, with no more than `isa` (tests force the slower paths). Weights
 * serve only queues of the isa they were made with. */
enum tca_status cpu_queue_create(int threads, enum cpu_isa isa, struct kernel_queue **queue_out);
void cpu_queue_destroy(struct kernel_queue *base);

struct cpu_queue *cpu_queue_from(struct kernel_queue *base);
int cpu_queue_threads(const struct cpu_queue *queue);

/* 64-byte aligned memory that is the caller's until the next call on this queue. NULL: none is
 * left (logged). */
void *cpu_queue_scratch(struct cpu_queue *queue, size_t bytes);

/* Run rows 0 .. rows - 1 in ranges of at least `grain`, spread over the threads. */
typedef void (*cpu_rows_fn)(void *context, int first_row, int rows);
void cpu_queue_run_rows(struct cpu_queue *queue, int rows, int grain, cpu_rows_fn run,
                        void *context);

#endif
