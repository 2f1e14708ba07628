#include "coordinator/restore.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_meta.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct restore {
    struct coordinator *coordinator;
    enum tca_status status;
};

static struct document *damaged_document(const char *id, const char *reason)
{
    struct document *document = document_make(id);

    if (document == NULL)
        return NULL;
    log_warn("document %s: damaged: %s", id, reason);
    document->create_time_ms = document->last_used_ms = clock_unix_ms();
    if (document_fail(document, RPC_DATA_LOSS, reason, 0) != TCA_OK)
        log_error("document %s: cannot fail", id);
    return document;
}

/* Check again what an unfinished upload has so far, so that it can go on. */
static enum tca_status resume(struct coordinator *coordinator, struct document *document,
                              struct tca_error *error)
{
    struct bytes content = {0};
    enum tca_status status = TCA_OK;

    document->check = (struct content_check){.encoding = document->identity.encoding,
                                             .vocab = coordinator->vocab};
    TCA_TRY(sha256_create(&document->sha));
    if (document->byte_count > 0)
        status =
            store_read(coordinator->store, document->id, document->byte_count, &content, error);
    if (status == TCA_OK)
        status = content_check_push(&document->check, content.data, content.size, error);
    if (status == TCA_OK)
        status = sha256_update(document->sha, content.data, content.size);
    bytes_free(&content);
    return status;
}

static enum tca_status read_document(struct coordinator *coordinator,
                                     const struct store_entry *entry,
                                     struct document **document_out, struct tca_error *error)
{
    const int64_t content_bytes = entry->content_bytes < 0 ? 0 : entry->content_bytes;
    struct document *document = NULL;
    enum tca_status status = TCA_OK;

    if (entry->meta == NULL)
        return tca_fail(error, TCA_ERR_DATA_LOSS, "meta.json is missing or cannot be read");
    TCA_TRY(document_meta_read("meta.json", entry->id, entry->meta, &document, error));
    if (document->state == DOCUMENT_UPLOADING)
        document->byte_count = entry->durable_bytes < 0 ? 0 : entry->durable_bytes;
    if (document->state != DOCUMENT_FAILED && content_bytes < document->byte_count)
        status = tca_fail(error, TCA_ERR_DATA_LOSS,
                          "content has %" PRId64 " bytes, %" PRId64 " were acknowledged",
                          content_bytes, document->byte_count);
    else if (document->state == DOCUMENT_UPLOADING)
        status = resume(coordinator, document, error);
    if (status == TCA_OK)
        *document_out = document;
    else
        document_free(document);
    return status;
}

static bool restore_one(void *context, const struct store_entry *entry)
{
    struct restore *restore = context;
    struct coordinator *coordinator = restore->coordinator;
    struct document *document = NULL;
    struct tca_error error = {{0}};
    enum tca_status status = document_id_check("document_id", entry->id, strlen(entry->id), &error);

    if (status != TCA_OK) {
        log_warn("state-dir: documents/ holds something else: %s", error.text);
        return true;
    }
    status = read_document(coordinator, entry, &document, &error);
    if (status != TCA_OK && status != TCA_ERR_NO_MEMORY) {
        document = damaged_document(entry->id, error.text);
        status = document == NULL ? TCA_ERR_NO_MEMORY : TCA_OK;
    }
    if (status == TCA_OK)
        status = document_table_add(&coordinator->documents, document);
    if (status != TCA_OK)
        document_free(document);
    restore->status = status;
    return status == TCA_OK;
}

static int by_last_use(const void *one, const void *other)
{
    const struct document *a = *(struct document *const *)one;
    const struct document *b = *(struct document *const *)other;

    return (a->last_used_ms < b->last_used_ms) - (a->last_used_ms > b->last_used_ms);
}

enum tca_status restore_documents(struct coordinator *coordinator, struct tca_error *error)
{
    struct restore restore = {.coordinator = coordinator};
    const struct document_table *table = &coordinator->documents;
    struct document **order;

    if (store_visit(coordinator->store, restore_one, &restore, error) != TCA_OK)
        return restore.status != TCA_OK ? restore.status : TCA_ERR_IO;
    order = malloc((table->count + 1) * sizeof(struct document *));
    if (order == NULL)
        return TCA_ERR_NO_MEMORY;
    if (table->count > 0) {
        memcpy(order, table->rows, table->count * sizeof(struct document *));
        qsort(order, table->count, sizeof(struct document *), by_last_use);
    }
    for (size_t i = 0; i < table->count; i++) {
        order[i]->sequence = coordinator_next_sequence(coordinator);
        order[i]->queued = ++coordinator->last_turn;
        order[i]->is_restored = true;
    }
    free(order);
    log_info("%zu documents in %s", table->count, store_folder(coordinator->store));
    return TCA_OK;
}
