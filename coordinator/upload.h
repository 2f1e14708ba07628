/* The rules of an upload: what a header means for a document that may exist already, and which
 * chunk may come next. Pure; the bytes themselves go to the store. */
#ifndef COORDINATOR_UPLOAD_H
#define COORDINATOR_UPLOAD_H

#include "coordinator/document.h"

#include <stdbool.h>
#include <stdint.h>

enum { UPLOAD_CHUNK_BYTES_MAX = 1024 * 1024 };

struct upload_header {
    char id[DOCUMENT_ID_BYTES]; /* never "" here: the server has made one */
    struct bytes display_name;  /* owned */
    bool is_pinned;
    int64_t total_bytes;           /* 0: unknown */
    char sha256[SHA256_HEX_BYTES]; /* "": unknown */
    int64_t resume_offset;
    struct document_identity identity; /* owned */
};

void upload_header_free(struct upload_header *header);

enum upload_kind {
    UPLOAD_NEW,     /* no such document yet */
    UPLOAD_RESUME,  /* continue an unfinished one */
    UPLOAD_COMPARE, /* all bytes are here: the stream's must be the same */
    UPLOAD_SAME,    /* known to be the same without reading them */
};

/* What `header` means. `existing` is the document of that id, or NULL.
 * TCA_ERR_EXISTS: another identity. TCA_ERR_RANGE: wrong resume_offset, names the right one.
 * TCA_ERR_ABORTED: another stream uploads it, or it is being deleted. */
enum tca_status upload_classify(const struct upload_header *header, const struct document *existing,
                                enum upload_kind *kind_out, struct tca_error *error);

/* One stream's place in its document. */
struct upload {
    enum upload_kind kind;
    int64_t offset;      /* of the next chunk */
    int64_t total_bytes; /* 0: unknown */
    int64_t max_bytes;   /* of any document */
    bool is_complete;    /* the chunk with `last` was accepted */
    bool is_too_long;    /* one was refused for bytes that no document may have: it never will be */
    struct content_check check;
};

/* May this chunk come now? Advances offset, check and is_complete, or leaves all as they were.
 * TCA_ERR_INVALID: size, total_bytes or content. TCA_ERR_RANGE: offset, or over max_bytes, which
 * sets is_too_long. */
enum tca_status upload_accept(struct upload *upload, int64_t offset, const void *data, size_t bytes,
                              bool is_last, struct tca_error *error);

/* All bytes are there with digest `sha256`: TCA_ERR_INVALID when the header had announced another.
 */
enum tca_status upload_check_digest(const char *announced, const char *sha256,
                                    struct tca_error *error);

#endif
