#include "coordinator/store.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    META_BYTES_MAX = 1024 * 1024,
    EPOCH_DIGITS = 9, /* fits the upper half of a sequence */
};

struct store {
    char *folder; /* owned */
    int root;     /* descriptors of the folders */
    int documents;
    int scratch;
    int lock;
    uint64_t epoch;
};

static enum tca_status fail_io(struct tca_error *error, const char *verb, const char *what)
{
    const int cause = errno;
    const bool is_short =
        cause == ENOSPC || cause == EDQUOT || cause == EMFILE || cause == ENFILE || cause == ENOMEM;
    const enum tca_status status = is_short                            ? TCA_ERR_BUSY
                                   : cause == EACCES || cause == EPERM ? TCA_ERR_DENIED
                                                                       : TCA_ERR_IO;

    return tca_fail(error, status, "state-dir: cannot %s %s: %s", verb, what, strerror(cause));
}

/* Files. */

static enum tca_status write_all(int file, int64_t offset, const void *data, size_t bytes)
{
    const char *next = data;

    while (bytes > 0) {
        const ssize_t written = pwrite(file, next, bytes, (off_t)offset);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return TCA_ERR_IO;
        next += written;
        offset += written;
        bytes -= (size_t)written;
    }
    return TCA_OK;
}

