#include "tests/kernels/sides.h"

enum { ITEMS_MOST = 40, KV_HEADS_MOST = 8, GAP_ROWS = 3 };

/* Segment s of an item: rows < 0 draws ragged rows of 0 .. -rows for each head. BY_OFFSETS: the
 * heads lie in falling order, where head_offsets says; TAILED: so too, the second head has no rows,
 * and zeros follow every head's (as gather leaves them). SHARED: the first item's. */
enum { BY_OFFSETS = 2, TAILED, SHARED, TAIL_ROWS = 128 };

struct segment_case {
    int rows;
    int kind; /* true: causal; false and the others: not */
};

struct item_case {
    int queries;
    int segments;
    struct segment_case segment[ATTENTION_SEGMENTS_MAX];
};

struct attention_case {
    const char *what;
    int kv_heads, group, head_dim;
    int items;
    struct item_case item[ITEMS_MOST];
};

/* The inputs on the host. */
struct inputs {
    struct attention_shape shape;
    struct attention_item items[ITEMS_MOST]; /* their pointers: of the side that runs */
    bool is_ragged[ITEMS_MOST][ATTENTION_SEGMENTS_MAX];
    bool by_offsets[ITEMS_MOST][ATTENTION_SEGMENTS_MAX];
    int32_t ragged[ITEMS_MOST][ATTENTION_SEGMENTS_MAX][KV_HEADS_MOST];
    int64_t offsets[ITEMS_MOST][ATTENTION_SEGMENTS_MAX][KV_HEADS_MOST];
    uint16_t *kv[ITEMS_MOST][ATTENTION_SEGMENTS_MAX]; /* K then V of a segment, owned */
    size_t kv_bytes[ITEMS_MOST][ATTENTION_SEGMENTS_MAX];
    int queries;
    uint16_t *q;
};

static void make_segment(struct inputs *in, int i, int s, const struct segment_case *from,
                         uint64_t *random)
{
    int rows = abs(from->rows);
    bool has_tail = from->kind == TAILED;
    /* A gap between the heads, as a cache with room to grow has; what is in it is no number. */
    size_t gap = has_tail ? TAIL_ROWS : GAP_ROWS;
    size_t stride = ((size_t)rows + gap) * (size_t)in->shape.head_dim;
    size_t elements = stride * (size_t)in->shape.kv_heads;

    if (from->kind == SHARED && i > 0) {
        in->items[i].segment[s] = in->items[0].segment[s];
        return;
    }
    in->kv[i][s] = new_bf16s(2 * elements, 3, random);
    in->kv_bytes[i][s] = 2 * elements * sizeof(uint16_t);
    for (int half = 1; half <= 2 * in->shape.kv_heads; half++)
        memset(in->kv[i][s] + (size_t)half * stride - gap * (size_t)in->shape.head_dim,
               has_tail ? 0 : 0xff, gap * (size_t)in->shape.head_dim * sizeof(uint16_t));
    for (int h = 0; h < in->shape.kv_heads; h++)
        in->ragged[i][s][h] = (int32_t)(random_bits(random) % (uint64_t)(rows + 1));
    if (has_tail && in->shape.kv_heads > 1)
        in->ragged[i][s][1] = 0;
    for (int h = 0; h < in->shape.kv_heads; h++)
        in->offsets[i][s][h] = (int64_t)(in->shape.kv_heads - 1 - h) * (int64_t)stride;
    in->is_ragged[i][s] = from->rows < 0;
    in->by_offsets[i][s] = from->kind == BY_OFFSETS || has_tail;
    in->items[i].segment[s] = (struct attention_segment){
        .head_stride = in->by_offsets[i][s] ? -1 : (int64_t)stride,
        .rows = rows,
        .causal = from->kind == true,
        .has_tail = has_tail,
    };
}

