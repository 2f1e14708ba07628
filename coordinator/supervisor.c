#include "coordinator/supervisor.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator.h"
#include "coordinator/launcher.h"
#include "coordinator/program_files.h"
#include "coordinator/store.h"
#include "coordinator/worker_secret.h"
#include "proto/rpc_server.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 100, GROUP_GRACE_MS = 5000, PATH_BYTES = 4096 };

static const struct timespec at_once = {0, 0};

/* The workers' secret; path_out is the file it is in, "" if it is in none. */
static enum tca_status find_secret(const struct coordinator_options *options,
                                   char secret_out[WORKER_SECRET_BYTES], char path_out[PATH_BYTES],
                                   struct tca_error *error)
{
    char folder[PATH_BYTES - 16];

    path_out[0] = '\0';
    if (options->secret_file != NULL) {
        snprintf(path_out, PATH_BYTES, "%s", options->secret_file);
    } else if (options->no_launch) {
        TCA_TRY(options_state_dir(options, folder, sizeof(folder), error));
        TCA_TRY(store_make_folder(folder, error));
        snprintf(path_out, PATH_BYTES, "%s/worker-secret", folder);
    }
    return path_out[0] != '\0' ? worker_secret_file(path_out, secret_out, error)
                               : worker_secret_make(secret_out, error);
}

/* Start mpirun, or the user's command, which gets the same by environment variables. */
static enum tca_status launch(const struct coordinator_options *options, struct launcher *launcher,
                              const char *address, const char *secret, struct tca_error *error)
{
    char ranks[24];
    char worker[PROGRAM_PATH_BYTES];
    char variables[4][PATH_BYTES + 32];
    /* --bind-to none: with -np 1 and 2 Open MPI would pin each rank to one core. The kill timeout
     * ends the others at once when a rank dies. */
    const char *const mpirun[] = {"mpirun",
                                  "-np",
                                  ranks,
                                  "--bind-to",
                                  "none",
                                  "--oversubscribe",
                                  "--mca",
                                  "mpi_yield_when_idle",
                                  "1",
                                  "--mca",
                                  "odls_base_sigkill_timeout",
                                  "0",
                                  "-x",
                                  "TCA_WORKER_SECRET",
                                  worker,
                                  "--coordinator",
                                  address,
                                  NULL};
    const char *const shell[] = {"/bin/sh", "-c", options->launch_command, NULL};
    const char *environment[] = {variables[0], variables[1], variables[2], variables[3],
                                 NULL,         NULL,         NULL};

    TCA_TRY(program_files_find("tca-worker", worker, error));
    snprintf(ranks, sizeof(ranks), "%" PRId64, options->workers);
    snprintf(variables[0], sizeof(variables[0]), "TCA_WORKER_SECRET=%s", secret);
    snprintf(variables[1], sizeof(variables[1]), "TCA_WORKERS=%s", ranks);
    snprintf(variables[2], sizeof(variables[2]), "TCA_WORKER=%s", worker);
    snprintf(variables[3], sizeof(variables[3]), "TCA_COORDINATOR=%s", address);
    if (geteuid() == 0) { /* mpirun refuses root without them */
        environment[4] = "OMPI_ALLOW_RUN_AS_ROOT=1";
        environment[5] = "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1";
    }
    log_info("starting %s workers%s%s", ranks, options->launch_command == NULL ? "" : " by ",
             options->launch_command == NULL ? "" : options->launch_command);
    return launcher_run(launcher, options->launch_command == NULL ? mpirun : shell, environment,
                        error);
}

static void say(const char *what, const char *value)
{
    printf("%s%s\n", what, value);
    fflush(stdout);
}

/* A client needs a descriptor. Children are not given more than they expect: this comes after the
 * fork of the launcher's helper. Returns the limit before. */
static struct rlimit raise_descriptor_limit(void)
{
    struct rlimit before = {0}, raised;

    if (getrlimit(RLIMIT_NOFILE, &before) == 0) {
        raised = (struct rlimit){.rlim_cur = before.rlim_max, .rlim_max = before.rlim_max};
        setrlimit(RLIMIT_NOFILE, &raised); /* a wish: what there was has to do otherwise */
    }
    return before;
}

