/* The regular expressions of tokenizer.json, written for Oniguruma, in PCRE2's syntax. */
#ifndef MODEL_PATTERN_H
#define MODEL_PATTERN_H

#include "base/bytes.h"
#include "base/status.h"

#include <stddef.h>

/* Append the translation of `pattern` (valid UTF-8). Only what means the same in both is let
 * through, or what can be spelt out (\s is Unicode's White_Space in Oniguruma, a little more in
 * PCRE2). Letters and digits are those of PCRE2's Unicode (10.42: 14.0), not of Oniguruma's.
 * TCA_ERR_UNSUPPORTED: *position_out is the byte at which something else stands. */
enum tca_status pattern_translate(const char *pattern, size_t bytes, struct bytes *translated_out,
                                  size_t *position_out);

#endif
