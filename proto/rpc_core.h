/* What server and client share of gRPC's C-core: start and end of its use, the settings of every
 * connection, and the credentials, chosen here and nowhere else. Private to proto/. */
#ifndef PROTO_RPC_CORE_H
#define PROTO_RPC_CORE_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <stdint.h>

/* Each start is undone by one stop; the first also sends C-core's own log lines to ours. */
void rpc_core_start(void);
void rpc_core_stop(void);

/* Borrowed, for as long as the program runs. */
const grpc_channel_args *rpc_core_server_settings(void);
const grpc_channel_args *rpc_core_channel_settings(void);

grpc_server_credentials *rpc_core_server_credentials(void); /* owned by the caller */
grpc_channel_credentials *rpc_core_channel_credentials(void);

gpr_timespec rpc_core_deadline(int64_t timeout_ms); /* from now; negative: never */
/* On clock_monotonic_ms's scale; INT64_MAX: never. */
int64_t rpc_core_monotonic_ms(gpr_timespec deadline);

#endif
