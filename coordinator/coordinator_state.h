/* What the coordinator's own files share: one struct, one lock.
 *
 * The lock guards everything below it and every document, question and watcher. It is held for
 * short work only: no disk, no tokenising, no waiting. It is taken before the locks inside rpc_
 * functions, which may be called with it held. Functions of document_flow.h, question_flow.h,
 * scheduler.h and worker_link.h are called with it held unless they say otherwise. */
#ifndef COORDINATOR_COORDINATOR_STATE_H
#define COORDINATOR_COORDINATOR_STATE_H

#include "coordinator/admission.h"
#include "coordinator/coordinator.h"
#include "coordinator/document_message.h"
#include "coordinator/document_table.h"
#include "coordinator/question.h"
#include "coordinator/store.h"
#include "coordinator/task_queue.h"
#include "coordinator/worker_link.h"
#include "model/chat_format.h"
#include "model/model_config.h"
#include "model/tokenizer.h"
#include "proto/rpc_server.h"

#include <pthread.h>

enum { HEARTBEAT_MS = 4000, /* api.md promises one at least every 5 s */ SERVER_THREADS = 2 };

enum coordinator_phase {
    COORDINATOR_STARTING, /* no group yet */
    COORDINATOR_SERVING,
    COORDINATOR_DRAINING,
    COORDINATOR_DRAINED, /* the end, as asked */
    COORDINATOR_LOST,    /* the end: the group is gone */
};

struct coordinator {
    const struct coordinator_options *options; /* borrowed */
    char address[COORDINATOR_ADDRESS_BYTES];
    char worker_address[COORDINATOR_ADDRESS_BYTES];
    char secret[129];
    struct model_config model;
    char model_folder[4096]; /* absolute */
    const char *model_name;  /* its last part */
    char profile[4096];      /* absolute; "none"; "": the model's, if it has one */
    int64_t max_tokens;      /* of one sequence */
    struct tokenizer *tokenizer;
    int32_t vocab; /* ids of model and tokenizer */
    enum chat_format chat;
    int64_t started_ms; /* monotonic */

    struct store *store;
    struct task_queue *disk;
    struct task_queue *document_tokenizer; /* long texts do not hold up questions */
    struct task_queue *request_tokenizer;
    struct rpc_method *methods; /* owned */
    struct rpc_server *server;
    struct rpc_server *worker_server;
    struct rpc_method worker_method;
    struct health *health;
    struct reflection *reflection;
    struct timer *timer;

    pthread_mutex_t lock;   /* guards the rest */
    pthread_cond_t changed; /* of phase */
    enum coordinator_phase phase;
    int64_t drain_until_ms;
    struct document_table documents;
    struct question *questions; /* in order of arrival; owned */
    int queued_texts;    /* Tokenize and Detokenize that request_tokenizer is not done with */
    size_t queued_bytes; /* of these requests and of the questions it is not done with */
    struct admission admission;
    struct worker_link link;
    uint64_t last_sequence, last_key, last_turn;
    int wanted_in_a_row; /* prefills begun of documents that questions waited for */
    uint64_t made_ids;   /* of documents and requests without one */
};

uint64_t coordinator_next_sequence(struct coordinator *coordinator);
/* What questions, or prefills, that name nothing get; without a group, as if it had a profile. */
struct attention_defaults coordinator_question_defaults(const struct coordinator *coordinator);
struct attention_defaults coordinator_prefill_defaults(const struct coordinator *coordinator);
struct document_facts coordinator_facts(const struct coordinator *coordinator);
/* The group is there with this much memory; it is gone. With the lock. */
void coordinator_group_ready(struct coordinator *coordinator);
void coordinator_group_lost(struct coordinator *coordinator, const char *reason);
/* Deadlines of start and drain. With the lock. */
void coordinator_tick(struct coordinator *coordinator, int64_t now_ms);
/* TCA_ERR_UNAVAILABLE with the reason unless new work is taken; needs_group: and can be done. */
enum tca_status coordinator_check_open(const struct coordinator *coordinator, bool needs_group,
                                       struct tca_error *error);

#endif
