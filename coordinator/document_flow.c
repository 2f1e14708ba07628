#include "coordinator/document_flow.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/document_meta.h"
#include "coordinator/question_flow.h"
#include "coordinator/reply.h"
#include "coordinator/scheduler.h"

#include <stdlib.h>
#include <string.h>

/* A watcher that reads slowly misses events, never the last one. */
enum { WATCHER_PENDING_MAX = 8 };

/* Watchers. */

static void detach(struct watcher *watcher)
{
    struct watcher **at = &watcher->document->watchers;

    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    watcher->document = NULL;
}

static void send_event(struct coordinator *coordinator, struct watcher *watcher, bool is_heartbeat,
                       int64_t now_ms)
{
    const struct document_facts facts = coordinator_facts(coordinator);
    struct document_event_message message;

    document_event_message_fill(&message, watcher->document, &facts, is_heartbeat, now_ms);
    if (rpc_call_send_message(watcher->call, &message.event) != TCA_OK)
        return; /* BUSY: the next tick tries again; CANCELLED: `closed` comes */
    watcher->sent_sequence = watcher->document->sequence;
    watcher->last_sent_ms = now_ms;
}

static void watcher_update(struct coordinator *coordinator, struct watcher *watcher)
{
    const struct document *document = watcher->document;
    const bool is_last = document->state == DOCUMENT_READY || document->state == DOCUMENT_FAILED;

    if (watcher->gone != NULL)
        return;
    if (document->sequence > watcher->sent_sequence &&
        (is_last || rpc_call_pending(watcher->call) < WATCHER_PENDING_MAX))
        send_event(coordinator, watcher, false, clock_monotonic_ms());
    if (!is_last)
        return;
    if (document->state == DOCUMENT_READY)
        reply_ok(watcher->call);
    else
        reply_code(watcher->call, document->failure, document->failure_text);
    detach(watcher);
}

void watcher_add(struct coordinator *coordinator, struct watcher *watcher,
                 struct document *document)
{
    watcher->document = document;
    watcher->next = document->watchers;
    watcher->last_sent_ms = clock_monotonic_ms();
    document->watchers = watcher;
    watcher_update(coordinator, watcher);
}

void watcher_remove(struct watcher *watcher)
{
    if (watcher->document != NULL)
        detach(watcher);
}

void watcher_tick(struct coordinator *coordinator, struct watcher *watcher, int64_t now_ms)
{
    if (watcher->gone != NULL)
        return;
    if (watcher->document->sequence > watcher->sent_sequence)
        watcher_update(coordinator, watcher);
    else if (now_ms - watcher->last_sent_ms >= HEARTBEAT_MS)
        send_event(coordinator, watcher, true, now_ms);
}

void document_flow_publish(struct coordinator *coordinator, struct document *document)
{
    struct watcher *next;

    for (struct watcher *watcher = document->watchers; watcher != NULL; watcher = next) {
        next = watcher->next;
        watcher_update(coordinator, watcher);
    }
}

void document_flow_end_watchers(struct coordinator *coordinator, struct document *document,
                                enum rpc_code code, const char *text)
{
    struct watcher *next;

    for (struct watcher *watcher = document->watchers; watcher != NULL; watcher = next) {
        next = watcher->next;
        if (watcher->gone != NULL)
            continue;
        if (document->sequence > watcher->sent_sequence)
            send_event(coordinator, watcher, false, clock_monotonic_ms());
        reply_code(watcher->call, code, text);
        detach(watcher);
    }
}

/* Change the state, where the caller knows that it can be. */
static void move(struct coordinator *coordinator, struct document *document,
                 enum document_state state)
{
    if (document_move(document, state, coordinator_next_sequence(coordinator)) != TCA_OK)
        log_error("document %s: no way from %s to %s", document->id,
                  document_state_name(document->state), document_state_name(state));
}

/* Tasks on the disk thread. */

struct disk_task {
    struct task task;
    struct coordinator *coordinator;
    struct document *document;
    struct rpc_call *call; /* held, that waits for it; or NULL */
};

