/* Keeps the ranks of a group in step: rank 0 broadcasts a plan, every rank applies it, rank 0
 * gathers their answers. When a call fails the ranks are out of step: its caller aborts the group,
 * so that every other rank fails too instead of waiting for ever. */
#ifndef WORKER_LOCKSTEP_H
#define WORKER_LOCKSTEP_H

#include "comm/group.h"
#include "worker/model_shard.h"
#include "worker/step_plan.h"

struct lockstep;

/* Every rank tells how it fared; TCA_OK everywhere when all did well. Otherwise a rank that failed
 * gets its own status back, and the others TCA_ERR_ABORTED. Collective; TCA_ERR_COMM. */
enum tca_status lockstep_agree(struct comm_group *group, enum tca_status own, int timeout_ms);

/* Borrows group and shard. timeout_ms: longest wait for a peer within a step; others wait for the
 * next plan of rank 0 twice as long, which sends one at least every second. */
enum tca_status lockstep_create(struct comm_group *group, struct model_shard *shard, int timeout_ms,
                                struct lockstep **lockstep_out);
void lockstep_destroy(struct lockstep *lockstep); /* NULL is a no-op */

/* Rank 0: run one plan on all ranks. failed_opens_out: opens that found no memory on some rank.
 * After a failure every later call fails too. */
enum tca_status lockstep_lead(struct lockstep *lockstep, const struct step_plan *plan,
                              model_shard_row_fn row, void *context, uint64_t *failed_opens_out);

/* Rank 0: what all ranks sent to one another through tensor collectives in the last plan's step. */
uint64_t lockstep_sent_bytes(const struct lockstep *lockstep);

/* Rank 0: let every rank leave, with STEP_END_STOP or STEP_END_FAILURE. TCA_ERR_COMM: they are out
 * of step already. */
enum tca_status lockstep_end(struct lockstep *lockstep, enum step_end end);

/* Other ranks: apply plans until one ends the group. TCA_OK after STEP_END_STOP, TCA_ERR_ABORTED
 * after STEP_END_FAILURE. */
enum tca_status lockstep_follow(struct lockstep *lockstep);

#endif
