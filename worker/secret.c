#include "worker/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum tca_status read_descriptor(int descriptor, const char *file, char *secret_out,
                                       struct tca_error *error)
{
    struct stat facts;
    ssize_t bytes;

    if (fstat(descriptor, &facts) != 0)
        return tca_fail(error, TCA_ERR_IO, "secret file %s: %s", file, strerror(errno));
    if ((facts.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return tca_fail(error, TCA_ERR_DENIED, "secret file %s: mode %03o lets others in, use 0600",
                        file, facts.st_mode & 0777U);
    bytes = read(descriptor, secret_out, SECRET_BYTES_MAX);
    if (bytes < 0)
        return tca_fail(error, TCA_ERR_IO, "secret file %s: %s", file, strerror(errno));
    if (bytes > 0 && secret_out[bytes - 1] == '\n')
        bytes--;
    if (bytes == 0 || bytes == SECRET_BYTES_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "secret file %s: not 1 to %d bytes", file,
                        SECRET_BYTES_MAX - 1);
    secret_out[bytes] = '\0';
    return TCA_OK;
}

enum tca_status secret_read(const char *file, char secret_out[SECRET_BYTES_MAX],
                            struct tca_error *error)
{
    const char *variable;
    enum tca_status status;
    size_t length;
    int descriptor;

    if (file != NULL) {
        descriptor = open(file, O_RDONLY | O_CLOEXEC);
        if (descriptor < 0)
            return tca_fail(error, errno == ENOENT ? TCA_ERR_NOT_FOUND : TCA_ERR_IO,
                            "secret file %s: %s", file, strerror(errno));
        status = read_descriptor(descriptor, file, secret_out, error);
        close(descriptor);
        return status;
    }
    variable = getenv(SECRET_VARIABLE);
    if (variable == NULL)
        return tca_fail(error, TCA_ERR_NOT_FOUND,
                        "no secret: set " SECRET_VARIABLE " or give --secret-file");
    length = strlen(variable);
    if (length == 0 || length >= SECRET_BYTES_MAX)
        return tca_fail(error, TCA_ERR_INVALID, SECRET_VARIABLE ": %zu bytes, not 1 to %d", length,
                        SECRET_BYTES_MAX - 1);
    memcpy(secret_out, variable, length + 1);
    unsetenv(SECRET_VARIABLE);
    return TCA_OK;
}
