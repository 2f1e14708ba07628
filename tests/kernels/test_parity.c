#include "tests/kernels/sides.h"

struct linear_case {
    int rows, in, out;
    bool has_bias;
    enum kernel_dtype dtype;
};

/* A product like the case's, of `rows` rows; 0: none. */
static void prepare_linear(const struct side *side, const struct linear_case *c, int rows,
                           const struct kernel_weight *weight, const float *device_bias)
{
    size_t x_bytes = (size_t)rows * (size_t)c->in * sizeof(uint16_t);
    size_t out_bytes = (size_t)rows * (size_t)c->out * sizeof(float);
    void *x, *out;

    if (side->backend->linear_prepare == NULL || rows == 0)
        return;
    x = put(side, NULL, x_bytes);
    out = put(side, NULL, out_bytes);
    assert_int_equal(
        side->backend->linear_prepare(side->queue, out, c->dtype, x, weight, device_bias, rows),
        TCA_OK);
    drop(side, x, x_bytes);
    drop(side, out, out_bytes);
}

static void *run_linear(const struct side *side, const struct linear_case *c, int prepared,
                        const uint16_t *x, const uint16_t *w, const float *bias)
{
    size_t rows = (size_t)c->rows, in = (size_t)c->in, out = (size_t)c->out;
    size_t bytes = rows * out * (c->dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t));
    void *device_x = put(side, x, rows * in * sizeof(*x));
    void *device_bias = c->has_bias ? put(side, bias, out * sizeof(*bias)) : NULL;
    void *device_out = put(side, NULL, bytes);
    struct kernel_weight *weight;

    assert_int_equal(side->backend->weight_create(side->queue, w, c->out, c->in, false, &weight),
                     TCA_OK);
    prepare_linear(side, c, prepared, weight, device_bias);
    assert_int_equal(side->backend->linear(side->queue, device_out, c->dtype, device_x, weight,
                                           device_bias, c->rows),
                     TCA_OK);
    void *result = take(side, device_out, bytes);
    side->backend->weight_destroy(side->queue, weight);
    drop(side, device_x, rows * in * sizeof(*x));
    if (c->has_bias)
        drop(side, device_bias, out * sizeof(*bias));
    return result;
}

static void check_linear(const struct linear_case *c, int prepared)
{
    uint64_t random = 3;
    size_t count = (size_t)c->rows * (size_t)c->out;
    uint16_t *x = new_bf16s((size_t)c->rows * (size_t)c->in, 1, &random);
    uint16_t *w = new_bf16s((size_t)c->out * (size_t)c->in, 1, &random);
    float *bias = new_floats((size_t)c->out, &random);
    char what[80];

    /* The CUDA backend rounds a bias for bf16 outputs; models' biases are bf16 numbers. */
    for (int i = 0; i < c->out; i++)
        bias[i] = float_of_bf16(bf16_of_float(bias[i]));
    void *want = run_linear(&sides[SIDE_CPU], c, prepared, x, w, bias);
    void *got = run_linear(&sides[SIDE_CUDA], c, prepared, x, w, bias);
    snprintf(what, sizeof(what), "%d x %d by %d, %s%s", c->rows, c->in, c->out,
             c->dtype == KERNEL_F32 ? "f32" : "bf16", c->has_bias ? ", bias" : "");
    if (c->dtype == KERNEL_F32)
        assert_near(want, got, count, NMSE_F32, what);
    else
        assert_near_bf16(want, got, count, NMSE_BF16, what);
    free(want);
    free(got);
    free(x);
    free(w);
    free(bias);
}

