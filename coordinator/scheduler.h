/* Gives the group its next work: documents in the order of their turns, those that questions wait
 * for first; questions in the order of their arrival. With the coordinator's lock held. */
#ifndef COORDINATOR_SCHEDULER_H
#define COORDINATOR_SCHEDULER_H

struct coordinator;

/* After anything that may let something start. Documents may be stored and fail, and questions
 * end; neither is removed, so pointers that the caller holds stay good, but for questions. */
void scheduler_run(struct coordinator *coordinator);

#endif
