/* The rotary embedding's part of a config.json, in the spelling of transformers before version 5
 * (rope_theta, rope_scaling) and since (rope_parameters). For model_config.c. */
#ifndef MODEL_ROPE_CONFIG_H
#define MODEL_ROPE_CONFIG_H

#include "base/error.h"
#include "base/json.h"
#include "model/model_config.h"

/* TCA_ERR_INVALID, TCA_ERR_UNSUPPORTED: with file, key and value. */
enum tca_status rope_config_read(const struct json_node *root, int max_positions,
                                 struct rope_config *rope_out, struct tca_error *error);

#endif
