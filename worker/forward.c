#include "worker/forward.h"

#include "worker/residual.h"
#include "worker/sparse.h"
#include "worker/stripes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE_ALIGNMENT = 256 }; /* what fast products want */

struct forward {
    struct forward_parts parts;
    struct forward_limits limits;
    struct attention_shape attention;
    struct kv_shape kv;
    void *workspace; /* device, owned: the memory of every buffer below */
    size_t workspace_bytes;
    struct residual residual;  /* [rows, hidden] thrice */
    void *qkv;                 /* [rows, (q_heads + 2 kv_heads) * head_dim] act */
    uint16_t *q;               /* [rows, q_heads, head_dim] */
    uint16_t *attended;        /* [stripes_room(rows), q_heads, head_dim] */
    float *lse;                /* [stripes_room(rows), q_heads] of the keys attended to */
    void *gate_up;             /* [rows, 2 * ffn] act */
    uint16_t *gated;           /* [rows, ffn] */
    float *rope;               /* [rows, head_dim / 2, 2] */
    float *last_residual;      /* [logit_rows, hidden] */
    uint16_t *last_normed;     /* [logit_rows, hidden] */
    float *logits;             /* [logit_rows, vocab] */
    int32_t *positions;        /* host, owned [rows] */
    struct kv_append *appends; /* host, owned [items] */
    struct attention_item *attended_items; /* host, owned [pieces_of(rows, items)] */
    int attended_count;
    struct attention_item *own_pieces; /* host, owned [pieces_of(rows, 1)]: of one item */
    struct sparse *sparse;             /* owned */
    struct stripes *stripes;           /* owned; NULL: this rank shares no KV head */
    forward_probe_fn probe;            /* or NULL */
    void *probe_context;
};

/* Hands out parts of the workspace in turn; without a base it only counts. */
struct workspace_cursor {
    char *base;
    size_t used_bytes;
};

static size_t dtype_bytes(enum kernel_dtype dtype)
{
    return dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
}

