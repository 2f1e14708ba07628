#include "tests/support/check.h"

#include "worker/batch.h"

#include <stdbool.h>
#include <string.h>

enum { CHUNK = 8, SEQUENCES = 8 };

static const int32_t some_ids[64] = {1, 2, 3};

static struct batch_sequence sequence(enum batch_kind kind, int32_t slot, int64_t pending)
{
    return (struct batch_sequence){.kind = kind,
                                   .slot = slot,
                                   .pending = some_ids,
                                   .pending_tokens = pending,
                                   .logits =
                                       kind == BATCH_DOCUMENT ? STEP_LOGITS_NONE : STEP_LOGITS_TOP};
}

static struct step_plan plan;

static int setup(void **state)
{
    const struct step_limits limits = {.items = SEQUENCES, .tokens = CHUNK + SEQUENCES};

    (void)state;
    return step_plan_init(&plan, &limits);
}

static int teardown(void **state)
{
    (void)state;
    step_plan_deinit(&plan);
    return 0;
}

static void compose(struct batch_sequence *sequences, int count, uint64_t step)
{
    const struct batch_limits limits = {.chunk_tokens = CHUNK};
    int order[SEQUENCES];

    step_plan_clear(&plan, step);
    batch_compose(sequences, count, &limits, order, &plan);
    for (int i = 0; i < count; i++) {
        if (sequences[i].served_tokens == 0)
            continue;
        sequences[i].last_step = step;
        sequences[i].own_rows += sequences[i].served_tokens;
        if (sequences[i].kind != BATCH_DECODE)
            sequences[i].pending_tokens -= sequences[i].served_tokens;
    }
}

static void decodes_run_beside_a_whole_chunk(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_DECODE, 0, 1), sequence(BATCH_DOCUMENT, 1, 20),
                                   sequence(BATCH_DECODE, 2, 1)};

    (void)state;
    compose(all, 3, 1);
    assert_int_equal(plan.items, 3);
    assert_int_equal(plan.tokens, CHUNK + 2);
    assert_int_equal(all[0].served_tokens, 1);
    assert_int_equal(all[1].served_tokens, CHUNK);
    assert_int_equal(all[2].served_tokens, 1);
    assert_int_equal(plan.item[0].logits, STEP_LOGITS_TOP);
}

static void only_the_last_token_of_a_question_wants_logits(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_QUESTION, 0, 11)};

    (void)state;
    compose(all, 1, 1);
    assert_int_equal(plan.item[0].tokens, CHUNK);
    assert_int_equal(plan.item[0].logits, STEP_LOGITS_NONE);
    compose(all, 1, 2);
    assert_int_equal(plan.item[0].tokens, 3);
    assert_int_equal(plan.item[0].own_rows, CHUNK);
    assert_int_equal(plan.item[0].logits, STEP_LOGITS_TOP);
}

static void a_question_with_missing_tokens_wants_no_logits(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_QUESTION, 0, 3)};

    (void)state;
    all[0].missing_tokens = 1;
    compose(all, 1, 1);
    assert_int_equal(plan.item[0].tokens, 3);
    assert_int_equal(plan.item[0].logits, STEP_LOGITS_NONE);
}

static void a_document_advances_by_whole_chunks_only(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_DOCUMENT, 0, CHUNK - 1)};

    (void)state;
    all[0].missing_tokens = 5;
    compose(all, 1, 1);
    assert_int_equal(plan.items, 0); /* the rest of the chunk is on its way */
    all[0].pending_tokens++;
    all[0].missing_tokens--;
    compose(all, 1, 2);
    assert_int_equal(plan.item[0].tokens, CHUNK);
    all[0].pending_tokens = 4;
    all[0].missing_tokens = 0;
    compose(all, 1, 3);
    assert_int_equal(plan.item[0].tokens, 4); /* the last one is what is left */
}

