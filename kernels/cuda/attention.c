/* Attention: questions over one document read it together; cuDNN, where there is one, takes what
 * suits it. What is left is sorted by the tile shape that suits it, and each shape's items go in
 * launches of up to ATTENTION_UNITS_MAX. */
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_sdpa.h"
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sdpa_plan.h"
#include "kernels/cuda/tca_launch.h"

_Static_assert(sizeof(struct attention_launch) + sizeof(struct attention_tensors) <= 4096,
               "a kernel's parameters");

/* Blocks a multiprocessor should have, for its memory traffic to overlap. */
enum { BLOCKS_A_MULTIPROCESSOR = 2 };

/* Items that read the same rows do so together from this many rows on; the end of scratch has what
 * they find there. */
enum { SHARED_ROWS_LEAST = 1024, SHARERS_MOST = 64 };

static enum tca_status run_launch(struct cuda_queue *queue, struct attention_launch *launch,
                                  const struct attention_tensors *tensors)
{
    int64_t row_floats = launch->shape.head_dim + ATTENTION_PARTIAL_EXTRA;

    if (launch->count == 0)
        return TCA_OK;
    attention_launch_split(launch, BLOCKS_A_MULTIPROCESSOR * queue->multiprocessors,
                           (SCRATCH_BYTES - SHARED_BYTES) / (int64_t)sizeof(float) / row_floats);
    cuda_launch_attention(queue->stream, launch, tensors);
    TCA_TRY(cuda_launch_status("attention"));
    if (!attention_launch_has_splits(launch))
        return TCA_OK;
    cuda_launch_attention_merge(queue->stream, launch, tensors);
    return cuda_launch_status("attention_merge");
}

enum tca_status cuda_attention_prepare(struct kernel_queue *base,
                                       const struct attention_shape *shape, int queries)
{
    attention_sdpa_prepare(cuda_queue_from(base), shape, queries);
    return TCA_OK;
}

static enum tca_status attend(struct cuda_queue *queue, const struct attention_tensors *tensors,
                              const struct attention_shape *shape,
                              const struct attention_item *items, int item_count)
{
    int group = shape->q_heads / shape->kv_heads;
    struct attention_launch launch;

    for (int i = 0; i < item_count; i++)
        TCA_TRY(attention_sdpa_run(queue, tensors, shape, &items[i],
                                   attention_sdpa_share(queue, shape, &items[i])));
    for (int tile = 0; tile < ATTENTION_TILES; tile++) {
        attention_launch_init(&launch, (enum attention_tile)tile, shape);
        for (int i = 0; i < item_count; i++) {
            struct attention_item item = items[i];
            int share = attention_sdpa_share(queue, shape, &item);

            item.first_query += share;
            item.queries -= share;
            int64_t rows = (int64_t)item.queries * group;
            if (rows == 0 || (int)attention_choose_tile(rows, shape->head_dim) != tile)
                continue;
            if (!attention_launch_add(&launch, &item)) {
                TCA_TRY(run_launch(queue, &launch, tensors));
                attention_launch_init(&launch, (enum attention_tile)tile, shape);
                attention_launch_add(&launch, &item);
            }
        }
        TCA_TRY(run_launch(queue, &launch, tensors));
    }
    return TCA_OK;
}

/* Items that follow one another and read the same rows first: how many of the first ones do. */
static int count_sharers(const struct attention_item *items, int item_count,
                         const struct attention_shape *shape)
{
    const struct attention_segment *first = &items[0].segment[0];
    int64_t row_bytes = (int64_t)shape->q_heads * (shape->head_dim * 2 + 2 * (int)sizeof(float));
    int64_t queries = 0;
    int count = 0;

    while (count < item_count && count < SHARERS_MOST) {
        const struct attention_item *item = &items[count];
        const struct attention_segment *keys = &item->segment[0];

        queries += item->queries;
        if (item->segments < 1 || keys->causal || keys->rows < SHARED_ROWS_LEAST ||
            keys->k != first->k || keys->v != first->v || keys->rows != first->rows ||
            keys->head_stride != first->head_stride || keys->head_offsets != first->head_offsets ||
            keys->rows_per_head != first->rows_per_head ||
            item->first_query != items[0].first_query + (int)queries - item->queries ||
            queries * row_bytes > SHARED_BYTES)
            break;
        count++;
    }
    return count;
}

