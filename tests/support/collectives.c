#include "tests/support/collectives.h"

#include "base/bf16.h"

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
