#include "tests/support/check.h"
#include "tests/support/collectives.h"
#include "tests/support/failing_alloc.h"

#include "base/clock.h"
#include "comm/local/comm_local.h"

#include <pthread.h>
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

static void collectives_are_right_on_1_to_4_ranks(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++) {
        run_ranks(ranks, TIMEOUT_MS, collectives_check_sums);
        run_ranks(ranks, TIMEOUT_MS, collectives_check_equal_bits);
        run_ranks(ranks, TIMEOUT_MS, collectives_check_control);
    }
}

static const char *leave_last_rank_out(struct comm_group *group)
{
    float value = 1;

    if (group->rank == group->ranks - 1)
        return NULL;
    if (group->ops->all_reduce_sum(group, &value, 1, KERNEL_F32, NULL) != TCA_ERR_COMM)
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
    run_ranks(3, SHORT_TIMEOUT_MS, leave_last_rank_out);
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
        cmocka_unit_test(abort_ends_the_waits_of_all_ranks),
        cmocka_unit_test(different_calls_are_refused),
        cmocka_unit_test(queue_is_waited_for_before_its_buffer_is_read),
        cmocka_unit_test(wrong_rank_counts_are_refused),
        cmocka_unit_test(failed_allocation_makes_no_group),
    };
    return cmocka_run_group_tests_name("comm_local", tests, NULL, NULL);
}