static void products_agree(void **state)
{
    (void)state;
    static const struct linear_case cases[] = {
        {1, 8, 8, false, KERNEL_F32},
        {1, 576, 1536, false, KERNEL_BF16},
        {2, 64, 64, true, KERNEL_BF16},
        {3, 64, 66, true, KERNEL_F32},
        {5, 48, 144, false, KERNEL_BF16},
        {16, 320, 320, false, KERNEL_F32},
        {17, 96, 1366, true, KERNEL_BF16},
        {33, 136, 48, true, KERNEL_BF16},
        {64, 64, 192, false, KERNEL_F32},
        {100, 304, 80, true, KERNEL_F32},
        {1000, 72, 48, true, KERNEL_BF16},
        {129, 4096, 512, false, KERNEL_BF16},
        {1, 4096, 1024, true, KERNEL_BF16},
        {7, 320, 8192, false, KERNEL_F32},
        {513, 16, 16, false, KERNEL_BF16},
        {31, 37, 41, true, KERNEL_F32},
        {31, 37, 41, false, KERNEL_BF16},
        /* Few rows are an own kernel's: columns that fill no lane, one, several turns of them. */
        {1, 4104, 70, true, KERNEL_F32},
        {4, 14336, 130, false, KERNEL_BF16},
        {2, 520, 33, true, KERNEL_F32},
        {3, 1000, 129, true, KERNEL_BF16},
        {4, 264, 31, true, KERNEL_F32},
        {4, 37, 41, true, KERNEL_F32},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_linear(&cases[i], 0);
}

/* Few rows go the way that was found for more of them. */
static void prepared_products_agree(void **state)
{
    static const int prepared[] = {8, 8, 16, 64, 64, 512, 512},
                     rows[] = {5, 8, 9, 33, 64, 300, 511};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int which = 0; which < 4; which++) {
            const struct linear_case c = {.rows = rows[i],
                                          .in = 1024,
                                          .out = which < 2 ? 1536 : 264,
                                          .has_bias = which % 2 == 1,
                                          .dtype = i % 2 == 0 ? KERNEL_BF16 : KERNEL_F32};

            check_linear(&c, prepared[i]);
        }
}

/* A shape's second use takes the algorithm found at the first. */
static void products_agree_again(void **state)
{
    products_agree(state);
}

/* Two runs of rows, out of matrices of other widths, are the numbers that the host would make. */
static void dummy_weights_agree(void **state)
{
    (void)state;
    enum { COLS = 321, FIRST = 19, ROWS = FIRST + 18 };
    static const struct dummy_rows runs[] = {
        {.seed = 3, .first = 5000000000, .stride = 321, .rows = FIRST, .scale = 5},
        {.seed = 1ULL << 63, .first = 77, .stride = 4096, .rows = ROWS - FIRST, .scale = 0}};
    const struct side *cuda = &sides[SIDE_CUDA];
    struct kernel_weight *table;
    void *out = put(cuda, NULL, sizeof(float[ROWS][COLS]));
    int32_t ids[ROWS];

    for (int i = 0; i < ROWS; i++)
        ids[i] = i;
    assert_int_equal(cuda->backend->weight_create_dummy(cuda->queue, runs, 2, COLS, &table),
                     TCA_OK);
    assert_int_equal(cuda->backend->weight_bytes(table), sizeof(uint16_t[ROWS][COLS]));
    assert_int_equal(cuda->backend->embed(cuda->queue, out, table, ids, ROWS, 0), TCA_OK);
    float *got = take(cuda, out, sizeof(float[ROWS][COLS]));
    cuda->backend->weight_destroy(cuda->queue, table);
    for (int i = 0; i < ROWS * COLS; i++) {
        const struct dummy_rows *run = &runs[i / COLS >= FIRST];
        int64_t row = i / COLS - (run == &runs[1] ? FIRST : 0);
        float want = dummy_value(run->seed, run->first + row * run->stride + i % COLS, run->scale);

        assert_memory_equal(&got[i], &want, sizeof(want));
    }
    free(got);
}

