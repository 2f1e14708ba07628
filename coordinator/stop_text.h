/* Stop strings over streamed text: what may be shown is released, what may yet turn out to be the
 * start of a stop string is held back. The answer ends before the stop string that is complete
 * first, however the text was cut into pieces. Pure. */
#ifndef COORDINATOR_STOP_TEXT_H
#define COORDINATOR_STOP_TEXT_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>

struct stop_text {
    struct bytes *stops; /* owned; none is empty */
    size_t count;
    struct bytes held; /* owned */
};

/* Add a stop string (copied). TCA_ERR_NO_MEMORY. */
enum tca_status stop_text_add(struct stop_text *stop, const void *text, size_t bytes);
void stop_text_free(struct stop_text *stop); /* back to all zeros */

/* Append to *released_out what became safe to show of whole UTF-8 characters `text`.
 * *is_stopped_out: a stop string is complete; what comes after it is dropped. */
enum tca_status stop_text_push(struct stop_text *stop, const void *text, size_t bytes,
                               struct bytes *released_out, bool *is_stopped_out);
/* The text ends by other means: release what was held. */
enum tca_status stop_text_finish(struct stop_text *stop, struct bytes *released_out);

#endif
