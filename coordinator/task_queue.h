/* A thread that runs posted tasks one after the other: the disk, the tokenizer. */
#ifndef COORDINATOR_TASK_QUEUE_H
#define COORDINATOR_TASK_QUEUE_H

#include "base/status.h"

struct task_queue;

/* The first member of a task's own struct, which `run` frees. */
struct task {
    void (*run)(struct task *task);
    struct task *next;
};

/* TCA_ERR_NO_MEMORY: no thread. */
enum tca_status task_queue_start(struct task_queue **queue_out);
/* Run what was posted, also by those tasks, and end the thread; NULL is a no-op. */
void task_queue_stop(struct task_queue *queue);

/* From any thread, before stop. */
void task_queue_post(struct task_queue *queue, struct task *task);

#endif
