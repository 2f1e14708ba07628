#include "tests/support/numbers.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"

enum { ITEMS_MOST = 4, KV_HEADS_MOST = 8 };

/* Segment s of an item: rows < 0 draws ragged rows of 0 .. -rows for each head. */
struct segment_case {
    int rows;
    bool causal;
};

struct attention_case {
    const char *what;
    int kv_heads, group, head_dim;
    int items;
    struct {
        int queries;
        int segments;
        struct segment_case segment[2];
    } item[ITEMS_MOST];
};

struct tensors {
    struct attention_shape shape;
    struct attention_item items[ITEMS_MOST];
    int32_t ragged[ITEMS_MOST][2][KV_HEADS_MOST];
    int queries;
    uint16_t *q;
    uint16_t *kv[ITEMS_MOST][2]; /* K then V of a segment, owned */
};

static void make_tensors(struct tensors *t, const struct attention_case *c)
{
    uint64_t random = 99;
    *t = (struct tensors){.shape = {.q_heads = c->kv_heads * c->group,
                                    .kv_heads = c->kv_heads,
                                    .head_dim = c->head_dim,
                                    .scale = 1.0f / sqrtf((float)c->head_dim)}};
    for (int i = 0; i < c->items; i++) {
        t->items[i] = (struct attention_item){.first_query = t->queries,
                                              .queries = c->item[i].queries,
                                              .segments = c->item[i].segments};
        t->queries += c->item[i].queries;
        for (int s = 0; s < c->item[i].segments; s++) {
            const struct segment_case *from = &c->item[i].segment[s];
            int rows = abs(from->rows);
            /* A gap between the heads, as a cache with room to grow has. */
            size_t stride = (size_t)(rows + 3) * (size_t)c->head_dim;
            size_t elements = stride * (size_t)c->kv_heads;
            t->kv[i][s] = new_bf16s(2 * elements, 3, &random);
            for (int h = 0; h < c->kv_heads; h++) {
                t->ragged[i][s][h] = (int32_t)(random_bits(&random) % (uint64_t)(rows + 1));
                size_t seen = (size_t)(from->rows < 0 ? t->ragged[i][s][h] : rows);
                size_t first = (size_t)h * stride + seen * (size_t)c->head_dim;
                size_t bytes = (stride - seen * (size_t)c->head_dim) * sizeof(uint16_t);
                /* What nobody may see is NaN. */
                memset(t->kv[i][s] + first, 0xff, bytes);
                memset(t->kv[i][s] + elements + first, 0xff, bytes);
            }
            t->items[i].segment[s] = (struct attention_segment){
                .k = t->kv[i][s],
                .v = t->kv[i][s] + elements,
                .head_stride = (int64_t)stride,
                .rows = rows,
                .rows_per_head = from->rows < 0 ? t->ragged[i][s] : NULL,
                .causal = from->causal,
            };
        }
    }
    t->q = new_bf16s((size_t)t->queries * (size_t)(t->shape.q_heads * c->head_dim), 2, &random);
}

static void free_tensors(struct tensors *t)
{
    for (int i = 0; i < ITEMS_MOST; i++)
        for (int s = 0; s < 2; s++)
            free(t->kv[i][s]);
    free(t->q);
}

static int64_t visible(const struct attention_segment *segment, int kv_head, int query, int queries)
{
    if (segment->rows_per_head)
        return segment->rows_per_head[kv_head];
    int64_t rows = segment->causal ? segment->rows - queries + query + 1 : segment->rows;
    return rows < 0 ? 0 : rows;
}

