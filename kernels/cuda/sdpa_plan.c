#include "kernels/cuda/sdpa_plan.h"

enum { SPLITS_MOST = 64 };

bool sdpa_pack_init(struct sdpa_pack *pack, const struct attention_shape *shape, int queries,
                    int64_t keys, int multiprocessors)
{
    const int64_t rows = (int64_t)queries * (shape->q_heads / shape->kv_heads);
    int plan_rows = SDPA_TILE_ROWS;
    int splits;
    int64_t tiles;

    if (rows < SDPA_PACK_ROWS_LEAST || rows > SDPA_PACK_ROWS_MOST)
        return false;
    while (plan_rows < rows)
        plan_rows *= 2;
    splits = multiprocessors / (shape->kv_heads * (plan_rows / SDPA_TILE_ROWS));
    splits = splits < 1 ? 1 : splits > SPLITS_MOST ? SPLITS_MOST : splits;
    tiles = (keys + SDPA_TILE_KEYS - 1) / SDPA_TILE_KEYS;
    *pack = (struct sdpa_pack){.shape = *shape,
                               .queries = queries,
                               .splits = splits,
                               .heads = shape->kv_heads * splits,
                               .plan_rows = plan_rows,
                               .keys = keys,
                               .split_keys = (tiles + splits - 1) / splits * SDPA_TILE_KEYS};
    return pack->split_keys <= SDPA_KEYS_MOST;
}
