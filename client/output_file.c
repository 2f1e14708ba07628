#include "client/output_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum tca_status fail(const char *path, struct tca_error *error)
{
    return tca_fail(error, TCA_ERR_IO, "%s: %s", path, strerror(errno));
}

enum tca_status output_file_open(struct output_file *file, const char *path,
                                 struct tca_error *error)
{
    struct stat found;

    /* Renaming would replace a device or a pipe. */
    if (stat(path, &found) == 0 && !S_ISREG(found.st_mode))
        return tca_fail(error, TCA_ERR_IO, "%s: not a regular file", path);
    *file = (struct output_file){.path = path, .fd = -1};
    if (asprintf(&file->temporary, "%s.XXXXXX", path) < 0) {
        file->temporary = NULL;
        return tca_fail(error, TCA_ERR_NO_MEMORY, "out of memory");
    }
    file->fd = mkstemp(file->temporary);
    if (file->fd >= 0)
        return TCA_OK;
    fail(path, error);
    free(file->temporary);
    return TCA_ERR_IO;
}

static enum tca_status write_all(const struct output_file *file, const struct bytes *content,
                                 struct tca_error *error)
{
    const mode_t mask = umask(0);

    umask(mask);
    for (size_t done = 0; done < content->size;) {
        const ssize_t wrote = write(file->fd, content->data + done, content->size - done);

        if (wrote < 0 && errno != EINTR)
            return fail(file->path, error);
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    /* mkstemp lets nobody else read. */
    return fchmod(file->fd, 0666 & ~mask) == 0 ? TCA_OK : fail(file->path, error);
}

enum tca_status output_file_commit(struct output_file *file, const struct bytes *content,
                                   struct tca_error *error)
{
    enum tca_status status = write_all(file, content, error);

    if (status == TCA_OK) {
        const int closed = close(file->fd);

        file->fd = -1;
        if (closed != 0 || rename(file->temporary, file->path) != 0)
            status = fail(file->path, error);
    }
    if (status != TCA_OK) {
        output_file_discard(file);
        return status;
    }
    free(file->temporary);
    return TCA_OK;
}

void output_file_discard(struct output_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    unlink(file->temporary);
    free(file->temporary);
}
