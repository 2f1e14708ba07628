/* Time: a monotonic clock for durations and deadlines, the wall clock for time stamps. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t clock_monotonic_ns(void);
int64_t clock_monotonic_ms(void);
int64_t clock_unix_ms(void);
void clock_sleep_ms(int64_t ms); /* at least that long; resumes after signals */

#endif
