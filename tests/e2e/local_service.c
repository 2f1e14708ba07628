/* tca-coordinator with its workers inside: ranks are threads over comm/local, so that sanitizers
 * see the whole service in one process. Takes tca-coordinator's options, and prints and ends as it
 * does.
 *
 * With PLANTED_FAULTS it has a data race and a leak, which the sanitizers must report. */
#include "base/log.h"
#include "base/version.h"
#include "comm/local/comm_local.h"
#include "coordinator/coordinator.h"
#include "worker/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RANKS_MAX = 4, WAIT_MS = 100, TIMEOUT_MS = 60000 };

static const char secret[] = "a secret of one process";

struct rank {
    struct comm_group *group;
    char coordinator[COORDINATOR_ADDRESS_BYTES]; /* a copy: it may be gone before the rank */
    enum tca_status status;
    pthread_t thread;
};

#ifdef PLANTED_FAULTS
static int planted_count;
static void *volatile planted_memory;

static void plant_faults(void)
{
    planted_count++; /* by each rank's thread, without a lock */
    planted_memory = malloc(100);
    planted_memory = NULL;
}
#else
static void plant_faults(void)
{
}
#endif

static void *run_rank(void *argument)
{
    struct rank *rank = argument;
    const struct worker_options options = {.coordinator = rank->coordinator,
                                           .secret = secret,
                                           .version = tca_version(),
                                           .connect_timeout_ms = TIMEOUT_MS,
                                           .step_timeout_ms = TIMEOUT_MS};

    plant_faults();
    rank->status = worker_run(rank->group, &options);
    if (rank->status != TCA_OK)
        log_error("rank %d has failed", rank->group->rank);
    rank->group->ops->destroy(rank->group);
    return NULL;
}

static int start_ranks(struct rank *ranks, int count, const char *coordinator)
{
    struct comm_group *groups[RANKS_MAX];

    if (comm_local_create(kernel_backend_cpu(), count, TIMEOUT_MS, groups) != TCA_OK)
        return 0;
    for (int i = 0; i < count; i++) {
        ranks[i] = (struct rank){.group = groups[i]};
        snprintf(ranks[i].coordinator, sizeof(ranks[i].coordinator), "%s", coordinator);
        if (pthread_create(&ranks[i].thread, NULL, run_rank, &ranks[i]) != 0)
            return i;
    }
    return count;
}

static enum tca_status attend(struct coordinator *coordinator, const sigset_t *signals)
{
    static const struct timespec at_once = {0, 0};
    enum tca_status status;
    bool is_ready = false;

    while ((status = coordinator_wait(coordinator, WAIT_MS)) == TCA_ERR_DEADLINE) {
        if (!is_ready && coordinator_wait_ready(coordinator, 0) == TCA_OK) {
            is_ready = true;
            puts("ready");
            fflush(stdout);
        }
        if (sigtimedwait(signals, NULL, &at_once) > 0)
            coordinator_drain(coordinator);
    }
    return status;
}

int main(int argc, char **argv)
{
    struct coordinator_options options;
    struct settings_arguments arguments;
    struct coordinator *coordinator;
    struct rank ranks[RANKS_MAX];
    struct tca_error error = {{0}};
    enum tca_status status;
    sigset_t signals;
    int started = 0;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    status = settings_load(&options_table, argc, argv, &options, &arguments, &error);
    if (status == TCA_OK && options.workers > RANKS_MAX)
        options.workers = RANKS_MAX;
    if (status == TCA_OK) {
        status = coordinator_start(&options, secret, &coordinator, &error);
        if (status != TCA_OK)
            settings_free(&options_table, &options, &arguments);
    }
    if (status != TCA_OK) {
        fprintf(stderr, "local_service: %s\n", error.text);
        return 1;
    }
    printf("listening on %s\n", coordinator_address(coordinator));
    fflush(stdout);
    if (!options.no_launch)
        started = start_ranks(ranks, (int)options.workers, coordinator_worker_address(coordinator));
    status = attend(coordinator, &signals);
    coordinator_stop(coordinator);
    for (int i = 0; i < started; i++) {
        pthread_join(ranks[i].thread, NULL);
        if (status == TCA_OK)
            status = ranks[i].status;
    }
    settings_free(&options_table, &options, &arguments);
    return status == TCA_OK ? 0 : 1;
}
