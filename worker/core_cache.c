#include "worker/core_cache.h"

#include "base/min.h"

#include <stdlib.h>
#include <string.h>

/* Matrix kernels read whole tiles of rows. */
enum { ROOM_GRANULE = 128, TABLE_ALIGNMENT = 64 };

static size_t heads_of(const struct core_cache *core)
{
    return (size_t)core->shape.layers * (size_t)core->shape.kv_heads;
}

/* Rows that a head with this budget may keep in a room of its own; 0: it reads in place. */
static int64_t room_of(const struct core_cache *core, int64_t budget)
{
    const int64_t tokens = core->budgets.tokens;
    const int64_t most = core->options.copies_all ? tokens : tokens / 2;
    const int64_t admitted = core->options.room_rows;

    if (budget > most)
        return core->options.copies_all ? tokens : 0;
    if (core->options.tau == 0.0)
        return budget;
    return admitted > 0 && admitted < most ? admitted : most;
}

/* Of them, those that may be here: no more than are held, but at least one, for 0 is no room. */
static int64_t held_room(const struct core_cache *core, int64_t room)
{
    const int64_t held = core->options.held_tokens;

    return min_i64(room, held > 0 ? held : 1);
}

static void lay_rooms(struct core_cache *core)
{
    for (size_t at = 0; at < heads_of(core); at++) {
        core->room[at] = room_of(core, core->budgets.rows[at]);
        core->budgets.rows[at] = min_i64(core->budgets.rows[at], core->room[at]);
        if (core->room[at] > 0)
            continue;
        core->budgets.rows[at] = 0;
        core->whole_rows[at] = (int32_t)core->options.held_tokens;
    }
}

static int64_t rounded_room(int64_t rows)
{
    return (rows + ROOM_GRANULE - 1) / ROOM_GRANULE * ROOM_GRANULE;
}

static size_t aligned(size_t bytes)
{
    return (bytes + TABLE_ALIGNMENT - 1) / TABLE_ALIGNMENT * TABLE_ALIGNMENT;
}

static void *place(char *base, size_t used)
{
    return base == NULL ? NULL : base + used;
}

/* Sets every pointer into the memory at `base` (NULL: only counts) and the host's copy of the
 * offsets; returns the bytes. */
static size_t lay_memory(struct core_cache *core, char *base, int64_t *offsets)
{
    const int heads = core->shape.kv_heads;
    const size_t all = heads_of(core);
    size_t used = 0;

    for (int i = 0; i < core->shape.layers; i++) {
        struct core_layer *layer = &core->layer[i];
        int64_t rows = 0;

        *layer = (struct core_layer){0};
        for (int head = 0; head < heads; head++) {
            const int64_t room = held_room(core, core->room[i * heads + head]);

            offsets[i * heads + head] = rows * core->shape.head_dim;
            rows += rounded_room(room);
            layer->most_rows = room > layer->most_rows ? room : layer->most_rows;
            layer->has_whole |= room == 0;
        }
        layer->k = place(base, used);
        if (base != NULL)
            layer->v = layer->k + rows * core->shape.head_dim;
        used += 2 * (size_t)rows * (size_t)core->shape.head_dim * sizeof(uint16_t);
    }
    used = aligned(used);
    core->offsets = place(base, used);
    used += aligned(all * sizeof(*core->offsets));
    core->counts = place(base, used);
    used += aligned(all * sizeof(*core->counts));
    core->whole = place(base, used);
    used += aligned(all * sizeof(*core->whole));
    core->masses = place(base, used);
    used += aligned(all * 2 * sizeof(*core->masses));
    core->queries = NULL;
    if (core->options.refresh_every > 0) {
        core->queries = place(base, used);
        used += (size_t)core->shape.layers * CORE_CACHE_QUERIES * (size_t)core->options.q_heads *
                (size_t)core->shape.head_dim * sizeof(uint16_t);
    }
    return used;
}

static enum tca_status take_memory(struct kv_cache *kv, struct core_cache *core)
{
    const struct device *device = &kv->device;
    const size_t heads = heads_of(core);
    int64_t *offsets = malloc(heads * sizeof(*offsets));
    enum tca_status status = TCA_ERR_NO_MEMORY;

