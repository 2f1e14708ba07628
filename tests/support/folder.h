/* A folder in the temporary directory for one test, and files in it. */
#ifndef TESTS_SUPPORT_FOLDER_H
#define TESTS_SUPPORT_FOLDER_H

#include "tests/support/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct folder {
    char path[64];
};

static inline void folder_create(struct folder *folder)
{
    snprintf(folder->path, sizeof(folder->path), "/tmp/tca_test_XXXXXX");
    assert_non_null(mkdtemp(folder->path));
}

static inline void folder_write(const struct folder *folder, const char *name, const void *data,
                                size_t bytes)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    unlink(path); /* some file systems flush a file that is cut and written again */
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static inline void folder_write_text(const struct folder *folder, const char *name,
                                     const char *text)
{
    folder_write(folder, name, text, strlen(text));
}

static inline void folder_delete(const struct folder *folder, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    unlink(path);
}

/* The folder must hold files only. */
static inline void folder_destroy(const struct folder *folder)
{
    DIR *dir = opendir(folder->path);
    const struct dirent *item;

    assert_non_null(dir);
    while ((item = readdir(dir)) != NULL)
        if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
            folder_delete(folder, item->d_name);
    closedir(dir);
    assert_int_equal(rmdir(folder->path), 0);
}

/* The set-up and the tear-down of a test whose state is a folder. */
static inline int folder_setup(void **state)
{
    struct folder *folder = malloc(sizeof(*folder));

    assert_non_null(folder);
    folder_create(folder);
    *state = folder;
    return 0;
}

static inline int folder_teardown(void **state)
{
    folder_destroy(*state);
    free(*state);
    return 0;
}

#endif
