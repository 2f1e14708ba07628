/* Attention: items are sorted by the tile shape that suits them, and each shape's go in launches of
 * up to ATTENTION_UNITS_MAX. */
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"

_Static_assert(sizeof(struct attention_launch) + sizeof(struct attention_tensors) <= 4096,
               "a kernel's parameters");

/* Blocks a multiprocessor should have, for its memory traffic to overlap. */
enum { BLOCKS_A_MULTIPROCESSOR = 3 };

static enum tca_status run_launch(struct cuda_queue *queue, struct attention_launch *launch,
                                  const struct attention_tensors *tensors)
{
    int64_t row_floats = launch->shape.head_dim + ATTENTION_PARTIAL_EXTRA;

    if (launch->count == 0)
        return TCA_OK;
    attention_launch_split(launch, BLOCKS_A_MULTIPROCESSOR * queue->multiprocessors,
                           SCRATCH_BYTES / (int64_t)sizeof(float) / row_floats);
    cuda_launch_attention(queue->stream, launch, tensors);
    TCA_TRY(cuda_launch_status("attention"));
    if (!attention_launch_has_splits(launch))
        return TCA_OK;
    cuda_launch_attention_merge(queue->stream, launch, tensors);
    return cuda_launch_status("attention_merge");
}

enum tca_status cuda_attention(struct kernel_queue *base, uint16_t *out, float *lse,
                               const uint16_t *q, const struct attention_shape *shape,
                               const struct attention_item *items, int item_count)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct attention_tensors tensors = {.out = out, .lse = lse, .q = q, .partials = queue->scratch};
    int group = shape->q_heads / shape->kv_heads;
    struct attention_launch launch;

    for (int tile = 0; tile < ATTENTION_TILES; tile++) {
        attention_launch_init(&launch, (enum attention_tile)tile, shape);
        for (int i = 0; i < item_count; i++) {
            int64_t rows = (int64_t)items[i].queries * group;

            if (rows == 0 || (int)attention_choose_tile(rows, shape->head_dim) != tile)
                continue;
            if (!attention_launch_add(&launch, &items[i])) {
                TCA_TRY(run_launch(queue, &launch, &tensors));
                attention_launch_init(&launch, (enum attention_tile)tile, shape);
                attention_launch_add(&launch, &items[i]);
            }
        }
        TCA_TRY(run_launch(queue, &launch, &tensors));
    }
    return TCA_OK;
}