/* With the lock; task_free follows, without. */
static void task_done(struct disk_task *task)
{
    task->document->disk_tasks--;
    document_flow_go_on_deleting(task->coordinator, task->document);
}

static void task_free(struct disk_task *task)
{
    if (task->call != NULL)
        rpc_call_drop(task->call);
    free(task);
}

void document_flow_reply(struct coordinator *coordinator, struct rpc_call *call,
                         const struct document *document)
{
    const struct document_facts facts = coordinator_facts(coordinator);
    struct document_message message;

    document_message_fill(&message, document, &facts);
    rpc_call_reply(call, &message.document);
}

static void reply_saved(struct disk_task *task, enum tca_status status,
                        const struct tca_error *error)
{
    struct tca_error text;

    if (status == TCA_OK)
        document_flow_reply(task->coordinator, task->call, task->document);
    else
        reply_error(task->call,
                    tca_fail(&text, status, "%.384s; the change holds until the coordinator ends",
                             error->text),
                    &text);
}

/* As it is when the save's turn comes: what was on its way to disk when it was asked for is there
 * then, and is not undone. */
static enum tca_status write_meta(const struct disk_task *task, struct bytes *meta_out,
                                  struct tca_error *error)
{
    enum tca_status status;

    pthread_mutex_lock(&task->coordinator->lock);
    status = document_meta_write(task->document, meta_out);
    pthread_mutex_unlock(&task->coordinator->lock);
    return status == TCA_OK ? TCA_OK : tca_fail(error, status, "no memory to save its metadata");
}

static void run_save(struct task *base)
{
    struct disk_task *task = (struct disk_task *)base;
    struct bytes meta = {0};
    struct tca_error error = {{0}};
    enum tca_status status = write_meta(task, &meta, &error);

    if (status == TCA_OK)
        status = store_save(task->coordinator->store, task->document->id, &meta, &error);
    bytes_free(&meta);
    if (status != TCA_OK)
        log_error("document %s: %s", task->document->id, error.text);
    pthread_mutex_lock(&task->coordinator->lock);
    if (task->call != NULL)
        reply_saved(task, status, &error);
    task_done(task);
    pthread_mutex_unlock(&task->coordinator->lock);
    task_free(task);
}

/* A folder that stays is listed again after the next start: nothing is
 * lost, and nothing deleted. */
static void fail_removal(struct document *document, enum rpc_code code, const char *why)
{
    document->failure = code;
    snprintf(document->failure_text, sizeof(document->failure_text),
             "stays on disk, and is back after a restart: %.256s", why);
}

static void run_remove(struct task *base)
{
    struct disk_task *task = (struct disk_task *)base;
    struct tca_error error = {{0}};
    enum tca_status status = store_remove(task->coordinator->store, task->document->id, &error);

    if (status != TCA_OK)
        log_error("document %s: %s", task->document->id, error.text);
    pthread_mutex_lock(&task->coordinator->lock);
    if (status != TCA_OK)
        fail_removal(task->document, RPC_INTERNAL, error.text);
    task->document->is_removed_from_disk = true;
    task_done(task);
    pthread_mutex_unlock(&task->coordinator->lock);
    task_free(task);
}

static struct disk_task *disk_task_create(struct coordinator *coordinator,
                                          struct document *document, void (*run)(struct task *task))
{
    struct disk_task *task = calloc(1, sizeof(*task));

    if (task == NULL)
        return NULL;
    task->task.run = run;
    task->coordinator = coordinator;
    task->document = document;
    return task;
}

/* TCA_ERR_NO_MEMORY, which was logged. */
static enum tca_status post_save(struct coordinator *coordinator, struct document *document,
                                 struct rpc_call *call)
{
    struct disk_task *task = disk_task_create(coordinator, document, run_save);

    if (task == NULL) {
        log_error("document %s: no memory to save its metadata", document->id);
        return TCA_ERR_NO_MEMORY;
    }
    if (call != NULL)
        task->call = rpc_call_hold(call);
    document->disk_tasks++;
    task_queue_post(coordinator->disk, &task->task);
    return TCA_OK;
}

