#include "worker/message_queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct message {
    struct message *next;
    size_t size;
    uint8_t data[];
};

struct message_queue {
    pthread_mutex_t mutex; /* protects everything below */
    pthread_cond_t changed;
    struct message *oldest, *newest;
    size_t bytes, bytes_max;
    bool is_closed;
};

enum tca_status message_queue_create(size_t bytes_max, struct message_queue **queue_out)
{
    struct message_queue *queue = calloc(1, sizeof(*queue));
    pthread_condattr_t monotonic;

    if (queue == NULL)
        return TCA_ERR_NO_MEMORY;
    queue->bytes_max = bytes_max;
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *queue_out = queue;
    return TCA_OK;
}

void message_queue_destroy(struct message_queue *queue)
{
    if (queue == NULL)
        return;
    while (queue->oldest != NULL) {
        struct message *next = queue->oldest->next;

        free(queue->oldest);
        queue->oldest = next;
    }
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->mutex);
    free(queue);
}

static struct timespec deadline_after(int64_t timeout_ms)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    now.tv_sec += (time_t)(timeout_ms / 1000);
    now.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (now.tv_nsec >= 1000000000) {
        now.tv_sec++;
        now.tv_nsec -= 1000000000;
    }
    return now;
}

/* Wait for a change with the mutex held; false once the deadline has passed. */
static bool wait_for_change(struct message_queue *queue, const struct timespec *deadline)
{
    return pthread_cond_timedwait(&queue->changed, &queue->mutex, deadline) != ETIMEDOUT;
}

enum tca_status message_queue_push(struct message_queue *queue, const void *data, size_t size,
                                   int64_t timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms);
    struct message *message = malloc(sizeof(*message) + size);
    enum tca_status status = TCA_OK;

    if (message == NULL)
        return TCA_ERR_NO_MEMORY;
    message->next = NULL;
    message->size = size;
    memcpy(message->data, data, size);
    pthread_mutex_lock(&queue->mutex);
    while (!queue->is_closed && queue->oldest != NULL && queue->bytes + size > queue->bytes_max) {
        if (!wait_for_change(queue, &deadline)) {
            status = TCA_ERR_DEADLINE;
            break;
        }
    }
    if (queue->is_closed)
        status = TCA_ERR_CANCELLED;
    if (status == TCA_OK) {
        if (queue->oldest == NULL)
            queue->oldest = message;
        else
            queue->newest->next = message;
        queue->newest = message;
        queue->bytes += size;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->mutex);
    if (status != TCA_OK)
        free(message);
    return status;
}

enum tca_status message_queue_pop(struct message_queue *queue, int64_t timeout_ms,
                                  struct bytes *message)
{
    struct timespec deadline = deadline_after(timeout_ms);
    enum tca_status status = TCA_OK;
    struct message *taken;

    bytes_clear(message);
    pthread_mutex_lock(&queue->mutex);
    while (queue->oldest == NULL && !queue->is_closed && wait_for_change(queue, &deadline))
        ;
    taken = queue->oldest;
    if (taken == NULL)
        status = queue->is_closed ? TCA_ERR_NOT_FOUND : TCA_ERR_DEADLINE;
    else
        status = bytes_append(message, taken->data, taken->size);
    if (status == TCA_OK) {
        queue->oldest = taken->next;
        queue->bytes -= taken->size;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->mutex);
    if (status == TCA_OK)
        free(taken);
    return status;
}

void message_queue_close(struct message_queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    queue->is_closed = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
}
