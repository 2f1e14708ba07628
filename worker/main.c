/* tca-worker: one rank of a worker group. Start it with mpirun, one process a rank. */
#include "base/log.h"
#include "base/settings.h"
#include "base/version.h"
#include "comm/mpi/comm_mpi.h"
#include "worker/secret.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
    char *coordinator;
    char *secret_file;
    int64_t connect_timeout_s;
    int64_t step_timeout_s;
};

static const struct setting rows[] = {
    {SETTING_FIELD(struct options, coordinator), .name = "coordinator", .metavar = "ADDR:PORT",
     .help = "the coordinator's worker listener"},
    {SETTING_FIELD(struct options, secret_file), .name = "secret-file", .metavar = "FILE",
     .help = "file of mode 0600 with the group's secret; without it " SECRET_VARIABLE " holds it"},
    {SETTING_FIELD(struct options, connect_timeout_s), .name = "connect-timeout", .initial = "60",
     .metavar = "S", .help = "how long to try to reach the coordinator", .min = 1, .max = 3600},
    {SETTING_FIELD(struct options, step_timeout_s), .name = "step-timeout", .initial = "30",
     .metavar = "S", .help = "how long a rank waits for another within a step before it gives up",
     .min = 1, .max = 3600},
};

static const struct settings_table table = {
    .program = "tca-worker", .rows = rows, .count = sizeof(rows) / sizeof(*rows)};

/* Join the group and serve until it ends. */
static enum tca_status serve(const struct options *options)
{
    struct worker_options worker = {.coordinator = options->coordinator,
                                    .version = tca_version(),
                                    .connect_timeout_ms = (int)options->connect_timeout_s * 1000,
                                    .step_timeout_ms = (int)options->step_timeout_s * 1000};
    char secret[SECRET_BYTES_MAX];
    char who[32];
    struct comm_group *group;
    struct tca_error error;
    enum tca_status status = secret_read(options->secret_file, secret, &error);

    if (status != TCA_OK) {
        fprintf(stderr, "tca-worker: %s\n", error.text);
        return status;
    }
    worker.secret = secret;
    TCA_TRY(comm_mpi_create(kernel_backend_cpu(), worker.step_timeout_ms, &group));
    snprintf(who, sizeof(who), "worker %d", group->rank);
    log_init(who, LOG_LEVEL_INFO);
    status = worker_run(group, &worker);
    group->ops->destroy(group);
    return status;
}

static int run(const void *values, const struct settings_arguments *arguments)
{
    const struct options *options = values;

    (void)arguments;
    if (options->coordinator == NULL) {
        fprintf(stderr, "tca-worker: --coordinator ADDR:PORT is missing\n");
        return 2;
    }
    return serve(options) == TCA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options options;

    return settings_run(&table, argc, argv, &options, run);
}