/* However many there are, the steps go round; each document's borders stay at whole chunks. */
static void documents_take_turns(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_DOCUMENT, 0, 24), sequence(BATCH_DOCUMENT, 1, 24),
                                   sequence(BATCH_DOCUMENT, 2, 24)};
    const int32_t expected[] = {0, 1, 2, 0, 1, 2, 0, 1, 2};

    (void)state;
    for (uint64_t step = 1; step <= 9; step++) {
        compose(all, 3, step);
        assert_int_equal(plan.items, 1);
        assert_int_equal(plan.item[0].slot, expected[step - 1]);
        assert_int_equal(plan.item[0].own_rows % CHUNK, 0);
    }
    assert_int_equal(all[0].pending_tokens + all[1].pending_tokens + all[2].pending_tokens, 0);
}

static void a_stream_of_questions_does_not_starve_a_document(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_QUESTION, 0, 5), sequence(BATCH_DOCUMENT, 1, 40)};
    int document_steps = 0;

    (void)state;
    for (uint64_t step = 1; step <= 10; step++) {
        compose(all, 2, step);
        document_steps += all[1].served_tokens > 0;
        all[0] = sequence(BATCH_QUESTION, 0, 5); /* another one arrives */
        all[0].last_step = step;
    }
    assert_in_range(document_steps, 4, 6);
}

static void short_questions_share_a_step(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_DOCUMENT, 0, 3), sequence(BATCH_QUESTION, 1, 2),
                                   sequence(BATCH_QUESTION, 2, 2)};

    (void)state;
    compose(all, 3, 1);
    assert_int_equal(plan.items, 3);
    assert_int_equal(plan.tokens, 7);
    assert_int_equal(plan.item[0].slot, 1); /* questions first among equals */
    assert_int_equal(plan.item[2].slot, 0);
}

static int64_t tokens_at(int64_t position, bool has_decodes)
{
    const struct batch_limits limits = {
        .chunk_tokens = 1024, .key_reads = 1024 * 32768, .decode_share = 8};
    const struct step_limits plan_limits = {.items = 4, .tokens = 2048};
    struct batch_sequence all[] = {sequence(BATCH_DOCUMENT, 0, 5000), sequence(BATCH_DECODE, 1, 1)};
    static int32_t ids[5000];
    struct step_plan large;
    int64_t served;
    int order[2];

    assert_int_equal(step_plan_init(&large, &plan_limits), TCA_OK);
    all[0].pending = ids;
    all[0].own_rows = position;
    batch_compose(all, has_decodes ? 2 : 1, &limits, order, &large);
    served = all[0].served_tokens;
    assert_int_equal(large.tokens, served + has_decodes);
    step_plan_deinit(&large);
    return served;
}

static void steps_stay_short_where_attention_is_long_or_answers_wait(void **state)
{
    (void)state;
    assert_int_equal(tokens_at(0, false), 1024);
    assert_int_equal(tokens_at(32 * 1024, false), 1024);
    assert_int_equal(tokens_at(128 * 1024, false), 256);
    assert_int_equal(tokens_at(1000 * 1024, false), BATCH_PIECE_LEAST);
    assert_int_equal(tokens_at(0, true), 128);
    assert_int_equal(tokens_at(128 * 1024, true), BATCH_PIECE_LEAST);
    /* Never across a chunk's border. */
    assert_int_equal(tokens_at(1024 - 10, false), 10);
    assert_int_equal(tokens_at(1024 - 10, true), 10);
}

static void nothing_to_do_is_an_idle_plan(void **state)
{
    (void)state;
    compose(NULL, 0, 1);
    assert_int_equal(plan.items, 0);
}