void document_flow_save(struct coordinator *coordinator, struct document *document)
{
    (void)post_save(coordinator, document, NULL); /* the next save has it too */
}

void document_flow_save_and_reply(struct coordinator *coordinator, struct document *document,
                                  struct rpc_call *call)
{
    if (post_save(coordinator, document, call) != TCA_OK)
        reply_code(call, RPC_RESOURCE_EXHAUSTED, "no memory to save the change");
}

/* Tokenising. */

struct tokenize_task {
    struct task task;
    struct coordinator *coordinator;
    struct document *document; /* its id, identity and byte_count no longer change */
    struct token_ids tokens;
    struct tca_error error;
};

static bool report_tokenizing(void *context, size_t bytes_done)
{
    struct tokenize_task *task = context;
    struct coordinator *coordinator = task->coordinator;
    struct document *document = task->document;
    bool goes_on;

    pthread_mutex_lock(&coordinator->lock);
    goes_on = document->state == DOCUMENT_QUEUED && coordinator->phase < COORDINATOR_DRAINING;
    if (goes_on) {
        document_report(document, DOCUMENT_NEWS_TOKENIZED, (int64_t)bytes_done,
                        document->byte_count, clock_monotonic_ms(),
                        coordinator_next_sequence(coordinator));
        document_flow_publish(coordinator, document);
    }
    pthread_mutex_unlock(&coordinator->lock);
    return goes_on;
}

static enum tca_status tokens_of_ids(const struct bytes *content, struct token_ids *tokens)
{
    for (size_t at = 0; at + 4 <= content->size; at += 4) {
        const uint8_t *byte = content->data + at;
        const int32_t id = byte[0] | byte[1] << 8 | byte[2] << 16 | byte[3] << 24;

        TCA_TRY(token_ids_append(tokens, &id, 1));
    }
    return TCA_OK;
}

static enum tca_status tokens_of_text(struct tokenize_task *task, const struct bytes *content)
{
    enum { STEP_BYTES = 256 * 1024 };
    const struct coordinator *coordinator = task->coordinator;
    const struct document_identity *identity = &task->document->identity;
    const struct chat_text system = {(const char *)identity->system.data, identity->system.size};

    if (!identity->is_raw)
        TCA_TRY(
            chat_format_prefix(coordinator->chat, coordinator->tokenizer, system, &task->tokens));
    return tokenizer_encode_long(coordinator->tokenizer, (const char *)content->data, content->size,
                                 STEP_BYTES, report_tokenizing, task, &task->tokens);
}

static enum tca_status check_digest(const struct document *document, const struct bytes *content,
                                    struct tca_error *error)
{
    struct sha256 *sha;
    char sha256[SHA256_HEX_BYTES];
    enum tca_status status;

    TCA_TRY(sha256_create(&sha));
    status = sha256_update(sha, content->data, content->size);
    if (status == TCA_OK)
        status = sha256_hex(sha, sha256);
    sha256_destroy(sha);
    if (status == TCA_OK && strcmp(sha256, document->sha256) != 0)
        status = tca_fail(error, TCA_ERR_DATA_LOSS,
                          "the stored content has SHA-256 %s, the upload had %s", sha256,
                          document->sha256);
    return status;
}

static enum tca_status make_tokens(struct tokenize_task *task)
{
    const struct document *document = task->document;
    struct content_check check = {.encoding = document->identity.encoding,
                                  .vocab = task->coordinator->vocab};
    struct bytes content = {0};
    enum tca_status status = TCA_ERR_CANCELLED;

    if (report_tokenizing(task, 0))
        status = store_read(task->coordinator->store, document->id, document->byte_count, &content,
                            &task->error);

    /* The upload was checked; this is for files that somebody changed since, and other models. */
    if (status == TCA_OK)
        status = check_digest(document, &content, &task->error);
    if (status == TCA_OK)
        status = content_check_push(&check, content.data, content.size, &task->error);
    if (status == TCA_OK)
        status = content_check_finish(&check, &task->error);
    if (status == TCA_OK)
        status = document->identity.encoding == CONTENT_TOKEN_IDS_U32LE
                     ? tokens_of_ids(&content, &task->tokens)
                     : tokens_of_text(task, &content);
    bytes_free(&content);
    return status;
}

