#include "worker/sparse.h"

#include <stdlib.h>
#include <string.h>

enum {
    WORKSPACE_ALIGNMENT = 64,
    OBSERVERS_LEAST = 16,
    OBSERVER_STRIDE = 128, /* one query of so many observes in a chunk */
    SCORERS_MOST = 64,     /* queries of a question whose block scores are kept at once */
    GATHER_SHARE = 4,      /* a chunk copies at most a 4th of the rows before it, over all heads */
    ROOM_GRANULE = 128,
};

struct sparse {
    struct device device;
    struct attention_shape shape;
    struct sparse_limits limits;
    struct stripes *stripes; /* borrowed, or NULL */
    int observers;           /* most that have block scores at once */
    void *workspace;
    size_t workspace_bytes;
    float *scores;        /* [observers, q_heads, blocks] */
    float *masses;        /* [kv_heads, blocks] */
    float *tokens;        /* [kv_heads, positions] */
    float *observer_lse;  /* [observers, q_heads] */
    int32_t *kept;        /* [kv_heads, positions] */
    int32_t *counts;      /* [kv_heads] */
    int32_t *whole;       /* [kv_heads] rows of heads that read in place */
    int64_t *offsets;     /* [kv_heads] of the gathered rows */
    uint16_t *gathered;   /* [2, gather_rows, head_dim] */
    uint16_t *out;        /* [rows, q_heads, head_dim] */
    float *lse;           /* [rows, q_heads] */
    int64_t gather_rows;  /* of all heads together */
    int32_t *picked;      /* what this rank holds of `kept`: itself, or with stripes [positions] */
    int32_t *kept_counts; /* with stripes: [1] of `kept` */
    float *whole_lse;     /* with stripes: [rows, q_heads] over the keys of all */
    int32_t *observer;    /* host, owned [limits.rows]: rows of q */
    int64_t *chunk_rows;  /* host, owned [kv_heads]: budgets of the layer at hand */
    int64_t *host_offset; /* host, owned [kv_heads] */
    int32_t *host_whole;  /* host, owned [kv_heads] */
    struct attention_item *items; /* host, owned [limits.rows / STRIPES_TILE + 2] */
};

