/* TCA's operations, each on its own: CUDA against the CPU. */
#include "tests/kernels/tca_sides.h"

static const struct tca_case cases[] = {
    {"one token", 1, 1, 64, 1, 1, 1},
    {"one block", 2, 1, 64, 5, 2, 64},
    {"one block and a token", 1, 2, 64, 9, 3, 65},
    {"short of a block", 1, 3, 64, 17, 16, 63},
    {"one tile", 1, 1, 128, 8, 8, 128},
    {"grouped by 1", 3, 1, 64, 64, 16, 1000},
    {"grouped by 2", 4, 2, 64, 64, 16, 1025},
    {"grouped by 3", 3, 3, 64, 40, 16, 511},
    {"grouped by 4", 2, 4, 128, 64, 16, 130},
    {"few rows", 2, 4, 64, 16, 2, 2100},
    {"an odd head size", 2, 2, 40, 33, 5, 333},
    {"between the compiled head sizes", 2, 2, 96, 33, 9, 400},
    {"the largest head", 1, 2, 256, 20, 20, 200},
    {"several runs of the largest head", 2, 4, 256, 50, 50, 3000},
    {"the smallest head", 2, 1, 8, 20, 9, 200},
    {"128 rows", 2, 2, 128, 64, 64, 1999},
    {"129 rows", 1, 3, 128, 43, 43, 2900},
    {"256 rows", 2, 4, 128, 128, 64, 5003},
    {"256 rows, heads of 64", 2, 4, 64, 128, 64, 9001},
    {"320 rows", 2, 4, 64, 90, 80, 1100},
    {"320 rows, heads of 128", 2, 4, 128, 90, 80, 4097},
    {"nothing earlier", 2, 2, 64, 16, 4, 0},
};

enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static float *run_block_scores(const struct side *side, const struct tca_tensors *t,
                               enum tca_layout layout)
{
    size_t bytes =
        (size_t)(t->count * t->shape.q_heads * select_blocks(t->earlier.rows)) * sizeof(float);
    int32_t observers[TCA_OBSERVERS_MOST];
    struct tca_device d;
    void *scores = put(side, NULL, bytes);

    memcpy(observers, t->observers, sizeof(observers));
    tca_put(side, t, layout, &d);
    assert_int_equal(side->backend->block_scores(side->queue, scores, d.q, &t->shape, observers,
                                                 t->count, &d.earlier),
                     TCA_OK);
    memset(observers, 0xff, sizeof(observers)); /* it may be reused at once */
    float *result = take(side, scores, bytes);
    tca_drop(side, &d);
    return result;
}

static float *run_token_scores(const struct side *side, const struct tca_tensors *t,
                               enum tca_layout layout, const float *lse)
{
    size_t bytes = (size_t)(t->shape.kv_heads * t->earlier.rows) * sizeof(float);
    size_t lse_bytes = (size_t)(t->count * t->shape.q_heads) * sizeof(float);
    void *device_lse = put(side, lse, lse_bytes);
    void *scores = put(side, NULL, bytes);
    struct tca_device d;

    tca_put(side, t, layout, &d);
    assert_int_equal(side->backend->token_scores(side->queue, scores, d.q, device_lse, &t->shape,
                                                 t->observers, t->count, &d.earlier),
                     TCA_OK);
    float *result = take(side, scores, bytes);
    drop(side, device_lse, lse_bytes);
    tca_drop(side, &d);
    return result;
}

static void block_scores_agree(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int layout = TCA_BY_STRIDE; layout <= TCA_RAGGED; layout++) {
            struct tca_tensors t;

            tca_tensors_init(&t, &cases[i]);
            float *want = run_block_scores(&sides[SIDE_CPU], &t, (enum tca_layout)layout);
            float *got = run_block_scores(&sides[SIDE_CUDA], &t, (enum tca_layout)layout);
            assert_near_or_infinite(
                want, got, (size_t)(t.count * t.shape.q_heads * select_blocks(t.earlier.rows)),
                5e-5, 5e-6, cases[i].what);
            free(want);
            free(got);
            tca_tensors_deinit(&t);
        }
}

