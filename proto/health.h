/* grpc.health.v1.Health: Check, List and Watch over a small table of service names.
 *
 * The table starts with "" (the whole server) NOT_SERVING; other names enter by health_set. States
 * are set from any thread, and every watcher gets the newest one. */
#ifndef PROTO_HEALTH_H
#define PROTO_HEALTH_H

#include "base/status.h"
#include "proto/rpc_server.h"

enum { HEALTH_METHODS = 3, HEALTH_NAMES_MAX = 8 };

/* The numbers are those of HealthCheckResponse.ServingStatus. */
enum health_state { HEALTH_SERVING = 1, HEALTH_NOT_SERVING = 2, HEALTH_SERVICE_UNKNOWN = 3 };

struct health;

enum tca_status health_create(struct health **health_out);
void health_destroy(struct health *health); /* after the server has stopped; NULL is a no-op */

/* Fill the methods to be served; their context is `health`, borrowed. */
void health_methods(struct health *health, struct rpc_method methods_out[HEALTH_METHODS]);

/* Add a name or change its state. `service` is borrowed for the life of `health`.
 * TCA_ERR_NO_MEMORY: over HEALTH_NAMES_MAX names. */
enum tca_status health_set(struct health *health, const char *service, enum health_state state);

/* End every Watch UNAVAILABLE, so that they do not hold up rpc_server_stop. Set states first. */
void health_end_watches(struct health *health);

#endif
