#include "tests/support/check.h"

#include "worker/secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static void write_file(const char *text, size_t bytes, mode_t mode)
{
    FILE *file;

    snprintf(path, sizeof(path), "/tmp/tca-secret-XXXXXX");
    file = fdopen(mkstemp(path), "w");
    assert_non_null(file);
    fwrite(text, 1, bytes, file);
    fclose(file);
    chmod(path, mode);
}

static void a_file_of_the_owner_alone_is_read(void **state)
{
    char secret[SECRET_BYTES_MAX];
    struct tca_error error;

    (void)state;
    write_file("s3cret\n", 7, 0600);
    assert_int_equal(secret_read(path, secret, &error), TCA_OK);
    assert_string_equal(secret, "s3cret");
    unlink(path);
}

static void bad_files_are_refused_with_the_reason(void **state)
{
    char secret[SECRET_BYTES_MAX];
    char longest[SECRET_BYTES_MAX] = {0};
    struct tca_error error;

    (void)state;
    write_file("s3cret", 6, 0640);
    assert_int_equal(secret_read(path, secret, &error), TCA_ERR_DENIED);
    assert_non_null(strstr(error.text, "640"));
    unlink(path);
    assert_int_equal(secret_read(path, secret, &error), TCA_ERR_NOT_FOUND);
    write_file("\n", 1, 0600);
    assert_int_equal(secret_read(path, secret, &error), TCA_ERR_INVALID);
    unlink(path);
    memset(longest, 'x', sizeof(longest));
    write_file(longest, sizeof(longest), 0600);
    assert_int_equal(secret_read(path, secret, &error), TCA_ERR_INVALID);
    unlink(path);
    assert_int_equal(secret_read("/tmp", secret, &error), TCA_ERR_DENIED); /* a folder */
}

static void the_environment_is_read_once(void **state)
{
    char secret[SECRET_BYTES_MAX];
    struct tca_error error;

    (void)state;
    setenv(SECRET_VARIABLE, "from outside", 1);
    assert_int_equal(secret_read(NULL, secret, &error), TCA_OK);
    assert_string_equal(secret, "from outside");
    assert_int_equal(secret_read(NULL, secret, &error), TCA_ERR_NOT_FOUND);
    assert_non_null(strstr(error.text, SECRET_VARIABLE));
    setenv(SECRET_VARIABLE, "", 1);
    assert_int_equal(secret_read(NULL, secret, &error), TCA_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_of_the_owner_alone_is_read),
        cmocka_unit_test(bad_files_are_refused_with_the_reason),
        cmocka_unit_test(the_environment_is_read_once),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
