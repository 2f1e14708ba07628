#include "bench/bench_memory.h"

#include <stdio.h>
#include <stdlib.h>

enum { PATTERN = 16 << 20 };

void bench_check(enum tca_status status)
{
    if (status == TCA_OK)
        return;
    fprintf(stderr, "tca-bench-kernels: %s\n", tca_status_text(status));
    exit(1);
}

void bench_memory_init(struct bench_memory *memory, const struct kernel_backend *backend,
                       struct kernel_queue *queue)
{
    *memory = (struct bench_memory){.backend = backend, .queue = queue};
}

void bench_memory_deinit(struct bench_memory *memory)
{
    for (int i = 0; i < memory->count; i++)
        memory->backend->free(memory->queue->device, memory->array[i], memory->bytes[i]);
    memory->count = 0;
}

void *bench_new(struct bench_memory *memory, size_t bytes)
{
    void *array;

    bench_check(memory->count < BENCH_ARRAYS_MAX ? TCA_OK : TCA_ERR_NO_MEMORY);
    bench_check(memory->backend->alloc(memory->queue->device, bytes, &array));
    memory->array[memory->count] = array;
    memory->bytes[memory->count++] = bytes;
    bench_check(memory->backend->zero(memory->queue, array, bytes));
    return array;
}

void *bench_new_from(struct bench_memory *memory, const void *host, size_t bytes)
{
    void *array = bench_new(memory, bytes);

    bench_check(memory->backend->upload(memory->queue, array, host, bytes));
    return array;
}

uint16_t *bench_new_bf16s(struct bench_memory *memory, size_t count)
{
    size_t made = count < PATTERN ? count : PATTERN;
    uint16_t *host = malloc(made * sizeof(*host));
    uint16_t *array = bench_new(memory, count * sizeof(*array));
    uint32_t state = 1;

    bench_check(host != NULL ? TCA_OK : TCA_ERR_NO_MEMORY);
    for (size_t i = 0; i < made; i++) {
        state = state * 1664525u + 1013904223u;
        host[i] = (uint16_t)(0x3c00u | ((state >> 16) & 0x81ffu));
    }
    bench_check(memory->backend->upload(memory->queue, array, host, made * sizeof(*host)));
    free(host);
    while (made < count) {
        size_t more = count - made < made ? count - made : made;

        bench_check(
            memory->backend->copy(memory->queue, array + made, array, more * sizeof(*array)));
        made += more;
    }
    return array;
}
