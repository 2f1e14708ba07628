#include "kernels/cpu/memory.h"

#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* From here on a block is its own mapping: malloc would keep freed memory for itself. */
enum { MAPPED_BYTES = 256 * 1024 };

enum tca_status cpu_alloc(size_t bytes, void **ptr_out)
{
    void *ptr;
    if (bytes >= MAPPED_BYTES) {
        ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (ptr == MAP_FAILED)
            ptr = NULL;
        else
            (void)madvise(ptr, bytes, MADV_HUGEPAGE); /* only a hint: weights are streamed */
    } else {
        ptr = aligned_alloc(64, (bytes + 64) / 64 * 64);
    }
    if (!ptr) {
        log_error("cannot allocate %zu bytes", bytes);
        return TCA_ERR_NO_MEMORY;
    }
    *ptr_out = ptr;
    return TCA_OK;
}

void cpu_free(void *ptr, size_t bytes)
{
    if (!ptr)
        return;
    if (bytes < MAPPED_BYTES)
        free(ptr);
    else if (munmap(ptr, bytes) != 0)
        log_error("cannot unmap %zu bytes", bytes);
}

/* One number from a file of one line; false when there is none ("max", no such file). */
static bool read_number(const char *path, uint64_t *value_out)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    unsigned long long value = 0;
    bool found = fscanf(file, "%llu", &value) == 1;
    fclose(file);
    if (found)
        *value_out = value;
    return found;
}

/* "MemTotal:  123 kB" lines. */
static bool read_meminfo(uint64_t *total_out, uint64_t *available_out)
{
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file)
        return false;
    char line[128];
    int found = 0;
    while (found < 2 && fgets(line, sizeof(line), file)) {
        unsigned long long kilobytes = 0;
        if (sscanf(line, "MemTotal: %llu", &kilobytes) == 1) {
            *total_out = kilobytes * 1024;
            found++;
        } else if (sscanf(line, "MemAvailable: %llu", &kilobytes) == 1) {
            *available_out = kilobytes * 1024;
            found++;
        }
    }
    fclose(file);
    return found == 2;
}

/* Of what a control group uses, files' pages, which are given up when memory is wanted: the model's
 * weights are such. MemAvailable counts them too. */
static uint64_t reclaimable_bytes(void)
{
    FILE *file = fopen("/sys/fs/cgroup/memory.stat", "re");
    if (!file)
        return 0;
    char line[128];
    uint64_t sum = 0;
    while (fgets(line, sizeof(line), file)) {
        unsigned long long bytes = 0;
        if (sscanf(line, "inactive_file %llu", &bytes) == 1 ||
            sscanf(line, "active_file %llu", &bytes) == 1)
            sum += bytes;
    }
    fclose(file);
    return sum;
}

enum tca_status cpu_memory(size_t *total_bytes_out, size_t *free_bytes_out)
{
    uint64_t total = 0;
    uint64_t available = 0;
    if (!read_meminfo(&total, &available)) {
        log_error("cannot read /proc/meminfo");
        return TCA_ERR_DEVICE;
    }
    uint64_t limit = 0;
    uint64_t used = 0;
    if (read_number("/sys/fs/cgroup/memory.max", &limit) &&
        read_number("/sys/fs/cgroup/memory.current", &used) && limit < total) {
        total = limit;
        uint64_t reclaimable = reclaimable_bytes();
        used -= reclaimable < used ? reclaimable : used;
        uint64_t left = limit > used ? limit - used : 0;
        available = left < available ? left : available;
    }
    *total_bytes_out = (size_t)total;
    *free_bytes_out = (size_t)available;
    return TCA_OK;
}
