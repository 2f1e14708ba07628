/* Arrays on a backend's device for a benchmark. */
#ifndef BENCH_BENCH_MEMORY_H
#define BENCH_BENCH_MEMORY_H

#include "kernels/backend.h"

enum { BENCH_ARRAYS_MAX = 256 };

struct bench_memory {
    const struct kernel_backend *backend;
    struct kernel_queue *queue;
    int count;
    void *array[BENCH_ARRAYS_MAX]; /* owned */
    size_t bytes[BENCH_ARRAYS_MAX];
};

/* Ends the program with the status' text unless it is TCA_OK. */
void bench_check(enum tca_status status);

void bench_memory_init(struct bench_memory *memory, const struct kernel_backend *backend,
                       struct kernel_queue *queue);
void bench_memory_deinit(struct bench_memory *memory);

/* Device memory until deinit, zeroed. */
void *bench_new(struct bench_memory *memory, size_t bytes);
/* Filled from host. */
void *bench_new_from(struct bench_memory *memory, const void *host, size_t bytes);
/* Small numbers in both signs, which repeat after 16 Mi. */
uint16_t *bench_new_bf16s(struct bench_memory *memory, size_t count);

#endif
