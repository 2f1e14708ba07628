/* A file that appears under its name only when it is whole: written beside it, then renamed. */
#ifndef CLIENT_OUTPUT_FILE_H
#define CLIENT_OUTPUT_FILE_H

#include "base/bytes.h"
#include "base/error.h"

struct output_file {
    const char *path; /* borrowed */
    char *temporary;  /* owned */
    int fd;
};

/* Make the temporary file, so that a path that cannot be written is known before the work.
 * TCA_ERR_IO names the path; what it names must be a regular file, if anything. */
enum tca_status output_file_open(struct output_file *file, const char *path,
                                 struct tca_error *error);
/* Write and rename. Either way the file is closed and nothing else is left. */
enum tca_status output_file_commit(struct output_file *file, const struct bytes *content,
                                   struct tca_error *error);
void output_file_discard(struct output_file *file); /* leaves what was there before */

#endif
