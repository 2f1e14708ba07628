#include "kernels/cpu/thread_pool.h"

#include "base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* About 20 us: longer than the gap between two operations of a step, shorter than a time slice. */
enum { SPINS = 1000 };

struct worker {
    struct thread_pool *pool;
    pthread_t thread;
    int index;
};

struct thread_pool {
    int threads;
    struct worker *workers; /* [threads - 1], owned */

    /* Written by the caller before `round` grows, read by the workers after. */
    thread_pool_fn run;
    void *context;
    int parts;
    bool stop;

    _Alignas(64) atomic_uint round; /* grows by one an operation */
    _Alignas(64) atomic_int next;   /* the first part nobody has taken */
    _Alignas(64) atomic_int busy;   /* workers not done with this round */

    pthread_mutex_t mutex; /* only for sleeping and waking */
    pthread_cond_t started;
    pthread_cond_t finished;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void run_parts(struct thread_pool *pool, int thread)
{
    for (;;) {
        int part = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (part >= pool->parts)
            return;
        pool->run(pool->context, part, thread);
    }
}

static void wait_for_round(struct thread_pool *pool, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->round, memory_order_acquire) != seen)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->round, memory_order_acquire) == seen)
        pthread_cond_wait(&pool->started, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static void wait_for_workers(struct thread_pool *pool)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->busy, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->busy, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->finished, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct thread_pool *pool = worker->pool;
    for (unsigned round = 0;; round++) {
        wait_for_round(pool, round);
        if (pool->stop)
            return NULL;
        run_parts(pool, worker->index);
        if (atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_acq_rel) == 1) {
            /* The empty critical section orders this with a caller about to sleep. */
            pthread_mutex_lock(&pool->mutex);
            pthread_mutex_unlock(&pool->mutex);
            pthread_cond_signal(&pool->finished);
        }
    }
}

static void start_round(struct thread_pool *pool)
{
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->threads - 1, memory_order_relaxed);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    pthread_mutex_unlock(&pool->mutex);
    pthread_cond_broadcast(&pool->started);
}

static void stop_workers(struct thread_pool *pool, int count)
{
    pool->stop = true;
    start_round(pool);
    for (int i = 0; i < count; i++)
        pthread_join(pool->workers[i].thread, NULL);
}

enum tca_status thread_pool_create(int threads, struct thread_pool **pool_out)
{
    struct thread_pool *pool = aligned_alloc(64, sizeof(*pool));
    if (!pool)
        goto err_log;
    *pool = (struct thread_pool){.threads = threads};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->started, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->workers = calloc((size_t)threads, sizeof(*pool->workers));
    if (!pool->workers)
        goto err_free_pool;
    for (int i = 0; i < threads - 1; i++) {
        pool->workers[i] = (struct worker){.pool = pool, .index = i + 1};
        if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]) != 0) {
            stop_workers(pool, i);
            goto err_free_pool;
        }
    }
    *pool_out = pool;
    return TCA_OK;

err_free_pool:
    free(pool->workers);
    free(pool);
err_log:
    log_error("cannot start %d compute threads", threads);
    return TCA_ERR_NO_MEMORY;
}

void thread_pool_destroy(struct thread_pool *pool)
{
    if (!pool)
        return;
    stop_workers(pool, pool->threads - 1);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->started);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

int thread_pool_threads(const struct thread_pool *pool)
{
    return pool->threads;
}

void thread_pool_run(struct thread_pool *pool, int parts, thread_pool_fn run, void *context)
{
    if (pool->threads == 1 || parts <= 1) {
        for (int part = 0; part < parts; part++)
            run(context, part, 0);
        return;
    }
    pool->run = run;
    pool->context = context;
    pool->parts = parts;
    start_round(pool);
    run_parts(pool, 0);
    wait_for_workers(pool);
}