static void embed_agrees(void **state)
{
    (void)state;
    enum { ROWS = 37, FIRST = 100, IDS = 6 };
    static const int32_t ids[IDS] = {100, 136, 137, 99, 0, 119};
    static const int widths[] = {1, 51, 320, 4096};

    for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++) {
        size_t cols = (size_t)widths[w];
        size_t bytes = IDS * cols * sizeof(float);
        uint64_t random = 7;
        uint16_t *rows = new_bf16s(ROWS * cols, 1, &random);
        float *result[SIDES];

        for (int i = 0; i < SIDES; i++) {
            const struct side *side = &sides[i];
            struct kernel_weight *table;
            void *out = put(side, NULL, bytes);
            int32_t list[IDS];

            memcpy(list, ids, sizeof(list));
            assert_int_equal(
                side->backend->weight_create(side->queue, rows, ROWS, widths[w], true, &table),
                TCA_OK);
            assert_int_equal(side->backend->embed(side->queue, out, table, list, IDS, FIRST),
                             TCA_OK);
            memset(list, 0x7f, sizeof(list)); /* it may be reused at once */
            result[i] = take(side, out, bytes);
            side->backend->weight_destroy(side->queue, table);
        }
        assert_memory_equal(result[SIDE_CPU], result[SIDE_CUDA], bytes);
        free(result[SIDE_CPU]);
        free(result[SIDE_CUDA]);
        free(rows);
    }
}

static void check_residual_norm(int rows, int cols, int addends, bool has_out)
{
    uint64_t random = 5;
    size_t count = (size_t)rows * (size_t)cols;
    float *x = new_floats(count, &random);
    uint16_t *delta = new_bf16s(count, 1, &random), *rest = new_bf16s(count, 1, &random);
    float *weight = new_floats((size_t)cols, &random);
    float *sum[SIDES];
    uint16_t *normed[SIDES] = {NULL, NULL};

    for (int i = 0; i < SIDES; i++) {
        const struct side *side = &sides[i];
        void *device_x = put(side, x, count * sizeof(*x));
        void *device_delta = addends > 0 ? put_act(side, delta, count) : NULL;
        void *device_rest = addends > 1 ? put_act(side, rest, count) : NULL;
        void *device_weight = put(side, weight, (size_t)cols * sizeof(*weight));
        void *out = has_out ? put(side, NULL, count * sizeof(uint16_t)) : NULL;

        assert_int_equal(side->backend->residual_norm(side->queue, out, device_x, device_delta,
                                                      device_rest, device_weight, rows, cols,
                                                      1e-5f),
                         TCA_OK);
        sum[i] = take(side, device_x, count * sizeof(*x));
        if (has_out)
            normed[i] = take(side, out, count * sizeof(uint16_t));
        if (addends > 0)
            drop(side, device_delta, count * act_bytes(side));
        if (addends > 1)
            drop(side, device_rest, count * act_bytes(side));
        drop(side, device_weight, (size_t)cols * sizeof(*weight));
    }
    assert_memory_equal(sum[SIDE_CPU], sum[SIDE_CUDA], count * sizeof(float));
    if (has_out)
        assert_near_bf16(normed[SIDE_CPU], normed[SIDE_CUDA], count, NMSE_BF16, "residual_norm");
    for (int i = 0; i < SIDES; i++) {
        free(sum[i]);
        free(normed[i]);
    }
    free(x);
    free(delta);
    free(rest);
    free(weight);
}

static void residual_norm_agrees(void **state)
{
    (void)state;
    static const int widths[] = {1, 3, 64, 255, 320, 576, 1025, 4096, 16384};

    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        check_residual_norm(1, widths[i], 1, true);
        check_residual_norm(2, widths[i], 2, true);
        check_residual_norm(5, widths[i], 0, true);
        check_residual_norm(33, widths[i], 1, false);
        check_residual_norm(65, widths[i], 2, true);
    }
}

static void rope_table_agrees(void **state)
{
    (void)state;
    enum { ROWS = 5, HALF = 37 };
    static const int32_t positions[ROWS] = {0, 1, 131071, 999999, 1 << 20};
    float inv_freq[HALF];
    float *result[SIDES];
    size_t bytes = (size_t)ROWS * HALF * 2 * sizeof(float);

    for (int i = 0; i < HALF; i++)
        inv_freq[i] = (float)pow(500000.0, -i / (double)HALF);
    for (int i = 0; i < SIDES; i++) {
        const struct side *side = &sides[i];
        void *device_freq = put(side, inv_freq, sizeof(inv_freq));
        void *out = put(side, NULL, bytes);

        assert_int_equal(
            side->backend->rope_table(side->queue, out, positions, ROWS, device_freq, HALF, 1.25f),
            TCA_OK);
        result[i] = take(side, out, bytes);
        drop(side, device_freq, sizeof(inv_freq));
    }
    assert_near(result[SIDE_CPU], result[SIDE_CUDA], bytes / sizeof(float), NMSE_F32, "rope_table");
    free(result[SIDE_CPU]);
    free(result[SIDE_CUDA]);
}