static void the_tokens_that_select_run_in_one_piece(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_QUESTION, 0, 11), sequence(BATCH_DECODE, 1, 1)};

    (void)state;
    all[0].selects = true;
    all[0].tail_tokens = 6;
    compose(all, 2, 1);
    assert_int_equal(all[0].served_tokens, 5);
    for (int i = 0; i < plan.items; i++)
        assert_false(plan.item[i].selects);
    all[0].missing_tokens = 1; /* the last has not arrived: nothing selects yet */
    all[0].pending_tokens = 5;
    compose(all, 2, 2);
    assert_int_equal(all[0].served_tokens, 0);
    all[0].missing_tokens = 0;
    all[0].pending_tokens = 6;
    compose(all, 2, 3);
    assert_int_equal(all[0].served_tokens, 6);
    assert_int_equal(plan.items, 2);
    assert_true(plan.item[1].selects);
    assert_false(plan.item[0].selects);
}

static void chunks_that_select_are_never_cut(void **state)
{
    const struct batch_limits limits = {
        .chunk_tokens = CHUNK, .key_reads = 1, .decode_share = CHUNK};
    struct batch_sequence all[] = {sequence(BATCH_DOCUMENT, 0, 3 * CHUNK),
                                   sequence(BATCH_DECODE, 1, 1), sequence(BATCH_QUESTION, 2, 2)};
    int order[SEQUENCES];

    (void)state;
    all[0].own_rows = CHUNK;
    all[0].has_whole_chunks = true;
    all[2].tail_tokens = 2;
    step_plan_clear(&plan, 1);
    batch_compose(all, 2, &limits, order, &plan);
    assert_int_equal(all[0].served_tokens, CHUNK);
    /* Beside a question that goes first there is no room for a whole one. */
    step_plan_clear(&plan, 2);
    all[2].last_step = 0;
    all[0].last_step = 1;
    batch_compose(all, 3, &limits, order, &plan);
    assert_int_equal(all[2].served_tokens, 2);
    assert_int_equal(all[0].served_tokens, 0);
}

/* A chunk that must stay whole makes answers wait for it, then they have steps of their own. */
static void answers_have_steps_between_whole_chunks(void **state)
{
    struct batch_sequence all[] = {sequence(BATCH_DECODE, 0, 1), sequence(BATCH_DOCUMENT, 1, 48),
                                   sequence(BATCH_DOCUMENT, 2, 48)};
    struct batch_limits limits = {.chunk_tokens = CHUNK, .decode_share = 4};
    int order[3], chunks = 0;

    (void)state;
    all[1].has_whole_chunks = all[2].has_whole_chunks = true;
    for (limits.step = 1; limits.step <= 8; limits.step++) {
        step_plan_clear(&plan, limits.step);
        batch_compose(all, 3, &limits, order, &plan);
        assert_int_equal(all[0].served_tokens, 1);
        assert_int_equal(all[1].served_tokens + all[2].served_tokens,
                         limits.step % 4 == 1 ? CHUNK : 0);
        if (plan.tokens > 1) {
            limits.whole_chunk_step = limits.step;
            chunks++;
        }
    }
    assert_int_equal(chunks, 2);
    limits.step = limits.whole_chunk_step + 1;
    step_plan_clear(&plan, limits.step);
    batch_compose(all + 1, 2, &limits, order, &plan); /* nobody waits for a token */
    assert_int_equal(all[1].served_tokens, CHUNK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_run_beside_a_whole_chunk),
        cmocka_unit_test(only_the_last_token_of_a_question_wants_logits),
        cmocka_unit_test(a_question_with_missing_tokens_wants_no_logits),
        cmocka_unit_test(a_document_advances_by_whole_chunks_only),
        cmocka_unit_test(documents_take_turns),
        cmocka_unit_test(a_stream_of_questions_does_not_starve_a_document),
        cmocka_unit_test(short_questions_share_a_step),
        cmocka_unit_test(steps_stay_short_where_attention_is_long_or_answers_wait),
        cmocka_unit_test(nothing_to_do_is_an_idle_plan),
        cmocka_unit_test(the_tokens_that_select_run_in_one_piece),
        cmocka_unit_test(chunks_that_select_are_never_cut),
        cmocka_unit_test(answers_have_steps_between_whole_chunks),
    };
    return cmocka_run_group_tests_name("batch", tests, setup, teardown);
}
