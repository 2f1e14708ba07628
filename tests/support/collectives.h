/* Checks of a group's collectives that every transport must pass. Each rank calls them. */
#ifndef TESTS_SUPPORT_COLLECTIVES_H
#define TESTS_SUPPORT_COLLECTIVES_H

#include "comm/group.h"

/* NULL when everything was right, else what was wrong (static). All ranks must call each. */
const char *collectives_check_sums(struct comm_group *group);
const char *collectives_check_equal_bits(struct comm_group *group);
const char *collectives_check_control(struct comm_group *group);

#endif