static void make_inputs(struct inputs *in, const struct attention_case *c)
{
    uint64_t random = 99;

    *in = (struct inputs){.shape = {.q_heads = c->kv_heads * c->group,
                                    .kv_heads = c->kv_heads,
                                    .head_dim = c->head_dim,
                                    .scale = 1.0f / sqrtf((float)c->head_dim)}};
    for (int i = 0; i < c->items; i++) {
        in->items[i] = (struct attention_item){.first_query = in->queries,
                                               .queries = c->item[i].queries,
                                               .segments = c->item[i].segments};
        in->queries += c->item[i].queries;
        for (int s = 0; s < c->item[i].segments; s++)
            make_segment(in, i, s, &c->item[i].segment[s], &random);
    }
    in->q = new_bf16s((size_t)in->queries * (size_t)(in->shape.q_heads * c->head_dim), 2, &random);
}

struct outputs {
    uint16_t *out, *out_without_lse;
    float *lse;
};

static struct outputs run(const struct side *side, struct inputs *in, int item_count)
{
    size_t heads = (size_t)in->queries * (size_t)in->shape.q_heads;
    size_t bytes = heads * (size_t)in->shape.head_dim * sizeof(uint16_t);
    void *q = put(side, in->q, bytes);
    void *out = put(side, NULL, bytes), *out_without_lse = put(side, NULL, bytes);
    void *lse = put(side, NULL, heads * sizeof(float));

    for (int i = 0; i < item_count; i++)
        for (int s = 0; s < in->items[i].segments; s++) {
            if (in->kv[i][s] == NULL) { /* shared */
                in->items[i].segment[s] = in->items[0].segment[s];
                continue;
            }
            uint16_t *kv = put(side, in->kv[i][s], in->kv_bytes[i][s]);

            in->items[i].segment[s].rows_per_head =
                in->is_ragged[i][s] ? put(side, in->ragged[i][s], sizeof(in->ragged[i][s])) : NULL;
            in->items[i].segment[s].head_offsets =
                in->by_offsets[i][s] ? put(side, in->offsets[i][s], sizeof(in->offsets[i][s]))
                                     : NULL;
            in->items[i].segment[s].k = kv;
            in->items[i].segment[s].v = kv + in->kv_bytes[i][s] / 2 / sizeof(*kv);
        }
    assert_int_equal(
        side->backend->attention(side->queue, out, lse, q, &in->shape, in->items, item_count),
        TCA_OK);
    assert_int_equal(side->backend->attention(side->queue, out_without_lse, NULL, q, &in->shape,
                                              in->items, item_count),
                     TCA_OK);
    struct outputs result = {.out = take(side, out, bytes),
                             .out_without_lse = take(side, out_without_lse, bytes),
                             .lse = take(side, lse, heads * sizeof(float))};
    assert_memory_equal(result.out, result.out_without_lse, bytes);
    for (int i = 0; i < item_count; i++)
        for (int s = 0; s < in->items[i].segments; s++) {
            const struct attention_segment *segment = &in->items[i].segment[s];

            if (in->kv[i][s] == NULL)
                continue;
            drop(side, (void *)(uintptr_t)segment->k, in->kv_bytes[i][s]);
            if (segment->rows_per_head != NULL)
                drop(side, (void *)(uintptr_t)segment->rows_per_head, sizeof(in->ragged[i][s]));
            if (segment->head_offsets != NULL)
                drop(side, (void *)(uintptr_t)segment->head_offsets, sizeof(in->offsets[i][s]));
        }
    drop(side, q, bytes);
    return result;
}

static void check(const struct attention_case *c)
{
    struct inputs in;
    make_inputs(&in, c);
    struct outputs want = run(&sides[SIDE_CPU], &in, c->items);
    struct outputs got = run(&sides[SIDE_CUDA], &in, c->items);
    size_t heads = (size_t)in.queries * (size_t)in.shape.q_heads;

    /* Weights are rounded to bf16 too, on both sides. */
    assert_near_bf16(want.out, got.out, heads * (size_t)c->head_dim, 2e-5, c->what);
    for (size_t i = 0; i < heads; i++) {
        double lse = (double)want.lse[i];

        if (isinf(lse))
            assert_true(isinf(got.lse[i]) && got.lse[i] < 0);
        else
            assert_close(got.lse + i, &lse, 1, 1e-4, 1e-5, c->what);
    }
    for (int i = 0; i < c->items; i++)
        for (int s = 0; s < ATTENTION_SEGMENTS_MAX; s++)
            free(in.kv[i][s]);
    free(in.q);
    free(want.out);
    free(want.out_without_lse);
    free(want.lse);
    free(got.out);
    free(got.out_without_lse);
    free(got.lse);
}

