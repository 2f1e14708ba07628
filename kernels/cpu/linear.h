/* The two ways of computing `linear`. */
#ifndef KERNELS_CPU_LINEAR_H
#define KERNELS_CPU_LINEAR_H

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

struct linear_call {
    void *out;
    enum kernel_dtype out_dtype;
    const uint16_t *x;
    const struct kernel_weight *weight;
    const float *bias;
    int rows; /* at least 1 */
};

enum tca_status linear_rows(struct cpu_queue *queue, const struct linear_call *call);
enum tca_status linear_blocks(struct cpu_queue *queue, const struct linear_call *call);

#endif