/* The newest tokens are kept; those of documents that wait behind are made again where all
 * together would be too many. */
static void limit_tokens(struct coordinator *coordinator, size_t count)
{
    enum { TOKENS_KEPT_MAX = 16 * 1024 * 1024 };
    const struct document_table *table = &coordinator->documents;
    size_t kept = count;

    for (size_t i = 0; i < table->count; i++)
        kept += table->rows[i]->tokens.count;
    for (size_t i = 0; i < table->count && kept > TOKENS_KEPT_MAX; i++) {
        token_ids_free(&table->rows[i]->tokens);
        table->rows[i]->has_tokens = false;
    }
}

static void take_tokens(struct coordinator *coordinator, struct document *document,
                        struct token_ids *tokens)
{
    const bool is_new = document->token_count != (int64_t)tokens->count;

    document->token_count = (int64_t)tokens->count;
    limit_tokens(coordinator, tokens->count);
    document->tokens = *tokens;
    document->has_tokens = true;
    *tokens = (struct token_ids){0};
    document->news = DOCUMENT_NEWS_STATE;
    document->sequence = coordinator_next_sequence(coordinator);
    if (is_new)
        document_flow_save(coordinator, document);
    document_flow_publish(coordinator, document);
    question_flow_document_tokenized(coordinator, document);
}

static void run_tokenize(struct task *base)
{
    struct tokenize_task *task = (struct tokenize_task *)base;
    struct coordinator *coordinator = task->coordinator;
    struct document *document = task->document;
    const int64_t begun_ms = clock_monotonic_ms();
    const enum tca_status status = make_tokens(task);

    pthread_mutex_lock(&coordinator->lock);
    document->is_in_tokenizer_task = false;
    if (status == TCA_OK && document->state == DOCUMENT_QUEUED) {
        log_info("document %s: %zu tokens in %lld ms", document->id, task->tokens.count,
                 (long long)(clock_monotonic_ms() - begun_ms));
        take_tokens(coordinator, document, &task->tokens);
    } else if (status != TCA_OK && status != TCA_ERR_CANCELLED) {
        if (task->error.text[0] == '\0')
            tca_fail(&task->error, status, "cannot tokenise: %s", tca_status_text(status));
        if (status == TCA_ERR_BUSY || status == TCA_ERR_NO_MEMORY)
            document_flow_give_up(coordinator, document, task->error.text);
        else
            document_flow_fail(coordinator, document, rpc_code_from_status(status),
                               task->error.text);
    }
    document_flow_go_on_deleting(coordinator, document);
    scheduler_run(coordinator);
    pthread_mutex_unlock(&coordinator->lock);
    token_ids_free(&task->tokens);
    free(task);
}

void document_flow_tokenize(struct coordinator *coordinator, struct document *document)
{
    struct tokenize_task *task;

    if (document->has_tokens || document->is_in_tokenizer_task ||
        coordinator->phase >= COORDINATOR_DRAINING)
        return;
    task = calloc(1, sizeof(*task));
    if (task == NULL) {
        document_flow_fail(coordinator, document, RPC_RESOURCE_EXHAUSTED,
                           "no memory to tokenise the document");
        return;
    }
    task->task.run = run_tokenize;
    task->coordinator = coordinator;
    task->document = document;
    document->is_in_tokenizer_task = true;
    task_queue_post(coordinator->document_tokenizer, &task->task);
}

/* States. */

void document_flow_queue(struct coordinator *coordinator, struct document *document)
{
    move(coordinator, document, DOCUMENT_QUEUED);
    document->queued = ++coordinator->last_turn;
    document->is_restored = false;
    document->is_recalled = false;
    document->goes_first = false;
    document->waits_since_ms = 0;
    document->retry_at = 0;
    if (document->token_count == 0)
        document_flow_tokenize(coordinator, document);
    document_flow_publish(coordinator, document);
}

