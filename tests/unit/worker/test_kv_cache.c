#include "tests/support/check.h"

#include "kernels/backend.h"
#include "worker/kv_cache.h"

#include <stdlib.h>

static const struct kv_shape shape = {.layers = 3, .kv_heads = 2, .head_dim = 16};
enum { TOKEN_BYTES = 3 * 2 * 2 * 16 * 2 };

static int allocations_left;

static enum tca_status counted_alloc(int device, size_t bytes, void **ptr_out)
{
    (void)device;
    if (allocations_left-- <= 0)
        return TCA_ERR_NO_MEMORY;
    *ptr_out = malloc(bytes);
    return *ptr_out == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
}

static void counted_free(int device, void *ptr, size_t bytes)
{
    (void)device;
    (void)bytes;
    free(ptr);
}

static const struct kernel_backend counted = {.alloc = counted_alloc, .free = counted_free};

static struct kv_cache make_cache(size_t budget_bytes)
{
    struct device device = {.backend = &counted};
    struct kv_cache cache;

    allocations_left = 100;
    kv_cache_init(&cache, &device, &shape, budget_bytes);
    return cache;
}

static void a_range_is_rounded_up_to_64_tokens(void **state)
{
    struct kv_cache cache = make_cache(1 << 20);
    struct kv_range range;

    (void)state;
    assert_int_equal(kv_cache_range_bytes(&shape, 1), 64 * TOKEN_BYTES);
    assert_int_equal(kv_cache_range_bytes(&shape, 64), 64 * TOKEN_BYTES);
    assert_int_equal(kv_cache_range_bytes(&shape, 65), 128 * TOKEN_BYTES);
    assert_int_equal(kv_cache_take(&cache, 65, &range), TCA_OK);
    assert_int_equal(range.capacity, 128);
    assert_int_equal(cache.used_bytes, 128 * TOKEN_BYTES);
    kv_cache_give_back(&cache, &range);
    assert_int_equal(cache.used_bytes, 0);
    assert_null(range.data);
    kv_cache_give_back(&cache, &range); /* a no-op */
}

static void the_budget_is_never_passed(void **state)
{
    struct kv_cache cache = make_cache(3 * 64 * TOKEN_BYTES - 1);
    struct kv_range first, second;

    (void)state;
    assert_int_equal(kv_cache_capacity(&cache), 128);
    assert_int_equal(kv_cache_take(&cache, 64, &first), TCA_OK);
    assert_int_equal(kv_cache_take(&cache, 65, &second), TCA_ERR_BUSY);
    assert_int_equal(kv_cache_take(&cache, 64, &second), TCA_OK);
    assert_int_equal(kv_cache_take(&cache, 1, &second), TCA_ERR_BUSY);
    kv_cache_give_back(&cache, &first);
    assert_int_equal(kv_cache_take(&cache, 1, &first), TCA_OK);
    kv_cache_give_back(&cache, &first);
    kv_cache_give_back(&cache, &second);
}

static void sizes_out_of_range_are_refused(void **state)
{
    struct kv_cache cache = make_cache(SIZE_MAX);
    struct kv_range range;

    (void)state;
    assert_int_equal(kv_cache_take(&cache, 0, &range), TCA_ERR_RANGE);
    assert_int_equal(kv_cache_take(&cache, -5, &range), TCA_ERR_RANGE);
    assert_int_equal(kv_cache_take(&cache, INT64_MAX, &range), TCA_ERR_RANGE);
    assert_int_equal(kv_cache_take(&cache, INT64_MAX / 64, &range), TCA_ERR_RANGE);
}

static void a_device_without_memory_leaves_the_account_as_it_was(void **state)
{
    struct kv_cache cache = make_cache(1 << 20);
    struct kv_range range = {0};

    (void)state;
    allocations_left = 0;
    assert_int_equal(kv_cache_take(&cache, 64, &range), TCA_ERR_NO_MEMORY);
    assert_int_equal(cache.used_bytes, 0);
    assert_null(range.data);
}

/* [layer][K, V][head][capacity][head_dim]: every element of every layer belongs to one place. */
static void layers_tile_the_range(void **state)
{
    struct kv_cache cache = make_cache(1 << 20);
    struct kv_range range;
    uint16_t *expected;

    (void)state;
    assert_int_equal(kv_cache_take(&cache, 64, &range), TCA_OK);
    expected = range.data;
    for (int layer = 0; layer < shape.layers; layer++) {
        struct kv_layer at = kv_range_layer(&range, &shape, layer);

        assert_int_equal(at.head_stride, 64 * shape.head_dim);
        assert_ptr_equal(at.k, expected);
        expected += shape.kv_heads * at.head_stride;
        assert_ptr_equal(at.v, expected);
        expected += shape.kv_heads * at.head_stride;
    }
    assert_int_equal((char *)expected - (char *)range.data, kv_cache_range_bytes(&shape, 64));
    kv_cache_give_back(&cache, &range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_is_rounded_up_to_64_tokens),
        cmocka_unit_test(the_budget_is_never_passed),
        cmocka_unit_test(sizes_out_of_range_are_refused),
        cmocka_unit_test(a_device_without_memory_leaves_the_account_as_it_was),
        cmocka_unit_test(layers_tile_the_range),
    };
    return cmocka_run_group_tests_name("kv_cache", tests, NULL, NULL);
}
