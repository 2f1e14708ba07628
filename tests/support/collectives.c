#include "tests/support/collectives.h"

#include "base/bf16.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_TIMEOUT_MS = 20000, COUNT_MAX = 300000 };

/* Small whole numbers: every sum is exact in f32 and, up to 256, in bf16. */
static int exact_value(size_t i, int rank)
{
    return (int)(i * 7 + (size_t)rank * 13) % 31 - 15;
}

static int exact_sum(size_t i, int ranks)
{
    int sum = 0;

    for (int rank = 0; rank < ranks; rank++)
        sum += exact_value(i, rank);
    return sum;
}

/* `guard` elements after the end must keep their values. */
static const char *check_sum(struct comm_group *group, size_t count, enum kernel_dtype dtype)
{
    size_t element = dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
    const char *fault = NULL;
    uint64_t sent = group->sent_bytes;
    uint8_t *buf = malloc((count + 1) * element);
    float *f32 = (float *)buf;
    uint16_t *bf16 = (uint16_t *)buf;

    if (buf == NULL)
        return "no memory";
    for (size_t i = 0; i <= count; i++) {
        float value = (float)exact_value(i, group->rank);

        if (dtype == KERNEL_F32)
            f32[i] = value;
        else
            bf16[i] = bf16_from_float(value);
    }
    if (group->ops->all_reduce_sum(group, buf, count, dtype, NULL) != TCA_OK)
        fault = "all_reduce_sum failed";
    if (fault == NULL && group->sent_bytes - sent != 2 * count * element *
                                                         (size_t)(group->ranks - 1) /
                                                         (size_t)group->ranks)
        fault = "the bytes of a sum were counted wrong";
    for (size_t i = 0; i <= count && fault == NULL; i++) {
        int expected = i < count ? exact_sum(i, group->ranks) : exact_value(i, group->rank);
        float value = dtype == KERNEL_F32 ? f32[i] : bf16_to_float(bf16[i]);

        if (value < (float)expected || value > (float)expected)
            fault = i < count ? "wrong sum" : "wrote past the end";
    }
    free(buf);
    return fault;
}

const char *collectives_check_sums(struct comm_group *group)
{
    static const size_t counts[] = {0, 1, 2, 15, 17, 576, 8191, 8192, 8193, 16385, COUNT_MAX + 7};
    const char *fault = NULL;

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]) && fault == NULL; i++) {
        fault = check_sum(group, counts[i], KERNEL_F32);
        if (fault == NULL)
            fault = check_sum(group, counts[i], KERNEL_BF16);
    }
    return fault;
}

/* `count` values of message `message`. */
static void fill_exact(float *buf, size_t count, int message, int rank)
{
    for (size_t i = 0; i < count; i++)
        buf[i] = (float)exact_value(i + (size_t)message * 3, rank);
}

static bool is_exact_sum(const float *buf, size_t count, int message, int ranks)
{
    for (size_t i = 0; i < count; i++) {
        float expected = (float)exact_sum(i + (size_t)message * 3, ranks);

        if (buf[i] < expected || buf[i] > expected)
            return false;
    }
    return true;
}