    if (offsets == NULL)
        return status;
    core->bytes = lay_memory(core, NULL, offsets);
    status = kv_cache_take_bytes(kv, core->bytes, &core->memory);
    if (status == TCA_OK) {
        lay_memory(core, core->memory, offsets);
        status = device->backend->upload(device->queue, core->offsets, offsets,
                                         heads * sizeof(*offsets));
    }
    if (status == TCA_OK)
        status = device->backend->upload(device->queue, core->whole, core->whole_rows,
                                         heads * sizeof(*core->whole_rows));
    if (status == TCA_OK)
        status = device->backend->zero(device->queue, core->counts, heads * sizeof(*core->counts));
    free(offsets);
    return status;
}

enum tca_status core_cache_open(struct kv_cache *kv, struct head_budgets *budgets,
                                const struct core_cache_options *options,
                                struct core_cache **core_out)
{
    struct core_cache *core = calloc(1, sizeof(*core));
    enum tca_status status = TCA_ERR_NO_MEMORY;
    size_t heads;

    if (core == NULL) {
        head_budgets_deinit(budgets);
        return TCA_ERR_NO_MEMORY;
    }
    core->shape = kv->shape;
    core->options = *options;
    core->budgets = *budgets;
    *budgets = (struct head_budgets){0};
    heads = heads_of(core);
    core->layer = calloc((size_t)core->shape.layers, sizeof(*core->layer));
    core->room = calloc(heads, sizeof(*core->room));
    core->whole_rows = calloc(heads, sizeof(*core->whole_rows));
    if (options->has_bins)
        core->bins = calloc(heads * CORE_CACHE_BINS, sizeof(*core->bins));
    if (core->layer != NULL && core->room != NULL && core->whole_rows != NULL &&
        (core->bins != NULL || !options->has_bins)) {
        lay_rooms(core);
        status = take_memory(kv, core);
    }
    if (status != TCA_OK) {
        core_cache_close(kv, core);
        return status;
    }
    *core_out = core;
    return TCA_OK;
}

void core_cache_close(struct kv_cache *kv, struct core_cache *core)
{
    if (core == NULL)
        return;
    kv_cache_give_back_bytes(kv, core->memory, core->bytes);
    head_budgets_deinit(&core->budgets);
    free(core->layer);
    free(core->room);
    free(core->whole_rows);
    free(core->bins);
    free(core);
}

int core_cache_segments(const struct core_cache *core, int layer, const struct kv_layer *base,
                        struct attention_segment *segments_out)
{
    const int first = layer * core->shape.kv_heads;
    const struct core_layer *rows = &core->layer[layer];
    int segments = 0;

    if (rows->has_whole)
        segments_out[segments++] = (struct attention_segment){.k = base->k,
                                                              .v = base->v,
                                                              .head_stride = base->head_stride,
                                                              .rows = core->options.held_tokens,
                                                              .rows_per_head = core->whole + first};
    if (rows->most_rows > 0)
        segments_out[segments++] = (struct attention_segment){.k = rows->k,
                                                              .v = rows->v,
                                                              .head_offsets = core->offsets + first,
                                                              .rows = rows->most_rows,
                                                              .rows_per_head = core->counts + first,
                                                              .has_tail = true};
    return segments;
}

struct kv_copy core_cache_copy(const struct core_cache *core, int layer)
{
    return (struct kv_copy){.k = core->layer[layer].k,
                            .v = core->layer[layer].v,
                            .head_offsets = core->offsets + layer * core->shape.kv_heads,
                            .rows = rounded_room(core->layer[layer].most_rows)};
}

enum tca_status core_cache_resize(struct core_cache *core, struct kernel_queue *queue,
                                  const struct kernel_backend *backend, int layer, int head,
                                  int64_t rows)
{
    const int at = layer * core->shape.kv_heads + head;
    const int32_t none = 0;

    if (rows <= core->budgets.tokens / 2 || core->options.copies_all) {
        core->budgets.rows[at] = min_i64(rows, core->room[at]);
        return TCA_OK;
    }
    core->budgets.rows[at] = 0;
    core->whole_rows[at] = (int32_t)core->options.held_tokens;
    core->layer[layer].has_whole = true;
    TCA_TRY(backend->upload(queue, core->whole + at, &core->whole_rows[at], sizeof(int32_t)));
    return backend->upload(queue, core->counts + at, &none, sizeof(none));
}