static void *take(struct workspace_cursor *cursor, size_t bytes)
{
    void *part = cursor->base == NULL ? NULL : cursor->base + cursor->used_bytes;

    cursor->used_bytes +=
        (bytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    return part;
}

/* The one list of the workspace's buffers. */
static void lay_out(struct forward *forward, struct workspace_cursor *cursor)
{
    const struct shard *shard = forward->parts.shard;
    size_t act = dtype_bytes(forward->parts.device.backend->activation);
    size_t rows = (size_t)forward->limits.rows;
    size_t room = (size_t)stripes_room(shard, forward->limits.rows);
    size_t logit_rows = (size_t)forward->limits.logit_rows;
    size_t hidden = (size_t)forward->parts.config->hidden;
    size_t head_dim = (size_t)forward->parts.config->head_dim;
    size_t q_cols = (size_t)shard->q_heads * head_dim;
    size_t kv_cols = (size_t)shard->kv_heads * head_dim;
    size_t ffn = (size_t)shard->ffn;

    forward->residual.rows = take(cursor, rows * hidden * sizeof(float));
    forward->residual.normed = take(cursor, rows * hidden * sizeof(uint16_t));
    forward->residual.delta = take(cursor, rows * hidden * act);
    forward->qkv = take(cursor, rows * (q_cols + 2 * kv_cols) * act);
    forward->q = take(cursor, rows * q_cols * sizeof(uint16_t));
    forward->attended = take(cursor, room * q_cols * sizeof(uint16_t));
    forward->lse = take(cursor, room * (size_t)shard->q_heads * sizeof(float));
    forward->gate_up = take(cursor, rows * 2 * ffn * act);
    forward->gated = take(cursor, rows * ffn * sizeof(uint16_t));
    forward->rope = take(cursor, rows * head_dim * sizeof(float));
    forward->last_residual = take(cursor, logit_rows * hidden * sizeof(float));
    forward->last_normed = take(cursor, logit_rows * hidden * sizeof(uint16_t));
    forward->logits = take(cursor, logit_rows * (size_t)shard->vocab * sizeof(float));
}

static struct attention_shape shape_of(const struct forward_parts *parts)
{
    const int head_dim = parts->config->head_dim;

    return (struct attention_shape){.q_heads = parts->shard->q_heads,
                                    .kv_heads = parts->shard->kv_heads,
                                    .head_dim = head_dim,
                                    .scale = 1.0F / sqrtf((float)head_dim)};
}

static struct sparse_limits sparse_limits_of(const struct forward_limits *limits)
{
    return (struct sparse_limits){
        .rows = limits->rows, .chunk_rows = limits->chunk_rows, .positions = limits->positions};
}

static struct stripes_limits stripes_limits_of(const struct forward_limits *limits)
{
    return (struct stripes_limits){.rows = limits->rows < CORE_CACHE_QUERIES ? CORE_CACHE_QUERIES
                                                                             : limits->rows,
                                   .positions = limits->positions};
}

static struct stripes_parts stripes_parts_of(const struct forward_parts *parts,
                                             const struct attention_shape *shape)
{
    return (struct stripes_parts){
        .device = parts->device, .peers = parts->peers, .shard = parts->shard, .attention = shape};
}

/* Attention items of a step: an item is one piece, or cut by tiles or units of at least a tile. */
static size_t pieces_of(int rows, int items)
{
    return (size_t)rows / STRIPES_TILE + 2 * (size_t)items;
}

static size_t dense_bytes(const struct forward_parts *parts, const struct forward_limits *limits)
{
    struct forward unused = {.parts = *parts, .limits = *limits};
    struct workspace_cursor counter = {0};

    lay_out(&unused, &counter);
    return counter.used_bytes;
}

size_t forward_workspace_bytes(const struct forward_parts *parts,
                               const struct forward_limits *limits)
{
    const struct attention_shape shape = shape_of(parts);
    const struct sparse_limits sparse = sparse_limits_of(limits);
    const struct stripes_parts stripes = stripes_parts_of(parts, &shape);
    const struct stripes_limits stripes_limits = stripes_limits_of(limits);
    size_t bytes = dense_bytes(parts, limits);

    if (parts->peers != NULL)
        bytes += stripes_workspace_bytes(&stripes, &stripes_limits);
    return bytes + sparse_workspace_bytes(&parts->device, &shape, &sparse, parts->peers != NULL);
}

static enum tca_status take_workspace(struct forward *forward)
{
    const struct device *device = &forward->parts.device;
    const struct sparse_limits sparse = sparse_limits_of(&forward->limits);
    const struct stripes_parts stripes = stripes_parts_of(&forward->parts, &forward->attention);
    const struct stripes_limits stripes_limits = stripes_limits_of(&forward->limits);
    struct workspace_cursor cursor = {0};

    forward->workspace_bytes = dense_bytes(&forward->parts, &forward->limits);
    TCA_TRY(device->backend->alloc(device->index, forward->workspace_bytes, &forward->workspace));
    cursor.base = forward->workspace;
    lay_out(forward, &cursor);
    if (forward->parts.peers != NULL)
        TCA_TRY(stripes_create(&stripes, &stripes_limits, &forward->stripes));
    return sparse_create(device, &forward->attention, &sparse, forward->stripes, &forward->sparse);
}

static enum tca_status take_lists(struct forward *forward)
{
    const struct forward_limits *limits = &forward->limits;

    forward->positions = malloc((size_t)limits->rows * sizeof(*forward->positions));
    forward->appends = malloc((size_t)limits->items * sizeof(*forward->appends));
    forward->attended_items =
        malloc(pieces_of(limits->rows, limits->items) * sizeof(*forward->attended_items));
    forward->own_pieces = malloc(pieces_of(limits->rows, 1) * sizeof(*forward->own_pieces));
    return forward->positions == NULL || forward->appends == NULL ||
                   forward->attended_items == NULL || forward->own_pieces == NULL
               ? TCA_ERR_NO_MEMORY
               : TCA_OK;
}

/* Where the part's rows have their Q, K and V. */
static void *qkv_of(const struct forward *forward, const struct residual_part *part)
{
    const struct attention_shape *shape = &forward->attention;
    const size_t row_bytes = (size_t)(shape->q_heads + 2 * shape->kv_heads) *
                             (size_t)shape->head_dim *
                             dtype_bytes(forward->parts.device.backend->activation);

    return (char *)forward->qkv + (size_t)part->first * row_bytes;
}

/* The products of a part of a step, of the first layer's matrices, to
 * which all others are alike. */
static enum tca_status prepare_products(struct forward *forward, const struct residual_part *part)
{
    const struct layer_weights *layer = &forward->parts.weights->layer[0];
    const struct kernel_backend *backend = forward->parts.device.backend;
    struct kernel_queue *queue = forward->parts.device.queue;
    const enum kernel_dtype act = backend->activation;
    const ptrdiff_t values = (ptrdiff_t)forward->attention.q_heads * forward->attention.head_dim;

    TCA_TRY(backend->linear_prepare(queue, qkv_of(forward, part), act, part->normed, layer->qkv,
                                    layer->qkv_bias, part->count));
    TCA_TRY(backend->linear_prepare(queue, part->delta, act,
                                    forward->attended + part->first * values, layer->o_proj, NULL,
                                    part->count));
    TCA_TRY(backend->linear_prepare(queue, forward->gate_up, act, part->normed, layer->gate_up,
                                    NULL, part->count));
    return backend->linear_prepare(queue, part->delta, act, forward->gated, layer->down, NULL,
                                   part->count);
}

static enum tca_status prepare_rows(struct forward *forward, int rows)
{
    residual_cut(&forward->residual, rows);
    for (int i = 0; i < forward->residual.parts; i++)
        TCA_TRY(prepare_products(forward, &forward->residual.part[i]));
    return TCA_OK;
}

/* The products of steps of few rows: questions, and answers together. */
static enum tca_status prepare_few_rows(struct forward *forward)
{
    const struct device *device = &forward->parts.device;
    const struct forward_limits *limits = &forward->limits;

    for (int rows = LINEAR_SHARED_ROWS_LEAST; rows <= LINEAR_SHARED_ROWS_MOST; rows *= 2) {
        if (rows <= limits->rows)
            TCA_TRY(prepare_rows(forward, rows));
        if (rows <= limits->logit_rows)
            TCA_TRY(device->backend->linear_prepare(device->queue, forward->logits, KERNEL_F32,
                                                    forward->last_normed,
                                                    forward->parts.weights->lm_head, NULL, rows));
    }
    return TCA_OK;
}

/* Let the device make ready what it would otherwise make in the first steps. */
static enum tca_status prepare(struct forward *forward)
{
    const struct device *device = &forward->parts.device;

    if (device->backend->attention_prepare != NULL)
        TCA_TRY(device->backend->attention_prepare(device->queue, &forward->attention,
                                                   forward->limits.rows));
    if (device->backend->linear_prepare == NULL)
        return TCA_OK;
    TCA_TRY(prepare_few_rows(forward));
    return prepare_rows(forward, forward->limits.chunk_rows);
}

enum tca_status forward_create(const struct forward_parts *parts,
                               const struct forward_limits *limits, struct forward **forward_out,
                               struct tca_error *error)
{
    const struct model_config *config = parts->config;
    struct forward *forward = calloc(1, sizeof(*forward));
    enum tca_status status;

    if (forward == NULL)
        return tca_fail(error, TCA_ERR_NO_MEMORY, "no memory for the forward pass");
    forward->parts = *parts;
    forward->limits = *limits;
    forward->residual = (struct residual){.device = &forward->parts.device,
                                          .group = parts->group,
                                          .hidden = config->hidden,
                                          .eps = config->rms_eps};
    forward->attention = shape_of(parts);
    forward->kv = (struct kv_shape){
        .layers = config->layers, .kv_heads = parts->shard->kv_heads, .head_dim = config->head_dim};
    status = take_lists(forward);
    if (status == TCA_OK)
        status = take_workspace(forward);
    if (status != TCA_OK) {
        tca_fail(error, status, "no memory for a workspace of %zu bytes (%d tokens a step)",
                 forward_workspace_bytes(parts, limits), limits->rows);
        forward_destroy(forward);
        return status;
    }
    status = prepare(forward);
    if (status != TCA_OK) {
        tca_fail(error, status, "the device cannot be prepared for %d tokens a step", limits->rows);
        forward_destroy(forward);
        return status;
    }
    *forward_out = forward;
    return TCA_OK;
}

void forward_destroy(struct forward *forward)
{
    const struct device *device;

    if (forward == NULL)
        return;
    sparse_destroy(forward->sparse);
    stripes_destroy(forward->stripes);
    device = &forward->parts.device;
    device->backend->free(device->index, forward->workspace, forward->workspace_bytes);
    free(forward->positions);
    free(forward->appends);
    free(forward->attended_items);
    free(forward->own_pieces);
    free(forward);
}

static enum tca_status embed(struct forward *forward, const int32_t *ids, int rows)
{
    const struct device *device = &forward->parts.device;
    const struct weights *weights = forward->parts.weights;
    const struct model_config *config = forward->parts.config;

    TCA_TRY(device->backend->embed(device->queue, forward->residual.rows, weights->embedding, ids,
                                   rows, forward->parts.shard->vocab_first));
    TCA_TRY(residual_complete_rows(&forward->residual, rows));
    return device->backend->rope_table(device->queue, forward->rope, forward->positions, rows,
                                       weights->inv_freq, config->head_dim / 2,
                                       weights->rope_magnitude);
}

static void place_items(struct forward *forward, const struct forward_item *items, int item_count)
{
    for (int i = 0; i < item_count; i++) {
        const struct forward_item *item = &items[i];
        int64_t position = item->base_rows + item->own_rows;

        for (int row = 0; row < item->rows; row++)
            forward->positions[item->first_row + row] = (int32_t)(position + row);
    }
}

/* The own rows that an item's queries see, those of this step included; of a sparse chunk, the
 * chunk's alone. */
static struct attention_segment own_segment(const struct forward *forward,
                                            const struct forward_item *item, int layer)
{
    const struct kv_layer own = kv_range_layer(item->own, &forward->kv, layer);
    const int64_t first = item->chunk == NULL ? 0 : item->own_rows;

    return (struct attention_segment){.k = own.k + first * forward->kv.head_dim,
                                      .v = own.v + first * forward->kv.head_dim,
                                      .head_stride = own.head_stride,
                                      .rows = item->own_rows + item->rows - first,
                                      .causal = true};
}

/* The base's rows, or what a question keeps of them. */
static int base_segments(const struct forward *forward, const struct forward_item *item, int layer,
                         struct attention_segment *segments_out)
{
    const int64_t rows = shard_plan_rows(forward->parts.shard, item->base_rows);
    struct kv_layer base = {0};

    if (item->base != NULL)
        base = kv_range_layer(item->base, &forward->kv, layer);
    if (item->core != NULL && item->core->is_selected)
        return core_cache_segments(item->core, layer, &base, segments_out);
    if (item->base == NULL || rows == 0)
        return 0;
    segments_out[0] = (struct attention_segment){
        .k = base.k, .v = base.v, .head_stride = base.head_stride, .rows = rows};
    return 1;
}

static struct stripe_rows rows_of(const struct forward *forward, const struct forward_item *item,
                                  int layer)
{
    return (struct stripe_rows){.first_row = item->first_row,
                                .rows = item->rows,
                                .own_rows = item->own_rows,
                                .held = kv_range_layer(item->own, &forward->kv, layer)};
}

/* The item's last `queries` rows, which lie from `first_query` on, and the own rows that they see;
 * one piece, or where stripes meet several. */
static struct sparse_own own_pieces(struct forward *forward, const struct forward_item *item,
                                    int first_query, int queries, int layer)
{
    struct stripe_rows rows = rows_of(forward, item, layer);

    if (forward->stripes == NULL) {
        forward->own_pieces[0] =
            (struct attention_item){.first_query = first_query,
                                    .queries = queries,
                                    .segments = 1,
                                    .segment = {own_segment(forward, item, layer)}};
        return (struct sparse_own){.piece = forward->own_pieces, .pieces = 1};
    }
    rows.own_rows += item->rows - queries;
    rows.first_row = first_query;
    rows.rows = queries;
    return (struct sparse_own){
        .piece = forward->own_pieces,
        .pieces = stripes_cut_by_unit(forward->stripes, &rows, forward->own_pieces)};
}

/* Point an item's queries at the own rows that they see; returns in how many pieces. Few queries,
 * and those whose selected base takes two segments, are attended to where their rows are stored. */
static int point_at_own(const struct forward *forward, const struct forward_item *item, int layer,
                        int *turn, struct attention_item *pieces_out)
{
    const bool is_selected = item->core != NULL && item->core->is_selected;
    const bool is_chunk = item->chunk != NULL;
    struct stripe_rows rows;

    if (forward->stripes != NULL) {
        rows = rows_of(forward, item, layer);
        if (is_chunk || (item->rows > STRIPES_TILE && !is_selected))
            return stripes_cut_by_tile(forward->stripes, &rows, !is_chunk, turn, pieces_out);
        return stripes_cut_by_unit(forward->stripes, &rows, pieces_out);
    }
    pieces_out[0] = (struct attention_item){.first_query = item->first_row,
                                            .queries = item->rows,
                                            .segments = 1,
                                            .segment = {own_segment(forward, item, layer)}};
    return 1;
}

/* Point attention items at one layer's K and V. */
static void point_at_layer(struct forward *forward, const struct forward_item *items,
                           int item_count, int layer)
{
    int turn = 0;

    forward->attended_count = 0;
    for (int i = 0; i < item_count; i++) {
        struct attention_item *piece = forward->attended_items + forward->attended_count;
        struct attention_segment base[ATTENTION_SEGMENTS_MAX];
        const int segments = base_segments(forward, &items[i], layer, base);
        const int pieces = point_at_own(forward, &items[i], layer, &turn, piece);

        for (; piece < forward->attended_items + forward->attended_count + pieces; piece++) {
            memmove(piece->segment + segments, piece->segment,
                    (size_t)piece->segments * sizeof(*piece->segment));
            memcpy(piece->segment, base, (size_t)segments * sizeof(*base));
            piece->segments += segments;
        }
        forward->attended_count += pieces;
    }
}

/* Store the step's K and V, and leave its Q. */
static enum tca_status append(struct forward *forward, int rows, const struct forward_item *items,
                              int item_count, int index)
{
    const struct layer_weights *layer = &forward->parts.weights->layer[index];
    const struct device *device = &forward->parts.device;
    struct qk_norm norm = {
        .q = layer->q_norm, .k = layer->k_norm, .eps = forward->parts.config->rms_eps};
    int appends = item_count;

    for (int i = 0; i < item_count; i++) {
        const struct kv_layer own = kv_range_layer(items[i].own, &forward->kv, index);

        forward->appends[i] = (struct kv_append){.first_token = items[i].first_row,
                                                 .tokens = items[i].rows,
                                                 .k = own.k,
                                                 .v = own.v,
                                                 .head_stride = own.head_stride,
                                                 .first_row = items[i].own_rows};
    }
    if (forward->stripes != NULL) {
        forward->appends[0] = stripes_append(forward->stripes, rows);
        appends = 1;
    }
    TCA_TRY(device->backend->rope_append(device->queue, forward->q, forward->appends, appends,
                                         forward->qkv, &forward->attention, forward->rope, &norm));
    for (int i = 0; forward->stripes != NULL && i < item_count; i++) {
        const struct stripe_rows new_rows = rows_of(forward, &items[i], index);

        TCA_TRY(stripes_keep(forward->stripes, &new_rows));
    }
    return TCA_OK;
}

/* Before the step's attention: keep an answer's query, and select anew by those that were kept. */
static enum tca_status refresh_core(struct forward *forward, const struct forward_item *item,
                                    int layer)
{
    const struct device *device = &forward->parts.device;
    struct core_cache *core = item->core;
    const ptrdiff_t values = (ptrdiff_t)forward->attention.q_heads * forward->attention.head_dim;
    uint16_t *kept =
        core->queries + ((ptrdiff_t)layer * CORE_CACHE_QUERIES + core->recorded) * values;
    struct sparse_own own;
    struct kv_layer base;

    TCA_TRY(device->backend->copy(device->queue, kept, forward->q + item->first_row * values,
                                  (size_t)values * sizeof(*kept)));
    if (!item->refreshes)
        return TCA_OK;
    own = own_pieces(forward, item, 0, core->recorded + 1, layer);
    base = kv_range_layer(item->base, &forward->kv, layer);
    return sparse_refresh(forward->sparse, core, &base, &own, core->recorded + 1, layer);
}

/* After the step's attention: what sparse chunks read of the rows before them, and what questions
 * select. */
static enum tca_status run_sparse(struct forward *forward, const struct forward_item *item,
                                  int layer)
{
    const struct sparse_queries queries = {
        .q = forward->q, .lse = forward->lse, .first_row = item->first_row, .rows = item->rows};
    struct sparse_own own;
    struct kv_layer rows;

    if (item->chunk != NULL) {
        rows = kv_range_layer(item->own, &forward->kv, layer);
        return sparse_chunk(forward->sparse, &queries, forward->attended, &rows, item->chunk,
                            layer);
    }
    own = own_pieces(forward, item, item->first_row, item->rows, layer);
    rows = kv_range_layer(item->base, &forward->kv, layer);
    return sparse_select(forward->sparse, &queries, item->core, &rows, &own, true, layer);
}

/* attended = what the step's queries read, of everything or by their rules. */
static enum tca_status attend(struct forward *forward, const struct forward_item *items,
                              int item_count, int layer)
{
    const struct device *device = &forward->parts.device;
    bool needs_lse = forward->stripes != NULL;

    for (int i = 0; i < item_count; i++) {
        needs_lse |= items[i].chunk != NULL || items[i].selects;
        if (items[i].records)
            TCA_TRY(refresh_core(forward, &items[i], layer));
    }
    TCA_TRY(device->backend->attention(
        device->queue, forward->attended, needs_lse ? forward->lse : NULL, forward->q,
        &forward->attention, forward->attended_items, forward->attended_count));
    for (int i = 0; i < item_count; i++)
        if (items[i].chunk != NULL || items[i].selects)
            TCA_TRY(run_sparse(forward, &items[i], layer));
    return TCA_OK;
}

void forward_set_probe(struct forward *forward, forward_probe_fn probe, void *context)
{
    forward->probe = probe;
    forward->probe_context = context;
}

static enum tca_status show_probe(const struct forward *forward, const struct forward_item *items,
                                  int item_count, int layer)
{
    const struct forward_view view = {.layer = layer,
                                      .device = &forward->parts.device,
                                      .shape = &forward->attention,
                                      .kv = &forward->kv,
                                      .q = forward->q,
                                      .attended = forward->attended,
                                      .items = items,
                                      .item_count = item_count};

    return forward->probe == NULL ? TCA_OK : forward->probe(forward->probe_context, &view);
}

/* The part's rows first .. end - 1 have no delta of this rank's. */
static enum tca_status zero_delta(const struct forward *forward, const struct residual_part *part,
                                  int first, int end)
{
    const struct device *device = &forward->parts.device;

    if (first == end)
        return TCA_OK;
    return device->backend->zero(device->queue, residual_delta(&forward->residual, part, first),
                                 residual_delta_bytes(&forward->residual, end - first));
}

static int clamp(int value, int least, int most)
{
    return value < least ? least : value > most ? most : value;
}

/* The part's delta = what its rows attended to, through o_proj; of a striped rank, that of its
 * share of the rows, and zeros for those that its peers bring. */
static enum tca_status project(const struct forward *forward, const struct residual_part *part,
                               const struct stripe_share *share, const struct kernel_weight *o_proj)
{
    const struct device *device = &forward->parts.device;
    const struct kernel_backend *backend = device->backend;
    const ptrdiff_t values = (ptrdiff_t)forward->attention.q_heads * forward->attention.head_dim;
    const int first = clamp(share->first - part->first, 0, part->count);
    const int end = clamp(share->first + share->rows - part->first, 0, part->count);

    TCA_TRY(zero_delta(forward, part, 0, first));
    TCA_TRY(zero_delta(forward, part, end, part->count));
    if (first == end)
        return TCA_OK;
    return backend->linear(
        device->queue, residual_delta(&forward->residual, part, first), backend->activation,
        share->attended + (part->first + first - share->first) * values, o_proj, NULL, end - first);
}

/* The step's Q, K and V, from the rows as the layer before left them. */
static enum tca_status run_qkv(struct forward *forward, int index)
{
    const struct layer_weights *layer = &forward->parts.weights->layer[index];
    const struct device *device = &forward->parts.device;
    const struct kernel_backend *backend = device->backend;

    for (int i = 0; i < forward->residual.parts; i++) {
        const struct residual_part *part = &forward->residual.part[i];

        TCA_TRY(residual_norm(&forward->residual, i, index > 0, layer->attention_norm));
        TCA_TRY(backend->linear(device->queue, qkv_of(forward, part), backend->activation,
                                part->normed, layer->qkv, layer->qkv_bias, part->count));
    }
    return TCA_OK;
}

/* Attention sees all rows; what comes before (run_qkv) and after it, a part at a time. The layer
 * before is summed by the time that peers exchange theirs: no two groups ever have work under way
 * beside each other, which GPUs might run in different orders and wait for ever. */
static enum tca_status run_attention(struct forward *forward, int rows,
                                     const struct forward_item *items, int item_count, int index)
{
    const struct layer_weights *layer = &forward->parts.weights->layer[index];
    struct stripe_share share = {.rows = rows, .attended = forward->attended};

    TCA_TRY(attend(forward, items, item_count, index));
    TCA_TRY(show_probe(forward, items, item_count, index));
    if (forward->stripes != NULL)
        TCA_TRY(stripes_exchange(forward->stripes, forward->attended, forward->lse, rows, &share));
    for (int i = 0; i < forward->residual.parts; i++) {
        TCA_TRY(project(forward, &forward->residual.part[i], &share, layer->o_proj));
        TCA_TRY(residual_sum(&forward->residual, i));
    }
    return TCA_OK;
}

static enum tca_status run_ffn(struct forward *forward, const struct layer_weights *layer)
{
    const struct device *device = &forward->parts.device;
    const struct kernel_backend *backend = device->backend;

    for (int i = 0; i < forward->residual.parts; i++) {
        const struct residual_part *part = &forward->residual.part[i];

        TCA_TRY(residual_norm(&forward->residual, i, true, layer->ffn_norm));
        TCA_TRY(backend->linear(device->queue, forward->gate_up, backend->activation, part->normed,
                                layer->gate_up, NULL, part->count));
        TCA_TRY(backend->swiglu(device->queue, forward->gated, forward->gate_up, part->count,
                                forward->parts.shard->ffn));
        TCA_TRY(backend->linear(device->queue, part->delta, backend->activation, forward->gated,
                                layer->down, NULL, part->count));
        TCA_TRY(residual_sum(&forward->residual, i));
    }
    return TCA_OK;
}

/* Whether nobody sees what the last layer makes of its K and V. */
static bool only_stores(const struct forward *forward, const struct forward_item *items,
                        int item_count)
{
    for (int i = 0; i < item_count; i++)
        if (items[i].wants_output)
            return false;
    return forward->probe == NULL;
}

enum tca_status forward_run(struct forward *forward, const int32_t *ids, int rows,
                            const struct forward_item *items, int item_count)
{
    const int last = forward->parts.config->layers - 1;

    place_items(forward, items, item_count);
    residual_cut(&forward->residual, rows);
    TCA_TRY(embed(forward, ids, rows));
    for (int i = 0; i <= last; i++) {
        point_at_layer(forward, items, item_count, i);
        TCA_TRY(run_qkv(forward, i));
        TCA_TRY(append(forward, rows, items, item_count, i));
        if (i == last && only_stores(forward, items, item_count))
            return TCA_OK;
        TCA_TRY(run_attention(forward, rows, items, item_count, i));
        TCA_TRY(run_ffn(forward, &forward->parts.weights->layer[i]));
    }
    for (int i = 0; i < item_count; i++)
        if (items[i].records)
            items[i].core->recorded = items[i].refreshes ? 0 : items[i].core->recorded + 1;
    for (int i = 0; i < forward->residual.parts; i++)
        TCA_TRY(residual_norm(&forward->residual, i, true, NULL));
    return TCA_OK;
}

enum tca_status forward_logits(struct forward *forward, const int32_t *rows, int count,
                               const float **logits_out)
{
    const struct device *device = &forward->parts.device;
    const struct kernel_backend *backend = device->backend;
    const struct weights *weights = forward->parts.weights;
    const struct model_config *config = forward->parts.config;

    TCA_TRY(backend->take_rows(device->queue, forward->last_residual, forward->residual.rows, rows,
                               count, config->hidden));
    TCA_TRY(backend->residual_norm(device->queue, forward->last_normed, forward->last_residual,
                                   NULL, NULL, weights->final_norm, count, config->hidden,
                                   config->rms_eps));
    TCA_TRY(backend->linear(device->queue, forward->logits, KERNEL_F32, forward->last_normed,
                            weights->lm_head, NULL, count));
    *logits_out = forward->logits;
    return TCA_OK;
}
