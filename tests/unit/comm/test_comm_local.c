#include "tests/support/check.h"
#include "tests/support/collectives.h"
#include "tests/support/failing_alloc.h"

#include "base/clock.h"
#include "comm/local/comm_local.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { RANKS_MAX = 4, TIMEOUT_MS = 20000, SHORT_TIMEOUT_MS = 50 };

typedef const char *(*rank_fn)(struct comm_group *group);

struct rank_thread {
    pthread_t thread;
    struct comm_group *group;
    rank_fn run;
    const char *fault;
};

static void *run_rank(void *argument)
{
    struct rank_thread *rank = argument;

    rank->fault = rank->run(rank->group);
    rank->group->ops->destroy(rank->group);
    return NULL;
}

static void run_ranks(int ranks, int timeout_ms, rank_fn run)
{
    struct rank_thread threads[RANKS_MAX] = {0};
    struct comm_group *groups[RANKS_MAX];

    assert_int_equal(comm_local_create(NULL, ranks, timeout_ms, groups), TCA_OK);
    for (int i = 0; i < ranks; i++) {
        threads[i] = (struct rank_thread){.group = groups[i], .run = run};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, run_rank, &threads[i]), 0);
    }
    for (int i = 0; i < ranks; i++)
        pthread_join(threads[i].thread, NULL);
    for (int i = 0; i < ranks; i++)
        if (threads[i].fault != NULL)
            fail_msg("rank %d of %d: %s", i, ranks, threads[i].fault);
}

static const char *check_exchange(struct comm_group *group)
{
    return collectives_check_exchange(group, NULL);
}

static const char *check_parts(struct comm_group *group)
{
    return collectives_check_parts(group, NULL);
}

static void collectives_are_right_on_1_to_4_ranks(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
        run_ranks(ranks, TIMEOUT_MS, collectives_check_sums);
        run_ranks(ranks, TIMEOUT_MS, collectives_check_begun);
        run_ranks(ranks, TIMEOUT_MS, collectives_check_equal_bits);
        run_ranks(ranks, TIMEOUT_MS, collectives_check_control);
        run_ranks(ranks, TIMEOUT_MS, check_exchange);
        run_ranks(ranks, TIMEOUT_MS, check_parts);
    }
}

enum missed_call {
    MISSED_SUM,
    MISSED_BEGUN,
    MISSED_GATHER,
    MISSED_ALL_TO_ALL,
    MISSED_SPLIT,
    MISSED_CALLS
};
static enum missed_call missed;

static enum tca_status make_missed_call(struct comm_group *group)
{
    float send[RANKS_MAX] = {0}, recv[RANKS_MAX];

    switch (missed) {
    case MISSED_SUM:
        return group->ops->all_reduce_sum(group, send, 1, KERNEL_F32, NULL);
    case MISSED_BEGUN:
        if (group->ops->all_reduce_begin(group, 0, send, 1, KERNEL_F32, NULL) != TCA_OK)
            return TCA_ERR_INVALID;
        return group->ops->all_reduce_await(group, 0, NULL, NULL);
    case MISSED_GATHER:
        return group->ops->all_gather(group, recv, send, sizeof(float), NULL);
    case MISSED_ALL_TO_ALL:
        return group->ops->all_to_all(group, recv, send, sizeof(float), NULL);
    case MISSED_SPLIT:
        return group->ops->split(group, 0, group->ranks, &group);
    case MISSED_CALLS:
        break;
    }
    return TCA_OK;
}

static const char *leave_last_rank_out(struct comm_group *group)
{
    float value = 1;

    if (group->rank == group->ranks - 1)
        return NULL;
    if (make_missed_call(group) != TCA_ERR_COMM)
        return "the missing rank was not noticed";
    if (group->ops->poll_error(group) != TCA_ERR_COMM)
        return "poll_error is silent";
    if (group->ops->broadcast(group, &value, sizeof(value), 0, TIMEOUT_MS) != TCA_ERR_COMM)
        return "the group works on after a failure";
    return NULL;
}

