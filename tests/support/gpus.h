/* Whether a test of several ranks has the GPUs that it needs. */
#ifndef TESTS_SUPPORT_GPUS_H
#define TESTS_SUPPORT_GPUS_H

#include "kernels/backend.h"

#include <stdlib.h>

/* Under mpirun every rank must have a GPU of its own. */
static inline bool has_gpu_for_each_rank(void)
{
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");

    return kernel_backend_cuda(ranks == NULL ? 0 : atoi(ranks) - 1, NULL) != NULL;
}

#endif