struct rope_case {
    int q_heads, kv_heads, head_dim;
    bool has_norm;
    int appends;
    int tokens[3];
};

enum { ROPE_ROOM = 9 /* rows of a head's place beyond its tokens */, ROPE_FIRST_ROW = 4 };

/* K and V of an append lie one behind the other, in one array for all of them. */
struct rope_result {
    uint16_t *q, *kv;
};

static size_t rope_kv_count(const struct rope_case *c)
{
    size_t count = 0;

    for (int i = 0; i < c->appends; i++)
        count += 2 * (size_t)(c->tokens[i] + ROPE_ROOM) * (size_t)(c->kv_heads * c->head_dim);
    return count;
}

static struct rope_result run_rope(const struct side *side, const struct rope_case *c, int tokens,
                                   const uint16_t *qkv, const float *rope, const float *weights)
{
    size_t dim = (size_t)c->head_dim;
    size_t qkv_count = (size_t)tokens * (size_t)(c->q_heads + 2 * c->kv_heads) * dim;
    size_t q_bytes = (size_t)(tokens * c->q_heads) * dim * sizeof(uint16_t);
    size_t kv_bytes = rope_kv_count(c) * sizeof(uint16_t);
    size_t rope_bytes = (size_t)tokens * dim * sizeof(float);
    struct attention_shape shape = {
        .q_heads = c->q_heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim};
    void *device_qkv = put_act(side, qkv, qkv_count);
    void *device_rope = put(side, rope, rope_bytes);
    float *device_weights = put(side, weights, 2 * dim * sizeof(float));
    void *q = put(side, NULL, q_bytes);
    uint16_t *kv = put(side, NULL, kv_bytes), *next = kv;
    struct qk_norm norm = {.eps = 1e-6f};
    struct kv_append appends[3];
    int first = 0;

    if (c->has_norm) {
        norm.q = device_weights;
        norm.k = device_weights + dim;
    }
    for (int i = 0; i < c->appends; i++) {
        int64_t stride = (int64_t)(c->tokens[i] + ROPE_ROOM) * c->head_dim;

        appends[i] = (struct kv_append){.first_token = first,
                                        .tokens = c->tokens[i],
                                        .k = next,
                                        .v = next + stride * c->kv_heads,
                                        .head_stride = stride,
                                        .first_row = ROPE_FIRST_ROW};
        next += 2 * stride * c->kv_heads;
        first += c->tokens[i];
    }
    assert_int_equal(side->backend->rope_append(side->queue, q, appends, c->appends, device_qkv,
                                                &shape, device_rope, &norm),
                     TCA_OK);
    memset(appends, 0xff, sizeof(appends)); /* it may be reused at once */
    struct rope_result result = {.q = take(side, q, q_bytes), .kv = take(side, kv, kv_bytes)};
    drop(side, device_qkv, qkv_count * act_bytes(side));
    drop(side, device_rope, rope_bytes);
    drop(side, device_weights, 2 * dim * sizeof(float));
    return result;
}

