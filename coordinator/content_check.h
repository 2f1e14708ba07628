/* Checks a document's bytes as they arrive in pieces of any size: text is UTF-8, token ids are
 * inside the vocabulary. Pure; all zeros is the start of a text. */
#ifndef COORDINATOR_CONTENT_CHECK_H
#define COORDINATOR_CONTENT_CHECK_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum content_encoding { CONTENT_TEXT_UTF8, CONTENT_TOKEN_IDS_U32LE };

struct content_check {
    enum content_encoding encoding;
    int32_t vocab;   /* token ids are below it */
    int64_t offset;  /* bytes accepted so far */
    uint8_t held[4]; /* the start of an unfinished character or id */
    int held_bytes;
};

/* Accept the next piece, or leave the check as it was: TCA_ERR_INVALID names the offset of the
 * bad byte, or the index and value of the bad id. */
enum tca_status content_check_push(struct content_check *check, const void *data, size_t bytes,
                                   struct tca_error *error);
/* The content is complete: TCA_ERR_INVALID when it is empty or ends inside a character or id. */
enum tca_status content_check_finish(const struct content_check *check, struct tca_error *error);

#endif