static void check_all(const struct attention_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(&cases[i]);
}

#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof((cases)[0]))

static void whole_prompts_are_causal(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"one token", 1, 1, 64, 1, {{1, 1, {{1, true}}}}},
        {"two tokens", 2, 1, 64, 1, {{2, 1, {{2, true}}}}},
        {"31", 1, 3, 64, 1, {{31, 1, {{31, true}}}}},
        {"65", 2, 2, 64, 1, {{65, 1, {{65, true}}}}},
        {"130", 3, 3, 64, 1, {{130, 1, {{130, true}}}}},
        {"257, heads of 128", 1, 4, 128, 1, {{257, 1, {{257, true}}}}},
        {"1100, heads of 128", 2, 4, 128, 1, {{1100, 1, {{1100, true}}}}},
        {"300, heads of 256", 2, 1, 256, 1, {{300, 1, {{300, true}}}}},
    };
    CHECK_ALL(cases);
}

static void every_head_size_is_right(void **state)
{
    (void)state;
    for (int dim = 8; dim <= 256; dim += 8) {
        int group = dim / 8 % 4 + 1;
        struct attention_case prefill = {"head size", 2, group, dim, 1, {{137, 1, {{190, true}}}}};
        struct attention_case some = {"head size, some rows", 2, group, dim, 1,
                                      {{14, 1, {{90, true}}}}};
        struct attention_case decode = {"head size, decode",    2, group, dim, 1,
                                        {{1, 1, {{301, true}}}}};

        check(&prefill);
        check(&some);
        check(&decode);
    }
}

static void chunks_see_what_came_before(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"chunk", 2, 2, 64, 1, {{50, 1, {{177, true}}}}},
        {"chunk of whole tiles", 1, 1, 64, 1, {{128, 1, {{256, true}}}}},
        {"document, then own", 2, 3, 64, 1, {{20, 2, {{200, false}, {33, true}}}}},
        {"ragged, then own", 3, 2, 64, 1, {{70, 2, {{-150, false}, {70, true}}}}},
        {"ragged alone", 4, 1, 32, 1, {{9, 1, {{-65, false}}}}},
        {"two ragged", 4, 2, 40, 1, {{9, 2, {{-65, false}, {-3, false}}}}},
        {"two causal", 1, 2, 64, 1, {{5, 2, {{80, true}, {5, true}}}}},
        {"chunk after a long text", 8, 4, 128, 1, {{300, 1, {{5000, true}}}}},
        {"ragged of thousands", 8, 4, 128, 1, {{200, 2, {{-3000, false}, {200, true}}}}},
    };
    CHECK_ALL(cases);
}

static void keys_are_split_where_queries_are_few(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"decode", 8, 4, 128, 1, {{1, 1, {{40001, true}}}}},
        {"question", 2, 4, 64, 1, {{16, 2, {{9000, false}, {16, true}}}}},
        {"question of a tile", 1, 4, 128, 1, {{60, 2, {{9001, false}, {61, true}}}}},
        {"ragged, one head far longer", 4, 2, 64, 1, {{1, 2, {{-20000, false}, {3, true}}}}},
        {"more queries than keys", 1, 1, 64, 1, {{600, 1, {{520, true}}}}},
        {"split falls into the second segment", 1, 1, 64, 1, {{1, 2, {{300, false}, {800, true}}}}},
    };
    CHECK_ALL(cases);
}

