/* Attention: questions over one document read it together; long runs of queries over one segment go
 * to cuDNN, where there is one. What is left is sorted by the tile shape that suits it, and each
 * shape's items go in launches of up to ATTENTION_UNITS_MAX. */
#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/cuda_queue.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/tca_launch.h"

_Static_assert(sizeof(struct attention_launch) + sizeof(struct attention_tensors) <= 4096,
               "a kernel's parameters");

/* Blocks a multiprocessor should have, for its memory traffic to overlap. */
enum { BLOCKS_A_MULTIPROCESSOR = 2 };

/* Items that read the same rows do so together from this many rows on; the end of scratch has what
 * they find there. */
enum { SHARED_ROWS_LEAST = 1024, SHARERS_MOST = 64, SHARED_BYTES = 16 << 20 };

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

/* Pieces of a power of two of queries, so that few plans serve any number; from the largest down.
 * 0: fewer are left than cuDNN is asked for. */
static int piece_queries(int queries)
{
    int piece = SDPA_QUERIES_MOST;

    while (piece > queries)
        piece /= 2;
    return piece >= SDPA_QUERIES_LEAST ? piece : 0;
}

/* Whether cuDNN may read the keys: it reads values up to a multiple of its tile. */
static bool may_read_tile(const struct attention_segment *keys, int64_t rows)
{
    int64_t read = (rows + SDPA_TILE_KEYS - 1) / SDPA_TILE_KEYS * SDPA_TILE_KEYS;

    if (rows > SDPA_KEYS_MOST)
        return false;
    return keys->has_tail || (keys->rows_per_head == NULL && read <= keys->rows);
}

static struct sdpa_form form_of(const struct attention_shape *shape, int queries, bool is_causal)
{
    return (struct sdpa_form){.shape = *shape, .queries = queries, .is_causal = is_causal};
}

/* The keys that the first `queries` of an item see. */
static int64_t keys_of_first(const struct attention_item *item, int queries)
{
    const struct attention_segment *keys = &item->segment[0];

    return keys->causal ? keys->rows - item->queries + queries : keys->rows;
}

/* How many of the item's first queries cuDNN takes; the rest are the own kernels'. */
static int sdpa_share(struct cuda_queue *queue, const struct attention_shape *shape,
                      const struct attention_item *item)
{
    const struct attention_segment *keys = &item->segment[0];
    int taken = 0;

    if (queue->sdpa == NULL || item->segments != 1 || keys->rows == 0 ||
        (keys->causal && keys->rows < item->queries) ||
        (shape->head_dim != 64 && shape->head_dim != 128))
        return 0;
    for (int piece; (piece = piece_queries(item->queries - taken)) > 0; taken += piece) {
        struct sdpa_form form = form_of(shape, piece, keys->causal);

        if (!may_read_tile(keys, keys_of_first(item, taken + piece)) ||
            !sdpa_prepare(queue->sdpa, &form))
            break;
    }
    return taken;
}

/* The item's first `share` queries by cuDNN. Scratch has its lists and, where the caller wants no
 * log-sum-exps, those that it writes all the same. */
static enum tca_status run_sdpa(struct cuda_queue *queue, const struct attention_tensors *tensors,
                                const struct attention_shape *shape,
                                const struct attention_item *item, int share)
{
    const struct attention_segment *keys = &item->segment[0];
    struct sdpa_lists_out lists = {.q_offsets = queue->scratch};
    float *spare;

    lists.kv_offsets = lists.q_offsets + shape->kv_heads + 1;
    lists.query_counts = (int32_t *)(lists.kv_offsets + shape->kv_heads + 1);
    lists.key_counts = lists.query_counts + shape->kv_heads;
    spare = (float *)(lists.key_counts + shape->kv_heads);
    for (int taken = 0, piece; taken < share; taken += piece) {
        size_t heads = (size_t)(item->first_query + taken) * (size_t)shape->q_heads;
        size_t elements = heads * (size_t)shape->head_dim;
        struct sdpa_tensors at = {.out = tensors->out + elements,
                                  .lse = tensors->lse != NULL ? tensors->lse + heads : spare,
                                  .q = tensors->q + elements,
                                  .k = keys->k,
                                  .v = keys->v,
                                  .q_offsets = lists.q_offsets,
                                  .kv_offsets = lists.kv_offsets,
                                  .query_counts = lists.query_counts,
                                  .key_counts = lists.key_counts};

        piece = piece_queries(share - taken);
        struct sdpa_form form = form_of(shape, piece, keys->causal);
        cuda_launch_sdpa_lists(queue->stream, &lists, keys, piece,
                               keys_of_first(item, taken + piece), shape);
        TCA_TRY(cuda_launch_status("sdpa_lists"));
        TCA_TRY(sdpa_run(queue->sdpa, &form, &at));
        if (keys->rows_per_head == NULL)
            continue;
        cuda_launch_fill_keyless(queue->stream, at.out, at.lse, lists.key_counts, piece, shape);
        TCA_TRY(cuda_launch_status("fill_keyless"));
    }
    return TCA_OK;
}

