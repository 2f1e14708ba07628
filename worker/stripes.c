#include "worker/stripes.h"

#include <stdlib.h>

enum { WORKSPACE_ALIGNMENT = 64 };

struct stripes {
    struct stripes_parts parts;
    struct stripes_limits limits;
    void *workspace; /* device, owned: the memory of every buffer below */
    size_t workspace_bytes;
    uint16_t *k, *v;    /* [rows, head_dim] of the step */
    float *gathered;    /* [stripes, ..] LSEs or scores */
    uint16_t *attended; /* [room, q_heads, head_dim] of every stripe, for this rank's share */
    float *lse;         /* [room, q_heads] */
    int32_t *rows;      /* host, owned [limits.rows]: 0, 1, .. */
};

static void *take(char *base, size_t *used, size_t bytes)
{
    void *part = base == NULL ? NULL : base + *used;

    *used += (bytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    return part;
}

/* Rows of every rank's share. */
static int share_of(const struct shard *shard, int rows)
{
    return (rows + shard->stripes - 1) / shard->stripes;
}

int stripes_room(const struct shard *shard, int rows)
{
    return share_of(shard, rows) * shard->stripes;
}

/* Scores of the stripe that has most of them. */
static int64_t score_stride(const struct stripes *stripes, int64_t tokens, int grain)
{
    struct shard fullest = *stripes->parts.shard;

    fullest.stripe = 0;
    return (shard_plan_rows(&fullest, tokens) + grain - 1) / grain;
}

/* The one list of the workspace's buffers; returns the bytes. */
static size_t lay_out(struct stripes *stripes, char *base)
{
    const struct shard *shard = stripes->parts.shard;
    size_t heads = (size_t)shard->q_heads;
    size_t head_dim = (size_t)stripes->parts.attention->head_dim;
    size_t rows = (size_t)stripes->limits.rows;
    size_t room = (size_t)stripes_room(shard, stripes->limits.rows);
    size_t values = (size_t)score_stride(stripes, stripes->limits.positions, 1);
    size_t used = 0;

    if (values < rows * heads)
        values = rows * heads;
    stripes->k = take(base, &used, rows * head_dim * sizeof(uint16_t));
    stripes->v = take(base, &used, rows * head_dim * sizeof(uint16_t));
    stripes->gathered = take(base, &used, (size_t)shard->stripes * values * sizeof(float));
    stripes->attended = take(base, &used, room * heads * head_dim * sizeof(uint16_t));
    stripes->lse = take(base, &used, room * heads * sizeof(float));
    return used;
}

size_t stripes_workspace_bytes(const struct stripes_parts *parts,
                               const struct stripes_limits *limits)
{
    struct stripes unused = {.parts = *parts, .limits = *limits};

    return lay_out(&unused, NULL);
}

enum tca_status stripes_create(const struct stripes_parts *parts,
                               const struct stripes_limits *limits, struct stripes **stripes_out)
{
    const struct device *device = &parts->device;
    struct stripes *stripes = calloc(1, sizeof(*stripes));
    enum tca_status status = TCA_ERR_NO_MEMORY;

    if (stripes == NULL)
        return status;
    stripes->parts = *parts;
    stripes->limits = *limits;
    stripes->workspace_bytes = lay_out(stripes, NULL);
    stripes->rows = malloc((size_t)limits->rows * sizeof(*stripes->rows));
    if (stripes->rows != NULL)
        status =
            device->backend->alloc(device->index, stripes->workspace_bytes, &stripes->workspace);
    if (status != TCA_OK) {
        stripes_destroy(stripes);
        return status;
    }
    for (int row = 0; row < limits->rows; row++)
        stripes->rows[row] = row;
    lay_out(stripes, stripes->workspace);
    *stripes_out = stripes;
    return TCA_OK;
}

void stripes_destroy(struct stripes *stripes)
{
    const struct device *device;

    if (stripes == NULL)
        return;
    device = &stripes->parts.device;
    device->backend->free(device->index, stripes->workspace, stripes->workspace_bytes);
    free(stripes->rows);
    free(stripes);
}

int64_t stripes_rows(const struct stripes *stripes, int64_t tokens)
{
    return shard_plan_rows(stripes->parts.shard, tokens);
}

struct kv_append stripes_append(const struct stripes *stripes, int rows)
{
    return (struct kv_append){.tokens = rows, .k = stripes->k, .v = stripes->v};
}

static bool is_own_row(const struct shard *shard, int64_t row)
{
    return row / shard->stripe_unit % shard->stripes == shard->stripe;
}

/* How many of `rows` rows from `row` on are in its unit. */
static int rows_in_unit(const struct shard *shard, int64_t row, int64_t rows)
{
    const int64_t left = shard->stripe_unit - row % shard->stripe_unit;

    return (int)(rows < left ? rows : left);
}

enum tca_status stripes_keep(struct stripes *stripes, const struct stripe_rows *rows)
{
    const struct device *device = &stripes->parts.device;
    const struct shard *shard = stripes->parts.shard;
    const ptrdiff_t head_dim = stripes->parts.attention->head_dim;
    int count;

    for (int first = 0; first < rows->rows; first += count) {
        const int64_t row = rows->own_rows + first;
        const ptrdiff_t from = (rows->first_row + first) * head_dim;
        const int64_t to = shard_plan_rows(shard, row) * head_dim;
        size_t bytes;

        count = rows_in_unit(shard, row, rows->rows - first);
        bytes = (size_t)(count * head_dim) * sizeof(uint16_t);
        if (!is_own_row(shard, row))
            continue;
        TCA_TRY(device->backend->copy(device->queue, rows->held.k + to, stripes->k + from, bytes));
        TCA_TRY(device->backend->copy(device->queue, rows->held.v + to, stripes->v + from, bytes));
    }
    return TCA_OK;
}

/* The first `count` of this rank's rows; causal: the queries' own are the last of them. */
static struct attention_segment held_segment(const struct kv_layer *held, int64_t count,
                                             bool is_causal)
{
    return (struct attention_segment){.k = held->k,
                                      .v = held->v,
                                      .head_stride = held->head_stride,
                                      .rows = count,
                                      .causal = is_causal};
}

int stripes_cut_by_tile(const struct stripes *stripes, const struct stripe_rows *rows,
                        bool has_stored, int *turn, struct attention_item *pieces_out)
{
    const struct shard *shard = stripes->parts.shard;
    const int64_t stored = has_stored ? shard_plan_rows(shard, rows->own_rows) : 0;
    const ptrdiff_t at = (ptrdiff_t)rows->first_row * stripes->parts.attention->head_dim;
    int pieces = 0;

    for (int first = 0; first < rows->rows; first += STRIPES_TILE) {
        struct attention_item *piece = &pieces_out[pieces++];
        const int left = rows->rows - first;
        const bool is_own = (*turn)++ % shard->stripes == shard->stripe;

        *piece = (struct attention_item){.first_query = rows->first_row + first,
                                         .queries = left < STRIPES_TILE ? left : STRIPES_TILE};
        if (stored > 0)
            piece->segment[piece->segments++] = held_segment(&rows->held, stored, false);
        piece->segment[piece->segments++] =
            (struct attention_segment){.k = stripes->k + at,
                                       .v = stripes->v + at,
                                       .rows = is_own ? first + piece->queries : 0,
                                       .causal = is_own};
    }
    return pieces;
}

int stripes_cut_by_unit(const struct stripes *stripes, const struct stripe_rows *rows,
                        struct attention_item *pieces_out)
{
    const struct shard *shard = stripes->parts.shard;
    int pieces = 0, count;

    for (int first = 0; first < rows->rows; first += count) {
        const int64_t row = rows->own_rows + first;
        const bool is_own = is_own_row(shard, row);

        count = rows_in_unit(shard, row, rows->rows - first);
        pieces_out[pieces++] = (struct attention_item){
            .first_query = rows->first_row + first,
            .queries = count,
            .segments = 1,
            .segment = {held_segment(&rows->held,
                                     shard_plan_rows(shard, is_own ? row + count : row), is_own)}};
    }
    return pieces;
}

/* Everybody's `values` values of `gathered`, this rank's in place. */
static enum tca_status gather(struct stripes *stripes, size_t values)
{
    struct comm_group *peers = stripes->parts.peers;

    return peers->ops->all_gather(peers, stripes->gathered,
                                  stripes->gathered + (size_t)peers->rank * values,
                                  values * sizeof(float), stripes->parts.device.queue);
}

enum tca_status stripes_complete_lse(struct stripes *stripes, float *lse_out, const float *lse,
                                     int rows)
{
    const struct device *device = &stripes->parts.device;
    const int heads = stripes->parts.shard->q_heads;
    const size_t values = (size_t)rows * (size_t)heads, bytes = values * sizeof(float);
    float *own = stripes->gathered + (size_t)stripes->parts.peers->rank * values;

    TCA_TRY(device->backend->copy(device->queue, own, lse, bytes));
    TCA_TRY(gather(stripes, values));
    TCA_TRY(device->backend->copy(device->queue, lse_out, stripes->gathered, bytes));
    for (int stripe = 1; stripe < stripes->parts.shard->stripes; stripe++)
        TCA_TRY(device->backend->observer_lse(device->queue, lse_out,
                                              stripes->gathered + (size_t)stripe * values, lse_out,
                                              stripes->rows, rows, heads, 1));
    return TCA_OK;
}

float *stripes_scores(const struct stripes *stripes, int64_t tokens, int grain)
{
    return stripes->gathered + stripes->parts.shard->stripe * score_stride(stripes, tokens, grain);
}

enum tca_status stripes_gather_scores(struct stripes *stripes, float *out, int64_t tokens,
                                      int grain)
{
    const struct device *device = &stripes->parts.device;
    const struct shard *shard = stripes->parts.shard;
    const struct kernel_stripes cut = {.stripes = shard->stripes,
                                       .unit = shard->stripe_unit / grain};
    const int64_t stride = score_stride(stripes, tokens, grain);

    TCA_TRY(gather(stripes, (size_t)stride));
    return device->backend->interleave(device->queue, out, stripes->gathered, &cut, stride,
                                       (tokens + grain - 1) / grain);
}

enum tca_status stripes_pick(struct stripes *stripes, int32_t *picked_out, int32_t *count_out,
                             const int32_t *kept, const int32_t *count)
{
    const struct device *device = &stripes->parts.device;
    const struct shard *shard = stripes->parts.shard;
    const struct kernel_stripes cut = {
        .stripes = shard->stripes, .stripe = shard->stripe, .unit = shard->stripe_unit};

    return device->backend->pick(device->queue, picked_out, count_out, kept, count, &cut);
}

enum tca_status stripes_exchange(struct stripes *stripes, const uint16_t *out, const float *lse,
                                 int rows, struct stripe_share *share_out)
{
    const struct device *device = &stripes->parts.device;
    const struct shard *shard = stripes->parts.shard;
    struct comm_group *peers = stripes->parts.peers;
    const int share = share_of(shard, rows), first = share * shard->stripe;
    const size_t lses = (size_t)share * (size_t)shard->q_heads;
    const size_t values = lses * (size_t)stripes->parts.attention->head_dim;

    *share_out =
        (struct stripe_share){.first = first < rows ? first : rows, .attended = stripes->attended};
    share_out->rows = rows - share_out->first < share ? rows - share_out->first : share;
    TCA_TRY(peers->ops->all_to_all(peers, stripes->attended, out, values * sizeof(*out),
                                   device->queue));
    TCA_TRY(peers->ops->all_to_all(peers, stripes->lse, lse, lses * sizeof(*lse), device->queue));
    for (int stripe = 1; stripe < shard->stripes && share_out->rows > 0; stripe++)
        TCA_TRY(device->backend->attention_merge(device->queue, stripes->attended, stripes->lse,
                                                 stripes->attended + (size_t)stripe * values,
                                                 stripes->lse + (size_t)stripe * lses,
                                                 share_out->rows, stripes->parts.attention));
    return TCA_OK;
}