/* Both slots under way, in turns, and a sum that is not begun between them. */
static const char *check_begun(struct comm_group *group, size_t count, float *buf[COMM_SLOTS + 1])
{
    const struct comm_ops *ops = group->ops;
    const uint64_t sent = group->sent_bytes, bytes = count * sizeof(float);
    enum { TURNS = 3 };

    for (int slot = 0; slot < COMM_SLOTS; slot++) {
        fill_exact(buf[slot], count, slot, group->rank);
        if (ops->all_reduce_begin(group, slot, buf[slot], count, KERNEL_F32, NULL) != TCA_OK)
            return "all_reduce_begin failed";
    }
    for (int message = 0; message < TURNS * COMM_SLOTS; message++) {
        const int slot = message % COMM_SLOTS;

        fill_exact(buf[COMM_SLOTS], count, message + 1, group->rank);
        if (ops->all_reduce_sum(group, buf[COMM_SLOTS], count, KERNEL_F32, NULL) != TCA_OK ||
            !is_exact_sum(buf[COMM_SLOTS], count, message + 1, group->ranks))
            return "wrong sum beside begun ones";
        if (ops->all_reduce_await(group, slot, NULL, NULL) != TCA_OK ||
            !is_exact_sum(buf[slot], count, message, group->ranks))
            return "wrong begun sum";
        if (message + COMM_SLOTS >= TURNS * COMM_SLOTS)
            continue;
        fill_exact(buf[slot], count, message + COMM_SLOTS, group->rank);
        if (ops->all_reduce_begin(group, slot, buf[slot], count, KERNEL_F32, NULL) != TCA_OK)
            return "all_reduce_begin failed";
    }
    return group->sent_bytes - sent ==
                   2 * TURNS * COMM_SLOTS *
                       (2 * bytes * (uint64_t)(group->ranks - 1) / (uint64_t)group->ranks)
               ? NULL
               : "the bytes of begun sums were counted wrong";
}

const char *collectives_check_begun(struct comm_group *group)
{
    static const size_t counts[] = {0, 1, 577, COUNT_MAX};
    float *buf[COMM_SLOTS + 1];
    const char *fault = NULL;

    for (int i = 0; i <= COMM_SLOTS; i++) {
        buf[i] = malloc(COUNT_MAX * sizeof(**buf));
        if (buf[i] == NULL)
            fault = "no memory";
    }
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]) && fault == NULL; i++)
        fault = check_begun(group, counts[i], buf);
    for (int i = 0; i <= COMM_SLOTS; i++)
        free(buf[i]);
    return fault;
}

/* A value whose sum depends on the order of adding. */
static float rough_value(size_t i, int rank)
{
    uint32_t bits = (uint32_t)(i * 2654435761U) ^ (uint32_t)(rank + 1) * 0x9e3779b9U;

    bits = (bits ^ bits >> 15) * 0x85ebca6bU;
    return (float)(int32_t)(bits ^ bits >> 13) * (rank % 2 == 0 ? 1.0F : 1e-5F);
}

/* ((0 + 1) + (2 + 3)) + .., rounded after each: base/sum_tree.h, written the slow way. */
static float tree_sum(size_t i, int first, int ranks)
{
    int left = 1;

    if (ranks == 1)
        return rough_value(i, first);
    while (2 * left < ranks)
        left *= 2;
    return tree_sum(i, first, left) + tree_sum(i, first + left, ranks - left);
}

/* What every rank must have, to the bit. */
const char *collectives_check_equal_bits(struct comm_group *group)
{
    static const size_t counts[] = {576, COUNT_MAX};
    const char *fault = NULL;
    float *buf = malloc(COUNT_MAX * sizeof(*buf));

    if (buf == NULL)
        return "no memory";
    for (size_t n = 0; n < 2 && fault == NULL; n++) {
        for (size_t i = 0; i < counts[n]; i++)
            buf[i] = rough_value(i, group->rank);
        if (group->ops->all_reduce_sum(group, buf, counts[n], KERNEL_F32, NULL) != TCA_OK)
            fault = "all_reduce_sum failed";
        for (size_t i = 0; i < counts[n] && fault == NULL; i++) {
            float expected = tree_sum(i, 0, group->ranks);

            if (memcmp(&buf[i], &expected, sizeof(expected)) != 0)
                fault = "the sum is not that of the tree";
        }
    }
    free(buf);
    return fault;
}

