#include "worker/residual.h"

/* Parts of fewer than half of CUT_ROWS leave multiprocessors of a GPU without work in o_proj and
 * down (a model of hidden 4096 has 128 outputs of 128 x 256 in a part of 1024 rows), which takes
 * more time than the sums do. PART_UNIT: the backends' tiles of rows, so that parts are tiled as
 * the whole. */
enum { CUT_ROWS = 2048, PART_UNIT = 128 };

static struct residual_part part_of(const struct residual *residual, int first, int count)
{
    const ptrdiff_t at = (ptrdiff_t)first * residual->hidden;

    return (struct residual_part){.first = first,
                                  .count = count,
                                  .rows = residual->rows + at,
                                  .delta = (char *)residual->delta +
                                           residual_delta_bytes(residual, first),
                                  .normed = residual->normed + at};
}

void residual_cut(struct residual *residual, int rows)
{
    const bool is_cut = residual->group->ranks > 1 && rows >= CUT_ROWS;
    const int first = is_cut ? (rows / 2 + PART_UNIT - 1) / PART_UNIT * PART_UNIT : rows;

    residual->parts = is_cut ? 2 : 1;
    residual->part[0] = part_of(residual, 0, first);
    residual->part[1] = part_of(residual, first, rows - first);
}

enum tca_status residual_complete_rows(struct residual *residual, int rows)
{
    struct comm_group *group = residual->group;

    if (group->ranks == 1)
        return TCA_OK;
    return group->ops->all_reduce_sum(group, residual->rows,
                                      (size_t)rows * (size_t)residual->hidden, KERNEL_F32,
                                      residual->device->queue);
}

enum tca_status residual_norm(struct residual *residual, int index, bool has_delta,
                              const float *weight)
{
    const struct residual_part *part = &residual->part[index];
    const struct device *device = residual->device;
    struct comm_group *group = residual->group;
    const void *rest = NULL;

    if (has_delta && residual->parts > 1)
        TCA_TRY(group->ops->all_reduce_await(group, index, device->queue, &rest));
    return device->backend->residual_norm(device->queue, weight == NULL ? NULL : part->normed,
                                          part->rows, has_delta ? part->delta : NULL, rest, weight,
                                          part->count, residual->hidden, residual->eps);
}

enum tca_status residual_sum(struct residual *residual, int index)
{
    const struct residual_part *part = &residual->part[index];
    const enum kernel_dtype dtype = residual->device->backend->activation;
    struct kernel_queue *queue = residual->device->queue;
    struct comm_group *group = residual->group;
    const size_t count = (size_t)part->count * (size_t)residual->hidden;

    if (group->ranks == 1)
        return TCA_OK;
    if (residual->parts == 1) /* nothing to compute meanwhile */
        return group->ops->all_reduce_sum(group, part->delta, count, dtype, queue);
    return group->ops->all_reduce_begin(group, index, part->delta, count, dtype, queue);
}

void *residual_delta(const struct residual *residual, const struct residual_part *part, int row)
{
    return (char *)part->delta + residual_delta_bytes(residual, row);
}

size_t residual_delta_bytes(const struct residual *residual, int rows)
{
    const size_t bytes =
        residual->device->backend->activation == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);

    return (size_t)rows * (size_t)residual->hidden * bytes;
}
