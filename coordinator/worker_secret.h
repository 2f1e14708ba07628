/* The secret that a worker group must know: made at random, or kept in a file that both read. */
#ifndef COORDINATOR_WORKER_SECRET_H
#define COORDINATOR_WORKER_SECRET_H

#include "base/error.h"

enum { WORKER_SECRET_BYTES = 129 }; /* with its NUL */

/* 64 random hexadecimal digits. TCA_ERR_IO: no randomness. */
enum tca_status worker_secret_make(char secret_out[WORKER_SECRET_BYTES], struct tca_error *error);

/* Read the file, or make one with mode 0600 where there is none. TCA_ERR_DENIED: others than its
 * owner may read it; TCA_ERR_INVALID: empty or too long; TCA_ERR_IO. */
enum tca_status worker_secret_file(const char *path, char secret_out[WORKER_SECRET_BYTES],
                                   struct tca_error *error);

#endif
