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

/* Of the prefills and chunks below. */
int bench_chunk_tokens(const struct sparse_bench *bench);

/* Print the time of one layer's attention over a whole document, the middle of three runs after as
 * many as `warm_up_s` takes, at least one: rule `block` at `keep`, selection and gather included;
 * 1: dense. tokens: a multiple of bench_chunk_tokens(), at least two of them. */
void bench_prefill(const struct sparse_bench *bench, int64_t tokens, double keep, double warm_up_s);

/* Print a line of bench_sparse() for one chunk, whose heads keep between half and one and a half
 * times the budget. */
void bench_chunk(const struct sparse_bench *bench, int64_t position, double keep);

/* Print a line (or JSON object) for every number of questions and rows: one attention of a step, in
 * which every question has one query over a core cache of its own, with as many rows in the mean of
 * its heads, or one or more over a document that all share, and over 64 rows of its own. */
void bench_decode(const struct sparse_bench *bench);

#endif
