/* The thread that looks at the clock: heartbeats, deadlines, silence of the group. */
#ifndef COORDINATOR_TIMER_H
#define COORDINATOR_TIMER_H

#include "base/status.h"

struct coordinator;
struct timer;

/* TCA_ERR_NO_MEMORY: no thread. */
enum tca_status timer_start(struct coordinator *coordinator, struct timer **timer_out);
void timer_stop(struct timer *timer); /* NULL is a no-op */

#endif
