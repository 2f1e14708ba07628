/* The public API's methods, each file's part of the server's table. */
#ifndef COORDINATOR_SERVICES_H
#define COORDINATOR_SERVICES_H

#include "proto/rpc_server.h"

struct coordinator;

enum { SERVICE_METHODS = 12 };

/* Write the methods of one service (Upload apart) and return how many. */
size_t service_upload_methods(struct coordinator *coordinator, struct rpc_method *methods_out);
size_t service_documents_methods(struct coordinator *coordinator, struct rpc_method *methods_out);
size_t service_generation_methods(struct coordinator *coordinator, struct rpc_method *methods_out);
size_t service_admin_methods(struct coordinator *coordinator, struct rpc_method *methods_out);

#endif
