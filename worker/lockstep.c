#include "worker/lockstep.h"

#include "base/log.h"

#include <stdlib.h>

enum { PLAN_BYTES_MAX = 1 << 30 };

struct lockstep {
    struct comm_group *group;
    struct model_shard *shard;
    int timeout_ms;
    uint64_t sent_bytes;         /* of the last step, rank 0: by all ranks */
    bool is_broken;              /* a step failed: the ranks are out of step */
    struct step_plan followed;   /* the plan being applied on other ranks, rank 0's last one */
    struct bytes wire;           /* owned */
    struct step_answer *answers; /* owned, rank 0: [ranks] */
};

enum tca_status lockstep_create(struct comm_group *group, struct model_shard *shard, int timeout_ms,
                                struct lockstep **lockstep_out)
{
    struct step_limits limits = model_shard_limits(shard);
    struct lockstep *lockstep = calloc(1, sizeof(*lockstep));

    if (lockstep == NULL)
        return TCA_ERR_NO_MEMORY;
    *lockstep = (struct lockstep){.group = group, .shard = shard, .timeout_ms = timeout_ms};
    lockstep->answers = calloc((size_t)group->ranks, sizeof(*lockstep->answers));
    if (lockstep->answers == NULL || step_plan_init(&lockstep->followed, &limits) != TCA_OK) {
        lockstep_destroy(lockstep);
        return TCA_ERR_NO_MEMORY;
    }
    *lockstep_out = lockstep;
    return TCA_OK;
}

void lockstep_destroy(struct lockstep *lockstep)
{
    if (lockstep == NULL)
        return;
    step_plan_deinit(&lockstep->followed);
    bytes_free(&lockstep->wire);
    free(lockstep->answers);
    free(lockstep);
}

/* The first detector of trouble within a step says where it was. */
static enum tca_status trouble(struct lockstep *lockstep, enum tca_status status, const char *where)
{
    lockstep->is_broken = true;
    log_error("rank %d: %s: %s", lockstep->group->rank, where, tca_status_text(status));
    return status;
}

/* Rank 0: TCA_OK, or TCA_ERR_ABORTED when some rank did not fare well. */
static enum tca_status judge(const int32_t *answers, int ranks)
{
    for (int rank = 0; rank < ranks; rank++)
        if (answers[rank] != TCA_OK)
            return TCA_ERR_ABORTED;
    return TCA_OK;
}

enum tca_status lockstep_agree(struct comm_group *group, enum tca_status own, int timeout_ms)
{
    int32_t *answers = NULL;
    int32_t answer = own;
    enum tca_status status;

    if (group->rank == 0) {
        answers = calloc((size_t)group->ranks, sizeof(*answers));
        if (answers == NULL)
            return TCA_ERR_NO_MEMORY;
    }
    status = group->ops->gather(group, answers, &answer, sizeof(answer), 0, timeout_ms);
    if (status == TCA_OK && answers != NULL)
        answer = judge(answers, group->ranks);
    free(answers);
    TCA_TRY(status);
    TCA_TRY(group->ops->broadcast(group, &answer, sizeof(answer), 0, timeout_ms));
    return own != TCA_OK ? own : (enum tca_status)answer;
}

static enum tca_status send_plan(struct lockstep *lockstep, const struct step_plan *plan)
{
    struct comm_group *group = lockstep->group;
    uint64_t size;

    bytes_clear(&lockstep->wire);
    TCA_TRY(step_plan_write(plan, &lockstep->wire));
    size = lockstep->wire.size;
    TCA_TRY(group->ops->broadcast(group, &size, sizeof(size), 0, lockstep->timeout_ms));
    return group->ops->broadcast(group, lockstep->wire.data, lockstep->wire.size, 0,
                                 lockstep->timeout_ms);
}

static enum tca_status gather_answers(struct lockstep *lockstep, const struct step_answer *answer,
                                      uint64_t *failed_opens_out)
{
    struct comm_group *group = lockstep->group;

    TCA_TRY(group->ops->gather(group, group->rank == 0 ? lockstep->answers : NULL, answer,
                               sizeof(*answer), 0, lockstep->timeout_ms));
    lockstep->sent_bytes = 0;
    for (int rank = 0; rank < group->ranks && group->rank == 0; rank++) {
        if (lockstep->answers[rank].status != TCA_OK)
            return (enum tca_status)lockstep->answers[rank].status;
        *failed_opens_out |= lockstep->answers[rank].failed_opens;
        lockstep->sent_bytes += lockstep->answers[rank].sent_bytes;
    }
    return TCA_OK;
}

enum tca_status lockstep_lead(struct lockstep *lockstep, const struct step_plan *plan,
                              model_shard_row_fn row, void *context, uint64_t *failed_opens_out)
{
    struct step_answer answer;
    enum tca_status status;

    *failed_opens_out = 0;
    if (lockstep->is_broken)
        return TCA_ERR_COMM;
    status = send_plan(lockstep, plan);
    if (status != TCA_OK)
        return trouble(lockstep, status, "sending a plan");
    status = model_shard_apply(lockstep->shard, plan, row, context, &answer);
    if (status != TCA_OK)
        return trouble(lockstep, status, "running a step");
    status = gather_answers(lockstep, &answer, failed_opens_out);
    if (status != TCA_OK)
        return trouble(lockstep, status, "waiting for the ranks' answers");
    return TCA_OK;
}

uint64_t lockstep_sent_bytes(const struct lockstep *lockstep)
{
    return lockstep->sent_bytes;
}

enum tca_status lockstep_end(struct lockstep *lockstep, enum step_end end)
{
    uint64_t failed_opens;

    step_plan_clear(&lockstep->followed, UINT64_MAX);
    lockstep->followed.end = end;
    return lockstep_lead(lockstep, &lockstep->followed, NULL, NULL, &failed_opens);
}

static enum tca_status receive_plan(struct lockstep *lockstep)
{
    struct comm_group *group = lockstep->group;
    struct tca_error error;
    enum tca_status status;
    uint64_t size = 0;

    TCA_TRY(group->ops->broadcast(group, &size, sizeof(size), 0, 2 * lockstep->timeout_ms));
    if (size > PLAN_BYTES_MAX)
        return TCA_ERR_INVALID;
    TCA_TRY(bytes_reserve(&lockstep->wire, (size_t)size));
    TCA_TRY(
        group->ops->broadcast(group, lockstep->wire.data, (size_t)size, 0, lockstep->timeout_ms));
    status = step_plan_read(&lockstep->followed, lockstep->wire.data, (size_t)size, &error);
    if (status != TCA_OK)
        log_error("rank %d: %s", group->rank, error.text);
    return status;
}

enum tca_status lockstep_follow(struct lockstep *lockstep)
{
    while (true) {
        struct step_answer answer;
        uint64_t unused = 0;
        enum tca_status status = receive_plan(lockstep);

        if (status != TCA_OK)
            return trouble(lockstep, status, "waiting for a plan");
        status = model_shard_apply(lockstep->shard, &lockstep->followed, NULL, NULL, &answer);
        if (status != TCA_OK)
            return trouble(lockstep, status, "running a step");
        status = gather_answers(lockstep, &answer, &unused);
        if (status != TCA_OK)
            return trouble(lockstep, status, "answering a step");
        if (lockstep->followed.end != STEP_END_NONE)
            return lockstep->followed.end == STEP_END_STOP ? TCA_OK : TCA_ERR_ABORTED;
    }
}
