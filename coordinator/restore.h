/* The documents of earlier runs, at start. */
#ifndef COORDINATOR_RESTORE_H
#define COORDINATOR_RESTORE_H

#include "base/error.h"

struct coordinator;

/* Fill coordinator->documents from the store: what had KV is QUEUED to get it back, the most
 * recently used first; unfinished uploads can be resumed where they were acknowledged; an entry
 * that is damaged is listed as FAILED with DATA_LOSS. Before any thread runs. */
enum tca_status restore_documents(struct coordinator *coordinator, struct tca_error *error);

#endif
