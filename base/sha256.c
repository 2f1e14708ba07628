#include "base/sha256.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct sha256 {
    EVP_MD_CTX *context;
};

enum tca_status sha256_create(struct sha256 **sha_out)
{
    struct sha256 *sha = malloc(sizeof(*sha));

    if (sha == NULL)
        return TCA_ERR_NO_MEMORY;
    sha->context = EVP_MD_CTX_new();
    if (sha->context == NULL || EVP_DigestInit_ex(sha->context, EVP_sha256(), NULL) != 1) {
        sha256_destroy(sha);
        return TCA_ERR_NO_MEMORY;
    }
    *sha_out = sha;
    return TCA_OK;
}

void sha256_destroy(struct sha256 *sha)
{
    if (sha == NULL)
        return;
    EVP_MD_CTX_free(sha->context);
    free(sha);
}

enum tca_status sha256_update(struct sha256 *sha, const void *data, size_t bytes)
{
    return EVP_DigestUpdate(sha->context, data, bytes) == 1 ? TCA_OK : TCA_ERR_NO_MEMORY;
}

enum tca_status sha256_hex(const struct sha256 *sha, char hex_out[SHA256_HEX_BYTES])
{
    unsigned char digest[SHA256_BYTES];
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    const int done = copy != NULL && EVP_MD_CTX_copy_ex(copy, sha->context) == 1 &&
                     EVP_DigestFinal_ex(copy, digest, NULL) == 1;

    EVP_MD_CTX_free(copy);
    if (!done)
        return TCA_ERR_NO_MEMORY;
    for (size_t i = 0; i < SHA256_BYTES; i++)
        snprintf(hex_out + 2 * i, 3, "%02x", digest[i]);
    return TCA_OK;
}
