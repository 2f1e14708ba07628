/* A failure's text for the person who caused it: names the field or file, the value found and
 * what is allowed. Travels beside the status to the edge (a log line, or a gRPC message). */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/status.h"

#include <stdarg.h>

enum { TCA_ERROR_TEXT_BYTES = 512 };

struct tca_error {
    char text[TCA_ERROR_TEXT_BYTES]; /* one line of UTF-8, no newline; "" when none was given */
};

/* Write the text (control characters become '?', overlong text is cut at a character) and
 * return `status`, so that a check reads `return tca_fail(error, TCA_ERR_INVALID, "...")`.
 * `error` may be NULL. */
enum tca_status tca_fail(struct tca_error *error, enum tca_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