static void *take(char *base, size_t *used, size_t bytes)
{
    void *part = base == NULL ? NULL : base + *used;

    *used += (bytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    return part;
}

static int chunk_observers(int chunk_rows)
{
    const int wanted = chunk_rows / OBSERVER_STRIDE;
    const int least = chunk_rows < OBSERVERS_LEAST ? chunk_rows : OBSERVERS_LEAST;

    return wanted > least ? wanted : least;
}

/* The one list of the workspace's buffers; returns the bytes. */
static size_t lay_out(struct sparse *sparse, char *base, bool has_stripes)
{
    const struct attention_shape *shape = &sparse->shape;
    const size_t q_heads = (size_t)shape->q_heads, kv_heads = (size_t)shape->kv_heads;
    const size_t head_dim = (size_t)shape->head_dim, rows = (size_t)sparse->limits.rows;
    const size_t positions = (size_t)sparse->limits.positions;
    const size_t blocks = (size_t)select_blocks(sparse->limits.positions);
    const size_t observers = (size_t)sparse->observers;
    size_t used = 0;

    sparse->scores = take(base, &used, observers * q_heads * blocks * sizeof(float));
    sparse->masses = take(base, &used, kv_heads * blocks * sizeof(float));
    sparse->tokens = take(base, &used, kv_heads * positions * sizeof(float));
    sparse->observer_lse = take(base, &used, rows * q_heads * sizeof(float));
    sparse->kept = take(base, &used, kv_heads * positions * sizeof(int32_t));
    sparse->counts = take(base, &used, kv_heads * sizeof(int32_t));
    sparse->whole = take(base, &used, kv_heads * sizeof(int32_t));
    sparse->offsets = take(base, &used, kv_heads * sizeof(int64_t));
    sparse->gathered =
        take(base, &used, 2 * (size_t)sparse->gather_rows * head_dim * sizeof(uint16_t));
    sparse->out = take(base, &used, rows * q_heads * head_dim * sizeof(uint16_t));
    sparse->lse = take(base, &used, rows * q_heads * sizeof(float));
    sparse->picked = sparse->kept;
    if (has_stripes) {
        sparse->whole_lse = take(base, &used, rows * q_heads * sizeof(float));
        sparse->picked = take(base, &used, positions * sizeof(int32_t));
        sparse->kept_counts = take(base, &used, sizeof(int32_t));
    }
    return used;
}

static void set_sizes(struct sparse *sparse, const struct device *device,
                      const struct attention_shape *shape, const struct sparse_limits *limits)
{
    const int chunk = chunk_observers(limits->chunk_rows);

    sparse->device = *device;
    sparse->shape = *shape;
    sparse->limits = *limits;
    if (sparse->limits.rows < CORE_CACHE_QUERIES)
        sparse->limits.rows = CORE_CACHE_QUERIES;
    sparse->observers = chunk > SCORERS_MOST ? chunk : SCORERS_MOST;
    sparse->gather_rows = shape->kv_heads * (limits->positions / GATHER_SHARE + ROOM_GRANULE);
}

size_t sparse_workspace_bytes(const struct device *device, const struct attention_shape *shape,
                              const struct sparse_limits *limits, bool has_stripes)
{
    struct sparse unused = {0};

    set_sizes(&unused, device, shape, limits);
    return lay_out(&unused, NULL, has_stripes);
}

enum tca_status sparse_create(const struct device *device, const struct attention_shape *shape,
                              const struct sparse_limits *limits, struct stripes *stripes,
                              struct sparse **sparse_out)
{
    const size_t heads = (size_t)shape->kv_heads;
    struct sparse *sparse = calloc(1, sizeof(*sparse));
    enum tca_status status = TCA_ERR_NO_MEMORY;

    if (sparse == NULL)
        return status;
    set_sizes(sparse, device, shape, limits);
    sparse->stripes = stripes;
    sparse->items =
        malloc(((size_t)sparse->limits.rows / STRIPES_TILE + 2) * sizeof(*sparse->items));
    sparse->observer = malloc((size_t)sparse->limits.rows * sizeof(*sparse->observer));
    sparse->chunk_rows = malloc(heads * sizeof(*sparse->chunk_rows));
    sparse->host_offset = malloc(heads * sizeof(*sparse->host_offset));
    sparse->host_whole = malloc(heads * sizeof(*sparse->host_whole));
    sparse->workspace_bytes = lay_out(sparse, NULL, stripes != NULL);
    if (sparse->items != NULL && sparse->observer != NULL && sparse->chunk_rows != NULL &&
        sparse->host_offset != NULL && sparse->host_whole != NULL)
        status = device->backend->alloc(device->index, sparse->workspace_bytes, &sparse->workspace);
    if (status != TCA_OK) {
        sparse_destroy(sparse);
        return status;
    }
    lay_out(sparse, sparse->workspace, stripes != NULL);
    *sparse_out = sparse;
    return TCA_OK;
}

void sparse_destroy(struct sparse *sparse)
{
    if (sparse == NULL)
        return;
    sparse->device.backend->free(sparse->device.index, sparse->workspace, sparse->workspace_bytes);
    free(sparse->items);
    free(sparse->observer);
    free(sparse->chunk_rows);
    free(sparse->host_offset);
    free(sparse->host_whole);
    free(sparse);
}

/* The first `tokens` of a sequence, as far as this rank holds them. */
static struct attention_segment held_keys(const struct sparse *sparse, const struct kv_layer *layer,
                                          int64_t tokens)
{
    return (struct attention_segment){
        .k = layer->k,
        .v = layer->v,
        .head_stride = layer->head_stride,
        .rows = sparse->stripes == NULL ? tokens : stripes_rows(sparse->stripes, tokens)};
}

/* `count` of `rows` rows from `first_row` on, evenly strided, the last included. */
static void choose_observers(struct sparse *sparse, int first_row, int rows, int count)
{
    for (int i = 0; i < count; i++)
        sparse->observer[i] = first_row + (int)((int64_t)(i + 1) * rows / count) - 1;
}

/* Masses of the blocks of all `tokens`, from the block scores of this rank's. */
static enum tca_status sum_blocks(struct sparse *sparse, int count, int64_t held, int64_t tokens)
{
    struct stripes *stripes = sparse->stripes;
    float *masses =
        stripes == NULL ? sparse->masses : stripes_scores(stripes, tokens, SELECT_BLOCK_TOKENS);

    TCA_TRY(sparse->device.backend->block_masses(sparse->device.queue, masses, sparse->scores,
                                                 sparse->observer_lse, count, &sparse->shape,
                                                 select_blocks(held)));
    return stripes == NULL
               ? TCA_OK
               : stripes_gather_scores(stripes, sparse->masses, tokens, SELECT_BLOCK_TOKENS);
}

/* Scores of the first `tokens` of a sequence, of which `keys` are this rank's, by the observers
 * chosen, for `method`; observer_lse is in place. Block scores are there
 * already when `has_scores`. */
static enum tca_status score_keys(struct sparse *sparse, const uint16_t *q, int count,
                                  const struct head_budgets *budgets,
                                  const struct attention_segment *keys, bool has_scores)
{
    const struct kernel_backend *backend = sparse->device.backend;
    const struct select_method *method = &budgets->method;
    struct kernel_queue *queue = sparse->device.queue;
    struct stripes *stripes = sparse->stripes;
    float *tokens = sparse->tokens;

    if (select_needs_block_masses(method)) {
        if (!has_scores)
            TCA_TRY(backend->block_scores(queue, sparse->scores, q, &sparse->shape,
                                          sparse->observer, count, keys));
        TCA_TRY(sum_blocks(sparse, count, keys->rows, budgets->tokens));
    }
    if (!select_needs_token_scores(method))
        return TCA_OK;
    if (stripes != NULL)
        tokens = stripes_scores(stripes, budgets->tokens, 1);
    TCA_TRY(backend->token_scores(queue, tokens, q, sparse->observer_lse, &sparse->shape,
                                  sparse->observer, count, keys));
    return stripes == NULL ? TCA_OK
                           : stripes_gather_scores(stripes, sparse->tokens, budgets->tokens, 1);
}

/* Choose by the scores at hand. The rows to copy are `picked` and counts_out. */
static enum tca_status select_rows(struct sparse *sparse, const struct head_budgets *budgets,
                                   const int64_t *rows, int32_t *counts_out, int layer)
{
    const struct kernel_backend *backend = sparse->device.backend;
    int32_t *counts = sparse->stripes == NULL ? counts_out : sparse->kept_counts;
    const struct select_input input = {.tokens = budgets->tokens,
                                       .window = budgets->window,
                                       .token_scores = sparse->tokens,
                                       .block_masses = sparse->masses,
                                       .redundancy = budgets->method.redundancy,
                                       .tca_shares = budgets->shares == NULL
                                                         ? NULL
                                                         : budgets->shares + (ptrdiff_t)layer *
                                                                                 budgets->kv_heads *
                                                                                 SELECT_TCA_SIZES};

    TCA_TRY(backend->select(sparse->device.queue, sparse->kept, sparse->limits.positions, counts,
                            budgets->method.rule, &input, rows, sparse->shape.kv_heads));
    if (sparse->stripes == NULL)
        return TCA_OK;
    return stripes_pick(sparse->stripes, sparse->picked, counts_out, sparse->kept, counts);
}

/* A chunk. */

/* Where each head's gathered rows go; `held` rows are here. Heads that keep over half, and the
 * largest while all together are more than the workspace, read in place.
 * Returns whether some do. */
static bool place_chunk(struct sparse *sparse, const struct head_budgets *budgets, int64_t held,
                        int layer)
{
    const int heads = sparse->shape.kv_heads;
    int64_t *rows = sparse->chunk_rows;
    int64_t total = 0;
    bool has_whole = false;

    for (int head = 0; head < heads; head++) {
        rows[head] = budgets->rows[layer * heads + head];
        if (rows[head] > budgets->tokens / 2)
            rows[head] = 0;
        total += (rows[head] + ROOM_GRANULE - 1) / ROOM_GRANULE * ROOM_GRANULE;
    }
    while (total > sparse->gather_rows) {
        int largest = 0;

        for (int head = 1; head < heads; head++)
            largest = rows[head] > rows[largest] ? head : largest;
        total -= (rows[largest] + ROOM_GRANULE - 1) / ROOM_GRANULE * ROOM_GRANULE;
        rows[largest] = 0;
    }
    total = 0;
    for (int head = 0; head < heads; head++) {
        sparse->host_offset[head] = total * sparse->shape.head_dim;
        sparse->host_whole[head] = rows[head] == 0 ? (int32_t)held : 0;
        has_whole |= rows[head] == 0;
        total += (rows[head] + ROOM_GRANULE - 1) / ROOM_GRANULE * ROOM_GRANULE;
    }
    return has_whole;
}

static int64_t most_rows(const struct sparse *sparse)
{
    int64_t most = 0;

    for (int head = 0; head < sparse->shape.kv_heads; head++)
        most = sparse->chunk_rows[head] > most ? sparse->chunk_rows[head] : most;
    return most;
}

/* Observe the earlier rows: fills scores of the kind that the method reads. */
static enum tca_status observe_chunk(struct sparse *sparse, const struct sparse_queries *queries,
                                     const struct head_budgets *budgets,
                                     const struct attention_segment *keys)
{
    const struct kernel_backend *backend = sparse->device.backend;
    struct kernel_queue *queue = sparse->device.queue;
    const int count = budgets->method.observes_last ? 1 : chunk_observers(queries->rows);

    if (budgets->method.rule == SELECT_WINDOW)
        return TCA_OK;
    choose_observers(sparse, queries->first_row, queries->rows, count);
    TCA_TRY(backend->block_scores(queue, sparse->scores, queries->q, &sparse->shape,
                                  sparse->observer, count, keys));
    TCA_TRY(backend->observer_lse(queue, sparse->observer_lse, sparse->scores, queries->lse,
                                  sparse->observer, count, sparse->shape.q_heads,
                                  select_blocks(keys->rows)));
    if (sparse->stripes != NULL)
        TCA_TRY(stripes_complete_lse(sparse->stripes, sparse->observer_lse, sparse->observer_lse,
                                     count));
    return score_keys(sparse, queries->q, count, budgets, keys, true);
}

/* Attend to gathered rows and to heads in place, and merge. */
static enum tca_status attend_chunk(struct sparse *sparse, const struct sparse_queries *queries,
                                    uint16_t *out, const struct attention_segment *keys,
                                    const struct kv_copy *copy, bool has_whole)
{
    const struct kernel_backend *backend = sparse->device.backend;
    struct kernel_queue *queue = sparse->device.queue;
    const size_t values = (size_t)sparse->shape.q_heads * (size_t)sparse->shape.head_dim;
    const size_t first = (size_t)queries->first_row;
    struct attention_item item = {.first_query = queries->first_row, .queries = queries->rows};

    if (has_whole) {
        item.segment[item.segments] = *keys;
        item.segment[item.segments++].rows_per_head = sparse->whole;
    }
    if (copy->rows > 0)
        item.segment[item.segments++] =
            (struct attention_segment){.k = copy->k,
                                       .v = copy->v,
                                       .head_offsets = copy->head_offsets,
                                       .rows = most_rows(sparse),
                                       .rows_per_head = sparse->counts,
                                       .has_tail = true};
    TCA_TRY(
        backend->attention(queue, sparse->out, sparse->lse, queries->q, &sparse->shape, &item, 1));
    return backend->attention_merge(
        queue, out + first * values, queries->lse + first * (size_t)sparse->shape.q_heads,
        sparse->out + first * values, sparse->lse + first * (size_t)sparse->shape.q_heads,
        queries->rows, &sparse->shape);
}

enum tca_status sparse_chunk(struct sparse *sparse, const struct sparse_queries *queries,
                             uint16_t *out, const struct kv_layer *earlier,
                             const struct head_budgets *budgets, int layer)
{
    const struct kernel_backend *backend = sparse->device.backend;
    struct kernel_queue *queue = sparse->device.queue;
    const size_t heads = (size_t)sparse->shape.kv_heads;
    const struct attention_segment keys = held_keys(sparse, earlier, budgets->tokens);
    const bool has_whole = place_chunk(sparse, budgets, keys.rows, layer);
    const int64_t most = most_rows(sparse);
    const struct kv_copy copy = {.k = sparse->gathered,
                                 .v = sparse->gathered +
                                      sparse->gather_rows * sparse->shape.head_dim,
                                 .head_offsets = sparse->offsets,
                                 .rows = (most + ROOM_GRANULE - 1) / ROOM_GRANULE * ROOM_GRANULE};

    if (has_whole)
        TCA_TRY(backend->upload(queue, sparse->whole, sparse->host_whole,
                                heads * sizeof(*sparse->host_whole)));
    if (most > 0) {
        TCA_TRY(backend->upload(queue, sparse->offsets, sparse->host_offset,
                                heads * sizeof(*sparse->host_offset)));
        TCA_TRY(observe_chunk(sparse, queries, budgets, &keys));
        TCA_TRY(select_rows(sparse, budgets, sparse->chunk_rows, sparse->counts, layer));
        TCA_TRY(backend->gather(queue, &copy, &keys, sparse->picked, sparse->limits.positions,
                                sparse->counts, &sparse->shape));
    }
    return attend_chunk(sparse, queries, out, &keys, &copy, has_whole);
}

/* A question. */

/* The rows that observe, and their log-sum-exps together. */
static enum tca_status observe_question(struct sparse *sparse, const struct sparse_queries *queries,
                                        const struct head_budgets *budgets,
                                        const struct attention_segment *keys)
{
    const struct kernel_backend *backend = sparse->device.backend;
    const struct select_method *method = &budgets->method;
    int count = queries->rows;

    if (method->rule == SELECT_WINDOW || method->rule == SELECT_DENSE)
        return TCA_OK;
    if (select_needs_block_masses(method) && count > sparse->observers)
        count = sparse->observers;
    if (method->observes_last)
        count = 1;
    choose_observers(sparse, queries->first_row, queries->rows, count);
    TCA_TRY(backend->take_rows(sparse->device.queue, sparse->observer_lse, queries->lse,
                               sparse->observer, count, sparse->shape.q_heads));
    return score_keys(sparse, queries->q, count, budgets, keys, false);
}

static enum tca_status count_bins(struct sparse *sparse, struct core_cache *core, int layer)
{
    const struct device *device = &sparse->device;
    const int heads = sparse->shape.kv_heads;
    const int64_t tokens = core->budgets.tokens;
    const int32_t *counts = /* of `kept` */
        sparse->stripes == NULL ? core->counts + layer * heads : sparse->kept_counts;
    int32_t *kept = malloc((size_t)tokens * sizeof(*kept));
    enum tca_status status = kept == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;

    for (int head = 0; status == TCA_OK && head < heads; head++) {
        const int at = layer * heads + head;
        uint32_t *bins = core->bins + (ptrdiff_t)at * CORE_CACHE_BINS;
        const bool is_whole = core->budgets.rows[at] == 0;
        int32_t count = is_whole ? (int32_t)tokens : 0;

        memset(bins, 0, CORE_CACHE_BINS * sizeof(*bins));
        for (int32_t i = 0; i < count; i++)
            kept[i] = i;
        if (!is_whole) {
            status = device->backend->download(device->queue, &count, counts + head, sizeof(count));
            if (status == TCA_OK)
                status = device->backend->download(device->queue, kept,
                                                   sparse->kept + head * sparse->limits.positions,
                                                   (size_t)count * sizeof(*kept));
        }
        for (int32_t i = 0; status == TCA_OK && i < count; i++)
            bins[(int64_t)kept[i] * CORE_CACHE_BINS / tokens]++;
    }
    free(kept);
    return status;
}

/* Select by the scores at hand and copy the rows into the core. */
static enum tca_status fill_core(struct sparse *sparse, struct core_cache *core,
                                 const struct attention_segment *keys, int layer)
{
    const struct kernel_backend *backend = sparse->device.backend;
    const int first = layer * sparse->shape.kv_heads;
    const struct kv_copy copy = core_cache_copy(core, layer);

    TCA_TRY(select_rows(sparse, &core->budgets, core->budgets.rows + first, core->counts + first,
                        layer));
    if (copy.rows > 0)
        TCA_TRY(backend->gather(sparse->device.queue, &copy, keys, sparse->picked,
                                sparse->limits.positions, core->counts + first, &sparse->shape));
    return core->bins == NULL ? TCA_OK : count_bins(sparse, core, layer);
}

/* Attend to `base` segments and the own rows: leaves sparse->out and sparse->lse. */
static enum tca_status attend_question(struct sparse *sparse, const uint16_t *q,
                                       const struct attention_segment *base, int segments,
                                       const struct sparse_own *own)
{
    for (int i = 0; i < own->pieces; i++) {
        struct attention_item *item = &sparse->items[i];

        *item = (struct attention_item){.first_query = own->piece[i].first_query,
                                        .queries = own->piece[i].queries};
        for (int s = 0; s < segments; s++)
            item->segment[item->segments++] = base[s];
        for (int s = 0; s < own->piece[i].segments; s++)
            item->segment[item->segments++] = own->piece[i].segment[s];
    }
    return sparse->device.backend->attention(sparse->device.queue, sparse->out, sparse->lse, q,
                                             &sparse->shape, sparse->items, own->pieces);
}

static enum tca_status measure(struct sparse *sparse, const struct sparse_queries *queries,
                               struct core_cache *core, const struct kv_layer *base,
                               const struct sparse_own *own, int layer)
{
    const size_t first = (size_t)queries->first_row * (size_t)sparse->shape.q_heads;
    struct attention_segment kept[ATTENTION_SEGMENTS_MAX];
    const int segments = core_cache_segments(core, layer, base, kept);

    TCA_TRY(attend_question(sparse, queries->q, kept, segments, own));
    if (sparse->stripes != NULL)
        TCA_TRY(stripes_complete_lse(sparse->stripes, sparse->lse + first, sparse->lse + first,
                                     queries->rows));
    return sparse->device.backend->kept_masses(
        sparse->device.queue, core->masses + (ptrdiff_t)layer * sparse->shape.kv_heads * 2,
        sparse->lse + first, queries->lse + first, queries->rows, &sparse->shape);
}

/* Heads that keep less than tau get more, once. The mass that a budget brings is taken to grow like
 * the share of what is not kept shrinks: (1 - tau) / (1 - m) of the distance is left. */
static enum tca_status resize_below_tau(struct sparse *sparse, struct core_cache *core, int rows,
                                        int layer, bool *is_changed_out)
{
    const struct device *device = &sparse->device;
    const int heads = sparse->shape.kv_heads;
    const int group = sparse->shape.q_heads / heads;
    const int64_t tokens = core->budgets.tokens;
    float masses[MODEL_HEADS_MAX][2];

    *is_changed_out = false;
    TCA_TRY(device->backend->download(device->queue, masses,
                                      core->masses + 2 * (ptrdiff_t)layer * heads,
                                      (size_t)heads * sizeof(*masses)));
    for (int head = 0; head < heads; head++) {
        const int at = layer * heads + head;
        const int64_t budget = core->budgets.rows[at];
        const double missing = 1.0 - (double)masses[head][0] / ((double)rows * group);
        const double wanted = 1.0 - core->options.tau;

        if (budget == 0 || budget >= tokens || missing <= wanted)
            continue;
        *is_changed_out = true;
        TCA_TRY(
            core_cache_resize(core, device->queue, device->backend, layer, head,
                              tokens - (int64_t)((double)(tokens - budget) * wanted / missing)));
    }
    return TCA_OK;
}

enum tca_status sparse_select(struct sparse *sparse, const struct sparse_queries *queries,
                              struct core_cache *core, const struct kv_layer *base,
                              const struct sparse_own *own, bool measures, int layer)
{
    const struct attention_segment keys = held_keys(sparse, base, core->budgets.tokens);
    const size_t first = (size_t)queries->first_row * (size_t)sparse->shape.q_heads;
    struct sparse_queries whole = *queries; /* over all stripes' keys */
    bool is_changed;

    if (sparse->stripes != NULL) {
        whole.lse = sparse->whole_lse;
        TCA_TRY(stripes_complete_lse(sparse->stripes, whole.lse + first, queries->lse + first,
                                     queries->rows));
    }
    TCA_TRY(observe_question(sparse, &whole, &core->budgets, &keys));
    TCA_TRY(fill_core(sparse, core, &keys, layer));
    if (!measures)
        return TCA_OK;
    TCA_TRY(measure(sparse, &whole, core, base, own, layer));
    if (core->options.tau == 0.0)
        return TCA_OK;
    TCA_TRY(resize_below_tau(sparse, core, queries->rows, layer, &is_changed));
    if (!is_changed)
        return TCA_OK;
    TCA_TRY(fill_core(sparse, core, &keys, layer));
    return measure(sparse, &whole, core, base, own, layer);
}

enum tca_status sparse_refresh(struct sparse *sparse, struct core_cache *core,
                               const struct kv_layer *base, const struct sparse_own *own, int count,
                               int layer)
{
    const ptrdiff_t values = (ptrdiff_t)sparse->shape.q_heads * sparse->shape.head_dim;
    const struct attention_segment keys = held_keys(sparse, base, core->budgets.tokens);
    struct sparse_queries queries = {.q = core->queries +
                                          (ptrdiff_t)layer * CORE_CACHE_QUERIES * values,
                                     .lse = sparse->lse,
                                     .rows = count};

    TCA_TRY(attend_question(sparse, queries.q, &keys, 1, own));
    return sparse_select(sparse, &queries, core, base, own, false, layer);
}
