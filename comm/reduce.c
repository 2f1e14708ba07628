#include "comm/reduce.h"

#include "base/bf16.h"
#include "base/sum_tree.h"

#include <string.h>

/* BLOCK floats stand on the stack for every level of the tree. */
enum { BLOCK = 512, SLICE_UNIT = 16 };

size_t reduce_element_bytes(enum kernel_dtype dtype)
{
    return dtype == KERNEL_F32 ? sizeof(float) : sizeof(uint16_t);
}

uint64_t reduce_sent_bytes(size_t bytes, int ranks)
{
    return 2 * (uint64_t)bytes * (uint64_t)(ranks - 1) / (uint64_t)ranks;
}

size_t reduce_slice_first(size_t count, int rank, int ranks)
{
    size_t units = (count + SLICE_UNIT - 1) / SLICE_UNIT;
    size_t first = units * (size_t)rank / (size_t)ranks * SLICE_UNIT;

    return first < count ? first : count;
}

/* One block of every source. */
struct block {
    const void *const *sources;
    const int *parts;
    size_t first, count;
    enum kernel_dtype dtype;
};

static int rank_parts(const int *parts, int rank)
{
    return parts[rank] > 0 ? parts[rank] : 1;
}

/* First rank of the right subtree over ranks [first, end). */
static int split(const int *parts, int first, int end)
{
    int total = 0, left, held, rank;

    for (rank = first; rank < end; rank++)
        total += rank_parts(parts, rank);
    left = sum_tree_left(total);
    held = rank_parts(parts, first);
    for (rank = first + 1; rank + 1 < end; rank++) {
        if (held + rank_parts(parts, rank) > left)
            break;
        held += rank_parts(parts, rank);
    }
    return rank;
}

static void load(const struct block *block, int rank, float *out)
{
    if (block->dtype == KERNEL_F32) {
        memcpy(out, (const float *)block->sources[rank] + block->first,
               block->count * sizeof(float));
        return;
    }
    for (size_t i = 0; i < block->count; i++)
        out[i] = bf16_to_float(((const uint16_t *)block->sources[rank])[block->first + i]);
}

static void sum_ranks(const struct block *block, int first, int end, float *sum)
{
    float right[BLOCK];
    int middle;

    if (end - first == 1) {
        load(block, first, sum);
        return;
    }
    middle = split(block->parts, first, end);
    sum_ranks(block, first, middle, sum);
    sum_ranks(block, middle, end, right);
    for (size_t i = 0; i < block->count; i++)
        sum[i] += right[i];
}

void reduce_sum(void *out, const void *const *sources, const struct comm_group *group, size_t count,
                enum kernel_dtype dtype)
{
    struct block block = {.sources = sources, .parts = group->parts, .dtype = dtype};
    float sum[BLOCK];

    for (; block.first < count; block.first += BLOCK) {
        block.count = count - block.first < BLOCK ? count - block.first : BLOCK;
        sum_ranks(&block, 0, group->ranks, sum);
        if (dtype == KERNEL_F32) {
            memcpy((float *)out + block.first, sum, block.count * sizeof(float));
            continue;
        }
        for (size_t i = 0; i < block.count; i++)
            ((uint16_t *)out)[block.first + i] = bf16_from_float(sum[i]);
    }
}
