#include "comm/nccl/one_shot.h"

#include "comm/nccl/one_shot_kernel.h"

enum { HALVES = 2 };

/* Numbers of sums wrap soon after the start, so that tests see it; 0 is what fresh memory holds. */
#define FIRST_SEQUENCE  (UINT32_MAX - 200)
#define SECOND_SEQUENCE 2 /* behind UINT32_MAX, and even as that is odd */

/* Received lines are [HALVES, ranks, ONE_SHOT_SLOT_BYTES] in the memory of each rank: by the parity
 * of the sum's number, then by who sends them. Two halves are enough: a rank writes the lines of
 * sum s + 2 after all threads of its sum s + 1 have ended, for which some line of s + 1 had to come
 * from this rank, whatever the count; and this rank sent that after all threads of its sum s had
 * ended, which read what s + 2 overwrites. */
static size_t half_bytes(int ranks)
{
    return (size_t)ranks * ONE_SHOT_SLOT_BYTES;
}

static char *memory_of(const struct one_shot *one_shot, int rank)
{
    return (char *)one_shot->peers->of[rank] + one_shot->offset;
}

size_t one_shot_bytes(int ranks)
{
    return HALVES * half_bytes(ranks);
}

void one_shot_init(struct one_shot *one_shot, const struct peer_memory *peers, size_t offset)
{
    *one_shot = (struct one_shot){.peers = peers, .offset = offset, .sequence = FIRST_SEQUENCE};
}

bool one_shot_takes(size_t bytes)
{
    return bytes <= ONE_SHOT_BYTES;
}

/* Before its number comes a second time, a half forgets what it holds: a line of a long sum may
 * have been left alone since. No peer writes into the half of the next sum before this rank's own
 * begins. */
static cudaError_t forget(const struct one_shot *one_shot, cudaStream_t stream)
{
    char *own = memory_of(one_shot, one_shot->peers->rank);

    if (one_shot->sequence < UINT32_MAX - 1)
        return cudaSuccess;
    return cudaMemsetAsync(own + (one_shot->sequence + 1) % HALVES *
                                     half_bytes(one_shot->peers->ranks),
                           0, half_bytes(one_shot->peers->ranks), stream);
}

cudaError_t one_shot_sum(struct one_shot *one_shot, void *buf, size_t count,
                         enum kernel_dtype dtype, cudaStream_t stream)
{
    const struct peer_memory *peers = one_shot->peers;
    const size_t half = one_shot->sequence % HALVES * half_bytes(peers->ranks);
    struct one_shot_args args = {.buf = buf,
                                 .wait = peers->wait,
                                 .sequence = one_shot->sequence,
                                 .rank = peers->rank,
                                 .ranks = peers->ranks,
                                 .count = (int)count};
    cudaError_t code = forget(one_shot, stream);

    if (code != cudaSuccess)
        return code;
    for (int rank = 0; rank < peers->ranks; rank++) {
        args.to[rank] =
            memory_of(one_shot, rank) + half + (size_t)peers->rank * ONE_SHOT_SLOT_BYTES;
        args.from[rank] =
            memory_of(one_shot, peers->rank) + half + (size_t)rank * ONE_SHOT_SLOT_BYTES;
    }
    one_shot->sequence =
        one_shot->sequence == UINT32_MAX ? SECOND_SEQUENCE : one_shot->sequence + 1;
    one_shot_launch(stream, &args, dtype);
    return cudaGetLastError();
}