static void rope_append_agrees(void **state)
{
    (void)state;
    static const struct rope_case cases[] = {
        {1, 1, 8, false, 1, {1}},        {9, 3, 64, false, 1, {33}},
        {32, 8, 128, false, 2, {5, 64}}, {6, 2, 256, true, 3, {1, 0, 3}},
        {4, 4, 72, true, 3, {7, 1, 2}},  {8, 1, 128, true, 1, {129}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rope_case *c = &cases[i];
        uint64_t random = 11;
        int tokens = c->tokens[0] + c->tokens[1] + c->tokens[2];
        size_t q_count = (size_t)(tokens * c->q_heads * c->head_dim);
        uint16_t *qkv =
            new_bf16s((size_t)(tokens * (c->q_heads + 2 * c->kv_heads) * c->head_dim), 2, &random);
        float *rope = new_floats((size_t)(tokens * c->head_dim), &random);
        float *weights = new_floats(2 * (size_t)c->head_dim, &random);
        struct rope_result want = run_rope(&sides[SIDE_CPU], c, tokens, qkv, rope, weights);
        struct rope_result got = run_rope(&sides[SIDE_CUDA], c, tokens, qkv, rope, weights);

        assert_near_bf16(want.q, got.q, q_count, NMSE_BF16, "rope_append, q");
        /* The rest of the places holds poison on both sides: finite as bf16. */
        assert_near_bf16(want.kv, got.kv, rope_kv_count(c), NMSE_BF16, "rope_append, k and v");
        free(want.q);
        free(want.kv);
        free(got.q);
        free(got.kv);
        free(qkv);
        free(rope);
        free(weights);
    }
}

static void swiglu_agrees(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {3, 7}, {5, 16}, {17, 864}, {2, 14336}, {129, 1536}};

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        uint64_t random = 13;
        size_t count = (size_t)sizes[s][0] * (size_t)sizes[s][1];
        uint16_t *gate_up = new_bf16s(2 * count, 8, &random);
        uint16_t *result[SIDES];

        for (int i = 0; i < SIDES; i++) {
            const struct side *side = &sides[i];
            void *in = put_act(side, gate_up, 2 * count);
            void *out = put(side, NULL, count * sizeof(uint16_t));

            assert_int_equal(side->backend->swiglu(side->queue, out, in, sizes[s][0], sizes[s][1]),
                             TCA_OK);
            result[i] = take(side, out, count * sizeof(uint16_t));
            drop(side, in, 2 * count * act_bytes(side));
        }
        assert_near_bf16(result[SIDE_CPU], result[SIDE_CUDA], count, NMSE_BF16, "swiglu");
        free(result[SIDE_CPU]);
        free(result[SIDE_CUDA]);
        free(gate_up);
    }
}

static void take_rows_agrees(void **state)
{
    (void)state;
    enum { ROWS = 9, COLS = 333, TAKEN = 4 };
    static const int32_t indices[TAKEN] = {8, 0, 3, 3};
    uint64_t random = 17;
    float *x = new_floats(ROWS * COLS, &random);
    size_t bytes = (size_t)TAKEN * COLS * sizeof(float);
    float *result[SIDES];

    for (int i = 0; i < SIDES; i++) {
        const struct side *side = &sides[i];
        void *in = put(side, x, (size_t)ROWS * COLS * sizeof(float));
        void *out = put(side, NULL, bytes);

        assert_int_equal(side->backend->take_rows(side->queue, out, in, indices, TAKEN, COLS),
                         TCA_OK);
        result[i] = take(side, out, bytes);
        drop(side, in, (size_t)ROWS * COLS * sizeof(float));
    }
    assert_memory_equal(result[SIDE_CPU], result[SIDE_CUDA], bytes);
    free(result[SIDE_CPU]);
    free(result[SIDE_CUDA]);
    free(x);
}

/* distinct: values repeat so that ties decide; 0: they hardly do. */
static void check_logits_top(int rows, int cols, int count, int distinct)
{
    uint64_t random = 19;
    size_t places = (size_t)rows * (size_t)count;
    float *logits = new_floats((size_t)rows * (size_t)cols, &random);
    float *values[SIDES], *lse[SIDES];
    int32_t *ids[SIDES];

    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++)
        logits[i] = distinct > 0 ? floorf(logits[i] * (float)distinct) : 12 * logits[i];
    for (int i = 0; i < SIDES; i++) {
        const struct side *side = &sides[i];
        void *in = put(side, logits, (size_t)rows * (size_t)cols * sizeof(float));

        values[i] = new_floats(places, NULL);
        lse[i] = new_floats((size_t)rows, NULL);
        ids[i] = new_array(places, sizeof(int32_t));
        assert_int_equal(side->backend->logits_top(side->queue, values[i], ids[i], lse[i], in, rows,
                                                   cols, count),
                         TCA_OK);
        drop(side, in, (size_t)rows * (size_t)cols * sizeof(float));
    }
    assert_memory_equal(ids[SIDE_CPU], ids[SIDE_CUDA], places * sizeof(int32_t));
    assert_memory_equal(values[SIDE_CPU], values[SIDE_CUDA], places * sizeof(float));
    for (int row = 0; row < rows; row++) {
        double want = (double)lse[SIDE_CPU][row];

        assert_close(&lse[SIDE_CUDA][row], &want, 1, 1e-5, 1e-6, "log-sum-exp");
    }
    for (int i = 0; i < SIDES; i++) {
        free(values[i]);
        free(lse[i]);
        free(ids[i]);
    }
    free(logits);
}

