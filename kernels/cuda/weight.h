/* A matrix of the CUDA backend: its rows as they came, bf16. */
#ifndef KERNELS_CUDA_WEIGHT_H
#define KERNELS_CUDA_WEIGHT_H

#include <stdint.h>

struct kernel_weight {
    uint16_t *data; /* device, owned: [rows, cols] */
    int rows, cols;
};

#endif
