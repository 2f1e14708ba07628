#include "kernels/cuda/weight.h"

#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/launch.h"
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

/* A matrix without its numbers. */
static enum tca_status create(struct kernel_queue *base, int64_t rows, int cols,
                              struct kernel_weight **weight_out)
{
    struct kernel_weight *weight;
    enum tca_status status;

    TCA_TRY(reserve_bias(cuda_queue_from(base), (int)rows));
    weight = calloc(1, sizeof(*weight));
    if (weight == NULL)
        return TCA_ERR_NO_MEMORY;
    *weight = (struct kernel_weight){.rows = (int)rows, .cols = cols};
    status = cuda_alloc(base->device, cuda_weight_bytes(weight), (void **)&weight->data);
    if (status != TCA_OK) {
        free(weight);
        return status;
    }
    *weight_out = weight;
    return TCA_OK;
}

/* `weight` is given out only when its numbers are in place. */
static enum tca_status finish(struct kernel_queue *base, struct kernel_weight *weight,
                              enum tca_status status, struct kernel_weight **weight_out)
{
    if (status == TCA_OK)
        *weight_out = weight;
    else
        cuda_weight_destroy(base, weight);
    return status;
}

enum tca_status cuda_weight_create(struct kernel_queue *base, const uint16_t *host_rows, int rows,
                                   int cols, bool keep_rows, struct kernel_weight **weight_out)
{
    struct kernel_weight *weight;

    (void)keep_rows; /* the layout serves embed as it is */
    TCA_TRY(create(base, rows, cols, &weight));
    return finish(base, weight,
                  cuda_upload(base, weight->data, host_rows, cuda_weight_bytes(weight)),
                  weight_out);
}

enum tca_status cuda_weight_create_dummy(struct kernel_queue *base, const struct dummy_rows *runs,
                                         int count, int cols, struct kernel_weight **weight_out)
{
    struct kernel_weight *weight;
    uint16_t *next;
    int64_t rows = 0;

    for (int i = 0; i < count; i++)
        rows += runs[i].rows;
    TCA_TRY(create(base, rows, cols, &weight));
    next = weight->data;
    for (int i = 0; i < count; i++) {
        cuda_launch_dummy(cuda_queue_from(base)->stream, next, &runs[i], cols);
        next += runs[i].rows * cols;
    }
    return finish(base, weight, cuda_launch_status("dummy"), weight_out);
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
