/* Texts that a command line gives directly, or by `-` from stdin. */
#ifndef CLIENT_INPUT_H
#define CLIENT_INPUT_H

#include "base/bytes.h"
#include "base/error.h"
#include "proto/message.h"

#include <stdint.h>

/* Append the text, or what stdin holds for "-". TCA_ERR_RANGE: more than a message may hold;
 * TCA_ERR_IO: stdin cannot be read. */
enum tca_status input_text(const char *argument, struct bytes *text, struct tca_error *error);

/* An option's text for a message's field, borrowed; NULL is the empty text. */
ProtobufCBinaryData input_option(const char *text);

/* Syntax only: a whole number that the message's field can hold. `option` is its name without
 * dashes. TCA_ERR_INVALID with what is allowed. */
enum tca_status input_int32(const char *option, int64_t value, int32_t *value_out,
                            struct tca_error *error);
enum tca_status input_uint64(const char *option, const char *text, uint64_t *value_out,
                             struct tca_error *error);

#endif
