#include "tests/support/check.h"

#include "base/sha256.h"

#include <string.h>

/* FIPS 180-4's example vectors. */
static void digests_equal_the_standard_s_examples(void **state)
{
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    char hex[SHA256_HEX_BYTES];
    struct sha256 *sha;

    (void)state;
    assert_int_equal(sha256_create(&sha), TCA_OK);
    assert_int_equal(sha256_hex(sha, hex), TCA_OK);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(sha256_update(sha, "abc", 3), TCA_OK);
    assert_int_equal(sha256_hex(sha, hex), TCA_OK);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(sha256_update(sha, two_blocks + 3, sizeof(two_blocks) - 4), TCA_OK);
    assert_int_equal(sha256_hex(sha, hex), TCA_OK);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    sha256_destroy(sha);
    sha256_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_equal_the_standard_s_examples),
    };
    return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
