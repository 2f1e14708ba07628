/* A few threads that run the parts of one operation at a time, the caller being one of them.
 *
 * Threads of a step's operations follow each other within microseconds, so an idle thread spins
 * for a moment before it sleeps. Not OpenMP: several pools may live in one process (ranks as
 * threads), and the thread sanitizer must see the synchronisation. */
#ifndef KERNELS_CPU_THREAD_POOL_H
#define KERNELS_CPU_THREAD_POOL_H

#include "base/status.h"

struct thread_pool;

/* One part of the work; `thread` (0 .. threads - 1) names the one that runs it. */
typedef void (*thread_pool_fn)(void *context, int part, int thread);

/* `threads` counts the caller: 1 starts none. TCA_ERR_NO_MEMORY. */
enum tca_status thread_pool_create(int threads, struct thread_pool **pool_out);
void thread_pool_destroy(struct thread_pool *pool); /* NULL is a no-op */
int thread_pool_threads(const struct thread_pool *pool);

/* Run parts 0 .. parts - 1, each once, started in that order, and wait for all. One caller. */
void thread_pool_run(struct thread_pool *pool, int parts, thread_pool_fn run, void *context);

#endif
