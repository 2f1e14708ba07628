/* The operations of ranks that share a KV head: CUDA against the CPU, to the bit. */
#include "tests/kernels/sides.h"

struct stripes_case {
    const char *what;
    int64_t total; /* of the sequence: values, tokens */
    int stripes;
    int64_t unit;
    int step; /* about one token of so many is kept */
};

static const struct stripes_case cases[] = {
    {"nothing", 0, 2, 64, 1},
    {"one value", 1, 3, 64, 1},
    {"less than a unit", 63, 2, 64, 1},
    {"units of one", 1000, 3, 1, 1},
    {"units of blocks", 131, 2, 64, 2},
    {"short of a warp", 31, 1, 7, 1},
    {"a block of threads", 1024, 2, 256, 1},
    {"a value more", 1025, 2, 256, 1},
    {"a slice for every block of the cluster", 8 * 1024, 5, 64, 1},
    {"a value more than that", 8 * 1024 + 1, 5, 64, 1},
    {"few of many", 100003, 8, 4096, 97},
    {"many", 400000, 3, 4096, 4},
    {"all of a million", 1 << 20, 2, 4096, 1},
    {"a million and an odd end", (1 << 20) + 777, 7, 4096, 33},
    {"one unit", 5000, 4, 1 << 20, 3},
};

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

/* Values of the stripe that has most of them, and some that are not read. */
static int64_t stride_of(const struct stripes_case *c)
{
    const int64_t round = c->unit * c->stripes;

    return (c->total + round - 1) / round * c->unit + 3;
}

static float *run_interleave(const struct side *side, const struct stripes_case *c,
                             const float *gathered)
{
    const struct kernel_stripes cut = {
        .stripes = c->stripes, .stripe = c->stripes - 1, .unit = c->unit};
    const size_t bytes = (size_t)(stride_of(c) * c->stripes) * sizeof(float);
    const size_t out_bytes = (size_t)c->total * sizeof(float);
    void *device = put(side, gathered, bytes), *out = put(side, NULL, out_bytes);

    assert_int_equal(
        side->backend->interleave(side->queue, out, device, &cut, stride_of(c), c->total), TCA_OK);
    drop(side, device, bytes);
    return take(side, out, out_bytes);
}

static void gathered_values_are_put_in_the_same_order(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const struct stripes_case *c = &cases[i];
        uint64_t random = 5;
        float *gathered = new_floats((size_t)(stride_of(c) * c->stripes), &random);
        float *want = run_interleave(&sides[SIDE_CPU], c, gathered);
        float *got = run_interleave(&sides[SIDE_CUDA], c, gathered);

        if (memcmp(want, got, (size_t)c->total * sizeof(*want)) != 0)
            fail_msg("%s: another order", c->what);
        free(got);
        free(want);
        free(gathered);
    }
}

/* Rising, about every step-th token, with runs and gaps. */
static int32_t *keep_some(const struct stripes_case *c, int32_t *count_out)
{
    int32_t *kept = new_array((size_t)c->total, sizeof(*kept));
    uint64_t random = 11;

    *count_out = 0;
    for (int32_t token = 0; token < c->total; token++)
        if (random_bits(&random) % (uint64_t)c->step == 0)
            kept[(*count_out)++] = token;
    return kept;
}

/* The picked rows, of which there are *found_out; behind them nothing is written. */
static int32_t *run_pick(const struct side *side, const struct stripes_case *c, int stripe,
                         const int32_t *kept, int32_t count, int32_t *found_out)
{
    const struct kernel_stripes cut = {.stripes = c->stripes, .stripe = stripe, .unit = c->unit};
    const size_t bytes = (size_t)count * sizeof(*kept);
    void *device = put(side, kept, bytes), *device_count = put(side, &count, sizeof(count));
    void *picked = put(side, NULL, bytes), *found = put(side, NULL, sizeof(*found_out));

    assert_int_equal(side->backend->pick(side->queue, picked, found, device, device_count, &cut),
                     TCA_OK);
    drop(side, device, bytes);
    drop(side, device_count, sizeof(count));
    int32_t *taken = take(side, found, sizeof(*found_out));
    *found_out = *taken;
    free(taken);
    return take(side, picked, bytes);
}

static void every_stripe_picks_the_same_rows(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const struct stripes_case *c = &cases[i];
        int32_t count, all = 0;
        int32_t *kept = keep_some(c, &count);

        for (int stripe = 0; stripe < c->stripes; stripe++) {
            int32_t wanted, found;
            int32_t *want = run_pick(&sides[SIDE_CPU], c, stripe, kept, count, &wanted);
            int32_t *got = run_pick(&sides[SIDE_CUDA], c, stripe, kept, count, &found);

            if (found != wanted || memcmp(want, got, (size_t)count * sizeof(*want)) != 0)
                fail_msg("%s, stripe %d: other rows are picked", c->what, stripe);
            all += found;
            free(got);
            free(want);
        }
        assert_int_equal(all, count);
        free(kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathered_values_are_put_in_the_same_order),
        cmocka_unit_test(every_stripe_picks_the_same_rows),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
