#include "coordinator/timer.h"

#include "base/clock.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_flow.h"
#include "coordinator/question_flow.h"
#include "coordinator/scheduler.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { TICK_MS = 100 };

struct timer {
    struct coordinator *coordinator;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards is_stopping */
    pthread_cond_t stopping;
    bool is_stopping;
};

static void tick(struct coordinator *coordinator)
{
    const int64_t now_ms = clock_monotonic_ms();
    struct question *next_question;

    pthread_mutex_lock(&coordinator->lock);
    for (struct question *question = coordinator->questions; question != NULL;
         question = next_question) {
        next_question = question->next;
        question_flow_tick(coordinator, question, now_ms);
    }
    for (size_t i = 0; i < coordinator->documents.count; i++) {
        struct watcher *next_watcher;

        for (struct watcher *watcher = coordinator->documents.rows[i]->watchers; watcher != NULL;
             watcher = next_watcher) {
            next_watcher = watcher->next;
            watcher_tick(coordinator, watcher, now_ms);
        }
    }
    worker_link_tick(coordinator, now_ms);
    coordinator_tick(coordinator, now_ms);
    scheduler_run(coordinator);
    pthread_mutex_unlock(&coordinator->lock);
}

static void *run_timer(void *argument)
{
    struct timer *timer = argument;

    pthread_mutex_lock(&timer->mutex);
    while (!timer->is_stopping) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)TICK_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&timer->stopping, &timer->mutex, &until);
        pthread_mutex_unlock(&timer->mutex);
        tick(timer->coordinator);
        pthread_mutex_lock(&timer->mutex);
    }
    pthread_mutex_unlock(&timer->mutex);
    return NULL;
}

enum tca_status timer_start(struct coordinator *coordinator, struct timer **timer_out)
{
    struct timer *timer = calloc(1, sizeof(*timer));
    pthread_condattr_t monotonic;

    if (timer == NULL)
        return TCA_ERR_NO_MEMORY;
    timer->coordinator = coordinator;
    pthread_mutex_init(&timer->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&timer->stopping, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&timer->thread, NULL, run_timer, timer) != 0) {
        pthread_cond_destroy(&timer->stopping);
        pthread_mutex_destroy(&timer->mutex);
        free(timer);
        return TCA_ERR_NO_MEMORY;
    }
    *timer_out = timer;
    return TCA_OK;
}

void timer_stop(struct timer *timer)
{
    if (timer == NULL)
        return;
    pthread_mutex_lock(&timer->mutex);
    timer->is_stopping = true;
    pthread_cond_signal(&timer->stopping);
    pthread_mutex_unlock(&timer->mutex);
    pthread_join(timer->thread, NULL);
    pthread_cond_destroy(&timer->stopping);
    pthread_mutex_destroy(&timer->mutex);
    free(timer);
}
