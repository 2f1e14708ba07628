#include "coordinator/upload.h"

#include <inttypes.h>
#include <string.h>

void upload_header_free(struct upload_header *header)
{
    bytes_free(&header->display_name);
    document_identity_free(&header->identity);
}

static bool has_all_bytes(const struct document *document)
{
    return document->sha256[0] != '\0';
}

static enum tca_status check_identity(const struct upload_header *header,
                                      const struct document *existing, struct tca_error *error)
{
    const char *field = document_identity_difference(&header->identity, &existing->identity);
    const int64_t total = has_all_bytes(existing) ? existing->byte_count : existing->expected_bytes;
    const char *sha256 = has_all_bytes(existing) ? existing->sha256 : existing->expected_sha256;

    if (field == NULL && header->total_bytes != 0 && total != 0 && header->total_bytes != total)
        field = "total_bytes";
    if (field == NULL && header->sha256[0] != '\0' && sha256[0] != '\0' &&
        strcmp(header->sha256, sha256) != 0)
        field = "sha256";
    if (field == NULL)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_EXISTS, "document_id: \"%s\" exists with another %s", header->id,
                    field);
}

static enum tca_status check_resume_offset(const struct upload_header *header, int64_t right,
                                           struct tca_error *error)
{
    if (header->resume_offset == right)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_RANGE,
                    "resume_offset: %" PRId64 ", allowed: %" PRId64
                    ", the bytes of \"%s\" that are acknowledged",
                    header->resume_offset, right, header->id);
}

enum tca_status upload_classify(const struct upload_header *header, const struct document *existing,
                                enum upload_kind *kind_out, struct tca_error *error)
{
    if (existing == NULL) {
        TCA_TRY(check_resume_offset(header, 0, error));
        *kind_out = UPLOAD_NEW;
        return TCA_OK;
    }
    if (existing->state == DOCUMENT_DELETING)
        return tca_fail(error, TCA_ERR_ABORTED, "document_id: \"%s\" is being deleted", header->id);
    if (existing->state == DOCUMENT_FAILED && !has_all_bytes(existing)) {
        *kind_out = UPLOAD_SAME; /* its failure is all there is to tell */
        return TCA_OK;
    }
    TCA_TRY(check_identity(header, existing, error));
    if (!has_all_bytes(existing)) {
        if (existing->is_being_uploaded)
            return tca_fail(error, TCA_ERR_ABORTED,
                            "document_id: \"%s\" is being uploaded by another call", header->id);
        *kind_out = UPLOAD_RESUME;
        return check_resume_offset(header, existing->byte_count, error);
    }
    if (header->resume_offset == existing->byte_count || header->sha256[0] != '\0') {
        *kind_out = UPLOAD_SAME;
        return TCA_OK;
    }
    *kind_out = UPLOAD_COMPARE;
    if (header->resume_offset != 0)
        return check_resume_offset(header, existing->byte_count, error);
    return TCA_OK;
}

enum tca_status upload_accept(struct upload *upload, int64_t offset, const void *data, size_t bytes,
                              bool is_last, struct tca_error *error)
{
    const int64_t end = upload->offset + (int64_t)bytes;
    struct content_check check = upload->check;

    if (bytes > UPLOAD_CHUNK_BYTES_MAX)
        return tca_fail(error, TCA_ERR_INVALID, "chunk.data: %zu bytes, allowed: 0 to %d", bytes,
                        UPLOAD_CHUNK_BYTES_MAX);
    if (upload->is_complete)
        return tca_fail(error, TCA_ERR_INVALID, "chunk: comes after the one with last");
    if (offset != upload->offset)
        return tca_fail(error, TCA_ERR_RANGE,
                        "chunk.offset: %" PRId64 ", allowed: %" PRId64
                        ", where the bytes before it ended",
                        offset, upload->offset);
    if (upload->total_bytes != 0 &&
        (end > upload->total_bytes || (is_last && end != upload->total_bytes)))
        return tca_fail(error, TCA_ERR_INVALID,
                        "total_bytes: the header announced %" PRId64 ", the chunks have %s%" PRId64,
                        upload->total_bytes, is_last ? "" : "at least ", end);
    upload->is_too_long = end > upload->max_bytes;
    if (upload->is_too_long)
        return tca_fail(error, TCA_ERR_RANGE,
                        "the document has at least %" PRId64 " bytes, allowed: 1 to %" PRId64
                        " (the server's max-document-bytes)",
                        end, upload->max_bytes);
    TCA_TRY(content_check_push(&check, data, bytes, error));
    if (is_last)
        TCA_TRY(content_check_finish(&check, error));
    upload->check = check;
    upload->offset = end;
    upload->is_complete = is_last;
    return TCA_OK;
}

enum tca_status upload_check_digest(const char *announced, const char *sha256,
                                    struct tca_error *error)
{
    if (announced[0] == '\0' || strcmp(announced, sha256) == 0)
        return TCA_OK;
    return tca_fail(error, TCA_ERR_INVALID,
                    "sha256: the header announced %s, the bytes have %s; delete the document "
                    "before it is uploaded again",
                    announced, sha256);
}