static void token_scores_agree(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int layout = TCA_BY_STRIDE; layout <= TCA_RAGGED; layout++) {
            struct tca_tensors t;
            uint64_t random = 3;

            tca_tensors_init(&t, &cases[i]);
            float *lse = new_floats((size_t)(t.count * t.shape.q_heads), &random);
            for (int j = 0; j < t.count * t.shape.q_heads; j++)
                lse[j] = j % 7 == 3 ? -INFINITY : 12 + 6 * lse[j];
            float *want = run_token_scores(&sides[SIDE_CPU], &t, (enum tca_layout)layout, lse);
            float *got = run_token_scores(&sides[SIDE_CUDA], &t, (enum tca_layout)layout, lse);
            assert_near_or_infinite(want, got, (size_t)(t.shape.kv_heads * t.earlier.rows), 1e-12,
                                    1e-4, cases[i].what);
            free(want);
            free(got);
            free(lse);
            tca_tensors_deinit(&t);
        }
}

/* Scores as block_scores gives them, and of some observers none, of some blocks none. */
static float *new_scores(int count, int q_heads, int64_t blocks, uint64_t *random)
{
    float *scores = new_floats((size_t)(count * q_heads * blocks), random);

    for (int row = 0; row < count * q_heads; row++)
        for (int64_t j = 0; j < blocks; j++) {
            float *score = scores + row * blocks + j;

            *score = row % 11 == 5 || j % 13 == 7 ? -INFINITY : 30 * *score;
        }
    return scores;
}

static void lse_and_masses_agree(void **state)
{
    (void)state;
    static const int shapes[][4] = {/* count, q_heads, kv_heads, blocks */
                                    {1, 1, 1, 1},     {2, 4, 2, 3},      {16, 9, 3, 129},
                                    {64, 8, 2, 1000}, {5, 32, 8, 16384}, {512, 8, 8, 33}};
    enum { QUERIES = 700 };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        int count = shapes[i][0], q_heads = shapes[i][1], blocks = shapes[i][3];
        struct attention_shape shape = {.q_heads = q_heads, .kv_heads = shapes[i][2]};
        size_t rows = (size_t)(count * q_heads);
        size_t score_bytes = rows * (size_t)blocks * sizeof(float);
        size_t mass_bytes = (size_t)(shape.kv_heads * blocks) * sizeof(float);
        size_t own_bytes = (size_t)(QUERIES * q_heads) * sizeof(float);
        uint64_t random = 17;
        float *scores = new_scores(count, q_heads, blocks, &random);
        float *own = new_floats((size_t)(QUERIES * q_heads), &random);
        float *lse[SIDES], *masses[SIDES];
        int32_t observers[512];

        for (int j = 0; j < QUERIES * q_heads; j++)
            own[j] = j % 5 == 2 ? -INFINITY : 20 * own[j];
        for (int j = 0; j < count; j++)
            observers[j] = (j * 37 + 5) % QUERIES;
        for (int s = 0; s < SIDES; s++) {
            const struct side *side = &sides[s];
            void *device_scores = put(side, scores, score_bytes);
            void *device_own = put(side, own, own_bytes);
            void *device_lse = put(side, NULL, rows * sizeof(float));
            void *device_masses = put(side, NULL, mass_bytes);

            assert_int_equal(side->backend->observer_lse(side->queue, device_lse, device_scores,
                                                         device_own, observers, count, q_heads,
                                                         blocks),
                             TCA_OK);
            assert_int_equal(side->backend->block_masses(side->queue, device_masses, device_scores,
                                                         device_lse, count, &shape, blocks),
                             TCA_OK);
            lse[s] = take(side, device_lse, rows * sizeof(float));
            masses[s] = take(side, device_masses, mass_bytes);
            drop(side, device_scores, score_bytes);
            drop(side, device_own, own_bytes);
        }
        assert_near_or_infinite(lse[SIDE_CPU], lse[SIDE_CUDA], rows, 1e-5, 2e-6, "lse");
        assert_near_or_infinite(masses[SIDE_CPU], masses[SIDE_CUDA],
                                (size_t)(shape.kv_heads * blocks), 1e-12, 5e-5, "masses");
        for (int s = 0; s < SIDES; s++) {
            free(lse[s]);
            free(masses[s]);
        }
        free(own);
        free(scores);
    }
}

