#include "tests/support/check.h"

#include "worker/step_plan.h"

#include <stdlib.h>
#include <string.h>

static const struct step_limits plan_limits = {.items = 4, .tokens = 8};

static void fill(struct step_plan *plan)
{
    const int32_t ids[] = {7, 8, 9};
    struct step_open open = {.slot = 3, .base_slot = STEP_SLOT_NONE, .capacity = 1LL << 40};
    struct step_item first = {
        .slot = 1, .tokens = 3, .own_rows = 5000000000, .logits = STEP_LOGITS_NONE};
    struct step_item second = {
        .slot = 2, .tokens = 1, .own_rows = 0, .logits = STEP_LOGITS_FULL, .selects = true};

    step_plan_clear(plan, 77);
    plan->top_count = 5;
    assert_int_equal(step_plan_add_close(plan, 9), TCA_OK);
    assert_int_equal(step_plan_add_open(plan, &open), TCA_OK);
    open = (struct step_open){
        .slot = 4,
        .base_slot = 3,
        .capacity = 64,
        .base_tokens = 1 << 20,
        .is_base_leaving = true,
        .reports_selection = true,
        .sparsity = {.method = {SELECT_TCA, SELECT_REDUNDANCY_MASS, .observes_last = true},
                     .keep = 0.03,
                     .tau = 0.9,
                     .core_tokens = 70000,
                     .dense_below_tokens = 8192}};
    assert_int_equal(step_plan_add_open(plan, &open), TCA_OK);
    assert_int_equal(step_plan_add_item(plan, &first, ids), TCA_OK);
    assert_int_equal(step_plan_add_item(plan, &second, ids + 2), TCA_OK);
}

static void a_plan_survives_the_wire(void **state)
{
    struct step_plan sent, received;
    struct bytes wire = {0};

    (void)state;
    assert_int_equal(step_plan_init(&sent, &plan_limits), TCA_OK);
    assert_int_equal(step_plan_init(&received, &plan_limits), TCA_OK);
    fill(&sent);
    sent.end = STEP_END_STOP;
    assert_int_equal(step_plan_write(&sent, &wire), TCA_OK);
    assert_int_equal(step_plan_read(&received, wire.data, wire.size, NULL), TCA_OK);

    assert_int_equal(received.number, 77);
    assert_int_equal(received.end, STEP_END_STOP);
    assert_int_equal(received.top_count, 5);
    assert_int_equal(received.closes, 1);
    assert_int_equal(received.close[0], 9);
    assert_int_equal(received.opens, 2);
    assert_int_equal(received.open[0].base_slot, STEP_SLOT_NONE);
    assert_true(received.open[0].capacity == 1LL << 40);
    assert_int_equal(received.open[1].base_slot, 3);
    assert_int_equal(received.open[0].sparsity.method.rule, SELECT_DENSE);
    assert_false(received.open[0].is_base_leaving);
    assert_true(received.open[1].is_base_leaving);
    assert_true(received.open[1].reports_selection);
    assert_int_equal(received.open[1].base_tokens, 1 << 20);
    assert_memory_equal(&received.open[1].sparsity, &sent.open[1].sparsity,
                        sizeof(struct sparsity));
    assert_int_equal(received.items, 2);
    assert_true(received.item[0].own_rows == 5000000000);
    assert_int_equal(received.item[1].logits, STEP_LOGITS_FULL);
    assert_false(received.item[0].selects);
    assert_true(received.item[1].selects);
    assert_int_equal(received.tokens, 4);
    assert_memory_equal(received.token, sent.token, 4 * sizeof(*sent.token));
    step_plan_deinit(&sent);
    step_plan_deinit(&received);
    bytes_free(&wire);
}

