/* One prefill chunk's attention, sparse against dense, at growing positions; and decode steps over
 * core caches. */
#ifndef BENCH_BENCH_SPARSE_H
#define BENCH_BENCH_SPARSE_H

#include "kernels/backend.h"

#include <stdbool.h>

struct sparse_bench {
    const struct kernel_backend *backend;
    struct kernel_queue *queue;
    int threads;   /* of the CPU backend; 0 elsewhere */
    bool is_async; /* operations only enqueue: a GPU, which gets Llama-3.1-8B's shape */
    bool is_json;
};

/* Print a line (or JSON object) for every position, from synthetic K and V: the sparse chunk with
 * its parts, and the dense one. */
void bench_sparse(const struct sparse_bench *bench);

/* Print a line (or JSON object) for every number of questions and rows: one attention of a step, in
 * which every question has one query over a core cache of its own, with as many rows in the mean of
 * its heads, or one or more over a document that all share, and over 64 rows of its own. */
void bench_decode(const struct sparse_bench *bench);

#endif
