/* How a thread waits for a peer. */
#ifndef COMM_NCCL_PEER_WAIT_CUH
#define COMM_NCCL_PEER_WAIT_CUH

#include "comm/nccl/peer_wait.h"

enum { LOOKS_AT_ONCE = 1024 };

static __device__ __forceinline__ uint64_t now_ns()
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
    return ns;
}

struct patience {
    uint32_t looks;
    uint64_t since_ns; /* 0: it has not waited long yet */
};

/* To be asked after each look in vain. The clock and the host's memory are far away: they are asked
 * once in many looks. */
static __device__ __forceinline__ bool is_over(patience &own, const peer_wait &wait)
{
    volatile uint32_t *broken = wait.broken;

    if (++own.looks % LOOKS_AT_ONCE != 0)
        return false;
    if (*broken != 0)
        return true;
    if (own.since_ns == 0)
        own.since_ns = now_ns();
    if (now_ns() - own.since_ns < wait.timeout_ns)
        return false;
    *broken = 1;
    __threadfence_system();
    return true;
}

#endif
