/* Byte messages from one thread to another, in order, bounded in bytes. Any thread may use it. */
#ifndef WORKER_MESSAGE_QUEUE_H
#define WORKER_MESSAGE_QUEUE_H

#include "base/bytes.h"

#include <stddef.h>
#include <stdint.h>

struct message_queue;

/* bytes_max: how much may wait; a message of any size fits an empty queue. */
enum tca_status message_queue_create(size_t bytes_max, struct message_queue **queue_out);
void message_queue_destroy(struct message_queue *queue); /* nobody uses it; NULL is a no-op */

/* Append a copy. Waits for room up to timeout_ms: TCA_ERR_DEADLINE. TCA_ERR_CANCELLED: closed. */
enum tca_status message_queue_push(struct message_queue *queue, const void *data, size_t size,
                                   int64_t timeout_ms);
/* Take the oldest; replaces *message. Waits up to timeout_ms: TCA_ERR_DEADLINE.
 * TCA_ERR_NOT_FOUND: closed, and everything was taken. */
enum tca_status message_queue_pop(struct message_queue *queue, int64_t timeout_ms,
                                  struct bytes *message);
/* No more pushes; what waits can still be taken. */
void message_queue_close(struct message_queue *queue);

#endif