static void logits_top_agrees(void **state)
{
    (void)state;
    check_logits_top(1, 1, 1, 0);
    check_logits_top(3, 7, 20, 0);
    check_logits_top(2, 4096, 20, 0);
    check_logits_top(5, 32003, 20, 0);
    check_logits_top(2, 151936, 256, 0);
    check_logits_top(3, 5000, 20, 3);
    check_logits_top(2, 5000, 256, 1);
    check_logits_top(17, 1023, 1, 2);
    check_logits_top(2, 4100, 256, 0); /* its last piece has fewer than are wanted */
}

/* More lists than the staging memory holds at once. */
static void lists_may_be_reused_at_once(void **state)
{
    (void)state;
    enum { IDS = 1 << 20, ROUNDS = 12 };
    const struct side *side = &sides[SIDE_CUDA];
    uint16_t rows[ROUNDS];
    struct kernel_weight *table;
    int32_t *ids = new_array(IDS, sizeof(*ids));
    void *out[ROUNDS];

    for (int i = 0; i < ROUNDS; i++)
        rows[i] = bf16_of_float((float)i);
    assert_int_equal(side->backend->weight_create(side->queue, rows, ROUNDS, 1, true, &table),
                     TCA_OK);
    for (int round = 0; round < ROUNDS; round++)
        out[round] = put(side, NULL, IDS * sizeof(float));
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < IDS; i++)
            ids[i] = (i + round) % ROUNDS;
        assert_int_equal(side->backend->embed(side->queue, out[round], table, ids, IDS, 0), TCA_OK);
    }
    for (int round = 0; round < ROUNDS; round++) {
        float *got = take(side, out[round], IDS * sizeof(float));

        for (int i = 0; i < IDS; i++)
            if (got[i] != (float)((i + round) % ROUNDS))
                fail_msg("round %d: row %d is %g", round, i, (double)got[i]);
        free(got);
    }
    side->backend->weight_destroy(side->queue, table);
    free(ids);
}

static void devices_that_are_not_there_are_refused(void **state)
{
    (void)state;
    struct kernel_queue *queue = NULL;

    assert_int_equal(sides[SIDE_CUDA].backend->queue_create(4096, 1, &queue), TCA_ERR_DEVICE);
    assert_int_equal(sides[SIDE_CUDA].backend->queue_create(-1, 1, &queue), TCA_ERR_DEVICE);
    assert_null(queue);
}

static void too_much_memory_is_refused(void **state)
{
    (void)state;
    const struct kernel_backend *backend = sides[SIDE_CUDA].backend;
    size_t total, left;
    void *memory;

    assert_int_equal(backend->memory(0, &total, &left), TCA_OK);
    assert_true(left <= total);
    assert_int_equal(backend->alloc(0, 2 * total, &memory), TCA_ERR_NO_MEMORY);
    assert_int_equal(backend->alloc(0, 4096, &memory), TCA_OK); /* and the device still works */
    backend->free(0, memory, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree),
        cmocka_unit_test(products_agree_again),
        cmocka_unit_test(prepared_products_agree),
        cmocka_unit_test(dummy_weights_agree),
        cmocka_unit_test(embed_agrees),
        cmocka_unit_test(residual_norm_agrees),
        cmocka_unit_test(rope_table_agrees),
        cmocka_unit_test(rope_append_agrees),
        cmocka_unit_test(swiglu_agrees),
        cmocka_unit_test(take_rows_agrees),
        cmocka_unit_test(logits_top_agrees),
        cmocka_unit_test(lists_may_be_reused_at_once),
        cmocka_unit_test(devices_that_are_not_there_are_refused),
        cmocka_unit_test(too_much_memory_is_refused),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
