/* The secret that admits a worker group to its coordinator: from the environment or a file, never
 * from the command line, where every user of the machine could read it. */
#ifndef WORKER_SECRET_H
#define WORKER_SECRET_H

#include "base/error.h"

#define SECRET_VARIABLE "TCA_WORKER_SECRET"

enum { SECRET_BYTES_MAX = 256 };

/* Read `file`, or with NULL take the environment variable and remove it there. A trailing newline
 * does not count. TCA_ERR_NOT_FOUND: neither; TCA_ERR_DENIED: others than the owner may read the
 * file; TCA_ERR_INVALID: empty or too long; TCA_ERR_IO. */
enum tca_status secret_read(const char *file, char secret_out[SECRET_BYTES_MAX],
                            struct tca_error *error);

#endif
