/* Selection on the device: the same tokens as select_run(), to the last one. */
#include "tests/kernels/sides.h"

enum { HEADS_MOST = 9 };

/* What the scores look like. */
enum scores { DRAWN, FEW_VALUES, ALL_EQUAL, ALL_ZERO, ODD_NUMBERS, SCORES };

static void fill(float *scores, size_t count, enum scores kind, uint64_t *random)
{
    static const float odd[] = {NAN, -1.0f, 0.0f, -0.0f, 1e-42f, INFINITY, 0.5f, -INFINITY};

    for (size_t i = 0; i < count; i++) {
        uint64_t bits = random_bits(random) >> 40;

        switch (kind) {
        case DRAWN:
            scores[i] = expf(20 * random_float(random) - 20);
            break;
        case FEW_VALUES:
            scores[i] = (float)(bits % 5) / 16;
            break;
        case ALL_EQUAL:
            scores[i] = 0.25f;
            break;
        case ALL_ZERO:
            scores[i] = 0;
            break;
        case ODD_NUMBERS:
            scores[i] = odd[bits % 8];
            break;
        case SCORES:
            break;
        }
    }
}

struct select_case {
    enum select_rule rule;
    enum select_redundancy redundancy;
    int heads;
    int64_t tokens, window;
    const int64_t *budgets;
};

struct selection {
    int32_t *kept;
    int32_t *counts;
};

static struct selection run(const struct side *side, const struct select_case *c,
                            const float *tokens, const float *masses, const float *shares,
                            int64_t stride)
{
    size_t token_bytes = (size_t)(c->heads * c->tokens) * sizeof(float);
    size_t mass_bytes = (size_t)(c->heads * select_blocks(c->tokens)) * sizeof(float);
    size_t kept_bytes = (size_t)(c->heads * stride) * sizeof(int32_t);
    size_t count_bytes = (size_t)c->heads * sizeof(int32_t);
    float *device_tokens = put(side, tokens, token_bytes);
    float *device_masses = put(side, masses, mass_bytes);
    struct select_input input = {.tokens = c->tokens,
                                 .window = c->window,
                                 .token_scores = device_tokens,
                                 .block_masses = device_masses,
                                 .redundancy = c->redundancy,
                                 .tca_shares = shares};
    void *kept = put(side, NULL, kept_bytes), *counts = put(side, NULL, count_bytes);

    assert_int_equal(side->backend->select(side->queue, kept, stride, counts, c->rule, &input,
                                           c->budgets, c->heads),
                     TCA_OK);
    drop(side, device_tokens, token_bytes);
    drop(side, device_masses, mass_bytes);
    return (struct selection){take(side, kept, kept_bytes), take(side, counts, count_bytes)};
}

static void check(const struct select_case *c, enum scores kind)
{
    uint64_t random = 31 + (uint64_t)c->tokens;
    size_t blocks = (size_t)select_blocks(c->tokens);
    float *tokens = new_floats((size_t)(c->heads * c->tokens), NULL);
    float *masses = new_floats((size_t)c->heads * blocks, NULL);
    float shares[HEADS_MOST][SELECT_TCA_SIZES];
    int64_t stride = 0;

    for (int head = 0; head < c->heads; head++) {
        int64_t most = c->budgets[head] < c->tokens ? c->budgets[head] : c->tokens;

        stride = most > stride ? most : stride;
        select_tca_shares(-1 + head, head % 2 ? 0.3 : 2, shares[head]);
    }
    stride += 5;
    fill(tokens, (size_t)(c->heads * c->tokens), kind, &random);
    fill(masses, (size_t)c->heads * blocks, kind, &random);
    struct selection want = run(&sides[SIDE_CPU], c, tokens, masses, shares[0], stride);
    struct selection got = run(&sides[SIDE_CUDA], c, tokens, masses, shares[0], stride);
    for (int head = 0; head < c->heads; head++) {
        if (got.counts[head] != want.counts[head])
            fail_msg("rule %d, scores %d, %lld tokens, head %d: %d kept, not %d", (int)c->rule,
                     (int)kind, (long long)c->tokens, head, got.counts[head], want.counts[head]);
        for (int64_t i = head * stride; i < (head + 1) * stride; i++)
            if (got.kept[i] != want.kept[i])
                fail_msg("rule %d, scores %d, %lld tokens, head %d: place %lld has %d, not %d",
                         (int)c->rule, (int)kind, (long long)c->tokens, head,
                         (long long)(i - head * stride), got.kept[i], want.kept[i]);
    }
    free(want.kept);
    free(want.counts);
    free(got.kept);
    free(got.counts);
    free(masses);
    free(tokens);
}

static const struct {
    enum select_rule rule;
    enum select_redundancy redundancy;
} rules[] = {{SELECT_DENSE, SELECT_REDUNDANCY_SIMPSON}, {SELECT_WINDOW, SELECT_REDUNDANCY_SIMPSON},
             {SELECT_BLOCK, SELECT_REDUNDANCY_SIMPSON}, {SELECT_POOLED, SELECT_REDUNDANCY_SIMPSON},
             {SELECT_TCA, SELECT_REDUNDANCY_SIMPSON},   {SELECT_TCA, SELECT_REDUNDANCY_MASS}};

