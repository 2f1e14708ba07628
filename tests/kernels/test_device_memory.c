/* A GPU's memory: large allocations fail only where less is free than they take, whatever was freed
 * before, and what work still reads is not taken away. */
#include "tests/kernels/sides.h"

enum { SHARES = 16, MIB = 1 << 20, VALUES = 1000, COPIES = 20 };

/* The driver keeps some for itself, of page tables and of kernels that are loaded at their first
 * use. */
static const size_t driver_bytes = (size_t)64 * MIB;

static struct side gpu;

static int open_group(void **state)
{
    (void)state;
    gpu.backend = kernel_backend_cuda(0, NULL);
    return gpu.backend->queue_create(0, 1, &gpu.queue) == TCA_OK ? 0 : -1;
}

static int close_group(void **state)
{
    (void)state;
    gpu.backend->queue_destroy(gpu.queue);
    return 0;
}

static size_t free_bytes(void)
{
    size_t total, left;

    assert_int_equal(gpu.backend->memory(0, &total, &left), TCA_OK);
    assert_true(left <= total);
    return left;
}

static void assert_nothing_is_lost(size_t before)
{
    const size_t after = free_bytes();

    if (after + driver_bytes < before || before + driver_bytes < after)
        fail_msg("%zu bytes were free, now %zu are", before, after);
}

static char *allocate(size_t bytes)
{
    void *block;

    assert_int_equal(gpu.backend->alloc(0, bytes, &block), TCA_OK);
    assert_int_equal((uintptr_t)block % 64, 0);
    return block;
}

/* Its first and its last floats are `mark`, and on, the rest is 0. */
static void fill(char *block, size_t bytes, float mark)
{
    float values[VALUES];

    for (int i = 0; i < VALUES; i++)
        values[i] = mark + (float)i;
    assert_int_equal(gpu.backend->zero(gpu.queue, block, bytes), TCA_OK);
    assert_int_equal(gpu.backend->upload(gpu.queue, block, values, sizeof(values)), TCA_OK);
    assert_int_equal(
        gpu.backend->copy(gpu.queue, block + bytes - sizeof(values), block, sizeof(values)),
        TCA_OK);
}

/* A kernel reads both ends of the block, as if they were two stripes' values. */
static void assert_filled(const char *block, size_t bytes, float mark)
{
    const struct kernel_stripes cut = {.stripes = 2, .unit = VALUES};
    const size_t distance = (bytes - VALUES * sizeof(float)) / sizeof(float);
    void *out = put(&gpu, NULL, 2 * VALUES * sizeof(float));
    float *host;

    assert_int_equal(gpu.backend->interleave(gpu.queue, out, (const float *)(const void *)block,
                                             &cut, (int64_t)distance, (int64_t)2 * VALUES),
                     TCA_OK);
    host = take(&gpu, out, 2 * VALUES * sizeof(float));
    for (int i = 0; i < 2 * VALUES; i++)
        assert_true(host[i] == mark + (float)(i % VALUES));
    free(host);
}

/* Of 16 equal shares, 14 are taken, every other one is given back, and half of all memory is asked
 * for: more than any hole. */
static void holes_serve_as_one_block(void **state)
{
    const size_t before = free_bytes(), share = before / SHARES / 4 * 4;
    char *block[SHARES - 2], *large;

    (void)state;
    for (int i = 0; i < SHARES - 2; i++) {
        block[i] = allocate(share);
        fill(block[i], share, (float)(1000 * i));
    }
    for (int i = 0; i < SHARES - 2; i += 2)
        gpu.backend->free(0, block[i], share);
    large = allocate(8 * share);
    fill(large, 8 * share, -1e6F);
    for (int i = 1; i < SHARES - 2; i += 2) {
        assert_filled(block[i], share, (float)(1000 * i));
        gpu.backend->free(0, block[i], share);
    }
    assert_filled(large, 8 * share, -1e6F);
    gpu.backend->free(0, large, 8 * share);
    assert_nothing_is_lost(before);
}

/* Sizes around the border between small and large allocations, and of no round number. */
static void every_size_is_given_back(void **state)
{
    static const size_t sizes[] = {
        VALUES * sizeof(float), MIB,           4 * MIB - 4, 4 * MIB, 4 * MIB + 4, 64 * MIB,
        64 * MIB + 4,           200 * MIB + 12};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    const size_t before = free_bytes();
    char *block[SIZES];

    (void)state;
    for (int i = 0; i < SIZES; i++) {
        block[i] = allocate(sizes[i]);
        fill(block[i], sizes[i], (float)(1000 * i));
    }
    assert_true(free_bytes() < before);
    for (int i = 0; i < SIZES; i++)
        assert_filled(block[i], sizes[i], (float)(1000 * i));
    for (int i = SIZES; i-- > 0;)
        gpu.backend->free(0, block[i], sizes[i]);
    assert_nothing_is_lost(before);
}

static void too_much_is_refused_and_nothing_is_kept(void **state)
{
    const size_t before = free_bytes();
    void *block = NULL;
    char *small;

    (void)state;
    assert_int_equal(gpu.backend->alloc(0, before + (size_t)1024 * MIB, &block), TCA_ERR_NO_MEMORY);
    assert_null(block);
    assert_nothing_is_lost(before);
    small = allocate(16 * MIB);
    fill(small, 16 * MIB, 5);
    assert_filled(small, 16 * MIB, 5);
    gpu.backend->free(0, small, 16 * MIB);
}

/* Freed while copies that read it are still to run: they take tens of milliseconds. */
static void what_is_freed_was_read_first(void **state)
{
    const size_t bytes = free_bytes() / 8 / 4 * 4;
    char *from = allocate(bytes), *to = allocate(bytes);

    (void)state;
    fill(from, bytes, 3);
    fill(to, bytes, 7);
    assert_int_equal(gpu.backend->queue_wait(gpu.queue), TCA_OK);
    for (int i = 0; i < COPIES; i++)
        assert_int_equal(gpu.backend->copy(gpu.queue, to, from, bytes), TCA_OK);
    gpu.backend->free(0, from, bytes);
    assert_int_equal(gpu.backend->queue_wait(gpu.queue), TCA_OK);
    assert_filled(to, bytes, 3);
    gpu.backend->free(0, to, bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_given_back),
        cmocka_unit_test(holes_serve_as_one_block),
        cmocka_unit_test(too_much_is_refused_and_nothing_is_kept),
        cmocka_unit_test(what_is_freed_was_read_first),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_group, close_group);
}