enum tca_status cuda_attention_prepare(struct kernel_queue *base,
                                       const struct attention_shape *shape, int queries)
{
    struct cuda_queue *queue = cuda_queue_from(base);

    for (int piece = piece_queries(queries); piece >= SDPA_QUERIES_LEAST; piece /= 2)
        for (int is_causal = 0; is_causal < 2; is_causal++) {
            struct sdpa_form form = form_of(shape, piece, is_causal);

            if (shape->head_dim == 64 || shape->head_dim == 128)
                (void)sdpa_prepare(queue->sdpa, &form); /* own kernels serve where it fails */
        }
    return TCA_OK;
}

static enum tca_status attend(struct cuda_queue *queue, const struct attention_tensors *tensors,
                              const struct attention_shape *shape,
                              const struct attention_item *items, int item_count)
{
    int group = shape->q_heads / shape->kv_heads;
    struct attention_launch launch;

    for (int i = 0; i < item_count; i++)
        TCA_TRY(run_sdpa(queue, tensors, shape, &items[i], sdpa_share(queue, shape, &items[i])));
    for (int tile = 0; tile < ATTENTION_TILES; tile++) {
        attention_launch_init(&launch, (enum attention_tile)tile, shape);
        for (int i = 0; i < item_count; i++) {
            struct attention_item item = items[i];
            int share = sdpa_share(queue, shape, &item);

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

/* Items that share their first segment: its rows are read once for the queries of all of them, and
 * what that gives is merged with what each finds in its other segments. */
static enum tca_status attend_sharing(struct cuda_queue *queue,
                                      const struct attention_tensors *tensors,
                                      const struct attention_shape *shape,
                                      const struct attention_item *items, int item_count)
{
    struct attention_item own[SHARERS_MOST];
    struct attention_item joint = {.segments = 1, .segment = {items[0].segment[0]}};
    size_t first = (size_t)items[0].first_query * (size_t)shape->q_heads;

    for (int i = 0; i < item_count; i++) {
        own[i] = items[i];
        own[i].first_query = joint.queries;
        own[i].segments--;
        for (int s = 0; s < own[i].segments; s++)
            own[i].segment[s] = items[i].segment[s + 1];
        joint.queries += items[i].queries;
    }
    size_t heads = (size_t)joint.queries * (size_t)shape->q_heads;
    /* Behind the partial sums. */
    float *lse = (float *)(void *)((char *)queue->scratch + SCRATCH_BYTES - SHARED_BYTES);
    uint16_t *out = (uint16_t *)(lse + 2 * heads);
    struct attention_tensors of_own = *tensors;
    of_own.out += first * (size_t)shape->head_dim;
    of_own.q += first * (size_t)shape->head_dim;
    of_own.lse = tensors->lse != NULL ? tensors->lse + first : lse + heads;
    struct attention_tensors of_joint = of_own;
    of_joint.out = out;
    of_joint.lse = lse;

    TCA_TRY(attend(queue, &of_joint, shape, &joint, 1));
    TCA_TRY(attend(queue, &of_own, shape, own, item_count));
    cuda_launch_attention_merge_lse(queue->stream, of_own.out, of_own.lse, out, lse, joint.queries,
                                    shape);
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

        if (sharers < 2) {
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
