/* How a step's attention is cut into blocks of work for the GPU: pure arithmetic on the host.
 *
 * The query heads that share a KV head are rows of one matrix: row r is query r / group of head
 * r % group, so that keys and values are read once for all of them. A block of work is a tile of
 * rows of one KV head against a range of keys; the keys of all segments count as put end to end.
 * Where the tiles alone would not fill the GPU (few queries over many keys), the keys are split,
 * and a second kernel merges the partial sums. */
#ifndef KERNELS_CUDA_ATTENTION_PLAN_H
#define KERNELS_CUDA_ATTENTION_PLAN_H

#include "kernels/backend.h"

/* As many units as fit, with the tensors, into the 4 KiB of parameters that every launch has. */
enum { ATTENTION_KEY_TILE = 64, ATTENTION_UNITS_MAX = 18, ATTENTION_SPLITS_MAX = 128 };

/* Tile shapes that the kernels are compiled for, by rows. */
enum attention_tile { ATTENTION_TILE_16, ATTENTION_TILE_64, ATTENTION_TILE_128, ATTENTION_TILES };

struct attention_unit_segment {
    const uint16_t *k, *v;
    int64_t head_stride;
    const int64_t *head_offsets; /* device [kv_heads], or NULL */
    int64_t rows;
    const int32_t *rows_per_head; /* device [kv_heads], or NULL */
    bool causal;
};

/* One item's share of a launch: blocks first_block .. first_block + tiles * kv_heads * splits. */
struct attention_unit {
    struct attention_unit_segment segment[ATTENTION_SEGMENTS_MAX];
    int segments;
    int first_query;
    int queries;
    int first_block;
    int tiles;
    int splits;
    int64_t split_keys;    /* keys of a split, a multiple of the key tile */
    int64_t first_partial; /* row of the partial sums; used when splits > 1 */
};

/* Passed to the kernels by value, so that no copy has to run before them. */
struct attention_launch {
    enum attention_tile tile;
    int count;
    int blocks;
    int group; /* query heads a KV head */
    struct attention_shape shape;
    struct attention_unit unit[ATTENTION_UNITS_MAX];
};

#ifdef __cplusplus
extern "C" {
#endif

int attention_tile_rows(enum attention_tile tile);

/* The tile shape for an item of that many rows (queries * group). */
enum attention_tile attention_choose_tile(int64_t rows, int head_dim);

/* Begin a launch; then add units until one does not fit. */
void attention_launch_init(struct attention_launch *launch, enum attention_tile tile,
                           const struct attention_shape *shape);
/* False: the launch is full. */
bool attention_launch_add(struct attention_launch *launch, const struct attention_item *item);
/* Split keys so that about `blocks_wanted` blocks run, within partial_rows rows of partial sums. */
void attention_launch_split(struct attention_launch *launch, int blocks_wanted,
                            int64_t partial_rows);
bool attention_launch_has_splits(const struct attention_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
