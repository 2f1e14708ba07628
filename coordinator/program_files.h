/* What comes with this program: other programs, which a bundle starts by scripts in its bin/, and
 * data, which a build has in the repository's models/ and a bundle or an installation in
 * share/tca/. */
#ifndef COORDINATOR_PROGRAM_FILES_H
#define COORDINATOR_PROGRAM_FILES_H

#include "base/error.h"
#include "base/status.h"

enum { PROGRAM_PATH_BYTES = 4096 };

/* In bin/ beside our own folder, or in that. TCA_ERR_NOT_FOUND: there is none, or it may not be
 * run. */
enum tca_status program_files_find(const char *name, char path_out[PROGRAM_PATH_BYTES],
                                   struct tca_error *error);

/* The folder of data of that name. TCA_ERR_NOT_FOUND: it did not come with the program. */
enum tca_status program_files_find_data(const char *name, char path_out[PROGRAM_PATH_BYTES],
                                        struct tca_error *error);

#endif