static const char *check_control(struct comm_group *group, size_t bytes, int root)
{
    uint8_t *all = malloc(bytes * (size_t)group->ranks + 1);
    uint8_t *own = malloc(bytes + 1);
    const char *fault = all == NULL || own == NULL ? "no memory" : NULL;

    if (fault == NULL) {
        memset(own, group->rank + 1, bytes);
        if (group->ops->gather(group, group->rank == root ? all : NULL, own, bytes, root,
                               CHECK_TIMEOUT_MS) != TCA_OK)
            fault = "gather failed";
    }
    for (size_t i = 0; fault == NULL && group->rank == root && i < bytes * (size_t)group->ranks;
         i++)
        if (all[i] != i / bytes + 1)
            fault = "gather has a wrong byte";
    if (fault == NULL && group->ops->broadcast(group, own, bytes, root, CHECK_TIMEOUT_MS) != TCA_OK)
        fault = "broadcast failed";
    for (size_t i = 0; fault == NULL && i < bytes; i++)
        if (own[i] != root + 1)
            fault = "broadcast has a wrong byte";
    free(all);
    free(own);
    return fault;
}

const char *collectives_check_control(struct comm_group *group)
{
    static const size_t sizes[] = {0, 1, 4000, 200001};
    const char *fault = NULL;

    for (int root = 0; root < group->ranks; root++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && fault == NULL; i++)
            fault = check_control(group, sizes[i], root);
    return fault;
}

/* A send and a receive buffer [ranks, bytes], the latter with a guard of one byte. */
struct exchange {
    struct comm_group *group;
    const struct collectives_device *device;
    size_t bytes;
    uint8_t *send, *recv; /* host */
    void *device_send, *device_recv;
};

static uint8_t byte_of(size_t i, int message)
{
    return (uint8_t)(i * 31 + i / 256 + (size_t)message * 57 + 1);
}

static size_t recv_bytes(const struct exchange *exchange)
{
    return exchange->bytes * (size_t)exchange->group->ranks + 1;
}

static enum tca_status open_buffers(struct exchange *exchange)
{
    const struct collectives_device *device = exchange->device;
    size_t bytes = recv_bytes(exchange);

    exchange->send = malloc(bytes);
    exchange->recv = malloc(bytes);
    if (exchange->send == NULL || exchange->recv == NULL)
        return TCA_ERR_NO_MEMORY;
    exchange->device_send = exchange->send;
    exchange->device_recv = exchange->recv;
    if (device == NULL)
        return TCA_OK;
    exchange->device_send = exchange->device_recv = NULL;
    TCA_TRY(device->backend->alloc(device->index, bytes, &exchange->device_send));
    return device->backend->alloc(device->index, bytes, &exchange->device_recv);
}

static void close_buffers(const struct exchange *exchange)
{
    const struct collectives_device *device = exchange->device;

    if (device != NULL) {
        device->backend->free(device->index, exchange->device_send, recv_bytes(exchange));
        device->backend->free(device->index, exchange->device_recv, recv_bytes(exchange));
    }
    free(exchange->send);
    free(exchange->recv);
}

/* Run one collective on what is in send and recv. */
static enum tca_status run_exchange(const struct exchange *exchange, bool is_gather, void *send)
{
    const struct collectives_device *device = exchange->device;
    struct comm_group *group = exchange->group;
    struct kernel_queue *queue = device == NULL ? NULL : device->queue;
    size_t bytes = recv_bytes(exchange);

    if (device != NULL) {
        TCA_TRY(device->backend->upload(queue, exchange->device_send, exchange->send, bytes));
        TCA_TRY(device->backend->upload(queue, exchange->device_recv, exchange->recv, bytes));
    }
    if (is_gather)
        TCA_TRY(group->ops->all_gather(group, exchange->device_recv, send, exchange->bytes, queue));
    else
        TCA_TRY(group->ops->all_to_all(group, exchange->device_recv, send, exchange->bytes, queue));
    return device == NULL
               ? TCA_OK
               : device->backend->download(queue, exchange->recv, exchange->device_recv, bytes);
}

