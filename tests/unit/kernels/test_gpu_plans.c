/* How attention is cut for a GPU: every key once, within the room there is, and enough blocks. */

#include "tests/support/check.h"

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/sdpa_plan.h"

enum { MULTIPROCESSORS = 132 };

static struct attention_shape shape_of(int kv_heads, int group)
{
    return (struct attention_shape){
        .q_heads = kv_heads * group, .kv_heads = kv_heads, .head_dim = 128, .scale = 1.0f};
}

static void check_pack(int kv_heads, int group, int queries, int64_t keys)
{
    const struct attention_shape shape = shape_of(kv_heads, group);
    const int rows = queries * group;
    struct sdpa_pack pack;

    assert_true(sdpa_pack_init(&pack, &shape, queries, keys, MULTIPROCESSORS));
    assert_true(pack.plan_rows >= rows && pack.plan_rows >= SDPA_TILE_ROWS);
    assert_true(pack.plan_rows == SDPA_TILE_ROWS || pack.plan_rows < 2 * rows);
    assert_int_equal(pack.heads, kv_heads * pack.splits);
    assert_int_equal(pack.split_keys % SDPA_TILE_KEYS, 0);
    assert_true(pack.splits * pack.split_keys >= keys && pack.split_keys <= SDPA_KEYS_MOST);
    /* One round of blocks, unless a split of every head is more. */
    assert_true(pack.splits == 1 ||
                pack.heads * (pack.plan_rows / SDPA_TILE_ROWS) <= MULTIPROCESSORS);
}

static void packed_queries_fill_tiles_and_cover_the_keys(void **state)
{
    (void)state;
    for (int kv_heads = 1; kv_heads <= 64; kv_heads *= 2)
        for (int group = 1; group <= 8; group++)
            for (int queries = (SDPA_PACK_ROWS_LEAST + group - 1) / group;
                 queries * group <= SDPA_PACK_ROWS_MOST; queries += 37) {
                check_pack(kv_heads, group, queries, SDPA_PACK_KEYS_LEAST);
                check_pack(kv_heads, group, queries, SDPA_PACK_KEYS_LEAST + SDPA_TILE_KEYS);
                check_pack(kv_heads, group, queries, SDPA_KEYS_MOST);
            }
}

static void few_rows_many_rows_and_too_many_keys_are_not_packed(void **state)
{
    const struct attention_shape shape = shape_of(8, 4), wide = shape_of(64, 1);
    struct sdpa_pack pack;

    (void)state;
    assert_false(sdpa_pack_init(&pack, &shape, 15, 131072, MULTIPROCESSORS));
    assert_true(sdpa_pack_init(&pack, &shape, 16, 131072, MULTIPROCESSORS));
    assert_true(sdpa_pack_init(&pack, &shape, 1024, 131072, MULTIPROCESSORS));
    assert_false(sdpa_pack_init(&pack, &shape, 1025, 131072, MULTIPROCESSORS));
    assert_false(sdpa_pack_init(&pack, &wide, 1000, SDPA_KEYS_MOST + 1, MULTIPROCESSORS));
}

static void check_split(int kv_heads, int group, int queries, int64_t keys, int64_t partial_rows)
{
    const struct attention_shape shape = shape_of(kv_heads, group);
    const int64_t rows = (int64_t)queries * group;
    const struct attention_item item = {
        .queries = queries, .segments = 1, .segment = {{.rows = keys}}};
    struct attention_launch launch;
    const struct attention_unit *unit = &launch.unit[0];

    attention_launch_init(&launch, attention_choose_tile(rows, shape.head_dim), &shape);
    assert_true(attention_launch_add(&launch, &item));
    attention_launch_split(&launch, 2 * MULTIPROCESSORS, partial_rows);
    assert_true(unit->tiles * attention_tile_rows(launch.tile) >= rows);
    assert_true(unit->splits >= 1 && unit->splits <= ATTENTION_SPLITS_MAX);
    assert_true(unit->splits * unit->split_keys >= keys);
    assert_int_equal(unit->split_keys % ATTENTION_KEY_TILE, 0);
    assert_int_equal(launch.blocks, unit->tiles * kv_heads * unit->splits);
    assert_int_equal(attention_launch_has_splits(&launch), unit->splits > 1);
    if (unit->splits > 1)
        assert_true((int64_t)unit->splits * unit->tiles * kv_heads *
                        attention_tile_rows(launch.tile) <=
                    partial_rows);
}

static void few_tiles_are_split_by_keys_within_the_room(void **state)
{
    static const int queries[] = {1, 2, 4, 16, 17, 64, 100, 511};
    static const int64_t keys[] = {1, 64, 255, 257, 4096, 131072, 1000003};

    (void)state;
    for (size_t q = 0; q < sizeof(queries) / sizeof(queries[0]); q++)
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            check_split(8, 4, queries[q], keys[k], 150000);
            check_split(1, 3, queries[q], keys[k], 1000);
            check_split(4, 2, queries[q], keys[k], 0);
        }
}

static void a_single_answer_over_a_document_fills_the_gpu(void **state)
{
    const struct attention_shape shape = shape_of(8, 4);
    const struct attention_item item = {.queries = 1, .segments = 1, .segment = {{.rows = 131072}}};
    struct attention_launch launch;

    (void)state;
    attention_launch_init(&launch, attention_choose_tile(4, shape.head_dim), &shape);
    assert_true(attention_launch_add(&launch, &item));
    attention_launch_split(&launch, 2 * MULTIPROCESSORS, 150000);
    assert_int_equal(launch.blocks, 2 * MULTIPROCESSORS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_queries_fill_tiles_and_cover_the_keys),
        cmocka_unit_test(few_rows_many_rows_and_too_many_keys_are_not_packed),
        cmocka_unit_test(few_tiles_are_split_by_keys_within_the_room),
        cmocka_unit_test(a_single_answer_over_a_document_fills_the_gpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
