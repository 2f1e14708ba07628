#include "coordinator/worker_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RANDOM_BYTES = 32 };

enum tca_status worker_secret_make(char secret_out[WORKER_SECRET_BYTES], struct tca_error *error)
{
    uint8_t random[RANDOM_BYTES];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return tca_fail(error, TCA_ERR_IO, "secret: no randomness: %s", strerror(errno));
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(secret_out + 2 * i, 3, "%02x", random[i]);
    return TCA_OK;
}

static enum tca_status read_file(int file, const char *path, char secret_out[WORKER_SECRET_BYTES],
                                 struct tca_error *error)
{
    struct stat about;
    ssize_t bytes;

    if (fstat(file, &about) != 0)
        return tca_fail(error, TCA_ERR_IO, "secret-file: %s: %s", path, strerror(errno));
    if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return tca_fail(error, TCA_ERR_DENIED, "secret-file: %s has mode %03o, allowed: 600", path,
                        (unsigned)about.st_mode & 0777U);
    bytes = read(file, secret_out, WORKER_SECRET_BYTES);
    if (bytes < 0)
        return tca_fail(error, TCA_ERR_IO, "secret-file: %s: %s", path, strerror(errno));
    if (bytes > 0 && secret_out[bytes - 1] == '\n')
        bytes--;
    if (bytes == 0 || bytes == WORKER_SECRET_BYTES ||
        memchr(secret_out, '\0', (size_t)bytes) != NULL)
        return tca_fail(error, TCA_ERR_INVALID, "secret-file: %s has no text of 1 to %d bytes",
                        path, WORKER_SECRET_BYTES - 1);
    secret_out[bytes] = '\0';
    return TCA_OK;
}

enum tca_status worker_secret_file(const char *path, char secret_out[WORKER_SECRET_BYTES],
                                   struct tca_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    enum tca_status status;
    size_t length;

    if (file >= 0) {
        status = read_file(file, path, secret_out, error);
        close(file);
        return status;
    }
    if (errno != ENOENT)
        return tca_fail(error, TCA_ERR_IO, "secret-file: %s: %s", path, strerror(errno));
    TCA_TRY(worker_secret_make(secret_out, error));
    length = strlen(secret_out);
    file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return tca_fail(error, TCA_ERR_IO, "secret-file: %s: %s", path, strerror(errno));
    status = write(file, secret_out, length) == (ssize_t)length && fsync(file) == 0
                 ? TCA_OK
                 : tca_fail(error, TCA_ERR_IO, "secret-file: %s: %s", path, strerror(errno));
    close(file);
    return status;
}