/* Scores of one query in double, over all its keys at once. */
static void reference_query(const struct tensors *t, const struct attention_item *item, int query,
                            int head, double *out, double *lse_out)
{
    int dim = t->shape.head_dim;
    int kv_head = head / (t->shape.q_heads / t->shape.kv_heads);
    const uint16_t *q =
        t->q + ((size_t)(item->first_query + query) * (size_t)t->shape.q_heads + (size_t)head) *
                   (size_t)dim;
    double most = -INFINITY;
    double sum = 0;
    memset(out, 0, (size_t)dim * sizeof(*out));
    for (int pass = 0; pass < 2; pass++)
        for (int s = 0; s < item->segments; s++) {
            const struct attention_segment *segment = &item->segment[s];
            int64_t rows = visible(segment, kv_head, query, item->queries);
            for (int64_t row = 0; row < rows; row++) {
                const uint16_t *k = segment->k + kv_head * segment->head_stride + row * dim;
                const uint16_t *v = segment->v + kv_head * segment->head_stride + row * dim;
                double score = 0;
                for (int i = 0; i < dim; i++)
                    score += (double)float_of_bf16(q[i]) * (double)float_of_bf16(k[i]);
                score *= (double)t->shape.scale;
                if (pass == 0) {
                    most = fmax(most, score);
                    continue;
                }
                double p = exp(score - most);
                sum += p;
                for (int i = 0; i < dim; i++)
                    out[i] += p * (double)float_of_bf16(v[i]);
            }
        }
    for (int i = 0; i < dim; i++)
        out[i] = sum > 0 ? out[i] / sum : 0;
    *lse_out = sum > 0 ? most + log(sum) : -INFINITY;
}

static void check_attention(enum cpu_isa isa, int threads, const struct attention_case *c)
{
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue;
    assert_int_equal(cpu_queue_create(threads, isa, &queue), TCA_OK);
    struct tensors t;
    make_tensors(&t, c);
    size_t heads = (size_t)t.queries * (size_t)t.shape.q_heads;
    size_t dim = (size_t)c->head_dim;
    uint16_t *out = new_array(heads * dim, sizeof(*out));
    float *lse = new_array(heads, sizeof(*lse));
    memset(out, 0xff, heads * dim * sizeof(*out));
    memset(lse, 0xff, heads * sizeof(*lse));
    assert_int_equal(cpu->attention(queue, out, lse, t.q, &t.shape, t.items, c->items), TCA_OK);

    double *want = new_array(dim, sizeof(*want));
    for (int i = 0; i < c->items; i++)
        for (int query = 0; query < t.items[i].queries; query++)
            for (int head = 0; head < t.shape.q_heads; head++) {
                double want_lse;
                reference_query(&t, &t.items[i], query, head, want, &want_lse);
                size_t row = (size_t)(t.items[i].first_query + query) * (size_t)t.shape.q_heads +
                             (size_t)head;
                /* P is rounded to bf16: 2^-9 of |v| <= 3, and the output once more. */
                assert_close_bf16(out + row * dim, want, dim, 0.012, 1.0 / 128, c->what);
                if (isinf(want_lse))
                    assert_true(isinf(lse[row]) && lse[row] < 0);
                else
                    assert_close(lse + row, &want_lse, 1, 1e-4, 1e-5, c->what);
            }

    uint16_t *without_lse = new_array(heads * dim, sizeof(*without_lse));
    assert_int_equal(cpu->attention(queue, without_lse, NULL, t.q, &t.shape, t.items, c->items),
                     TCA_OK);
    assert_memory_equal(without_lse, out, heads * dim * sizeof(*out));
    free(without_lse);
    free(want);
    free(lse);
    free(out);
    free_tensors(&t);
    cpu_queue_destroy(queue);
}

static void check_all(const struct attention_case *cases, size_t count)
{
    static const enum cpu_isa isas[] = {CPU_ISA_PORTABLE, CPU_ISA_AVX2, CPU_ISA_AVX512_BF16};
    for (size_t isa = 0; isa < 3; isa++)
        for (size_t i = 0; i < count; i++)
            check_attention(isas[isa], (int)(i % 3) + 1, &cases[i]);
}

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
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

