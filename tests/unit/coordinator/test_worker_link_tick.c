#include "tests/support/check.h"

#include "coordinator/coordinator_state.h"
#include "proto/health.h"

#include <stdlib.h>

enum { TICK_MS = 100, SILENCE_MS = 30 * 1000, HEARD_MS = 5000 };

static int make(void **state)
{
    struct coordinator *coordinator = calloc(1, sizeof(*coordinator));

    coordinator->phase = COORDINATOR_SERVING;
    coordinator->link.state = WORKER_LINK_READY;
    coordinator->link.heard_ms = coordinator->link.ticked_ms = HEARD_MS;
    pthread_cond_init(&coordinator->changed, NULL);
    *state = coordinator;
    return health_create(&coordinator->health) == TCA_OK ? 0 : -1;
}

static int clean(void **state)
{
    struct coordinator *coordinator = *state;

    health_destroy(coordinator->health);
    pthread_cond_destroy(&coordinator->changed);
    free(coordinator);
    return 0;
}

static int64_t tick_until(struct coordinator *coordinator, int64_t from_ms, int64_t until_ms)
{
    for (; from_ms <= until_ms; from_ms += TICK_MS)
        worker_link_tick(coordinator, from_ms);
    return from_ms;
}

static void a_group_that_is_silent_for_long_is_lost(void **state)
{
    struct coordinator *coordinator = *state;
    const int64_t now_ms = tick_until(coordinator, HEARD_MS + TICK_MS, HEARD_MS + SILENCE_MS);

    assert_int_equal(coordinator->phase, COORDINATOR_SERVING);
    worker_link_tick(coordinator, now_ms);
    assert_int_equal(coordinator->phase, COORDINATOR_LOST);
}

/* Stopped and continued, the timer may run before what the group has said is read. */
static void time_in_which_the_coordinator_stood_still_is_no_silence(void **state)
{
    struct coordinator *coordinator = *state;
    const int64_t woken_ms = HEARD_MS + 10 * SILENCE_MS;

    tick_until(coordinator, woken_ms, woken_ms + SILENCE_MS);
    assert_int_equal(coordinator->phase, COORDINATOR_SERVING);
    worker_link_tick(coordinator, woken_ms + SILENCE_MS + TICK_MS);
    assert_int_equal(coordinator->phase, COORDINATOR_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_group_that_is_silent_for_long_is_lost, make, clean),
        cmocka_unit_test_setup_teardown(time_in_which_the_coordinator_stood_still_is_no_silence,
                                        make, clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