static void missing_rank_becomes_a_status(void **state)
{
    (void)state;
    for (int call = 0; call < MISSED_CALLS; call++) {
        missed = (enum missed_call)call;
        run_ranks(3, SHORT_TIMEOUT_MS, leave_last_rank_out);
    }
}

/* Ranks 1 and 2 are a part; 2 goes missing there, and the whole group knows. */
static const char *lose_a_rank_of_a_part(struct comm_group *group)
{
    bool is_in_part = group->rank > 0;
    struct comm_group *part;
    const char *fault = NULL;
    float value = 1;

    if (group->ops->split(group, is_in_part, is_in_part ? 2 : 1, &part) != TCA_OK)
        return "split failed";
    if (group->rank == 1 &&
        part->ops->all_reduce_sum(part, &value, 1, KERNEL_F32, NULL) != TCA_ERR_COMM)
        fault = "the missing rank was not noticed";
    if (group->rank == 0 &&
        group->ops->broadcast(group, &value, sizeof(value), 0, TIMEOUT_MS) != TCA_ERR_COMM)
        fault = "the whole works on after a part's failure";
    part->ops->destroy(part);
    return fault;
}

static void a_part_and_its_whole_fail_together(void **state)
{
    (void)state;
    /* Time enough for the split, which is to succeed. */
    run_ranks(3, 40 * SHORT_TIMEOUT_MS, lose_a_rank_of_a_part);
}

/* Rank 1 is in two parts. */
static const char *split_with_overlap(struct comm_group *group)
{
    int first = group->rank == 2 ? 1 : 0;
    struct comm_group *part;

    return group->ops->split(group, first, 2, &part) == TCA_ERR_COMM
               ? NULL
               : "overlapping parts were not noticed";
}

/* Rank 1 is in none. */
static const char *split_with_a_gap(struct comm_group *group)
{
    struct comm_group *part;

    return group->ops->split(group, group->rank, group->rank == 0 ? 1 : 2, &part) == TCA_ERR_COMM
               ? NULL
               : "a gap between parts was not noticed";
}

static void parts_that_do_not_hold_every_rank_once_are_refused(void **state)
{
    (void)state;
    run_ranks(3, TIMEOUT_MS, split_with_overlap);
    run_ranks(3, TIMEOUT_MS, split_with_a_gap);
}

static const char *split_without_memory(struct comm_group *group)
{
    struct comm_group *part;

    if (group->ops->split(group, 0, group->ranks, &part) != TCA_ERR_NO_MEMORY)
        return "a part was made without memory";
    return NULL;
}

/* Alone: what fails is counted by process. */
static void a_part_without_memory_leaves_nothing(void **state)
{
    struct comm_group *group;

    (void)state;
    assert_int_equal(comm_local_create(NULL, 1, TIMEOUT_MS, &group), TCA_OK);
    for (int count = 0; count < 2; count++) { /* the rank's and what its ranks share */
        failing_alloc_after(count);
        assert_null(split_without_memory(group));
        assert_true(failing_alloc_stop());
    }
    group->ops->destroy(group);
}

static const char *abort_on_last_rank(struct comm_group *group)
{
    float value = 1;

    if (group->rank == group->ranks - 1) {
        group->ops->abort(group);
        return NULL;
    }
    return group->ops->broadcast(group, &value, sizeof(value), 0, TIMEOUT_MS) == TCA_ERR_COMM
               ? NULL
               : "abort was not noticed";
}

static void abort_ends_the_waits_of_all_ranks(void **state)
{
    (void)state;
    run_ranks(3, TIMEOUT_MS, abort_on_last_rank);
}

static const char *call_with_own_size(struct comm_group *group)
{
    float values[2] = {0};

    return group->ops->all_reduce_sum(group, values, group->rank == 0 ? 2 : 1, KERNEL_F32, NULL) ==
                   TCA_ERR_COMM
               ? NULL
               : "different sizes were not noticed";
}

static void different_calls_are_refused(void **state)
{
    (void)state;
    run_ranks(2, TIMEOUT_MS, call_with_own_size);
}

