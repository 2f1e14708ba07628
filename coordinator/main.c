/* tca-coordinator: reads its settings and runs the supervisor; after a lost group once more. */
#include "base/log.h"
#include "coordinator/options.h"
#include "coordinator/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, SERVED_LONG_MS = 60 * 1000 };

/* How many groups in a row were lost before this process, from the one before it. */
static const char losses_variable[] = "TCA_COORDINATOR_LOSSES";

static int64_t count_losses(const struct supervisor_end *end)
{
    const char *before = getenv(losses_variable);

    return 1 + (before == NULL || end->served_ms >= SERVED_LONG_MS ? 0 : atoi(before));
}

/* Clients that try again find the same port? */
static bool has_own_port(const char *address)
{
    const char *port = strrchr(address, ':');

    return port != NULL && strcmp(port, ":0") != 0;
}

/* As a new process with the same id, so that nothing of the lost group's time is left: all that
 * counts is on disk. Returns where it may not, or cannot. */
static void start_again(const struct coordinator_options *options, const struct supervisor_end *end,
                        char **argv)
{
    const int64_t losses = count_losses(end);
    char text[24];

    if (losses > options->restarts)
        return;
    if (!has_own_port(options->listen)) {
        log_error("not starting again: --listen %s would be another port", options->listen);
        return;
    }
    log_warn("starting again, %lld of %lld times in a row", (long long)losses,
             (long long)options->restarts);
    snprintf(text, sizeof(text), "%lld", (long long)losses);
    setenv(losses_variable, text, 1);
    execv("/proc/self/exe", argv);
    log_error("cannot start again: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    struct coordinator_options options;
    struct settings_arguments arguments;
    struct supervisor_end end;
    struct tca_error error;
    enum tca_status status;

    if (settings_load(&options_table, argc, argv, &options, &arguments, &error) != TCA_OK) {
        fprintf(stderr, "tca-coordinator: %s\n", error.text);
        return EXIT_USAGE;
    }
    if (arguments.help != SETTINGS_HELP_NONE) {
        settings_print_help(&options_table, arguments.help, stdout);
        settings_free(&options_table, &options, &arguments);
        return 0;
    }
    (void)prctl(PR_SET_NAME, "tca-coordinator"); /* "exe", after start_again */
    log_init("coordinator", (enum log_level)options.log_level);
    settings_print(&options_table, &options, stderr);
    status = supervisor_run(&options, &end);
    if (status != TCA_OK && end.served_ms > 0 && !end.is_wanted)
        start_again(&options, &end, argv);
    settings_free(&options_table, &options, &arguments);
    return status == TCA_OK ? 0 : 1;
}