/* An item's first segment, which other items may share. Of many rows it has cuDNN's whole tiles. */
static struct attention_segment joint_segment(const struct attention_item *item)
{
    struct attention_segment keys = item->segment[0];

    if (keys.rows_per_head == NULL && keys.rows >= SDPA_PACK_KEYS_LEAST)
        keys.rows -= keys.rows % SDPA_TILE_KEYS;
    return keys;
}

/* The item without the first `rows` rows. */
static struct attention_item rest_of(const struct attention_item *item, int64_t rows, int head_dim)
{
    struct attention_item rest = *item;

    rest.segment[0].k += rows * head_dim;
    rest.segment[0].v += rows * head_dim;
    rest.segment[0].rows -= rows;
    if (rest.segment[0].rows > 0)
        return rest;
    rest.segments--;
    for (int s = 0; s < rest.segments; s++)
        rest.segment[s] = item->segment[s + 1];
    return rest;
}

/* Whether cuDNN takes an item's first segment, but not the item. */
static bool is_apart(struct cuda_queue *queue, const struct attention_shape *shape,
                     const struct attention_item *item)
{
    struct attention_item joint = *item;

    joint.segments = 1;
    joint.segment[0] = joint_segment(item);
    return joint.segment[0].rows >= SDPA_PACK_KEYS_LEAST &&
           attention_sdpa_share(queue, shape, item) < item->queries &&
           attention_sdpa_share(queue, shape, &joint) == item->queries;
}

/* Items that share their first segment: its rows are read once for the queries of all of them, and
 * what that gives is merged with what each finds in its other segments. */
static enum tca_status attend_sharing(struct cuda_queue *queue,
                                      const struct attention_tensors *tensors,
                                      const struct attention_shape *shape,
                                      const struct attention_item *items, int item_count)
{
    struct attention_item rest[SHARERS_MOST];
    struct attention_item joint = {.segments = 1, .segment = {joint_segment(&items[0])}};
    size_t first = (size_t)items[0].first_query * (size_t)shape->q_heads;

    for (int i = 0; i < item_count; i++) {
        rest[i] = rest_of(&items[i], joint.segment[0].rows, shape->head_dim);
        rest[i].first_query = joint.queries;
        joint.queries += items[i].queries;
    }
    size_t heads = (size_t)joint.queries * (size_t)shape->q_heads;
    /* Behind the partial sums. */
    uint16_t *out = (uint16_t *)(void *)((char *)queue->scratch + SCRATCH_BYTES - SHARED_BYTES);
    float *lse = (float *)(void *)(out + heads * (size_t)shape->head_dim);
    struct attention_tensors of_rest = *tensors;
    of_rest.out += first * (size_t)shape->head_dim;
    of_rest.q += first * (size_t)shape->head_dim;
    of_rest.lse = tensors->lse != NULL ? tensors->lse + first : lse + heads;
    struct attention_tensors of_joint = of_rest;
    of_joint.out = out;
    of_joint.lse = lse;

    TCA_TRY(attend(queue, &of_joint, shape, &joint, 1));
    TCA_TRY(attend(queue, &of_rest, shape, rest, item_count));
    cuda_launch_attention_merge_lse(queue->stream, of_rest.out, of_rest.lse, out, lse,
                                    joint.queries, shape);
    return cuda_launch_status("attention_merge");
}

enum tca_status cuda_attention(struct kernel_queue *base, uint16_t *out, float *lse,
                               const uint16_t *q, const struct attention_shape *shape,
                               const struct attention_item *items, int item_count)
{
    struct cuda_queue *queue = cuda_queue_from(base);
    struct attention_tensors tensors = {.out = out, .lse = lse, .q = q, .partials = queue->scratch};
    int plain = 0; /* items before i that are still to be attended to */

    for (int i = 0; i < item_count;) {
        int sharers = count_sharers(&items[i], item_count - i, shape);

        if (sharers == 0 || (sharers == 1 && !is_apart(queue, shape, &items[i]))) {
            i++;
            plain++;
            continue;
        }
        TCA_TRY(attend(queue, &tensors, shape, &items[i - plain], plain));
        TCA_TRY(attend_sharing(queue, &tensors, shape, &items[i], sharers));
        i += sharers;
        plain = 0;
    }
    return attend(queue, &tensors, shape, &items[item_count - plain], plain);
}