static void every_head_size_is_right(void **state)
{
    (void)state;
    for (int dim = 8; dim <= 256; dim += dim < 80 ? 8 : 88) {
        struct attention_case c = {"head size", 2, dim / 8 % 4 + 1,
                                   dim,         1, {{37, 1, {{90, true}}}}};
        check_all(&c, 1);
        struct attention_case decode = {"head size, decode",    2, dim / 8 % 4 + 1, dim, 1,
                                        {{1, 1, {{301, true}}}}};
        check_all(&decode, 1);
    }
}

static void chunks_see_what_came_before(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"chunk", 2, 2, 64, 1, {{50, 1, {{177, true}}}}},
        {"chunk of whole blocks", 1, 1, 64, 1, {{64, 1, {{256, true}}}}},
        {"document, then own", 2, 3, 64, 1, {{20, 2, {{200, false}, {33, true}}}}},
        {"ragged, then own", 3, 2, 64, 1, {{70, 2, {{-150, false}, {70, true}}}}},
        {"ragged alone", 4, 1, 32, 1, {{9, 1, {{-65, false}}}}},
        {"two ragged", 4, 2, 40, 1, {{9, 2, {{-65, false}, {-3, false}}}}},
        {"two causal", 1, 2, 64, 1, {{5, 2, {{80, true}, {5, true}}}}},
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
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
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

static void decode_steps_are_batched(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"one", 1, 1, 64, 1, {{1, 1, {{1000, true}}}}},
        {"grouped", 3, 3, 64, 1, {{1, 2, {{777, false}, {5, true}}}}},
        {"ragged core cache", 4, 2, 128, 1, {{1, 2, {{-900, false}, {31, true}}}}},
        {"chunk and decodes",
         2,
         4,
         64,
         4,
         {{33, 1, {{100, true}}},
          {1, 1, {{513, true}}},
          {1, 2, {{-64, false}, {1, true}}},
          {2, 1, {{2, true}}}}},
        {"short speculative run", 2, 2, 64, 1, {{4, 1, {{700, true}}}}},
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

static void long_contexts_are_split_and_merged(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        {"one query", 1, 3, 64, 1, {{1, 1, {{5000, true}}}}},
        {"ragged core cache, then own", 3, 2, 64, 1, {{1, 2, {{-4000, false}, {1030, true}}}}},
        {"a question", 2, 3, 64, 1, {{47, 2, {{2100, false}, {47, true}}}}},
        {"heads of 8 and 1", 2, 1, 8, 2, {{1, 1, {{3333, true}}}, {65, 1, {{1025, true}}}}},
        {"wide heads", 1, 8, 256, 1, {{1, 1, {{2049, true}}}}},
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    static const struct attention_case c = {
        "threads", 2, 3, 64, 2, {{100, 1, {{300, true}}}, {1, 1, {{2500, true}}}}};
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct tensors t;
    make_tensors(&t, &c);
    size_t count = (size_t)t.queries * (size_t)(t.shape.q_heads * c.head_dim);
    uint16_t *out[2];
    for (int i = 0; i < 2; i++) {
        struct kernel_queue *queue;
        out[i] = new_array(count, sizeof(*out[i]));
        assert_int_equal(cpu->queue_create(0, 1 + 2 * i, &queue), TCA_OK);
        assert_int_equal(cpu->attention(queue, out[i], NULL, t.q, &t.shape, t.items, c.items),
                         TCA_OK);
        cpu->queue_destroy(queue);
    }
    assert_memory_equal(out[0], out[1], count * sizeof(*out[0]));
    free(out[1]);
    free(out[0]);
    free_tensors(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_prompts_are_causal),
        cmocka_unit_test(every_head_size_is_right),
        cmocka_unit_test(chunks_see_what_came_before),
        cmocka_unit_test(queries_without_keys_give_zeros),
        cmocka_unit_test(decode_steps_are_batched),
        cmocka_unit_test(long_contexts_are_split_and_merged),
        cmocka_unit_test(threads_do_not_change_a_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