void document_flow_recall(struct coordinator *coordinator, struct document *document)
{
    document_flow_queue(coordinator, document);
    document->is_recalled = document->state == DOCUMENT_QUEUED;
}

void document_flow_wait_again(struct coordinator *coordinator, struct document *document)
{
    log_info("document %s: the workers have no memory for it now", document->id);
    move(coordinator, document, DOCUMENT_QUEUED);
    document->retry_at = coordinator->admission.frees + 1;
    document_flow_publish(coordinator, document);
}

/* Does the group have a question over it? */
static bool is_read(const struct coordinator *coordinator, const struct document *document)
{
    const struct question *question = coordinator->questions;

    while (question != NULL && (question->document != document || question->key == 0))
        question = question->next;
    return question != NULL;
}

/* Free its KV in the group, if any. */
static void free_kv(struct coordinator *coordinator, struct document *document)
{
    if (document->key == 0 || document->is_closing || is_read(coordinator, document))
        return;
    document->is_closing = true;
    admission_close_document(&coordinator->admission, document->kv_tokens);
    worker_link_close_document(&coordinator->link, document->key);
}

void document_flow_fail(struct coordinator *coordinator, struct document *document,
                        enum rpc_code code, const char *text)
{
    if (document_fail(document, code, text, coordinator_next_sequence(coordinator)) != TCA_OK)
        return; /* it is being deleted */
    log_warn("document %s: failed: %s", document->id, text);
    token_ids_free(&document->tokens);
    document->has_tokens = false;
    document_flow_save(coordinator, document);
    document_flow_publish(coordinator, document);
    question_flow_end_all(coordinator, document, RPC_FAILED_PRECONDITION, document->failure_text);
    free_kv(coordinator, document);
}

void document_flow_store(struct coordinator *coordinator, struct document *document)
{
    move(coordinator, document, DOCUMENT_STORED);
    token_ids_free(&document->tokens);
    document->has_tokens = false;
    document->is_restored = false;
    document_flow_save(coordinator, document);
    document_flow_publish(coordinator, document);
    free_kv(coordinator, document);
}

void document_flow_give_up(struct coordinator *coordinator, struct document *document,
                           const char *reason)
{
    if (document->state != DOCUMENT_QUEUED)
        return;
    document_flow_store(coordinator, document);
    document_flow_end_watchers(coordinator, document, RPC_RESOURCE_EXHAUSTED, reason);
    question_flow_end_all(coordinator, document, RPC_RESOURCE_EXHAUSTED, reason);
}

void document_flow_delete(struct coordinator *coordinator, struct document *document)
{
    struct disk_task *task;

    if (document->state == DOCUMENT_DELETING)
        return;
    task = disk_task_create(coordinator, document, run_remove);
    move(coordinator, document, DOCUMENT_DELETING);
    document->failure = RPC_OK;
    if (task != NULL) {
        document->disk_tasks++;
        task_queue_post(coordinator->disk, &task->task);
    } else {
        fail_removal(document, RPC_RESOURCE_EXHAUSTED, "no memory to remove its files");
    }
    document_flow_end_watchers(coordinator, document, RPC_ABORTED, "the document was deleted");
    question_flow_end_all(coordinator, document, RPC_ABORTED, "the document was deleted");
    free_kv(coordinator, document);
    if (task == NULL) {
        document->is_removed_from_disk = true;
        document_flow_go_on_deleting(coordinator, document);
    }
}

void document_flow_go_on_deleting(struct coordinator *coordinator, struct document *document)
{
    if (document->state != DOCUMENT_DELETING)
        return;
    free_kv(coordinator, document);
    if (!document->is_removed_from_disk || document->disk_tasks > 0 || document->key != 0 ||
        document->questions > 0 || document->is_in_tokenizer_task || document->is_being_uploaded)
        return;
    while (document->watchers != NULL) {
        struct watcher *watcher = document->watchers;

        watcher->gone(watcher); /* the others were told before */
        detach(watcher);
    }
    document_table_remove(&coordinator->documents, document);
}
