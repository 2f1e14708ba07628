/* Attention over more elements than 32 bits count, in a file of its own:
 * it takes 6 GB of the GPU. */
#include "tests/kernels/sides.h"

/* Elements beyond 2^31, which the CPU would take too long for: 512 queries at once, as cuDNN takes
 * them, against 256 and 256, which it does not. */
static void long_documents_are_addressed(void **state)
{
    (void)state;
    enum { KV_HEADS = 20, DIM = 128, ROWS = 1000064, QUERIES = 512, PATTERN = 12641288 };
    const struct side *side = &sides[SIDE_CUDA];
    struct attention_shape shape = {KV_HEADS, KV_HEADS, DIM, 0.0883883476f};
    size_t elements = (size_t)KV_HEADS * DIM * ROWS, heads = (size_t)QUERIES * KV_HEADS;
    size_t bytes = heads * DIM * sizeof(uint16_t);
    uint64_t random = 41;
    uint16_t *q = new_bf16s(heads * DIM, 1, &random);
    uint16_t *pattern = new_bf16s(PATTERN, 2, &random);
    void *device_q = put(side, q, bytes);
    void *out[2] = {put(side, NULL, bytes), put(side, NULL, bytes)};
    uint16_t *kv;

    assert_int_equal(side->backend->alloc(0, elements * sizeof(*kv), (void **)&kv), TCA_OK);
    assert_int_equal(side->backend->upload(side->queue, kv, pattern, PATTERN * sizeof(*kv)),
                     TCA_OK);
    for (size_t made = PATTERN, more; made < elements; made += more) {
        more = elements - made < made ? elements - made : made;
        assert_int_equal(side->backend->copy(side->queue, kv + made, kv, more * sizeof(*kv)),
                         TCA_OK);
    }
    for (int pieces = 1; pieces <= 2; pieces++)
        for (int i = 0; i < pieces; i++) {
            int queries = QUERIES / pieces;
            struct attention_item item = {.first_query = i * queries,
                                          .queries = queries,
                                          .segments = 1,
                                          .segment = {{.k = kv,
                                                       .v = kv,
                                                       .head_stride = (int64_t)ROWS * DIM,
                                                       .rows = ROWS - QUERIES + (i + 1) * queries,
                                                       .causal = true}}};

            assert_int_equal(side->backend->attention(side->queue, out[pieces - 1], NULL, device_q,
                                                      &shape, &item, 1),
                             TCA_OK);
        }
    uint16_t *whole = take(side, out[0], bytes), *halves = take(side, out[1], bytes);
    assert_near_bf16(halves, whole, heads * DIM, 1e-4, "a million rows of 20 heads");
    free(whole);
    free(halves);
    side->backend->free(0, kv, elements * sizeof(*kv));
    drop(side, device_q, bytes);
    free(pattern);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_documents_are_addressed),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