enum { RULES = sizeof(rules) / sizeof(rules[0]) };

/* Budgets from sinks and window alone to everything, and none. */
static void check_sizes(int64_t tokens, int64_t window, enum scores kind)
{
    int64_t least = SELECT_BLOCK_TOKENS + window < tokens ? SELECT_BLOCK_TOKENS + window : tokens;
    int64_t left = tokens - least;
    const int64_t budgets[HEADS_MOST] = {least,
                                         0,
                                         least + (left > 0),
                                         least + left / 10,
                                         least + left / 3,
                                         least + left - (left > 0),
                                         tokens,
                                         tokens + 77,
                                         least + left / 2};

    for (int i = 0; i < RULES; i++) {
        struct select_case c = {rules[i].rule, rules[i].redundancy, HEADS_MOST, tokens, window,
                                budgets};

        check(&c, kind);
    }
}

static void small_documents(void **state)
{
    (void)state;
    static const int64_t tokens[] = {1, 2, 63, 64, 65, 99, 100, 127, 128, 163, 164, 165, 229, 700};

    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
        for (int kind = 0; kind < SCORES; kind++)
            check_sizes(tokens[i], 100, (enum scores)kind);
}

static void without_a_window(void **state)
{
    (void)state;
    check_sizes(1, 0, DRAWN);
    check_sizes(64, 0, DRAWN);
    check_sizes(1000, 0, FEW_VALUES);
    check_sizes(1024, 64, DRAWN);
}

static void documents_of_thousands(void **state)
{
    (void)state;
    for (int kind = 0; kind < SCORES; kind++) {
        check_sizes(8192, 1024, (enum scores)kind);
        check_sizes(9999, 1024, (enum scores)kind);
        check_sizes(33333, 1000, (enum scores)kind);
    }
    check_sizes(131071, 1024, DRAWN);
    check_sizes(131072, 1024, FEW_VALUES);
}

/* Heads do not fit into one launch, by number and by scratch memory. */
static void many_heads_and_a_million_tokens(void **state)
{
    (void)state;
    enum { HEADS = 70 };
    static const int64_t budget = 5000;
    int64_t budgets[HEADS];

    for (int i = 0; i < HEADS; i++)
        budgets[i] = 1088 + 3 * i;
    float shares[HEADS][SELECT_TCA_SIZES];
    size_t tokens = (size_t)HEADS * 3000;
    uint64_t random = 1;
    float *scores = new_floats(tokens, &random);
    struct select_case many = {SELECT_POOLED, SELECT_REDUNDANCY_SIMPSON, HEADS, 3000, 1024,
                               budgets};

    memset(shares, 0, sizeof(shares));
    struct selection want = run(&sides[SIDE_CPU], &many, scores, scores, shares[0], 3000);
    struct selection got = run(&sides[SIDE_CUDA], &many, scores, scores, shares[0], 3000);
    assert_memory_equal(want.counts, got.counts, sizeof(budgets) / 2);
    assert_memory_equal(want.kept, got.kept, tokens * sizeof(int32_t));
    free(want.kept);
    free(want.counts);
    free(got.kept);
    free(got.counts);
    free(scores);

    const int64_t few[HEADS_MOST] = {budget, 100000, 31000,  budget, budget,
                                     2000,   90001,  budget, 500000};
    for (int i = 2; i < RULES; i++) {
        struct select_case c = {rules[i].rule, rules[i].redundancy, HEADS_MOST, 3000001, 1024, few};

        check(&c, i % 2 ? DRAWN : FEW_VALUES);
    }
}

static void impossible_budgets_are_refused(void **state)
{
    (void)state;
    static const int64_t budgets[][2] = {{163, 200}, {200, 301}, {200, 1}};

    for (int s = 0; s < SIDES; s++)
        for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
            const struct side *side = &sides[s];
            struct select_input input = {.tokens = 1000, .window = 100};
            size_t kept_bytes = 2 * 300 * sizeof(int32_t);
            void *kept = put(side, NULL, kept_bytes);
            void *counts = put(side, NULL, 2 * sizeof(int32_t));

            assert_int_equal(side->backend->select(side->queue, kept, 300, counts, SELECT_WINDOW,
                                                   &input, budgets[i], 2),
                             TCA_ERR_INVALID);
            uint8_t *bytes = take(side, kept, kept_bytes);
            for (size_t j = 0; j < kept_bytes; j++)
                assert_int_equal(bytes[j], POISON);
            free(bytes);
            drop(side, counts, 2 * sizeof(int32_t));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_documents),
        cmocka_unit_test(without_a_window),
        cmocka_unit_test(documents_of_thousands),
        cmocka_unit_test(many_heads_and_a_million_tokens),
        cmocka_unit_test(impossible_budgets_are_refused),
    };

    if (kernel_backend_cuda(0, NULL) == NULL) {
        printf("no CUDA device\n");
        return TEST_SKIPPED;
    }
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
