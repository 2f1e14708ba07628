/* Stands in for kernels/cuda in a build without it. */
#include "kernels/backend.h"

const struct kernel_backend *kernel_backend_cuda(int device, struct tca_error *error)
{
    tca_fail(error, TCA_ERR_UNSUPPORTED, "GPU %d: this build has no CUDA", device);
    return NULL;
}
