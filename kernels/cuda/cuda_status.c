#include "kernels/cuda/cuda_status.h"

#include "base/log.h"

enum tca_status cuda_status(cudaError_t code, const char *what)
{
    if (code == cudaSuccess)
        return TCA_OK;
    log_error("%s: %s", what, cudaGetErrorString(code));
    (void)cudaGetLastError(); /* an error that can be recovered from is not seen twice */
    return code == cudaErrorMemoryAllocation ? TCA_ERR_NO_MEMORY : TCA_ERR_DEVICE;
}

enum tca_status cublas_status(cublasStatus_t code, const char *what)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return TCA_OK;
    log_error("%s: %s", what, cublasLtGetStatusString(code));
    return code == CUBLAS_STATUS_ALLOC_FAILED ? TCA_ERR_NO_MEMORY : TCA_ERR_DEVICE;
}

enum tca_status cuda_launch_status(const char *kernel)
{
    return cuda_status(cudaGetLastError(), kernel);
}
