/* Checks of a group's collectives that every transport must pass. Each rank calls them. */
#ifndef TESTS_SUPPORT_COLLECTIVES_H
#define TESTS_SUPPORT_COLLECTIVES_H

#include "comm/group.h"

/* Where buffers live; NULL for host memory and finished queues. */
struct collectives_device {
    const struct kernel_backend *backend;
    int index;
    struct kernel_queue *queue;
};

/* NULL when everything was right, else what was wrong (static). All ranks must call each. */
const char *collectives_check_sums(struct comm_group *group);
/* all_reduce_begin and all_reduce_await. */
const char *collectives_check_begun(struct comm_group *group);
const char *collectives_check_equal_bits(struct comm_group *group);
const char *collectives_check_control(struct comm_group *group);
/* all_gather and all_to_all. */
const char *collectives_check_exchange(struct comm_group *group,
                                       const struct collectives_device *device);
/* The same in every way to cut the group into two parts, in turns with the whole. */
const char *collectives_check_parts(struct comm_group *group,
                                    const struct collectives_device *device);

#endif
