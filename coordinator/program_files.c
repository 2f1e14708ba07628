#include "coordinator/program_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum tca_status find_own_folder(char path_out[PROGRAM_PATH_BYTES], struct tca_error *error)
{
    const ssize_t bytes = readlink("/proc/self/exe", path_out, PROGRAM_PATH_BYTES - 1);
    char *slash;

    if (bytes <= 0)
        return tca_fail(error, TCA_ERR_NOT_FOUND, "cannot find this program's own folder: %s",
                        strerror(errno));
    path_out[bytes] = '\0';
    slash = strrchr(path_out, '/');
    if (slash != NULL)
        *slash = '\0';
    return TCA_OK;
}

/* FOLDER/way/name without links and dots, where `mode` may be done with it. */
static enum tca_status find(const char *way, const char *name, int mode,
                            char path_out[PROGRAM_PATH_BYTES], struct tca_error *error)
{
    char folder[PROGRAM_PATH_BYTES], path[2 * PROGRAM_PATH_BYTES];
    char *resolved;
    int bytes;

    TCA_TRY(find_own_folder(folder, error));
    snprintf(path, sizeof(path), "%s/%s%s", folder, way, name);
    resolved = access(path, mode) == 0 ? realpath(path, NULL) : NULL;
    if (resolved == NULL)
        return tca_fail(error, TCA_ERR_NOT_FOUND, "cannot use %s: %s", path, strerror(errno));
    bytes = snprintf(path_out, PROGRAM_PATH_BYTES, "%s", resolved);
    free(resolved);
    return bytes < PROGRAM_PATH_BYTES
               ? TCA_OK
               : tca_fail(error, TCA_ERR_NOT_FOUND, "%s: its path is too long", name);
}

enum tca_status program_files_find(const char *name, char path_out[PROGRAM_PATH_BYTES],
                                   struct tca_error *error)
{
    if (find("../bin/", name, X_OK, path_out, error) == TCA_OK)
        return TCA_OK;
    return find("", name, X_OK, path_out, error);
}

enum tca_status program_files_find_data(const char *name, char path_out[PROGRAM_PATH_BYTES],
                                        struct tca_error *error)
{
    if (find("../share/tca/", name, R_OK, path_out, error) == TCA_OK)
        return TCA_OK;
    return find("../../../models/", name, R_OK, path_out, error);
}