static void a_full_plan_takes_no_more(void **state)
{
    const int32_t ids[8] = {0};
    struct step_item item = {.tokens = 8};
    struct step_open open = {.capacity = 1};
    struct step_plan plan;

    (void)state;
    assert_int_equal(step_plan_init(&plan, &plan_limits), TCA_OK);
    assert_int_equal(step_plan_add_item(&plan, &item, ids), TCA_OK);
    item.tokens = 1;
    assert_int_equal(step_plan_add_item(&plan, &item, ids), TCA_ERR_BUSY);
    step_plan_clear(&plan, 1);
    for (int i = 0; i < plan_limits.items; i++)
        assert_int_equal(step_plan_add_item(&plan, &item, ids), TCA_OK);
    assert_int_equal(step_plan_add_item(&plan, &item, ids), TCA_ERR_BUSY);
    for (int i = 0; i < STEP_CLOSES_MAX; i++)
        assert_int_equal(step_plan_add_close(&plan, i), TCA_OK);
    assert_int_equal(step_plan_add_close(&plan, 0), TCA_ERR_BUSY);
    for (int i = 0; i < STEP_OPENS_MAX; i++)
        assert_int_equal(step_plan_add_open(&plan, &open), TCA_OK);
    assert_int_equal(step_plan_add_open(&plan, &open), TCA_ERR_BUSY);
    step_plan_deinit(&plan);
}

/* Any byte changed, any length: an error or a plan within the limits, never a fault. */
static void damaged_plans_are_refused_or_harmless(void **state)
{
    struct step_plan plan;
    struct bytes wire = {0};
    struct tca_error error;
    int refused = 0;

    (void)state;
    assert_int_equal(step_plan_init(&plan, &plan_limits), TCA_OK);
    fill(&plan);
    assert_int_equal(step_plan_write(&plan, &wire), TCA_OK);
    for (size_t size = 0; size < wire.size; size++) {
        uint8_t *cut = malloc(size + 1);

        memcpy(cut, wire.data, size);
        assert_int_equal(step_plan_read(&plan, cut, size, &error), TCA_ERR_INVALID);
        assert_int_equal(plan.items, 0);
        free(cut);
    }
    for (size_t at = 0; at < wire.size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            wire.data[at] ^= (uint8_t)(1 << bit);
            if (step_plan_read(&plan, wire.data, wire.size, &error) != TCA_OK) {
                refused++;
            } else {
                assert_in_range(plan.items, 0, plan_limits.items);
                assert_in_range(plan.tokens, 0, plan_limits.tokens);
                assert_in_range(plan.top_count, 1, STEP_TOP_MAX);
                for (int i = 0; i < plan.items; i++)
                    assert_in_range(plan.item[i].slot, 0, STEP_SLOTS_MAX - 1);
            }
            wire.data[at] ^= (uint8_t)(1 << bit);
        }
    }
    assert_true(refused > 300);
    step_plan_deinit(&plan);
    bytes_free(&wire);
}

static void more_than_the_limits_is_refused(void **state)
{
    const struct step_limits small = {.items = 1, .tokens = 8};
    struct step_plan sent, received;
    struct bytes wire = {0};
    struct tca_error error;

    (void)state;
    assert_int_equal(step_plan_init(&sent, &plan_limits), TCA_OK);
    assert_int_equal(step_plan_init(&received, &small), TCA_OK);
    fill(&sent);
    assert_int_equal(step_plan_write(&sent, &wire), TCA_OK);
    assert_int_equal(step_plan_read(&received, wire.data, wire.size, &error), TCA_ERR_INVALID);
    assert_non_null(strstr(error.text, "2 items"));
    step_plan_deinit(&sent);
    step_plan_deinit(&received);
    bytes_free(&wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_survives_the_wire),
        cmocka_unit_test(a_full_plan_takes_no_more),
        cmocka_unit_test(damaged_plans_are_refused_or_harmless),
        cmocka_unit_test(more_than_the_limits_is_refused),
    };
    return cmocka_run_group_tests_name("step_plan", tests, NULL, NULL);
}
