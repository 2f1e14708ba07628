#include "client/interrupt.h"

#include "client/command.h"
#include "proto/rpc_client.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct interrupt {
    pthread_t thread;
    sigset_t signals;
    pthread_mutex_t mutex; /* guards what follows */
    struct rpc_stream *stream;
    bool is_seen;
    bool is_stopping;
};

static void *wait_for_signals(void *argument)
{
    struct interrupt *interrupt = argument;
    bool is_stopping = false;
    int number;

    while (!is_stopping && sigwait(&interrupt->signals, &number) == 0) {
        pthread_mutex_lock(&interrupt->mutex);
        is_stopping = interrupt->is_stopping;
        if (!is_stopping && (interrupt->is_seen || interrupt->stream == NULL))
            _exit(EXIT_INTERRUPTED);
        interrupt->is_seen = true;
        if (!is_stopping)
            rpc_stream_cancel(interrupt->stream);
        pthread_mutex_unlock(&interrupt->mutex);
    }
    return NULL;
}

enum tca_status interrupt_start(struct interrupt **interrupt_out)
{
    struct interrupt *interrupt = calloc(1, sizeof(*interrupt));

    if (interrupt == NULL)
        return TCA_ERR_NO_MEMORY;
    pthread_mutex_init(&interrupt->mutex, NULL);
    sigemptyset(&interrupt->signals);
    sigaddset(&interrupt->signals, SIGINT);
    sigaddset(&interrupt->signals, SIGTERM);
    sigaddset(&interrupt->signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &interrupt->signals, NULL);
    if (pthread_create(&interrupt->thread, NULL, wait_for_signals, interrupt) != 0) {
        pthread_mutex_destroy(&interrupt->mutex);
        free(interrupt);
        return TCA_ERR_NO_MEMORY;
    }
    *interrupt_out = interrupt;
    return TCA_OK;
}

void interrupt_stop(struct interrupt *interrupt)
{
    if (interrupt == NULL)
        return;
    pthread_mutex_lock(&interrupt->mutex);
    interrupt->is_stopping = true;
    pthread_mutex_unlock(&interrupt->mutex);
    pthread_kill(interrupt->thread, SIGHUP);
    pthread_join(interrupt->thread, NULL);
    pthread_mutex_destroy(&interrupt->mutex);
    free(interrupt);
}

void interrupt_watch(struct interrupt *interrupt, struct rpc_stream *stream)
{
    pthread_mutex_lock(&interrupt->mutex);
    interrupt->stream = stream;
    pthread_mutex_unlock(&interrupt->mutex);
}

bool interrupt_seen(struct interrupt *interrupt)
{
    bool is_seen;

    pthread_mutex_lock(&interrupt->mutex);
    is_seen = interrupt->is_seen;
    pthread_mutex_unlock(&interrupt->mutex);
    return is_seen;
}
