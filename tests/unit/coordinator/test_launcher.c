#include "tests/support/check.h"

#include "base/clock.h"
#include "coordinator/launcher.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEADLINE_MS = 60000 };

/* Start `script` with sh; PLACE is a variable it sees. */
static struct launcher *start(const char *script, const char *place)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const char *const environment[] = {place, NULL};
    struct launcher *launcher;

    assert_int_equal(launcher_open(&launcher, NULL), TCA_OK);
    assert_int_equal(launcher_run(launcher, argv, environment, NULL), TCA_OK);
    return launcher;
}

static void wait_for_end(struct launcher *launcher, char *how, size_t bytes)
{
    const int64_t until_ms = clock_monotonic_ms() + DEADLINE_MS;

    while (!launcher_has_ended(launcher, how, bytes)) {
        assert_true(clock_monotonic_ms() < until_ms);
        clock_sleep_ms(10);
    }
}

static void wait_until_gone(pid_t process)
{
    const int64_t until_ms = clock_monotonic_ms() + DEADLINE_MS;

    while (kill(process, 0) == 0) {
        assert_true(clock_monotonic_ms() < until_ms);
        clock_sleep_ms(10);
    }
}

/* The process id that a script wrote to `path`. */
static pid_t read_pid(const char *path)
{
    const int64_t until_ms = clock_monotonic_ms() + DEADLINE_MS;
    int process = 0;

    while (process == 0) {
        FILE *file = fopen(path, "r");

        assert_true(clock_monotonic_ms() < until_ms);
        if (file != NULL && fscanf(file, "%d\n", &process) != 1)
            process = 0;
        if (file != NULL)
            fclose(file);
        clock_sleep_ms(10);
    }
    return process;
}

static void the_end_is_told_with_its_exit_code(void **state)
{
    struct launcher *launcher = start("test \"$PLACE\" = here && exit 7", "PLACE=here");
    char how[128];

    (void)state;
    wait_for_end(launcher, how, sizeof(how));
    assert_non_null(strstr(how, "exit code 7"));
    launcher_close(launcher, 0);
}

static void a_signal_is_told(void **state)
{
    struct launcher *launcher = start("kill -9 $$", "PLACE=here");
    char how[128];

    (void)state;
    wait_for_end(launcher, how, sizeof(how));
    assert_non_null(strstr(how, "signal 9"));
    launcher_close(launcher, 0);
}

static void a_command_that_is_not_there_is_told(void **state)
{
    const char *const argv[] = {"no-such-program-of-tca", NULL};
    const char *const environment[] = {NULL};
    struct launcher *launcher;
    char how[128];

    (void)state;
    assert_int_equal(launcher_open(&launcher, NULL), TCA_OK);
    assert_int_equal(launcher_run(launcher, argv, environment, NULL), TCA_OK);
    wait_for_end(launcher, how, sizeof(how));
    assert_non_null(strstr(how, "exit code 127"));
    launcher_close(launcher, 0);
}

static void closing_ends_the_command_and_its_children(void **state)
{
    char folder[] = "/tmp/tca-test-launcher-XXXXXX";
    char place[80], path[64];
    struct launcher *launcher;
    pid_t process;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/pid", folder);
    snprintf(place, sizeof(place), "PLACE=%s", path);
    launcher = start("sleep 1000 & echo $! > $PLACE; wait", place);
    process = read_pid(path);
    launcher_close(launcher, 0);
    wait_until_gone(process);
    unlink(path);
    rmdir(folder);
}

static void closing_asks_before_it_kills(void **state)
{
    char folder[] = "/tmp/tca-test-launcher-XXXXXX";
    char place[80], path[64];
    struct launcher *launcher;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/pid", folder);
    snprintf(place, sizeof(place), "PLACE=%s", path);
    launcher = start("trap 'echo asked > $PLACE.end; exit' TERM; echo $$ > $PLACE; "
                     "while :; do sleep 0.05; done",
                     place);
    read_pid(path);
    launcher_close(launcher, 0);
    unlink(path);
    snprintf(path, sizeof(path), "%s/pid.end", folder);
    assert_int_equal(unlink(path), 0);
    rmdir(folder);
}

static void the_command_goes_when_the_coordinator_is_killed(void **state)
{
    char folder[] = "/tmp/tca-test-launcher-XXXXXX";
    char place[80], path[64];
    pid_t coordinator, process;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/pid", folder);
    snprintf(place, sizeof(place), "PLACE=%s", path);
    coordinator = fork();
    if (coordinator == 0) {
        start("echo $$ > $PLACE; exec sleep 1000", place);
        for (;;)
            pause();
    }
    process = read_pid(path);
    assert_int_equal(kill(coordinator, SIGKILL), 0);
    while (waitpid(coordinator, NULL, 0) < 0)
        assert_int_equal(errno, EINTR);
    wait_until_gone(process);
    unlink(path);
    rmdir(folder);
}

static void a_command_that_ends_in_time_is_not_killed(void **state)
{
    char folder[] = "/tmp/tca-test-launcher-XXXXXX";
    char place[80], path[64];

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/done", folder);
    snprintf(place, sizeof(place), "PLACE=%s", path);
    launcher_close(start("sleep 0.2; touch $PLACE", place), DEADLINE_MS);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    rmdir(folder);
}

static void a_command_that_is_too_long_is_refused(void **state)
{
    static char text[40 * 1024];
    const char *const argv[] = {"echo", text, NULL};
    const char *const environment[] = {NULL};
    struct launcher *launcher;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(launcher_open(&launcher, NULL), TCA_OK);
    assert_int_equal(launcher_run(launcher, argv, environment, NULL), TCA_ERR_INVALID);
    launcher_close(launcher, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_is_told_with_its_exit_code),
        cmocka_unit_test(a_signal_is_told),
        cmocka_unit_test(a_command_that_is_not_there_is_told),
        cmocka_unit_test(closing_ends_the_command_and_its_children),
        cmocka_unit_test(closing_asks_before_it_kills),
        cmocka_unit_test(the_command_goes_when_the_coordinator_is_killed),
        cmocka_unit_test(a_command_that_ends_in_time_is_not_killed),
        cmocka_unit_test(a_command_that_is_too_long_is_refused),
    };
    return cmocka_run_group_tests_name("launcher", tests, NULL, NULL);
}