/* Non-blocking: a FIFO in the file's place must not hang the open. */
static int open_file(int folder, const char *name)
{
    return openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* Append up to `bytes` bytes of a file; short when the file ends. */
static enum tca_status read_all(int file, size_t bytes, struct bytes *out)
{
    size_t done = 0;

    TCA_TRY(bytes_reserve(out, out->size + bytes));
    while (done < bytes) {
        const ssize_t got = pread(file, out->data + out->size, bytes - done, (off_t)done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return TCA_ERR_IO;
        if (got == 0)
            break;
        out->size += (size_t)got;
        done += (size_t)got;
    }
    return TCA_OK;
}

/* Replace `name` in `folder` as a whole: the old or the new content is there, whatever happens. */
static enum tca_status replace_file(int folder, const char *name, const void *data, size_t bytes,
                                    struct tca_error *error)
{
    char temporary[64];
    enum tca_status status;
    int file;

    snprintf(temporary, sizeof(temporary), "%s.new", name);
    file = openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return fail_io(error, "make", temporary);
    status = write_all(file, 0, data, bytes);
    if (status == TCA_OK && fsync(file) != 0)
        status = TCA_ERR_IO;
    if (status != TCA_OK)
        status = fail_io(error, "write", temporary);
    close(file);
    if (status == TCA_OK && renameat(folder, temporary, folder, name) != 0)
        status = fail_io(error, "rename", temporary);
    if (status == TCA_OK && fsync(folder) != 0)
        status = fail_io(error, "sync the folder of", name);
    return status;
}

static int64_t file_bytes(int folder, const char *name)
{
    struct stat about;

    return fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(about.st_mode)
               ? (int64_t)about.st_size
               : -1;
}

/* Folders. */

static int open_folder(int parent, const char *name)
{
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static enum tca_status make_folder(int parent, const char *name, int *folder_out,
                                   struct tca_error *error)
{
    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        return fail_io(error, "make", name);
    *folder_out = open_folder(parent, name);
    return *folder_out >= 0 ? TCA_OK : fail_io(error, "open", name);
}

enum tca_status store_make_folder(const char *folder, struct tca_error *error)
{
    char *copy = strdup(folder);
    enum tca_status status = copy == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;

    for (char *c = copy == NULL ? NULL : copy + 1; status == TCA_OK && c != NULL;) {
        c = strchr(c, '/');
        if (c != NULL)
            *c = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST)
            status = fail_io(error, "make", copy);
        if (c != NULL)
            *c++ = '/';
    }
    free(copy);
    return status;
}

/* Remove a document's folder with its files. What cannot go stays for the next start. */
static void remove_folder(int parent, const char *name)
{
    static const char *const files[] = {"meta.json", "meta.json.new", "content", "durable"};
    const int folder = open_folder(parent, name);

    if (folder >= 0) {
        for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
            unlinkat(folder, files[i], 0);
        close(folder);
    }
    if (unlinkat(parent, name, AT_REMOVEDIR) != 0)
        log_warn("state-dir: cannot remove scratch/%s: %s", name, strerror(errno));
}

/* Make room in scratch/ for a name that a failed removal may have left there. */
static void clear_scratch(struct store *store, const char *name)
{
    if (faccessat(store->scratch, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        remove_folder(store->scratch, name);
}

static DIR *list_folder(int folder)
{
    const int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);

    if (list == NULL && copy >= 0)
        close(copy);
    return list;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void empty_scratch(struct store *store)
{
    DIR *list = list_folder(store->scratch);
    const struct dirent *entry;

    while (list != NULL && (entry = readdir(list)) != NULL)
        if (!is_dots(entry->d_name))
            remove_folder(store->scratch, entry->d_name);
    if (list != NULL)
        closedir(list);
}

/* Opening. */

static enum tca_status take_lock(struct store *store, struct tca_error *error)
{
    store->lock = openat(store->root, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock < 0)
        return fail_io(error, "make", "lock");
    if (flock(store->lock, LOCK_EX | LOCK_NB) == 0)
        return TCA_OK;
    if (errno != EWOULDBLOCK)
        return fail_io(error, "lock", store->folder);
    return tca_fail(error, TCA_ERR_BUSY, "state-dir: another coordinator runs on %s",
                    store->folder);
}

/* What `text` says in decimal, nothing else but a newline behind it. */
static bool read_epoch(const char *text, uint64_t *epoch_out)
{
    const size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > EPOCH_DIGITS ||
        strspn(text + digits, "\n") != strlen(text + digits))
        return false;
    *epoch_out = strtoull(text, NULL, 10);
    return true;
}

/* A count that starts again would make events older than those that clients have seen. */
static enum tca_status count_epoch(struct store *store, struct tca_error *error)
{
    struct bytes text = {0};
    const int file = open_file(store->root, "epoch");
    enum tca_status status = TCA_OK;
    char number[32];

    if (file >= 0) {
        status = read_all(file, sizeof(number) - 1, &text);
        close(file);
    } else if (errno != ENOENT) {
        return fail_io(error, "open", "epoch");
    }
    if (status == TCA_OK)
        status = bytes_append(&text, "", 1);
    if (status != TCA_OK)
        tca_fail(error, status, "state-dir: cannot read epoch");
    else if (file >= 0 && !read_epoch((const char *)text.data, &store->epoch))
        status = tca_fail(error, TCA_ERR_INVALID,
                          "state-dir: epoch is \"%s\", allowed: a number of 1 to %d digits",
                          (const char *)text.data, EPOCH_DIGITS);
    bytes_free(&text);
    if (status != TCA_OK)
        return status;
    store->epoch++;
    snprintf(number, sizeof(number), "%" PRIu64 "\n", store->epoch);
    return replace_file(store->root, "epoch", number, strlen(number), error);
}

static enum tca_status open_folders(struct store *store, struct tca_error *error)
{
    TCA_TRY(store_make_folder(store->folder, error));
    store->root = open(store->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->root < 0)
        return fail_io(error, "open", store->folder);
    TCA_TRY(take_lock(store, error));
    TCA_TRY(make_folder(store->root, "documents", &store->documents, error));
    TCA_TRY(make_folder(store->root, "scratch", &store->scratch, error));
    return count_epoch(store, error);
}

enum tca_status store_open(const char *folder, struct store **store_out, struct tca_error *error)
{
    struct store *store = calloc(1, sizeof(*store));
    enum tca_status status;

    if (store == NULL)
        return TCA_ERR_NO_MEMORY;
    store->root = store->documents = store->scratch = store->lock = -1;
    store->folder = strdup(folder);
    status = store->folder == NULL ? TCA_ERR_NO_MEMORY : open_folders(store, error);
    if (status != TCA_OK) {
        store_close(store);
        return status;
    }
    empty_scratch(store);
    *store_out = store;
    return TCA_OK;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    if (store->scratch >= 0)
        close(store->scratch);
    if (store->documents >= 0)
        close(store->documents);
    if (store->lock >= 0)
        close(store->lock);
    if (store->root >= 0)
        close(store->root);
    free(store->folder);
    free(store);
}

uint64_t store_epoch(const struct store *store)
{
    return store->epoch;
}

const char *store_folder(const struct store *store)
{
    return store->folder;
}

/* Documents. */

static int64_t read_durable(int folder)
{
    const int file = open_file(folder, "durable");
    int64_t bytes = -1;

    if (file >= 0) {
        if (pread(file, &bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes) || bytes < 0)
            bytes = -1;
        close(file);
    }
    return bytes;
}

static bool visit_one(struct store *store, const char *id, store_visit_fn visit, void *context)
{
    struct bytes meta = {0};
    struct store_entry entry = {.id = id, .durable_bytes = -1, .content_bytes = -1};
    const int folder = open_folder(store->documents, id);
    bool goes_on;

    if (folder >= 0) {
        const int file = open_file(folder, "meta.json");

        if (file >= 0) {
            if (read_all(file, META_BYTES_MAX, &meta) == TCA_OK)
                entry.meta = &meta;
            close(file);
        }
        entry.durable_bytes = read_durable(folder);
        entry.content_bytes = file_bytes(folder, "content");
        close(folder);
    }
    goes_on = visit(context, &entry);
    bytes_free(&meta);
    return goes_on;
}

enum tca_status store_visit(struct store *store, store_visit_fn visit, void *context,
                            struct tca_error *error)
{
    DIR *list = list_folder(store->documents);
    const struct dirent *entry;
    enum tca_status status = TCA_OK;

    if (list == NULL)
        return fail_io(error, "list", "documents");
    while (status == TCA_OK && (entry = readdir(list)) != NULL)
        if (!is_dots(entry->d_name) && !visit_one(store, entry->d_name, visit, context))
            status = TCA_ERR_CANCELLED;
    closedir(list);
    return status;
}

enum tca_status store_create(struct store *store, const char *id, const struct bytes *meta,
                             struct tca_error *error)
{
    enum tca_status status;
    int folder = -1;

    if (faccessat(store->documents, id, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return tca_fail(error, TCA_ERR_EXISTS, "state-dir: documents/%s is there already", id);
    clear_scratch(store, id);
    TCA_TRY(make_folder(store->scratch, id, &folder, error));
    status = replace_file(folder, "meta.json", meta->data, meta->size, error);
    close(folder);
    if (status == TCA_OK && renameat(store->scratch, id, store->documents, id) != 0)
        status = fail_io(error, "make", id);
    if (status == TCA_OK && fsync(store->documents) != 0)
        status = fail_io(error, "sync", "documents");
    if (status != TCA_OK)
        remove_folder(store->scratch, id);
    return status;
}

static enum tca_status open_document(const struct store *store, const char *id, int *folder_out,
                                     struct tca_error *error)
{
    *folder_out = open_folder(store->documents, id);
    return *folder_out >= 0 ? TCA_OK : fail_io(error, "open", id);
}

enum tca_status store_save(struct store *store, const char *id, const struct bytes *meta,
                           struct tca_error *error)
{
    enum tca_status status;
    int folder = -1;

    TCA_TRY(open_document(store, id, &folder, error));
    status = replace_file(folder, "meta.json", meta->data, meta->size, error);
    close(folder);
    return status;
}

/* Write and sync one file of a document's folder. */
static enum tca_status write_file(int folder, const char *name, int64_t offset, const void *data,
                                  size_t bytes, struct tca_error *error)
{
    const int file = openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    enum tca_status status = TCA_OK;

    if (file < 0)
        return fail_io(error, "make", name);
    if (write_all(file, offset, data, bytes) != TCA_OK ||
        ftruncate(file, (off_t)(offset + (int64_t)bytes)) != 0 || fsync(file) != 0)
        status = fail_io(error, "write", name);
    close(file);
    return status;
}

enum tca_status store_append(struct store *store, const char *id, int64_t offset, const void *data,
                             size_t bytes, struct tca_error *error)
{
    const int64_t durable = offset + (int64_t)bytes;
    enum tca_status status;
    int folder = -1;

    TCA_TRY(open_document(store, id, &folder, error));
    status = write_file(folder, "content", offset, data, bytes, error);
    /* Only then is it acknowledged: a crash between the two loses nothing that was. */
    if (status == TCA_OK)
        status = write_file(folder, "durable", 0, &durable, sizeof(durable), error);
    if (status == TCA_OK && offset == 0 && fsync(folder) != 0)
        status = fail_io(error, "sync", id);
    close(folder);
    return status;
}

enum tca_status store_remove(struct store *store, const char *id, struct tca_error *error)
{
    clear_scratch(store, id);
    if (renameat(store->documents, id, store->scratch, id) != 0)
        return errno == ENOENT ? TCA_OK : fail_io(error, "remove", id);
    if (fsync(store->documents) != 0)
        return fail_io(error, "sync", "documents");
    remove_folder(store->scratch, id);
    return TCA_OK;
}

/* What cannot be opened or read is lost, unless the process is out of descriptors or memory. */
static enum tca_status fail_read(struct tca_error *error, const char *verb, const char *what)
{
    const enum tca_status status = fail_io(error, verb, what);

    return status == TCA_ERR_BUSY ? status : TCA_ERR_DATA_LOSS;
}

enum tca_status store_read(struct store *store, const char *id, int64_t bytes,
                           struct bytes *content_out, struct tca_error *error)
{
    const size_t before = content_out->size;
    const int folder = open_folder(store->documents, id);
    enum tca_status status = TCA_OK;
    int file;

    if (folder < 0)
        return fail_read(error, "open", id);
    file = open_file(folder, "content");
    if (file < 0)
        status = fail_read(error, "open", "content");
    close(folder);
    if (file < 0)
        return status;
    status = read_all(file, (size_t)bytes, content_out);
    if (status == TCA_ERR_IO)
        status = fail_read(error, "read", "content");
    close(file);
    if (status != TCA_OK)
        return status;
    if (content_out->size - before != (size_t)bytes)
        return tca_fail(error, TCA_ERR_DATA_LOSS,
                        "state-dir: content of %s has %zu bytes, %" PRId64 " were acknowledged", id,
                        content_out->size - before, bytes);
    return TCA_OK;
}
