/* Unicode normalisation form C. */
#ifndef MODEL_NFC_H
#define MODEL_NFC_H

#include "base/bytes.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* A quick look: true means that `text` (valid UTF-8) is in form C as it stands. */
bool nfc_is_certain(const char *text, size_t bytes);

/* Append the form C of `text` (valid UTF-8). Linear, also in the length of a run of combining
 * marks. TCA_ERR_NO_MEMORY. */
enum tca_status nfc_append(const char *text, size_t bytes, struct bytes *text_out);

#endif
