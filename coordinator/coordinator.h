/* The coordinator: serves clients, keeps documents, and has a worker group do the work.
 *
 * One per state folder. It does not start workers (launcher.h does): it waits for a group that
 * dials worker_address with the secret. Tests run it and a group in one process. */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H

#include "base/error.h"
#include "coordinator/options.h"

struct coordinator;

enum { COORDINATOR_ADDRESS_BYTES = 300 };

/* Read model and documents, listen. `options` is borrowed for the coordinator's life; `secret` is
 * what workers must know. Serves at once; questions are UNAVAILABLE until the group is ready.
 * error names what is wrong with which setting or file. */
enum tca_status coordinator_start(const struct coordinator_options *options, const char *secret,
                                  struct coordinator **coordinator_out, struct tca_error *error);

/* Where it listens, with the ports in use. */
const char *coordinator_address(const struct coordinator *coordinator);
const char *coordinator_worker_address(const struct coordinator *coordinator);

/* Take no new work and let running questions end. Returns at once. */
void coordinator_drain(struct coordinator *coordinator);
/* Whether it was told to, by this or by Admin.Drain. */
bool coordinator_is_drain_wanted(struct coordinator *coordinator);
/* The group cannot come or has gone, says who started it: everything ends UNAVAILABLE. */
void coordinator_lose_group(struct coordinator *coordinator, const char *reason);

/* Wait until the group is ready (TCA_OK), at most timeout_ms (TCA_ERR_DEADLINE). Once it has
 * ended: the same as coordinator_wait, or TCA_ERR_CANCELLED where that is TCA_OK. */
enum tca_status coordinator_wait_ready(struct coordinator *coordinator, int64_t timeout_ms);
/* Wait for the end, at most timeout_ms (TCA_ERR_DEADLINE). TCA_OK: drained. TCA_ERR_UNAVAILABLE:
 * the group is lost. */
enum tca_status coordinator_wait(struct coordinator *coordinator, int64_t timeout_ms);

/* End what runs, tell the group to leave, free everything; NULL is a no-op. */
void coordinator_stop(struct coordinator *coordinator);

#endif
