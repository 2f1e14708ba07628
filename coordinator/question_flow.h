/* What happens to questions: their events reach the client, and they end. With the coordinator's
 * lock held. A question that has ended may be gone: do not use it after these calls. */
#ifndef COORDINATOR_QUESTION_FLOW_H
#define COORDINATOR_QUESTION_FLOW_H

#include "coordinator/question.h"
#include "proto/rpc.h"
#include "tca.pb-c.h"

struct coordinator;

/* Take it into the list of questions (owned there), counted for its document. */
void question_flow_add(struct coordinator *coordinator, struct question *question,
                       struct document *document);
struct question *question_flow_find(const struct coordinator *coordinator, const char *request_id);

/* Its tokens are known (taken); it waits for its turn once its document's are known too. */
void question_flow_tokenized(struct coordinator *coordinator, struct question *question,
                             struct token_ids *tokens);
void question_flow_document_tokenized(struct coordinator *coordinator, struct document *document);

void question_flow_progress(struct question *question, int64_t done, int64_t total, int64_t eta_ms);
/* The document's prefill goes on: those who wait for it hear of it. */
void question_flow_document_progress(struct coordinator *coordinator, struct document *document);

/* What one head keeps, for a client that asked. A client that reads so slowly that it cannot be
 * queued ends. */
void question_flow_selection(struct coordinator *coordinator, struct question *question,
                             Tca__V1__AskEvent__Selection *selection);

/* Send what of the answer has not been sent; all of it even to a client that reads slowly. */
void question_flow_flush(struct coordinator *coordinator, struct question *question, bool is_last);
/* Send what is left, Finished and OK; then it is gone. */
void question_flow_finish(struct coordinator *coordinator, struct question *question,
                          Tca__V1__AskEvent__Finished__Reason reason, Tca__V1__Usage *usage);
/* End the client's call with a failure and have the group forget it. */
void question_flow_end(struct coordinator *coordinator, struct question *question,
                       enum rpc_code code, const char *text);
/* All of a document (NULL: of all), running ones too. */
void question_flow_end_all(struct coordinator *coordinator, const struct document *document,
                           enum rpc_code code, const char *text);
/* The answer is complete, or unwanted: stop its sampling, then finish with this reason. */
void question_flow_stop(struct coordinator *coordinator, struct question *question,
                        Tca__V1__AskEvent__Finished__Reason reason);
/* The client is gone: its call may no longer be used. */
void question_flow_client_lost(struct coordinator *coordinator, struct question *question);
/* The group had no memory for it: it waits, in its old place, until something has been freed. */
void question_flow_wait_again(struct coordinator *coordinator, struct question *question);
/* The group has nothing of it any more. */
void question_flow_remove(struct coordinator *coordinator, struct question *question);

void question_flow_tick(struct coordinator *coordinator, struct question *question, int64_t now_ms);

#endif