static void three_segments_count_as_one(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"a token each", 1, 1, 64, 1, {{1, 3, {{1, false}, {1, false}, {1, true}}}}},
        {"in place, kept, own", 4, 2, 64, 1, {{1, 3, {{-700, false}, {-500, false}, {9, true}}}}},
        {"kept by offsets",
         4,
         4,
         128,
         1,
         {{1, 3, {{-900, false}, {-2500, BY_OFFSETS}, {31, true}}}}},
        {"offsets alone", 3, 2, 64, 1, {{17, 1, {{200, BY_OFFSETS}}}}},
        {"a chunk over three",
         2,
         3,
         64,
         1,
         {{150, 3, {{-300, BY_OFFSETS}, {65, false}, {150, true}}}}},
        {"the middle is empty", 2, 1, 64, 1, {{40, 3, {{63, false}, {0, false}, {40, true}}}}},
        {"splits cross two borders",
         1,
         4,
         64,
         1,
         {{1, 3, {{100, false}, {120, false}, {9000, true}}}}},
    };
    CHECK_ALL(cases);
}

static void questions_share_a_document(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"two",
         2,
         4,
         128,
         2,
         {{1, 2, {{2000, SHARED}, {3, true}}}, {1, 2, {{2000, SHARED}, {1, true}}}}},
        {"nothing of their own", 2, 1, 64, 2, {{1, 1, {{1100, SHARED}}}, {1, 1, {{1100, SHARED}}}}},
        {"with a core cache",
         4,
         2,
         64,
         3,
         {{1, 3, {{1500, SHARED}, {-90, BY_OFFSETS}, {30, true}}},
          {3, 3, {{1500, SHARED}, {-800, BY_OFFSETS}, {3, true}}},
          {1, 3, {{1500, SHARED}, {-1, BY_OFFSETS}, {100, true}}}}},
        {"between others",
         2,
         2,
         64,
         4,
         {{2, 2, {{1024, SHARED}, {2, true}}},
          {5, 2, {{1024, SHARED}, {9, true}}},
          {70, 1, {{300, true}}},
          {1, 2, {{1024, SHARED}, {6, true}}}}},
        {"questions of some tokens",
         2,
         4,
         128,
         3,
         {{64, 2, {{3001, SHARED}, {64, true}}},
          {40, 2, {{3001, SHARED}, {40, true}}},
          {1, 2, {{3001, SHARED}, {1, true}}}}},
        {"too short to matter",
         1,
         2,
         64,
         2,
         {{1, 2, {{500, SHARED}, {3, true}}}, {1, 2, {{500, SHARED}, {1, true}}}}},
    };
    CHECK_ALL(cases);
}

/* As many queries as go to cuDNN, where there is one, and what it leaves. */
static void long_runs_of_queries_are_right(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"own chunk", 2, 4, 128, 1, {{1024, 1, {{1024, true}}}}},
        {"own chunk of no power", 2, 2, 64, 1, {{1700, 1, {{1700, true}}}}},
        {"a chunk at an odd place", 8, 4, 128, 1, {{1537, 1, {{4537, true}}}}},
        {"a chunk at an even place", 8, 4, 128, 1, {{1024, 1, {{5120, true}}}}},
        {"not causal", 2, 2, 64, 1, {{700, 1, {{1280, false}}}}},
        {"not causal, an odd end", 2, 2, 64, 1, {{700, 1, {{1283, false}}}}},
        {"kept rows", 8, 4, 128, 1, {{600, 1, {{-3000, TAILED}}}}},
        {"kept rows, grouped by 1", 4, 1, 64, 1, {{512, 1, {{-1500, TAILED}}}}},
        {"kept rows, grouped by 3", 3, 3, 64, 1, {{1100, 1, {{-900, TAILED}}}}},
        {"one head", 1, 8, 128, 1, {{513, 1, {{2000, true}}}}},
        {"beside a decode",
         2,
         4,
         128,
         3,
         {{1, 2, {{-700, false}, {3, true}}}, {640, 1, {{640, true}}}, {2, 1, {{1200, true}}}}},
    };
    CHECK_ALL(cases);
}

