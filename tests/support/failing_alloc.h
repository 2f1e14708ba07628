/* An allocator that fails on demand, for the static libraries of a test that links
 * tca_test_failing_alloc (the linker redirects their calls; shared libraries keep the real one). */
#ifndef TESTS_SUPPORT_FAILING_ALLOC_H
#define TESTS_SUPPORT_FAILING_ALLOC_H

#include <stdbool.h>

/* Let `count` allocations of this thread succeed and the next one fail, once. */
void failing_alloc_after(int count);
/* Nothing fails any more; true if something did. */
bool failing_alloc_stop(void);

#endif