/* Where gathered rows go, and from where, for one head size. */
static void check_gather(int head_dim, int kv_heads, int rows, int room, bool by_offsets)
{
    size_t dim = (size_t)head_dim;
    size_t from_bytes = (size_t)kv_heads * (size_t)rows * dim * sizeof(uint16_t);
    size_t to_bytes = (size_t)kv_heads * (size_t)(room + 1) * dim * sizeof(uint16_t);
    struct attention_shape shape = {
        .q_heads = kv_heads, .kv_heads = kv_heads, .head_dim = head_dim};
    int64_t stride = rows + 3;
    uint64_t random = 23;
    uint16_t *k = new_bf16s(from_bytes / 2, 1, &random), *v = new_bf16s(from_bytes / 2, 1, &random);
    int32_t *kept = new_array((size_t)(kv_heads * stride), sizeof(*kept));
    int32_t counts[TCA_HEADS_MOST] = {0};
    int64_t from_offsets[TCA_HEADS_MOST] = {0}, to_offsets[TCA_HEADS_MOST] = {0};
    uint16_t *result[SIDES][2];

    for (int head = 0; head < kv_heads; head++) {
        int most = rows < room ? rows : room;

        counts[head] = head == 0 ? most : (int)(random_bits(&random) % (uint64_t)(most + 1));
        for (int i = 0; i < counts[head]; i++)
            kept[head * stride + i] = (int32_t)(random_bits(&random) % (uint64_t)rows);
        from_offsets[head] = (int64_t)(kv_heads - 1 - head) * rows * head_dim;
        to_offsets[head] = (int64_t)(kv_heads - 1 - head) * (room + 1) * head_dim;
    }
    for (int s = 0; s < SIDES; s++) {
        const struct side *side = &sides[s];
        void *device_kept = put(side, kept, (size_t)(kv_heads * stride) * sizeof(*kept));
        void *device_counts = put(side, counts, sizeof(counts));
        void *from = put(side, from_offsets, sizeof(from_offsets));
        void *to = put(side, to_offsets, sizeof(to_offsets));
        struct attention_segment keys = {.k = put(side, k, from_bytes),
                                         .v = put(side, v, from_bytes),
                                         .head_stride = by_offsets ? -1 : (int64_t)rows * head_dim,
                                         .head_offsets = by_offsets ? from : NULL,
                                         .rows = rows};
        struct kv_copy copy = {.k = put(side, NULL, to_bytes),
                               .v = put(side, NULL, to_bytes),
                               .head_stride = by_offsets ? -1 : (int64_t)(room + 1) * head_dim,
                               .head_offsets = by_offsets ? to : NULL,
                               .rows = room};

        assert_int_equal(side->backend->gather(side->queue, &copy, &keys, device_kept, stride,
                                               device_counts, &shape),
                         TCA_OK);
        result[s][0] = take(side, copy.k, to_bytes);
        result[s][1] = take(side, copy.v, to_bytes);
        drop(side, (void *)(uintptr_t)keys.k, from_bytes);
        drop(side, (void *)(uintptr_t)keys.v, from_bytes);
        drop(side, device_kept, (size_t)(kv_heads * stride) * sizeof(*kept));
        drop(side, device_counts, sizeof(counts));
        drop(side, from, sizeof(from_offsets));
        drop(side, to, sizeof(to_offsets));
    }
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(result[SIDE_CPU][i], result[SIDE_CUDA][i], to_bytes);
        free(result[SIDE_CPU][i]);
        free(result[SIDE_CUDA][i]);
    }
    free(kept);
    free(v);
    free(k);
}

