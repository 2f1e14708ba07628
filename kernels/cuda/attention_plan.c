#include "kernels/cuda/attention_plan.h"

enum { SPLIT_KEYS_LEAST = 256, WIDE_HEAD_DIM = 128 };

int attention_tile_rows(enum attention_tile tile)
{
    static const int rows[ATTENTION_TILES] = {16, 64, 128};

    return rows[tile];
}

/* Heads wider than WIDE_HEAD_DIM leave no registers for the largest tile. */
enum attention_tile attention_choose_tile(int64_t rows, int head_dim)
{
    if (rows <= attention_tile_rows(ATTENTION_TILE_16))
        return ATTENTION_TILE_16;
    if (rows <= attention_tile_rows(ATTENTION_TILE_64) || head_dim > WIDE_HEAD_DIM)
        return ATTENTION_TILE_64;
    return ATTENTION_TILE_128;
}

void attention_launch_init(struct attention_launch *launch, enum attention_tile tile,
                           const struct attention_shape *shape)
{
    launch->tile = tile;
    launch->count = 0;
    launch->blocks = 0;
    launch->group = shape->q_heads / shape->kv_heads;
    launch->shape = *shape;
}

bool attention_launch_add(struct attention_launch *launch, const struct attention_item *item)
{
    struct attention_unit *unit = &launch->unit[launch->count];
    int tile_rows = attention_tile_rows(launch->tile);

    if (launch->count == ATTENTION_UNITS_MAX)
        return false;
    *unit = (struct attention_unit){.segments = item->segments,
                                    .first_query = item->first_query,
                                    .queries = item->queries,
                                    .first_block = launch->blocks,
                                    .splits = 1};
    for (int s = 0; s < item->segments; s++) {
        const struct attention_segment *from = &item->segment[s];

        unit->segment[s] = (struct attention_unit_segment){.k = from->k,
                                                           .v = from->v,
                                                           .head_stride = from->head_stride,
                                                           .head_offsets = from->head_offsets,
                                                           .rows = from->rows,
                                                           .rows_per_head = from->rows_per_head,
                                                           .causal = from->causal};
    }
    unit->tiles = (int)(((int64_t)item->queries * launch->group + tile_rows - 1) / tile_rows);
    launch->blocks += unit->tiles * launch->shape.kv_heads;
    launch->count++;
    return true;
}

static int64_t all_keys(const struct attention_unit *unit)
{
    int64_t keys = 0;

    for (int s = 0; s < unit->segments; s++)
        keys += unit->segment[s].rows;
    return keys;
}

static int64_t divide_up(int64_t value, int64_t by)
{
    return (value + by - 1) / by;
}

void attention_launch_split(struct attention_launch *launch, int blocks_wanted,
                            int64_t partial_rows)
{
    int tile_rows = attention_tile_rows(launch->tile);
    int64_t wanted = launch->blocks == 0 ? 1 : blocks_wanted / launch->blocks;
    int64_t next_partial = 0;
    int next_block = 0;

    for (int i = 0; i < launch->count; i++) {
        struct attention_unit *unit = &launch->unit[i];
        int64_t keys = all_keys(unit);
        int64_t rows = (int64_t)unit->tiles * launch->shape.kv_heads * tile_rows;
        int64_t splits = wanted;

        if (splits > divide_up(keys, SPLIT_KEYS_LEAST))
            splits = divide_up(keys, SPLIT_KEYS_LEAST);
        if (splits > ATTENTION_SPLITS_MAX)
            splits = ATTENTION_SPLITS_MAX;
        if (rows > 0 && splits > (partial_rows - next_partial) / rows)
            splits = (partial_rows - next_partial) / rows;
        unit->first_block = next_block;
        unit->splits = splits > 1 ? (int)splits : 1;
        unit->split_keys =
            divide_up(divide_up(keys, unit->splits), ATTENTION_KEY_TILE) * ATTENTION_KEY_TILE;
        if (unit->splits > 1) {
            unit->first_partial = next_partial;
            next_partial += unit->splits * rows;
        }
        next_block += unit->tiles * launch->shape.kv_heads * unit->splits;
    }
    launch->blocks = next_block;
}

bool attention_launch_has_splits(const struct attention_launch *launch)
{
    for (int i = 0; i < launch->count; i++)
        if (launch->unit[i].splits > 1)
            return true;
    return false;
}
