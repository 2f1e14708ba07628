#include "tests/support/check.h"

#include "kernels/backend.h"

#include <string.h>

/* No host has so many, whatever the build: what cannot be used is refused with a reason. */
static void test_unusable_gpu_is_named(void **state)
{
    struct tca_error error = {.text = ""};

    (void)state;
    assert_null(kernel_backend_cuda(4096, &error));
    assert_non_null(strstr(error.text, "GPU 4096"));
    assert_null(kernel_backend_cuda(4096, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_unusable_gpu_is_named)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
