/* The device of one rank: a backend, which of its devices, and the queue all work goes through.
 * Filled by model_shard, borrowed by everything below it. One thread (the rank's) uses it. */
#ifndef WORKER_DEVICE_H
#define WORKER_DEVICE_H

#include "kernels/backend.h"

struct device {
    const struct kernel_backend *backend;
    int index;
    struct kernel_queue *queue;
};

#endif
