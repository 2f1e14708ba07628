#include "kernels/cuda/driver.h"

#include <cuda_runtime_api.h>

#include <stddef.h>

enum { VERSION_LEAST = 12000 };

bool cuda_driver_find(const char *name, void **function_out)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    cudaError_t code = cudaGetDriverEntryPointByVersion(name, function_out, VERSION_LEAST,
                                                        cudaEnableDefault, &found);

    if (code != cudaSuccess)
        (void)cudaGetLastError();
    return code == cudaSuccess && found == cudaDriverEntryPointSuccess && *function_out != NULL;
}
