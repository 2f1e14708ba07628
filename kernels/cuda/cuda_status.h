/* Translation of the CUDA libraries' codes, once, where they are returned. A failure is logged with
 * what was tried. */
#ifndef KERNELS_CUDA_CUDA_STATUS_H
#define KERNELS_CUDA_CUDA_STATUS_H

#include "base/status.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

/* TCA_ERR_NO_MEMORY when the device's memory is exhausted, else TCA_ERR_DEVICE. */
enum tca_status cuda_status(cudaError_t code, const char *what);
enum tca_status cublas_status(cublasStatus_t code, const char *what);

/* Of the kernel just launched. */
enum tca_status cuda_launch_status(const char *kernel);

#endif