/* What arrived: message first + r * step from rank r. */
static const char *compare_exchange(const struct exchange *exchange, int first, int step)
{
    size_t bytes = exchange->bytes;

    for (int peer = 0; peer < exchange->group->ranks; peer++)
        for (size_t i = 0; i < bytes; i++)
            if (exchange->recv[(size_t)peer * bytes + i] != byte_of(i, first + peer * step))
                return "an exchange has a wrong byte";
    return exchange->recv[recv_bytes(exchange) - 1] == 7 ? NULL : "wrote past the end";
}

static const char *check_gather(const struct exchange *exchange, bool is_in_place)
{
    int rank = exchange->group->rank;
    size_t place = (size_t)rank * exchange->bytes;
    uint8_t *from = is_in_place ? exchange->recv + place : exchange->send;

    memset(exchange->recv, 7, recv_bytes(exchange));
    for (size_t i = 0; i < exchange->bytes; i++)
        from[i] = byte_of(i, rank);
    if (run_exchange(exchange, true,
                     is_in_place ? (uint8_t *)exchange->device_recv + place
                                 : exchange->device_send) != TCA_OK)
        return "all_gather failed";
    return compare_exchange(exchange, 0, 1);
}

static const char *check_all_to_all(const struct exchange *exchange)
{
    int rank = exchange->group->rank, ranks = exchange->group->ranks;

    memset(exchange->recv, 7, recv_bytes(exchange));
    for (int peer = 0; peer < ranks; peer++)
        for (size_t i = 0; i < exchange->bytes; i++)
            exchange->send[(size_t)peer * exchange->bytes + i] = byte_of(i, rank * ranks + peer);
    if (run_exchange(exchange, false, exchange->device_send) != TCA_OK)
        return "all_to_all failed";
    return compare_exchange(exchange, rank, ranks);
}

const char *collectives_check_exchange(struct comm_group *group,
                                       const struct collectives_device *device)
{
    static const size_t sizes[] = {0, 1, 64, 4001, 200001};
    const char *fault = NULL;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && fault == NULL; i++) {
        struct exchange exchange = {.group = group, .device = device, .bytes = sizes[i]};
        uint64_t sent = group->sent_bytes;

        fault = open_buffers(&exchange) == TCA_OK ? NULL : "no memory";
        if (fault == NULL)
            fault = check_gather(&exchange, false);
        if (fault == NULL)
            fault = check_gather(&exchange, true);
        if (fault == NULL)
            fault = check_all_to_all(&exchange);
        if (fault == NULL && group->sent_bytes - sent != 3 * sizes[i] * (size_t)(group->ranks - 1))
            fault = "the bytes sent were counted wrong";
        close_buffers(&exchange);
    }
    return fault;
}

static const char *check_cut(struct comm_group *group, int cut,
                             const struct collectives_device *device)
{
    bool is_low = group->rank < cut;
    int first = is_low ? 0 : cut, ranks = is_low ? cut : group->ranks - cut;
    struct comm_group *part;
    const char *fault;

    if (group->ops->split(group, first, ranks, &part) != TCA_OK)
        return "split failed";
    fault = part->rank == group->rank - first && part->ranks == ranks && part->sent_bytes == 0
                ? NULL
                : "split made another group";
    for (int turn = 0; turn < 2 && fault == NULL; turn++) {
        fault = collectives_check_exchange(part, device);
        if (fault == NULL && device == NULL)
            fault = check_sum(part, 8193, KERNEL_F32);
        if (fault == NULL && ranks == 1 && part->sent_bytes != 0)
            fault = "a rank alone has sent bytes";
        if (fault == NULL)
            fault = collectives_check_exchange(group, device);
    }
    part->ops->destroy(part);
    return fault;
}

const char *collectives_check_parts(struct comm_group *group,
                                    const struct collectives_device *device)
{
    const char *fault = NULL;

    for (int cut = 1; cut < group->ranks && fault == NULL; cut++)
        fault = check_cut(group, cut, device);
    return fault;
}
