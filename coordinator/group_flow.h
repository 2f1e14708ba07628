/* What the worker group says of documents and questions, by the keys it was given. Messages about
 * keys that are gone are left: they crossed ours. With the coordinator's lock held. */
#ifndef COORDINATOR_GROUP_FLOW_H
#define COORDINATOR_GROUP_FLOW_H

#include "control.pb-c.h"

struct coordinator;

void group_document_progress(struct coordinator *coordinator,
                             const Tca__Control__V1__DocumentProgress *progress);
void group_document_done(struct coordinator *coordinator,
                         const Tca__Control__V1__DocumentDone *done);
void group_question_progress(struct coordinator *coordinator,
                             const Tca__Control__V1__QuestionProgress *progress);
void group_question_selection(struct coordinator *coordinator,
                              const Tca__Control__V1__QuestionSelection *selection);
void group_question_evicted(struct coordinator *coordinator,
                            const Tca__Control__V1__QuestionEvicted *evicted);
void group_question_tokens(struct coordinator *coordinator,
                           const Tca__Control__V1__QuestionTokens *tokens);
void group_question_done(struct coordinator *coordinator,
                         const Tca__Control__V1__QuestionDone *done);

#endif
