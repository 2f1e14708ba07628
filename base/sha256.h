/* SHA-256, incrementally: of documents as they arrive, of weights for a model's fingerprint. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include "base/status.h"

#include <stddef.h>

struct sha256;

enum { SHA256_BYTES = 32, SHA256_HEX_BYTES = 65 }; /* the hex form has its NUL */

/* TCA_ERR_NO_MEMORY. */
enum tca_status sha256_create(struct sha256 **sha_out);
void sha256_destroy(struct sha256 *sha); /* NULL is a no-op */

enum tca_status sha256_update(struct sha256 *sha, const void *data, size_t bytes);

/* The digest so far in lower-case hex; more data may follow. */
enum tca_status sha256_hex(const struct sha256 *sha, char hex_out[SHA256_HEX_BYTES]);

#endif
