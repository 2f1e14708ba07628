#include "tests/support/check.h"

#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS_MAX = 64, TEXT_BYTES_MAX = 3000 };

/* A merge table over a few letters: random pairs in random order of rank, so that merges are not
 * in the order in which their parts come to be, as in vocabularies that were converted. */
struct table {
    struct bpe bpe;
    int letters, tokens;
    int32_t merged[TOKENS_MAX][TOKENS_MAX], rank[TOKENS_MAX][TOKENS_MAX]; /* rank -1: no merge */
};

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void table_init(struct table *table, uint32_t *seed)
{
    int ranks[TOKENS_MAX];

    memset(table, 0, sizeof(*table));
    memset(table->rank, 0xff, sizeof(table->rank));
    table->letters = 1 + (int)(next_random(seed) % 4);
    table->tokens = table->letters + (int)(next_random(seed) % (TOKENS_MAX - 4));
    table->bpe.symbols_per_byte = 1;
    for (int letter = 0; letter < table->letters; letter++)
        table->bpe.bytes['a' + letter] = (struct bpe_byte){.ids = {letter}, .count = 1};
    for (int token = table->letters; token < table->tokens; token++)
        ranks[token] = token;
    for (int token = table->tokens - 1; token > table->letters; token--) {
        const int other =
            table->letters + (int)(next_random(seed) % (uint32_t)(token - table->letters + 1));
        const int rank = ranks[token];

        if (next_random(seed) % 2 == 0)
            continue;
        ranks[token] = ranks[other];
        ranks[other] = rank;
    }
    for (int token = table->letters; token < table->tokens; token++) {
        const int left = (int)(next_random(seed) % (uint32_t)token);
        const int right = (int)(next_random(seed) % (uint32_t)token);

        if (table->rank[left][right] >= 0)
            continue;
        table->rank[left][right] = ranks[token];
        table->merged[left][right] = token;
        const struct bpe_merge merge = {left, right, ranks[token], token};
        assert_int_equal(bpe_add_merge(&table->bpe, &merge), TCA_OK);
    }
}

/* The definition: merge the leftmost pair of the lowest rank until there is none. */
static size_t merge_all(const struct table *table, int32_t *ids, size_t count)
{
    for (;;) {
        size_t best = count;

        for (size_t i = 0; i + 1 < count; i++)
            if (table->rank[ids[i]][ids[i + 1]] >= 0 &&
                (best == count ||
                 table->rank[ids[i]][ids[i + 1]] < table->rank[ids[best]][ids[best + 1]]))
                best = i;
        if (best == count)
            return count;
        ids[best] = table->merged[ids[best]][ids[best + 1]];
        memmove(ids + best + 1, ids + best + 2, (count - best - 2) * sizeof(*ids));
        count--;
    }
}

static size_t random_text(const struct table *table, uint32_t *seed, char *text)
{
    const size_t bytes = 1 + next_random(seed) % TEXT_BYTES_MAX;
    const uint32_t period = next_random(seed) % 3 == 0 ? 1 + next_random(seed) % 9 : TEXT_BYTES_MAX;

    for (size_t i = 0; i < bytes; i++) {
        const char letter = (char)('a' + next_random(seed) % (uint32_t)table->letters);

        text[i] = i < period ? letter : text[i - period];
    }
    return bytes;
}

static void tokens_are_those_of_the_definition_at_any_length(void **state)
{
    static struct table table;
    static int32_t expected[TEXT_BYTES_MAX];
    static char text[TEXT_BYTES_MAX];
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 400; round++) {
        struct bpe_scratch scratch = {0};
        struct token_ids ids = {0};

        table_init(&table, &seed);
        for (int repeat = 0; repeat < 3; repeat++) {
            const size_t bytes = random_text(&table, &seed, text);
            size_t count;

            for (size_t i = 0; i < bytes; i++)
                expected[i] = text[i] - 'a';
            count = merge_all(&table, expected, bytes);
            ids.count = 0;
            assert_int_equal(bpe_encode(&table.bpe, text, bytes, &scratch, &ids), TCA_OK);
            assert_int_equal(ids.count, count);
            assert_memory_equal(ids.ids, expected, count * sizeof(*expected));
        }
        token_ids_free(&ids);
        bpe_scratch_free(&scratch);
        bpe_free(&table.bpe);
    }
}

/* Merges double a token sixteen times, so that one token is the whole text and windows are of no
 * help. */
static void a_token_may_be_longer_than_any_window(void **state)
{
    struct bpe bpe = {.symbols_per_byte = 1};
    struct bpe_scratch scratch = {0};
    struct token_ids ids = {0};
    char *text = malloc(1 << 16);

    (void)state;
    assert_non_null(text);
    memset(text, 'a', 1 << 16);
    bpe.bytes['a'] = (struct bpe_byte){.ids = {0}, .count = 1};
    for (int level = 0; level < 16; level++) { /* token n is 2^n letters */
        const struct bpe_merge merge = {level, level, level, level + 1};

        assert_int_equal(bpe_add_merge(&bpe, &merge), TCA_OK);
    }
    assert_int_equal(bpe_encode(&bpe, text, 1 << 16, &scratch, &ids), TCA_OK);
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.ids[0], 16);
    ids.count = 0;
    assert_int_equal(bpe_encode(&bpe, text, (1 << 16) - 1, &scratch, &ids), TCA_OK);
    assert_int_equal(ids.count, 16); /* 32,768 + 16,384 + ... + 1 letters */
    for (int i = 0; i < 16; i++)
        assert_int_equal(ids.ids[i], 15 - i);
    free(text);
    token_ids_free(&ids);
    bpe_scratch_free(&scratch);
    bpe_free(&bpe);
}

static void bytes_without_token_are_unknown_or_dropped(void **state)
{
    struct bpe bpe = {.symbols_per_byte = 2};
    struct bpe_scratch scratch = {0};
    struct token_ids ids = {0};
    static const int32_t apart[] = {0, 9, 9, 0, 9, 0, 7, 8, 0}, fused[] = {0, 9, 0, 9, 0, 7, 8, 0};

    (void)state;
    bpe.bytes['a'] = (struct bpe_byte){.ids = {0}, .count = 1};
    bpe.bytes['?'] = (struct bpe_byte){.ids = {9}, .count = 1, .is_unknown = true};
    bpe.bytes['2'] = (struct bpe_byte){.ids = {7, 8}, .count = 2};
    assert_int_equal(bpe_encode(&bpe, "a??a?a2a", 8, &scratch, &ids), TCA_OK);
    assert_int_equal(ids.count, 9);
    assert_memory_equal(ids.ids, apart, sizeof(apart));
    ids.count = 0;
    bpe.fuse_unknown = true;
    assert_int_equal(bpe_encode(&bpe, "a??a?a2a", 8, &scratch, &ids), TCA_OK);
    assert_int_equal(ids.count, 8);
    assert_memory_equal(ids.ids, fused, sizeof(fused));
    ids.count = 0;
    assert_int_equal(bpe_encode(&bpe, "xyz", 3, &scratch, &ids), TCA_OK);
    assert_int_equal(ids.count, 0);
    token_ids_free(&ids);
    bpe_scratch_free(&scratch);
    bpe_free(&bpe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_the_definition_at_any_length),
        cmocka_unit_test(a_token_may_be_longer_than_any_window),
        cmocka_unit_test(bytes_without_token_are_unknown_or_dropped),
    };
    return cmocka_run_group_tests_name("bpe", tests, NULL, NULL);
}
