/* Numbers and texts as a person reads them. Pure: no state, no I/O. */
#ifndef CLIENT_FORMAT_H
#define CLIENT_FORMAT_H

#include "base/bytes.h"

#include <stddef.h>
#include <stdint.h>

enum { FORMAT_BYTES = 32 }; /* enough for each of these texts */

void format_count(uint64_t count, char text_out[FORMAT_BYTES]); /* "1,234,567" */
void format_size(uint64_t bytes, char text_out[FORMAT_BYTES]);  /* "812 B", "1.5 MiB" */
void format_rate(double per_s, char text_out[FORMAT_BYTES]);    /* "0.42", "12.3", "1,234" */
void format_duration(uint64_t ms, char text_out[FORMAT_BYTES]); /* "850 ms", "12.3 s", "1:02:03" */
void format_time(int64_t unix_s, char text_out[FORMAT_BYTES]);  /* "2026-01-31 12:00:00Z", "-" */

/* Append `text` with its control characters, line breaks and tabs apart, as \xNN or \u00NN: a text
 * from a server must not steer the terminal. `breaks` also escapes those two (for one-line places).
 * Bytes that are no UTF-8 become \xNN. */
enum format_breaks { FORMAT_KEEP_BREAKS, FORMAT_ESCAPE_BREAKS };
enum tca_status format_escaped(struct bytes *out, const void *text, size_t bytes,
                               enum format_breaks breaks);

#endif
