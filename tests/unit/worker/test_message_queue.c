#include "tests/support/check.h"

#include "worker/message_queue.h"

#include <pthread.h>
#include <string.h>

enum { MESSAGES = 2000, WAIT_MS = 20000 };

static void messages_come_out_in_order_and_whole(void **state)
{
    struct message_queue *queue;
    struct bytes message = {0};

    (void)state;
    assert_int_equal(message_queue_create(100, &queue), TCA_OK);
    assert_int_equal(message_queue_push(queue, "one", 3, 0), TCA_OK);
    assert_int_equal(message_queue_push(queue, "", 0, 0), TCA_OK);
    assert_int_equal(message_queue_push(queue, "three", 5, 0), TCA_OK);
    assert_int_equal(message_queue_pop(queue, 0, &message), TCA_OK);
    assert_int_equal(message.size, 3);
    assert_memory_equal(message.data, "one", 3);
    assert_int_equal(message_queue_pop(queue, 0, &message), TCA_OK);
    assert_int_equal(message.size, 0);
    assert_int_equal(message_queue_pop(queue, 0, &message), TCA_OK);
    assert_memory_equal(message.data, "three", 5);
    assert_int_equal(message_queue_pop(queue, 0, &message), TCA_ERR_DEADLINE);
    message_queue_destroy(queue);
    bytes_free(&message);
}

static void a_full_queue_waits_and_a_large_message_fits_an_empty_one(void **state)
{
    const char large[300] = {0};
    struct message_queue *queue;
    struct bytes message = {0};

    (void)state;
    assert_int_equal(message_queue_create(100, &queue), TCA_OK);
    assert_int_equal(message_queue_push(queue, large, sizeof(large), 0), TCA_OK);
    assert_int_equal(message_queue_push(queue, large, 1, 1), TCA_ERR_DEADLINE);
    assert_int_equal(message_queue_pop(queue, 0, &message), TCA_OK);
    assert_int_equal(message.size, sizeof(large));
    assert_int_equal(message_queue_push(queue, large, 60, 0), TCA_OK);
    assert_int_equal(message_queue_push(queue, large, 41, 1), TCA_ERR_DEADLINE);
    assert_int_equal(message_queue_push(queue, large, 40, 0), TCA_OK);
    message_queue_destroy(queue); /* with messages inside */
    bytes_free(&message);
}

static void a_closed_queue_gives_what_it_has_and_takes_nothing(void **state)
{
    struct message_queue *queue;
    struct bytes message = {0};

    (void)state;
    assert_int_equal(message_queue_create(100, &queue), TCA_OK);
    assert_int_equal(message_queue_push(queue, "last", 4, 0), TCA_OK);
    message_queue_close(queue);
    assert_int_equal(message_queue_push(queue, "late", 4, 0), TCA_ERR_CANCELLED);
    assert_int_equal(message_queue_pop(queue, WAIT_MS, &message), TCA_OK);
    assert_memory_equal(message.data, "last", 4);
    assert_int_equal(message_queue_pop(queue, WAIT_MS, &message), TCA_ERR_NOT_FOUND);
    message_queue_destroy(queue);
    bytes_free(&message);
}

static void *push_many(void *argument)
{
    for (int32_t i = 0; i < MESSAGES; i++)
        if (message_queue_push(argument, &i, sizeof(i), WAIT_MS) != TCA_OK)
            return NULL;
    message_queue_close(argument);
    return NULL;
}

static void one_thread_may_fill_while_another_empties(void **state)
{
    struct message_queue *queue;
    struct bytes message = {0};
    pthread_t thread;
    int32_t expected = 0;

    (void)state;
    assert_int_equal(message_queue_create(64, &queue), TCA_OK);
    assert_int_equal(pthread_create(&thread, NULL, push_many, queue), 0);
    while (message_queue_pop(queue, WAIT_MS, &message) == TCA_OK) {
        int32_t value;

        assert_int_equal(message.size, sizeof(value));
        memcpy(&value, message.data, sizeof(value));
        assert_int_equal(value, expected++);
    }
    assert_int_equal(expected, MESSAGES);
    pthread_join(thread, NULL);
    message_queue_destroy(queue);
    bytes_free(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_out_in_order_and_whole),
        cmocka_unit_test(a_full_queue_waits_and_a_large_message_fits_an_empty_one),
        cmocka_unit_test(a_closed_queue_gives_what_it_has_and_takes_nothing),
        cmocka_unit_test(one_thread_may_fill_while_another_empties),
    };
    return cmocka_run_group_tests_name("message_queue", tests, NULL, NULL);
}
