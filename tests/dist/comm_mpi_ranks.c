/* One rank of the tests of comm/mpi: checks the collectives, or plays a part in a failure that
 * lost_rank.sh watches from outside. Exit status 0: this rank saw what it should see. */
#include "tests/support/collectives.h"

#include "base/log.h"
#include "comm/mpi/comm_mpi.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TIMEOUT_MS = 20000, SHORT_TIMEOUT_MS = 3000, STALL_S = 600, RANKS_MAX = 4 };

static const char *check_collectives(struct comm_group *group)
{
    const char *fault = collectives_check_sums(group);

    if (fault == NULL)
        fault = collectives_check_begun(group);
    if (fault == NULL)
        fault = collectives_check_equal_bits(group);
    if (fault == NULL)
        fault = collectives_check_control(group);
    if (fault == NULL)
        fault = collectives_check_exchange(group, NULL);
    if (fault == NULL)
        fault = collectives_check_parts(group, NULL);
    return fault;
}

/* The collective that a rank goes missing in. */
static enum tca_status work(struct comm_group *group, const char *how)
{
    static float recv[3 * 20000], send[3 * 20000];

    if (strstr(how, "gather") != NULL)
        return group->ops->all_gather(group, recv, send, 20000 * sizeof(float), NULL);
    if (strstr(how, "to_all") != NULL)
        return group->ops->all_to_all(group, recv, send, 20000 * sizeof(float), NULL);
    return group->ops->all_reduce_sum(group, send, 20000, KERNEL_F32, NULL);
}

/* The last rank goes missing in the middle of a collective of the others. */
static const char *lose_last_rank(struct comm_group *group, const char *how)
{
    const int last = group->ranks - 1;
    uint32_t word = 0, words[RANKS_MAX];

    if (work(group, how) != TCA_OK)
        return "the first call failed";
    printf("rank %d: works\n", group->rank);
    fflush(stdout);
    /* The last waits until all have said so: when it goes, mpirun ends the others. */
    if (group->ops->gather(group, group->rank == last ? words : NULL, &word, sizeof(word), last,
                           TIMEOUT_MS) != TCA_OK)
        return "not every rank works";
    if (group->rank == last) {
        if (strcmp(how, "dies") == 0)
            kill(getpid(), SIGKILL);
        if (strcmp(how, "aborts") == 0)
            group->ops->abort(group);
        if (strstr(how, "stalls") != NULL)
            sleep(STALL_S);
        return "this rank is missing"; /* skips: leaves while the others still work */
    }
    if (work(group, how) != TCA_ERR_COMM || group->ops->poll_error(group) != TCA_ERR_COMM ||
        group->ops->broadcast(group, &word, sizeof(word), 0, TIMEOUT_MS) != TCA_ERR_COMM)
        return "the missing rank was not noticed";
    return NULL;
}

/* The last two ranks are a part, in which the last goes missing; the whole fails with it. */
static const char *lose_rank_of_part(struct comm_group *group, const char *how)
{
    int first = group->ranks - 2;
    struct comm_group *part;
    const char *fault = NULL;

    if (group->rank < first)
        first = 0;
    if (group->ops->split(group, first, first == 0 ? group->ranks - 2 : 2, &part) != TCA_OK)
        return "split failed";
    if (first > 0)
        fault = lose_last_rank(part, how);
    else
        printf("rank %d: works\n", group->rank);
    fflush(stdout);
    if (fault == NULL && work(group, how) != TCA_ERR_COMM)
        fault = "the missing rank was not noticed";
    part->ops->destroy(part);
    return fault;
}

int main(int argc, char **argv)
{
    const char *how = argc == 2 ? argv[1] : "collectives";
    bool is_loss = strcmp(how, "collectives") != 0;
    bool is_stall = strstr(how, "stalls") != NULL || strcmp(how, "skips") == 0;
    struct comm_group *group;
    const char *fault;

    log_init("rank", LOG_LEVEL_INFO);
    if (comm_mpi_create(NULL, is_stall ? SHORT_TIMEOUT_MS : TIMEOUT_MS, &group) != TCA_OK)
        return 1;
    if (strstr(how, "part") != NULL)
        fault = lose_rank_of_part(group, how);
    else
        fault = is_loss ? lose_last_rank(group, how) : check_collectives(group);
    printf("rank %d: %s\n", group->rank, fault != NULL ? fault : "right");
    fflush(stdout);
    group->ops->destroy(group);
    return fault == NULL ? 0 : 1;
}
