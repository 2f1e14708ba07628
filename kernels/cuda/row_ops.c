/* The row-wise operations: host lists go through the staging ring, then one launch each. */
#include "base/log.h"
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/weight.h"

#include <string.h>

static enum tca_status stage_ints(struct cuda_queue *queue, const int32_t *list, int count,
                                  const int32_t **device_out)
{
    const void *device;

    TCA_TRY(staging_copy(&queue->staging, list, (size_t)count * sizeof(*list), &device));
    *device_out = device;
    return TCA_OK;
}

enum tca_status cuda_embed(struct kernel_queue *base, float *out, const struct kernel_weight *table,
                           const int32_t *ids, int rows, int first_id)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    const int32_t *device_ids;

    if (rows == 0)
        return TCA_OK;
    TCA_TRY(stage_ints(queue, ids, rows, &device_ids));
    cuda_launch_embed(queue->stream, out, table->data, table->rows, table->cols, device_ids, rows,
                      first_id);
    return cuda_launch_status("embed");
}

enum tca_status cuda_residual_norm(struct kernel_queue *base, uint16_t *out, float *x,
                                   const void *delta, const void *rest, const float *weight,
                                   int rows, int cols, float eps)
{
    if (rows == 0)
        return TCA_OK;
    cuda_launch_residual_norm(cuda_queue_from(base)->stream, out, x, delta, rest, weight, rows,
                              cols, eps);
    return cuda_launch_status("residual_norm");
}

enum tca_status cuda_rope_table(struct kernel_queue *base, float *table_out,
                                const int32_t *positions, int rows, const float *inv_freq, int half,
                                float magnitude)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    const int32_t *device_positions;

    if (rows == 0)
        return TCA_OK;
    TCA_TRY(stage_ints(queue, positions, rows, &device_positions));
    cuda_launch_rope_table(queue->stream, table_out, device_positions, rows, inv_freq, half,
                           magnitude);
    return cuda_launch_status("rope_table");
}

enum tca_status cuda_rope_append(struct kernel_queue *base, uint16_t *q_out,
                                 const struct kv_append *appends, int append_count, const void *qkv,
                                 const struct attention_shape *shape, const float *rope,
                                 const struct qk_norm *norm)
{
    struct rope_appends group;

    for (int first = 0; first < append_count; first += group.count) {
        int left = append_count - first;

        group.count = left < ROPE_APPENDS_MAX ? left : ROPE_APPENDS_MAX;
        group.tokens = 0;
        memcpy(group.append, appends + first, (size_t)group.count * sizeof(*appends));
        for (int i = 0; i < group.count; i++)
            group.tokens += group.append[i].tokens;
        if (group.tokens == 0)
            continue;
        cuda_launch_rope_append(cuda_queue_from(base)->stream, q_out, &group, qkv, shape, rope,
                                norm);
        TCA_TRY(cuda_launch_status("rope_append"));
    }
    return TCA_OK;
}

enum tca_status cuda_swiglu(struct kernel_queue *base, uint16_t *out, const void *gate_up, int rows,
                            int cols)
{
    if (rows == 0)
        return TCA_OK;
    cuda_launch_swiglu(cuda_queue_from(base)->stream, out, gate_up, rows, cols);
    return cuda_launch_status("swiglu");
}

enum tca_status cuda_take_rows(struct kernel_queue *base, float *out, const float *x,
                               const int32_t *indices, int rows, int cols)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    const int32_t *device_indices;

    if (rows == 0)
        return TCA_OK;
    TCA_TRY(stage_ints(queue, indices, rows, &device_indices));
    cuda_launch_take_rows(queue->stream, out, x, device_indices, rows, cols);
    return cuda_launch_status("take_rows");
}

/* Results lie as [rows] log-sum-exps, then [rows, count] values, then [rows, count] ids. */
enum tca_status cuda_logits_top(struct kernel_queue *base, float *values_out, int32_t *ids_out,
                                float *lse_out, const float *logits, int rows, int cols, int count)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    size_t floats = (size_t)rows * (2 * (size_t)count + 1);
    size_t places = (size_t)rows * (size_t)count;
    float *lse = queue->top;
    float *values = lse + rows;
    const float *host = queue->top_host;

    if (rows == 0)
        return TCA_OK;
    if (count > TOP_COUNT_MAX || floats * sizeof(float) > TOP_BYTES) {
        log_error("%d candidates of %d rows are too many", count, rows);
        return TCA_ERR_RANGE;
    }
    const struct logits_top_out out = {
        .values = values, .ids = (int32_t *)(values + places), .lse = lse};
    cuda_launch_logits_top(queue->stream, &out, logits, rows, cols, count, queue->scratch,
                           SCRATCH_BYTES);
    TCA_TRY(cuda_launch_status("logits_top"));
    TCA_TRY(cuda_status(cudaMemcpyAsync(queue->top_host, queue->top, floats * sizeof(float),
                                        cudaMemcpyDeviceToHost, queue->stream),
                        "cudaMemcpyAsync"));
    TCA_TRY(cuda_queue_wait(base));
    memcpy(lse_out, host, (size_t)rows * sizeof(*lse_out));
    memcpy(values_out, host + rows, places * sizeof(*values_out));
    memcpy(ids_out, host + (size_t)rows + places, places * sizeof(*ids_out));
    return TCA_OK;
}
