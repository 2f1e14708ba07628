/* The state folder: documents that survive the process.
 *
 *   lock                   held by the one coordinator that runs on this folder
 *   epoch                  how often it was opened: sequences start beyond all earlier ones
 *   documents/ID/meta.json document_meta.h, replaced as a whole
 *   documents/ID/content   the bytes as they arrived
 *   documents/ID/durable   how many of them are acknowledged, while the upload is unfinished
 *   scratch/               what is being made or removed; emptied at start
 *
 * What a call has returned TCA_OK for is on disk (fsync of file and folder, rename). Calls block
 * on the disk; those that write to one document must not run at the same time. */
#ifndef COORDINATOR_STORE_H
#define COORDINATOR_STORE_H

#include "base/bytes.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

/* Make a folder and those above it where they are missing. TCA_ERR_IO, TCA_ERR_DENIED. */
enum tca_status store_make_folder(const char *folder, struct tca_error *error);

/* Make the folder where it is missing, lock it, clean up after a crash.
 * TCA_ERR_BUSY: another coordinator runs on it. TCA_ERR_INVALID: its epoch is no number.
 * TCA_ERR_IO, TCA_ERR_DENIED: with path and cause. */
enum tca_status store_open(const char *folder, struct store **store_out, struct tca_error *error);
void store_close(struct store *store); /* NULL is a no-op */
uint64_t store_epoch(const struct store *store);
const char *store_folder(const struct store *store);

/* Visit every document in no order. `meta` is its metadata, NULL when there is none to read;
 * durable_bytes what is acknowledged of an unfinished upload, content_bytes what is there.
 * false ends the visit with TCA_ERR_CANCELLED. */
struct store_entry {
    const char *id;
    const struct bytes *meta;
    int64_t durable_bytes; /* -1: not written */
    int64_t content_bytes; /* -1: no content */
};
typedef bool (*store_visit_fn)(void *context, const struct store_entry *entry);
enum tca_status store_visit(struct store *store, store_visit_fn visit, void *context,
                            struct tca_error *error);

/* A new, empty document. TCA_ERR_EXISTS. */
enum tca_status store_create(struct store *store, const char *id, const struct bytes *meta,
                             struct tca_error *error);
enum tca_status store_save(struct store *store, const char *id, const struct bytes *meta,
                           struct tca_error *error);
/* Write at `offset`; what was there from it on is gone. TCA_ERR_BUSY: the disk is full; the bytes
 * before `offset` are safe. */
enum tca_status store_append(struct store *store, const char *id, int64_t offset, const void *data,
                             size_t bytes, struct tca_error *error);
enum tca_status store_remove(struct store *store, const char *id, struct tca_error *error);

/* Append the first `bytes` bytes of the content to *content_out. TCA_ERR_DATA_LOSS: there are
 * fewer, or they cannot be read. TCA_ERR_BUSY, TCA_ERR_NO_MEMORY: not now. */
enum tca_status store_read(struct store *store, const char *id, int64_t bytes,
                           struct bytes *content_out, struct tca_error *error);

#endif
