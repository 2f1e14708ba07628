/* TCA's operations: observers' lists go through the staging ring, then one launch each. */
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tca_launch.h"

static enum tca_status stage_observers(struct cuda_queue *queue, const int32_t *observers,
                                       int count, const int32_t **device_out)
{
    const void *device;

    TCA_TRY(staging_copy(&queue->staging, observers, (size_t)count * sizeof(*observers), &device));
    *device_out = device;
    return TCA_OK;
}

enum tca_status cuda_block_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                  const struct attention_shape *shape, const int32_t *observers,
                                  int count, const struct attention_segment *keys)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct score_launch launch = {.shape = *shape,
                                  .keys = *keys,
                                  .q = q,
                                  .count = count,
                                  .out = scores_out,
                                  .multiprocessors = queue->multiprocessors};

    if (count == 0 || keys->rows == 0)
        return TCA_OK;
    TCA_TRY(stage_observers(queue, observers, count, &launch.observers));
    cuda_launch_block_scores(queue->stream, &launch);
    return cuda_launch_status("block_scores");
}

enum tca_status cuda_observer_lse(struct kernel_queue *base, float *lse_out, const float *scores,
                                  const float *lse_own, const int32_t *observers, int count,
                                  int q_heads, int64_t blocks)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    const int32_t *device_observers;

    if (count == 0)
        return TCA_OK;
    TCA_TRY(stage_observers(queue, observers, count, &device_observers));
    cuda_launch_observer_lse(queue->stream, lse_out, scores, lse_own, device_observers, count,
                             q_heads, blocks);
    return cuda_launch_status("observer_lse");
}

enum tca_status cuda_block_masses(struct kernel_queue *base, float *masses_out, const float *scores,
                                  const float *lse, int count, const struct attention_shape *shape,
                                  int64_t blocks)
{
    if (blocks == 0)
        return TCA_OK;
    cuda_launch_block_masses(cuda_queue_from(base)->stream, masses_out, scores, lse, count, shape,
                             blocks);
    return cuda_launch_status("block_masses");
}

enum tca_status cuda_token_scores(struct kernel_queue *base, float *scores_out, const uint16_t *q,
                                  const float *lse, const struct attention_shape *shape,
                                  const int32_t *observers, int count,
                                  const struct attention_segment *keys)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct score_launch launch = {.shape = *shape,
                                  .keys = *keys,
                                  .q = q,
                                  .count = count,
                                  .lse = lse,
                                  .out = scores_out,
                                  .multiprocessors = queue->multiprocessors};

    if (keys->rows == 0)
        return TCA_OK;
    if (count == 0)
        return cuda_zero(base, scores_out,
                         (size_t)shape->kv_heads * (size_t)keys->rows * sizeof(*scores_out));
    TCA_TRY(stage_observers(queue, observers, count, &launch.observers));
    cuda_launch_token_scores(queue->stream, &launch);
    return cuda_launch_status("token_scores");
}

enum tca_status cuda_gather(struct kernel_queue *base, const struct kv_copy *copy,
                            const struct attention_segment *keys, const int32_t *kept,
                            int64_t kept_stride, const int32_t *counts,
                            const struct attention_shape *shape)
{
    if (copy->rows == 0)
        return TCA_OK;
    cuda_launch_gather(cuda_queue_from(base)->stream, copy, keys, kept, kept_stride, counts, shape);
    return cuda_launch_status("gather");
}

enum tca_status cuda_attention_merge(struct kernel_queue *base, uint16_t *out, float *lse,
                                     const uint16_t *out_other, const float *lse_other, int rows,
                                     const struct attention_shape *shape)
{
    if (rows == 0)
        return TCA_OK;
    cuda_launch_attention_merge_lse(cuda_queue_from(base)->stream, out, lse, out_other, lse_other,
                                    rows, shape);
    return cuda_launch_status("attention_merge");
}

enum tca_status cuda_kept_masses(struct kernel_queue *base, float *masses_out,
                                 const float *lse_kept, const float *lse, int rows,
                                 const struct attention_shape *shape)
{
    cuda_launch_kept_masses(cuda_queue_from(base)->stream, masses_out, lse_kept, lse, rows, shape);
    return cuda_launch_status("kept_masses");
}

enum tca_status cuda_interleave(struct kernel_queue *base, float *out, const float *gathered,
                                const struct kernel_stripes *stripes, int64_t stride, int64_t total)
{
    if (total == 0)
        return TCA_OK;
    cuda_launch_interleave(cuda_queue_from(base)->stream, out, gathered, stripes, stride, total);
    return cuda_launch_status("interleave");
}

enum tca_status cuda_pick(struct kernel_queue *base, int32_t *picked_out, int32_t *count_out,
                          const int32_t *kept, const int32_t *count,
                          const struct kernel_stripes *stripes)
{
    cuda_launch_pick(cuda_queue_from(base)->stream, picked_out, count_out, kept, count, stripes);
    return cuda_launch_status("pick");
}
