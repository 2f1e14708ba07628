#include "kernels/cuda/attention_sdpa.h"

#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/sdpa_pack.h"

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

static bool takes_head_dim(const struct attention_shape *shape)
{
    return shape->head_dim == 64 || shape->head_dim == 128;
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

/* Before the packed queries and their results, where scratch begins; at its end is what sharers
 * find. */
enum { LISTS_BYTES = 64 << 10 };

static struct sdpa_form pack_form(const struct sdpa_pack *pack)
{
    struct sdpa_form form = {.shape = pack->shape, .queries = pack->plan_rows};

    form.shape.q_heads = form.shape.kv_heads = pack->heads;
    return form;
}

static size_t packed_elements(const struct sdpa_pack *pack)
{
    return (size_t)pack->plan_rows * (size_t)pack->heads * (size_t)pack->shape.head_dim;
}

static bool has_room(const struct sdpa_pack *pack)
{
    const size_t room = SCRATCH_BYTES - SHARED_BYTES - LISTS_BYTES;
    const size_t lse = (size_t)pack->plan_rows * (size_t)pack->heads * sizeof(float);

    return 2 * packed_elements(pack) * sizeof(uint16_t) + lse <= room;
}

/* Whether cuDNN takes `queries` of an item packed. */
static bool may_pack(struct cuda_queue *queue, const struct attention_shape *shape,
                     const struct attention_segment *keys, int queries, struct sdpa_pack *pack_out)
{
    struct sdpa_form form;

    if (keys->causal || keys->rows_per_head != NULL || keys->head_offsets != NULL ||
        keys->rows < SDPA_PACK_KEYS_LEAST || !may_read_tile(keys, keys->rows) ||
        !sdpa_pack_init(pack_out, shape, queries, keys->rows, queue->multiprocessors) ||
        !has_room(pack_out))
        return false;
    form = pack_form(pack_out);
    return sdpa_prepare(queue->sdpa, &form);
}

int attention_sdpa_share(struct cuda_queue *queue, const struct attention_shape *shape,
                         const struct attention_item *item)
{
    const struct attention_segment *keys = &item->segment[0];
    struct sdpa_pack pack;
    int taken = 0;

    if (queue->sdpa == NULL || item->segments != 1 || keys->rows == 0 ||
        (keys->causal && keys->rows < item->queries) || !takes_head_dim(shape))
        return 0;
    for (int piece; (piece = piece_queries(item->queries - taken)) > 0; taken += piece) {
        struct sdpa_form form = form_of(shape, piece, keys->causal);

        if (!may_read_tile(keys, keys_of_first(item, taken + piece)) ||
            !sdpa_prepare(queue->sdpa, &form))
            return taken;
    }
    return may_pack(queue, shape, keys, item->queries - taken, &pack) ? item->queries : taken;
}

/* The tensors from the item's query `taken` on. */
static struct attention_tensors tensors_at(const struct attention_tensors *tensors,
                                           const struct attention_shape *shape,
                                           const struct attention_item *item, int taken)
{
    const size_t heads = (size_t)(item->first_query + taken) * (size_t)shape->q_heads;
    const size_t elements = heads * (size_t)shape->head_dim;

    return (struct attention_tensors){.out = tensors->out + elements,
                                      .lse = tensors->lse == NULL ? NULL : tensors->lse + heads,
                                      .q = tensors->q + elements};
}

/* The lists for so many heads at the beginning of scratch; *behind_out: what follows them. */
static struct sdpa_lists_out place_lists(struct cuda_queue *queue, int heads, void **behind_out)
{
    struct sdpa_lists_out lists = {.q_offsets = queue->scratch};

    lists.kv_offsets = lists.q_offsets + heads + 1;
    lists.query_counts = (int32_t *)(lists.kv_offsets + heads + 1);
    lists.key_counts = lists.query_counts + heads;
    *behind_out = (char *)queue->scratch + LISTS_BYTES;
    return lists;
}

/* The keys, and lists that a launch fills; the caller adds queries and results. */
static struct sdpa_tensors tensors_over(const struct attention_segment *keys,
                                        const struct sdpa_lists_out *lists)
{
    return (struct sdpa_tensors){.k = keys->k,
                                 .v = keys->v,
                                 .q_offsets = lists->q_offsets,
                                 .kv_offsets = lists->kv_offsets,
                                 .query_counts = lists->query_counts,
                                 .key_counts = lists->key_counts};
}

/* A piece of a long run. Where the caller wants no log-sum-exps, those that cuDNN writes all the
 * same go to scratch. */
static enum tca_status run_piece(struct cuda_queue *queue, const struct attention_tensors *at,
                                 const struct attention_shape *shape,
                                 const struct attention_segment *keys, int queries, int64_t rows)
{
    const struct sdpa_form form = form_of(shape, queries, keys->causal);
    void *spare;
    const struct sdpa_lists_out lists = place_lists(queue, shape->kv_heads, &spare);
    struct sdpa_tensors tensors = tensors_over(keys, &lists);

    tensors.out = at->out;
    tensors.lse = at->lse != NULL ? at->lse : spare;
    tensors.q = at->q;
    cuda_launch_sdpa_lists(queue->stream, &lists, keys, queries, rows, shape);
    TCA_TRY(cuda_launch_status("sdpa_lists"));
    TCA_TRY(sdpa_run(queue->sdpa, &form, &tensors));
    if (keys->rows_per_head == NULL)
        return TCA_OK;
    cuda_launch_fill_keyless(queue->stream, tensors.out, tensors.lse, lists.key_counts, queries,
                             shape);
    return cuda_launch_status("fill_keyless");
}

static enum tca_status run_packed(struct cuda_queue *queue, const struct attention_tensors *at,
                                  const struct attention_segment *keys,
                                  const struct sdpa_pack *pack)
{
    const size_t elements = packed_elements(pack);
    const struct sdpa_form form = pack_form(pack);
    void *behind;
    const struct sdpa_lists_out lists = place_lists(queue, pack->heads, &behind);
    uint16_t *q = behind;
    struct sdpa_tensors tensors = tensors_over(keys, &lists);

    tensors.out = q + elements;
    tensors.lse = (float *)(void *)(tensors.out + elements);
    tensors.q = q;
    cuda_launch_sdpa_pack(queue->stream, q, &lists, pack, at->q, keys->head_stride);
    TCA_TRY(cuda_launch_status("sdpa_pack"));
    TCA_TRY(sdpa_run(queue->sdpa, &form, &tensors));
    cuda_launch_sdpa_unpack(queue->stream, at->out, at->lse, pack, tensors.out, tensors.lse);
    return cuda_launch_status("sdpa_unpack");
}

enum tca_status attention_sdpa_run(struct cuda_queue *queue,
                                   const struct attention_tensors *tensors,
                                   const struct attention_shape *shape,
                                   const struct attention_item *item, int share)
{
    const struct attention_segment *keys = &item->segment[0];
    struct sdpa_pack pack;
    int taken = 0;

    for (int piece; (piece = piece_queries(share - taken)) > 0; taken += piece) {
        const struct attention_tensors at = tensors_at(tensors, shape, item, taken);

        TCA_TRY(run_piece(queue, &at, shape, keys, piece, keys_of_first(item, taken + piece)));
    }
    if (taken == share)
        return TCA_OK;
    const struct attention_tensors at = tensors_at(tensors, shape, item, taken);
    if (!may_pack(queue, shape, keys, share - taken, &pack))
        return TCA_ERR_UNSUPPORTED;
    return run_packed(queue, &at, keys, &pack);
}

/* Own kernels serve where a plan fails. */
void attention_sdpa_prepare(struct cuda_queue *queue, const struct attention_shape *shape,
                            int queries)
{
    const int packed = queries < SDPA_QUERIES_LEAST ? queries : SDPA_QUERIES_LEAST - 1;
    struct sdpa_pack pack;

    if (queue->sdpa == NULL || !takes_head_dim(shape))
        return;
    for (int piece = piece_queries(queries); piece >= SDPA_QUERIES_LEAST; piece /= 2)
        for (int is_causal = 0; is_causal < 2; is_causal++) {
            struct sdpa_form form = form_of(shape, piece, is_causal);

            (void)sdpa_prepare(queue->sdpa, &form);
        }
    for (int count = 1; count <= packed; count++)
        if (sdpa_pack_init(&pack, shape, count, SDPA_PACK_KEYS_LEAST, queue->multiprocessors) &&
            has_room(&pack)) {
            struct sdpa_form form = pack_form(&pack);

            (void)sdpa_prepare(queue->sdpa, &form);
        }
}
