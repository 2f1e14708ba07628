/* Starts the worker group and sees it end, through a small helper process.
 *
 * The helper is forked before this process has threads. It starts the group's command, tells when
 * it has ended, and ends it when told to or when this process is gone, however it went; the
 * command in turn gets SIGTERM when the helper is gone. The command runs in a process group of its
 * own (a Ctrl-C at the terminal is the coordinator's to handle), with stdin from /dev/null and its
 * stdout on our stderr. Used by one thread. */
#ifndef COORDINATOR_LAUNCHER_H
#define COORDINATOR_LAUNCHER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct launcher;

/* Fork the helper; before any thread is started. TCA_ERR_UNAVAILABLE. */
enum tca_status launcher_open(struct launcher **launcher_out, struct tca_error *error);

/* Have the helper start argv[0] (found on PATH) with `environment` ("NAME=value") added to ours;
 * both end with NULL. Once. TCA_ERR_UNAVAILABLE: the helper is gone; TCA_ERR_INVALID: too long. */
enum tca_status launcher_run(struct launcher *launcher, const char *const *argv,
                             const char *const *environment, struct tca_error *error);

/* Has the command ended? Then how, in words. Does not block. */
bool launcher_has_ended(struct launcher *launcher, char *how_out, size_t bytes);

/* Wait up to grace_ms for the command to end, then end it; end the helper. NULL is a no-op. */
void launcher_close(struct launcher *launcher, int64_t grace_ms);

#endif