static void gathers_are_the_same(void **state)
{
    (void)state;
    static const int sizes[] = {8, 32, 40, 64, 96, 128, 256};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        check_gather(sizes[i], 1, 1, 1, false);
        check_gather(sizes[i], 1, 1, 128, true);
        check_gather(sizes[i], 3, 1000, 256, true);
        check_gather(sizes[i], 4, 5000, 1030, false); /* the tail ends with the copy */
        check_gather(sizes[i], 2, 777, 1024, i % 2 == 0);
    }
}

static void check_merge(int rows, int q_heads, int kv_heads, int head_dim)
{
    struct attention_shape shape = {.q_heads = q_heads, .kv_heads = kv_heads, .head_dim = head_dim};
    size_t heads = (size_t)(rows * q_heads);
    size_t bytes = heads * (size_t)head_dim * sizeof(uint16_t);
    uint64_t random = 29;
    uint16_t *out = new_bf16s(bytes / 2, 3, &random), *other = new_bf16s(bytes / 2, 3, &random);
    float *lse = new_floats(heads, &random), *lse_other = new_floats(heads, &random);
    uint16_t *merged[SIDES];
    float *both[SIDES], *masses[SIDES];

    for (size_t i = 0; i < heads; i++) {
        lse[i] = i % 7 == 3 ? -INFINITY : 20 * lse[i];
        lse_other[i] = i % 5 == 2 ? -INFINITY : 20 * lse_other[i];
        /* What has no weight may hold anything. */
        if (isinf(lse[i]))
            memset(out + i * (size_t)head_dim, 0xff, (size_t)head_dim * sizeof(*out));
        if (isinf(lse_other[i]))
            memset(other + i * (size_t)head_dim, 0xff, (size_t)head_dim * sizeof(*other));
    }
    for (int s = 0; s < SIDES; s++) {
        const struct side *side = &sides[s];
        void *device_out = put(side, out, bytes), *device_other = put(side, other, bytes);
        void *device_lse = put(side, lse, heads * sizeof(float));
        void *device_lse_other = put(side, lse_other, heads * sizeof(float));
        void *device_masses = put(side, NULL, (size_t)kv_heads * 2 * sizeof(float));

        assert_int_equal(side->backend->attention_merge(side->queue, device_out, device_lse,
                                                        device_other, device_lse_other, rows,
                                                        &shape),
                         TCA_OK);
        assert_int_equal(side->backend->kept_masses(side->queue, device_masses, device_lse_other,
                                                    device_lse, rows, &shape),
                         TCA_OK);
        merged[s] = take(side, device_out, bytes);
        both[s] = take(side, device_lse, heads * sizeof(float));
        masses[s] = take(side, device_masses, (size_t)kv_heads * 2 * sizeof(float));
        drop(side, device_other, bytes);
        drop(side, device_lse_other, heads * sizeof(float));
    }
    assert_near_bf16(merged[SIDE_CPU], merged[SIDE_CUDA], bytes / 2, NMSE_BF16, "merge");
    assert_near_or_infinite(both[SIDE_CPU], both[SIDE_CUDA], heads, 1e-6, 1e-6, "merged lse");
    assert_near_or_infinite(masses[SIDE_CPU], masses[SIDE_CUDA], (size_t)kv_heads * 2, 1e-10, 2e-5,
                            "kept masses");
    for (int s = 0; s < SIDES; s++) {
        free(merged[s]);
        free(both[s]);
        free(masses[s]);
    }
    free(lse_other);
    free(lse);
    free(other);
    free(out);
}

static void merges_agree(void **state)
{
    (void)state;
    check_merge(1, 1, 1, 64);
    check_merge(3, 9, 3, 64);
    check_merge(77, 8, 2, 128);
    check_merge(33, 4, 4, 40);
    check_merge(10, 2, 1, 256);
    check_merge(5, 3, 3, 8);
    check_merge(1500, 32, 8, 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_scores_agree),   cmocka_unit_test(token_scores_agree),
        cmocka_unit_test(lse_and_masses_agree), cmocka_unit_test(gathers_are_the_same),
        cmocka_unit_test(merges_agree),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
