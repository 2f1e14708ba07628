/* One rank of the tests of comm/mpi: checks the collectives, or plays a part in a failure that
 * lost_rank.sh watches from outside. Exit status 0: this rank saw what it should see. */
#include "tests/support/collectives.h"

#include "base/log.h"
#include "comm/mpi/comm_mpi.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TIMEOUT_MS = 20000, SHORT_TIMEOUT_MS = 1000, STALL_S = 600 };

static const char *check_collectives(struct comm_group *group)
{
    const char *fault = collectives_check_sums(group);

    if (fault == NULL)
        fault = collectives_check_equal_bits(group);
    if (fault == NULL)
        fault = collectives_check_control(group);
    return fault;
}

/* The last rank goes missing in the middle of a collective of the others. */
static const char *lose_last_rank(struct comm_group *group, const char *how)
{
    float values[20000] = {0};

    if (group->ops->all_reduce_sum(group, values, 20000, KERNEL_F32, NULL) != TCA_OK)
        return "the first sum failed";
    printf("rank %d: works\n", group->rank);
    fflush(stdout);
    if (group->rank == group->ranks - 1) {
        if (strcmp(how, "dies") == 0)
            kill(getpid(), SIGKILL);
        if (strcmp(how, "aborts") == 0)
            group->ops->abort(group);
        if (strcmp(how, "stalls") == 0)
            sleep(STALL_S);
        return "this rank is missing"; /* skips: leaves while the others still work */
    }
    if (group->ops->all_reduce_sum(group, values, 20000, KERNEL_F32, NULL) != TCA_ERR_COMM ||
        group->ops->poll_error(group) != TCA_ERR_COMM ||
        group->ops->broadcast(group, values, 4, 0, TIMEOUT_MS) != TCA_ERR_COMM)
        return "the missing rank was not noticed";
    return NULL;
}

int main(int argc, char **argv)
{
    const char *how = argc == 2 ? argv[1] : "collectives";
    bool is_loss = strcmp(how, "collectives") != 0;
    bool is_stall = strcmp(how, "stalls") == 0 || strcmp(how, "skips") == 0;
    struct comm_group *group;
    const char *fault;

    log_init("rank", LOG_LEVEL_INFO);
    if (comm_mpi_create(NULL, is_stall ? SHORT_TIMEOUT_MS : TIMEOUT_MS, &group) != TCA_OK)
        return 1;
    fault = is_loss ? lose_last_rank(group, how) : check_collectives(group);
    printf("rank %d: %s\n", group->rank, fault != NULL ? fault : "right");
    fflush(stdout);
    group->ops->destroy(group);
    return fault == NULL ? 0 : 1;
}
