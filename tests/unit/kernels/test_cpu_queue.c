#include "tests/support/check.h"

#include "kernels/backend.h"
#include "kernels/cpu/cpu_queue.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/thread_pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PARTS = 1000, THREADS = 4 };

struct count_job {
    atomic_int runs[PARTS];
    int plain[PARTS]; /* written without atomics: the pool must order them */
    int threads;
};

static void count_part(void *context, int part, int thread)
{
    struct count_job *job = context;
    assert_true(thread >= 0 && thread < job->threads);
    atomic_fetch_add(&job->runs[part], 1);
    job->plain[part]++;
}

static void every_part_runs_once_each_time(void **state)
{
    (void)state;
    for (int threads = 1; threads <= THREADS; threads++) {
        struct thread_pool *pool;
        assert_int_equal(thread_pool_create(threads, &pool), TCA_OK);
        assert_int_equal(thread_pool_threads(pool), threads);
        struct count_job job = {.threads = threads};
        thread_pool_run(pool, 0, count_part, &job);
        for (int round = 1; round <= 200; round++) {
            int parts = round % 3 == 0 ? PARTS : round % 7 + 1;
            thread_pool_run(pool, parts, count_part, &job);
            if (round % 50 == 0)
                usleep(2000); /* long enough for the threads to fall asleep */
        }
        int want_last = 200 / 3;
        assert_int_equal(atomic_load(&job.runs[PARTS - 1]), want_last);
        assert_int_equal(job.plain[PARTS - 1], want_last);
        assert_int_equal(job.plain[0], 200);
        thread_pool_destroy(pool);
    }
}

static void a_pool_may_be_destroyed_at_once(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct thread_pool *pool;
        assert_int_equal(thread_pool_create(3, &pool), TCA_OK);
        thread_pool_destroy(pool);
    }
    thread_pool_destroy(NULL);
}

/* Resident pages of this process, in bytes. */
static size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    unsigned long size = 0;
    unsigned long resident = 0;
    assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static void free_gives_memory_back(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    const size_t bytes = (size_t)64 << 20;
    void *block;
    size_t before = resident_bytes();
    assert_int_equal(cpu->alloc(0, bytes, &block), TCA_OK);
    memset(block, 1, bytes);
    assert_true(resident_bytes() > before + bytes / 2);
    cpu->free(0, block, bytes);
    assert_true(resident_bytes() < before + bytes / 2);
}

static void blocks_of_any_size_are_aligned(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    static const size_t sizes[] = {0, 1, 63, 64, 1000, 262143, 262144, 262145, 5000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *block;
        assert_int_equal(cpu->alloc(0, sizes[i], &block), TCA_OK);
        assert_int_equal((uintptr_t)block % 64, 0);
        memset(block, 0xab, sizes[i]);
        cpu->free(0, block, sizes[i]);
    }
    cpu->free(0, NULL, 5);
}

static void impossible_requests_are_errors(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    void *block = NULL;
    struct kernel_queue *queue = NULL;
    assert_int_equal(cpu->alloc(0, (size_t)1 << 62, &block), TCA_ERR_NO_MEMORY);
    assert_int_equal(cpu->alloc(1, 64, &block), TCA_ERR_DEVICE);
    assert_int_equal(cpu->queue_create(1, 2, &queue), TCA_ERR_DEVICE);
    assert_null(block);
    assert_null(queue);
}

static void memory_is_what_the_machine_has(void **state)
{
    (void)state;
    size_t total = 0;
    size_t available = 0;
    assert_int_equal(kernel_backend_cpu()->memory(0, &total, &available), TCA_OK);
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    assert_true(total > 0 && total <= machine + machine / 50);
    assert_true(available > 0 && available < total);
}

static void copies_go_both_ways(void **state)
{
    (void)state;
    const struct kernel_backend *cpu = kernel_backend_cpu();
    struct kernel_queue *queue;
    void *block;
    char back[6] = "";
    assert_int_equal(cpu->queue_create(0, 0, &queue), TCA_OK);
    assert_int_equal(cpu->alloc(0, 6, &block), TCA_OK);
    assert_int_equal(cpu->upload(queue, block, "hello", 6), TCA_OK);
    assert_int_equal(cpu->download(queue, back, block, 6), TCA_OK);
    assert_int_equal(cpu->queue_wait(queue), TCA_OK);
    assert_string_equal(back, "hello");
    cpu->free(0, block, 6);
    cpu->queue_destroy(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once_each_time),
        cmocka_unit_test(a_pool_may_be_destroyed_at_once),
        cmocka_unit_test(free_gives_memory_back),
        cmocka_unit_test(blocks_of_any_size_are_aligned),
        cmocka_unit_test(impossible_requests_are_errors),
        cmocka_unit_test(memory_is_what_the_machine_has),
        cmocka_unit_test(copies_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
