/* Whether a test of several ranks has the GPUs that it needs. */
#ifndef TESTS_SUPPORT_GPUS_H
#define TESTS_SUPPORT_GPUS_H

#include "kernels/backend.h"

#include <stdlib.h>

/* Under mpirun every rank must have a GPU of its own. */
static inline bool has_gpu_for_each_rank(void)
{
    const struct kernel_backend *backend = kernel_backend_cuda();
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");
    size_t total, left;

    return backend != NULL &&
           backend->memory(ranks == NULL ? 0 : atoi(ranks) - 1, &total, &left) == TCA_OK;
}

#endif
