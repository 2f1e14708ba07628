/* What server and client share of gRPC's C-core: start and end of its use, the settings of every
 * connection, and its credentials, chosen here and nowhere else. Private to proto/. */
#ifndef PROTO_RPC_CORE_H
#define PROTO_RPC_CORE_H

#include <grpc/grpc.h>

#include <stdbool.h>
#include <stdint.h>

/* Each start is undone by one stop; the first also sends C-core's own log lines to ours. */
void rpc_core_start(void);
void rpc_core_stop(void);

/* Owned by the caller. */
grpc_server *rpc_core_server_create(void);
grpc_channel *rpc_core_channel_create(const char *address);

int rpc_core_server_listen(grpc_server *server, const char *address); /* the port, 0: failed */
bool rpc_core_is_deaf(void);                                          /* see rpc_server_is_deaf */

gpr_timespec rpc_core_deadline(int64_t timeout_ms); /* from now; negative: never */
/* On clock_monotonic_ms's scale; INT64_MAX: never. */
int64_t rpc_core_monotonic_ms(gpr_timespec deadline);

#endif
