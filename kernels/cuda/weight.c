#include "kernels/cuda/weight.h"

#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"

#include <stdlib.h>

/* The queue keeps room for the bias of its longest matrix. */
static enum tca_status reserve_bias(struct cuda_queue *queue, int rows)
{
    size_t count = (size_t)rows;

    if (count <= queue->bias_count)
        return TCA_OK;
    cuda_free(queue->base.device, queue->bias, queue->bias_count * sizeof(*queue->bias));
    queue->bias = NULL;
    queue->bias_count = 0;
    TCA_TRY(cuda_alloc(queue->base.device, count * sizeof(*queue->bias), (void **)&queue->bias));
    queue->bias_count = count;
    return TCA_OK;
}

enum tca_status cuda_weight_create(struct kernel_queue *base, const uint16_t *host_rows, int rows,
                                   int cols, bool keep_rows, struct kernel_weight **weight_out)
{
    struct kernel_weight *weight;
    enum tca_status status;

    (void)keep_rows; /* the layout serves embed as it is */
    TCA_TRY(reserve_bias(cuda_queue_from(base), rows));
    weight = calloc(1, sizeof(*weight));
    if (weight == NULL)
        return TCA_ERR_NO_MEMORY;
    *weight = (struct kernel_weight){.rows = rows, .cols = cols};
    status = cuda_alloc(base->device, cuda_weight_bytes(weight), (void **)&weight->data);
    if (status == TCA_OK)
        status = cuda_upload(base, weight->data, host_rows, cuda_weight_bytes(weight));
    if (status != TCA_OK) {
        cuda_weight_destroy(base, weight);
        return status;
    }
    *weight_out = weight;
    return TCA_OK;
}

void cuda_weight_destroy(struct kernel_queue *queue, struct kernel_weight *weight)
{
    if (weight == NULL)
        return;
    cuda_free(queue->device, weight->data, cuda_weight_bytes(weight));
    free(weight);
}

size_t cuda_weight_bytes(const struct kernel_weight *weight)
{
    return (size_t)weight->rows * (size_t)weight->cols * sizeof(*weight->data);
}
