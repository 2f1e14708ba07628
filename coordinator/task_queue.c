#include "coordinator/task_queue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct task_queue {
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    struct task *first, *last;
    bool is_stopping;
};

static void *run_tasks(void *argument)
{
    struct task_queue *queue = argument;

    pthread_mutex_lock(&queue->mutex);
    for (;;) {
        struct task *task = queue->first;

        if (task != NULL) {
            queue->first = task->next;
            pthread_mutex_unlock(&queue->mutex);
            task->run(task);
            pthread_mutex_lock(&queue->mutex);
        } else if (queue->is_stopping) {
            break;
        } else {
            pthread_cond_wait(&queue->changed, &queue->mutex);
        }
    }
    pthread_mutex_unlock(&queue->mutex);
    return NULL;
}

enum tca_status task_queue_start(struct task_queue **queue_out)
{
    struct task_queue *queue = calloc(1, sizeof(*queue));

    if (queue == NULL)
        return TCA_ERR_NO_MEMORY;
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->changed, NULL);
    if (pthread_create(&queue->thread, NULL, run_tasks, queue) != 0) {
        pthread_cond_destroy(&queue->changed);
        pthread_mutex_destroy(&queue->mutex);
        free(queue);
        return TCA_ERR_NO_MEMORY;
    }
    *queue_out = queue;
    return TCA_OK;
}

void task_queue_stop(struct task_queue *queue)
{
    if (queue == NULL)
        return;
    pthread_mutex_lock(&queue->mutex);
    queue->is_stopping = true;
    pthread_cond_signal(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
    pthread_join(queue->thread, NULL);
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->mutex);
    free(queue);
}

void task_queue_post(struct task_queue *queue, struct task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&queue->mutex);
    if (queue->first == NULL)
        queue->first = task;
    else
        queue->last->next = task;
    queue->last = task;
    pthread_cond_signal(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
}