/* What cuDNN takes packed, where there is one: split keys, and a rest behind whole tiles. */
static void few_queries_over_many_keys_are_right(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"a question", 2, 4, 128, 1, {{64, 2, {{9000, false}, {64, true}}}}},
        {"all heads of a model", 8, 4, 128, 1, {{33, 2, {{8448, false}, {33, true}}}}},
        {"nothing of its own", 4, 2, 64, 1, {{40, 1, {{8192, false}}}}},
        {"grouped by 3", 1, 3, 64, 1, {{65, 2, {{8200, false}, {65, true}}}}},
        {"splits without keys", 1, 2, 64, 1, {{40, 2, {{8320, false}, {40, true}}}}},
        {"over 512 queries", 2, 2, 64, 1, {{600, 2, {{8300, false}, {600, true}}}}},
        {"with heads in place",
         2,
         4,
         128,
         1,
         {{20, 3, {{8193, false}, {-700, BY_OFFSETS}, {20, true}}}}},
        {"questions share",
         2,
         4,
         128,
         3,
         {{64, 2, {{8999, SHARED}, {64, true}}},
          {7, 2, {{8999, SHARED}, {7, true}}},
          {1, 2, {{8999, SHARED}, {1, true}}}}},
        {"an odd number of heads",
         1,
         9,
         64,
         3,
         {{3, 2, {{8192, SHARED}, {3, true}}},
          {3, 2, {{8192, SHARED}, {3, true}}},
          {3, 2, {{8192, SHARED}, {3, true}}}}},
        {"just too few to pack", 1, 1, 64, 1, {{63, 2, {{8200, false}, {63, true}}}}},
    };
    CHECK_ALL(cases);
}

static void queries_without_keys_give_zeros(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"no rows", 2, 2, 64, 1, {{3, 1, {{0, false}}}}},
        {"no segments", 2, 2, 64, 1, {{3, 0, {{0, false}}}}},
        {"fewer rows than queries", 1, 2, 64, 1, {{40, 1, {{7, true}}}}},
        {"empty document", 2, 1, 64, 1, {{5, 2, {{0, false}, {5, true}}}}},
        {"no queries", 2, 1, 64, 2, {{0, 1, {{5, false}}}, {2, 1, {{9, true}}}}},
    };
    CHECK_ALL(cases);
}

static void steps_are_batched(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"grouped", 3, 3, 64, 1, {{1, 2, {{777, false}, {5, true}}}}},
        {"ragged core cache", 4, 2, 128, 1, {{1, 2, {{-900, false}, {31, true}}}}},
        {"chunk and decodes",
         2,
         4,
         64,
         4,
         {{133, 1, {{300, true}}},
          {1, 1, {{5130, true}}},
          {1, 2, {{-64, false}, {1, true}}},
          {9, 1, {{20, true}}}}},
        {"short speculative run", 2, 2, 64, 1, {{4, 1, {{700, true}}}}},
    };
    CHECK_ALL(cases);

    /* More than one launch takes. */
    struct attention_case many = {"many decodes", 2, 2, 64, ITEMS_MOST, {{0}}};
    for (int i = 0; i < ITEMS_MOST; i++)
        many.item[i] = (struct item_case){1 + i % 3, 2, {{-(10 + 60 * i), false}, {3 + i, true}}};
    check(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_prompts_are_causal),
        cmocka_unit_test(every_head_size_is_right),
        cmocka_unit_test(chunks_see_what_came_before),
        cmocka_unit_test(keys_are_split_where_queries_are_few),
        cmocka_unit_test(three_segments_count_as_one),
        cmocka_unit_test(questions_share_a_document),
        cmocka_unit_test(long_runs_of_queries_are_right),
        cmocka_unit_test(few_queries_over_many_keys_are_right),
        cmocka_unit_test(queries_without_keys_give_zeros),
        cmocka_unit_test(steps_are_batched),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
