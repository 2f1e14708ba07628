#include "kernels/cpu/linear.h"

#include "kernels/cpu/ops.h"
#include "kernels/cpu/weight.h"

enum tca_status cpu_linear(struct kernel_queue *base, void *out, enum kernel_dtype out_dtype,
                           const uint16_t *x, const struct kernel_weight *weight, const float *bias,
                           int rows)
{
    struct linear_call call = {
        .out = out, .out_dtype = out_dtype, .x = x, .weight = weight, .bias = bias, .rows = rows};
    if (rows <= 0)
        return TCA_OK;
    if (weight->layout == WEIGHT_BLOCKS)
        return linear_blocks(cpu_queue_from(base), &call);
    return linear_rows(cpu_queue_from(base), &call);
}
