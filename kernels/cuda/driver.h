/* The driver's functions, found at run time: a program that links the driver would not start on a
 * machine without one. */
#ifndef KERNELS_CUDA_DRIVER_H
#define KERNELS_CUDA_DRIVER_H

#include <stdbool.h>

/* The function of that name as CUDA 12 has it (PFN_.. of cudaTypedefs.h); false: there is none. */
bool cuda_driver_find(const char *name, void **function_out);

#endif
