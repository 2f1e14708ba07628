/* What a kernel needs to give up waiting for a peer; see comm/nccl/peer_memory.h. */
#ifndef COMM_NCCL_PEER_WAIT_H
#define COMM_NCCL_PEER_WAIT_H

#include <stdint.h>

enum { PEERS_MOST = 8 };

struct peer_wait {
    uint32_t *broken; /* host memory: not 0 once a sum has failed or was aborted */
    uint64_t timeout_ns;
};

#endif
