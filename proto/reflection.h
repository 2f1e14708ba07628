/* gRPC server reflection, v1 and v1alpha: serves the descriptors of the published .proto files,
 * exactly as protoc made them. */
#ifndef PROTO_REFLECTION_H
#define PROTO_REFLECTION_H

#include "base/status.h"
#include "proto/rpc_server.h"

enum { REFLECTION_METHODS = 2 };

struct reflection;

enum tca_status reflection_create(struct reflection **reflection_out);
void reflection_destroy(struct reflection *reflection); /* after the server; NULL is a no-op */

/* Fill the methods to be served; their context is `reflection`, borrowed. */
void reflection_methods(struct reflection *reflection,
                        struct rpc_method methods_out[REFLECTION_METHODS]);

#endif