/* What is awaited was begun, and begun anew only then; what is read before is not summed. */
static const char *use_slots_wrongly(struct comm_group *group)
{
    const struct comm_ops *ops = group->ops;
    float value = 1, other = 1;

    if (ops->all_reduce_await(group, 0, NULL, NULL) != TCA_ERR_INVALID)
        return "a sum was awaited that was not begun";
    if (ops->all_reduce_begin(group, 0, &value, 1, KERNEL_F32, NULL) != TCA_OK ||
        ops->all_reduce_begin(group, 0, &other, 1, KERNEL_F32, NULL) != TCA_ERR_INVALID)
        return "a slot was begun twice";
    if (value > 1.0F)
        return "summed before it is awaited";
    return ops->all_reduce_await(group, 0, NULL, NULL) == TCA_OK && value == 2.0F ? NULL
                                                                                  : "wrong sum";
}

static void slots_used_wrongly_are_refused(void **state)
{
    (void)state;
    run_ranks(2, TIMEOUT_MS, use_slots_wrongly);
}

static int waits;
static enum tca_status count_wait(struct kernel_queue *queue)
{
    (void)queue;
    waits++;
    return TCA_OK;
}

static enum tca_status fail_wait(struct kernel_queue *queue)
{
    (void)queue;
    return TCA_ERR_DEVICE;
}

static void queue_is_waited_for_before_its_buffer_is_read(void **state)
{
    struct kernel_backend backend = {.queue_wait = count_wait};
    struct kernel_queue queue = {0};
    struct comm_group *group;
    float value = 3;

    (void)state;
    assert_int_equal(comm_local_create(&backend, 1, TIMEOUT_MS, &group), TCA_OK);
    assert_int_equal(group->ops->all_reduce_sum(group, &value, 1, KERNEL_F32, &queue), TCA_OK);
    assert_int_equal(waits, 1);
    assert_true(value == 3.0F);
    backend.queue_wait = fail_wait;
    assert_int_equal(group->ops->all_reduce_sum(group, &value, 1, KERNEL_F32, &queue),
                     TCA_ERR_DEVICE);
    assert_int_equal(group->ops->all_gather(group, &value, &value, sizeof(value), &queue),
                     TCA_ERR_DEVICE);
    group->ops->destroy(NULL);
    group->ops->destroy(group);
}

static void wrong_rank_counts_are_refused(void **state)
{
    struct comm_group *group = NULL;

    (void)state;
    assert_int_equal(comm_local_create(NULL, 0, TIMEOUT_MS, &group), TCA_ERR_INVALID);
    assert_int_equal(comm_local_create(NULL, 257, TIMEOUT_MS, &group), TCA_ERR_INVALID);
    assert_null(group);
}

static void failed_allocation_makes_no_group(void **state)
{
    struct comm_group *groups[3] = {NULL};

    (void)state;
    for (int count = 0; count < 4; count++) { /* the ranks' and what they share */
        failing_alloc_after(count);
        assert_int_equal(comm_local_create(NULL, 3, TIMEOUT_MS, groups), TCA_ERR_NO_MEMORY);
        assert_true(failing_alloc_stop());
        assert_null(groups[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_are_right_on_1_to_4_ranks),
        cmocka_unit_test(missing_rank_becomes_a_status),
        cmocka_unit_test(a_part_and_its_whole_fail_together),
        cmocka_unit_test(parts_that_do_not_hold_every_rank_once_are_refused),
        cmocka_unit_test(a_part_without_memory_leaves_nothing),
        cmocka_unit_test(abort_ends_the_waits_of_all_ranks),
        cmocka_unit_test(different_calls_are_refused),
        cmocka_unit_test(slots_used_wrongly_are_refused),
        cmocka_unit_test(queue_is_waited_for_before_its_buffer_is_read),
        cmocka_unit_test(wrong_rank_counts_are_refused),
        cmocka_unit_test(failed_allocation_makes_no_group),
    };
    return cmocka_run_group_tests_name("comm_local", tests, NULL, NULL);
}
