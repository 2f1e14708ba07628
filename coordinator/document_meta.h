/* What of a document outlives the process, as one JSON object. Pure: text in, text out.
 *
 *   {"version": 1, "document_id": "book", "display_name": "..", "encoding": "TEXT_UTF8",
 *    "raw": false, "system": "..", "rule": "", "keep": 0, "pinned": false, "is_stored": false,
 *    "byte_count": 5, "sha256": "..", "expected_bytes": 5, "expected_sha256": "", "token_count": 9,
 *    "create_time_ms": 1, "last_used_ms": 2, "failure": 0, "failure_text": ""}
 *
 * byte_count counts only with a sha256: of an unfinished upload the store knows better. */
#ifndef COORDINATOR_DOCUMENT_META_H
#define COORDINATOR_DOCUMENT_META_H

#include "base/bytes.h"
#include "coordinator/document.h"

/* Append. TCA_ERR_NO_MEMORY. */
enum tca_status document_meta_write(const struct document *document, struct bytes *json_out);

/* Read it back: UPLOADING without a sha256, FAILED with its reason where the bytes are to blame,
 * STORED where it was, else QUEUED: what failed for another reason is tried again. `name` stands
 * for the file in errors. *document_out is owned. TCA_ERR_INVALID: no such object, or not of
 * document `id`. */
enum tca_status document_meta_read(const char *name, const char *id, const struct bytes *json,
                                   struct document **document_out, struct tca_error *error);

#endif
