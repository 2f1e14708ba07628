#include "tests/support/failing_alloc.h"

#include <errno.h>
#include <stddef.h>

enum { NEVER = -1, FAILED = -2 };

static _Thread_local int left = NEVER;

/* The names that --wrap demands. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
char *__wrap_strdup(const char *text);

static bool fails_now(void)
{
    if (left > 0)
        left--;
    else if (left == 0) {
        left = FAILED;
        errno = ENOMEM;
        return true;
    }
    return false;
}

void failing_alloc_after(int count)
{
    left = count;
}

bool failing_alloc_stop(void)
{
    bool has_failed = left == FAILED;

    left = NEVER;
    return has_failed;
}

void *__wrap_malloc(size_t bytes)
{
    return fails_now() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails_now() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return fails_now() ? NULL : __real_realloc(memory, bytes);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}