/* Until the end: pass on signals, and the end of the group. A server that new clients cannot reach
 * ends as if told to, but fails, so that it is started again. */
static enum tca_status attend(struct coordinator *coordinator, struct launcher *launcher,
                              const sigset_t *signals, struct supervisor_end *end,
                              struct tca_error *error)
{
    enum tca_status status;
    int64_t ready_ms = 0;
    bool is_deaf = false;
    int signals_seen = 0;
    char how[128];

    while ((status = coordinator_wait(coordinator, WAIT_MS)) == TCA_ERR_DEADLINE) {
        const int signal = sigtimedwait(signals, NULL, &at_once);

        if (ready_ms == 0 && coordinator_wait_ready(coordinator, 0) == TCA_OK) {
            ready_ms = clock_monotonic_ms();
            say("ready", "");
        }
        if (signal > 0) {
            log_info("%s: %s", strsignal(signal),
                     signals_seen == 0 ? "draining" : "ending without waiting");
            coordinator_drain(coordinator);
            if (signals_seen++ > 0)
                return TCA_OK;
        }
        if (!coordinator_is_drain_wanted(coordinator) && rpc_server_is_deaf()) {
            is_deaf = true;
            log_error("new clients cannot connect: draining");
            coordinator_drain(coordinator);
        }
        if (launcher != NULL && launcher_has_ended(launcher, how, sizeof(how)))
            coordinator_lose_group(coordinator, how);
    }
    end->is_wanted = signals_seen > 0 || (!is_deaf && coordinator_is_drain_wanted(coordinator));
    end->served_ms = ready_ms == 0 ? 0 : 1 + clock_monotonic_ms() - ready_ms;
    if (status != TCA_OK)
        return tca_fail(error, status, "ended: the worker group is lost");
    if (is_deaf)
        return tca_fail(error, TCA_ERR_UNAVAILABLE, "ended: new clients could not connect");
    return TCA_OK;
}

static enum tca_status run(const struct coordinator_options *options, struct launcher *launcher,
                           const sigset_t *signals, struct supervisor_end *end,
                           struct tca_error *error)
{
    struct coordinator *coordinator;
    char secret[WORKER_SECRET_BYTES];
    char secret_path[PATH_BYTES];
    enum tca_status status;

    TCA_TRY(find_secret(options, secret, secret_path, error));
    TCA_TRY(coordinator_start(options, secret, &coordinator, error));
    say("listening on ", coordinator_address(coordinator));
    if (launcher != NULL) {
        status = launch(options, launcher, coordinator_worker_address(coordinator), secret, error);
    } else {
        say("workers connect to ", coordinator_worker_address(coordinator));
        log_info("the workers' secret is in %s", secret_path);
        status = TCA_OK;
    }
    if (status == TCA_OK)
        status = attend(coordinator, launcher, signals, end, error);
    coordinator_stop(coordinator);
    return status;
}

enum tca_status supervisor_run(const struct coordinator_options *options,
                               struct supervisor_end *end_out)
{
    struct launcher *launcher = NULL;
    struct tca_error error = {{0}};
    enum tca_status status = TCA_OK;
    struct rlimit descriptors;
    sigset_t signals;

    *end_out = (struct supervisor_end){0};
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* all threads to come inherit it */
    signal(SIGPIPE, SIG_IGN);
    if (!options->no_launch)
        status = launcher_open(&launcher, &error);
    descriptors = raise_descriptor_limit();
    if (status == TCA_OK)
        status = run(options, launcher, &signals, end_out, &error);
    launcher_close(launcher, status == TCA_OK ? GROUP_GRACE_MS : 0);
    if (sigtimedwait(&signals, NULL, &at_once) > 0)
        end_out->is_wanted = true; /* while everything was being stopped */
    if (descriptors.rlim_max > 0)
        setrlimit(RLIMIT_NOFILE, &descriptors);
    if (status != TCA_OK)
        log_error("%s", error.text[0] != '\0' ? error.text : tca_status_text(status));
    return status;
}
