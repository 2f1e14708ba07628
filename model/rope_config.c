#include "model/rope_config.h"

#include <math.h>
#include <string.h>

/* initial is NaN: the key is required. */
static enum tca_status read_real(const struct json_node *object, const char *key, double min,
                                 double max, double initial, double *value_out,
                                 struct tca_error *error)
{
    struct json_node node = json_node_get(object, key);

    *value_out = initial;
    if (!isnan(initial) && !json_node_exists(&node))
        return TCA_OK;
    TCA_TRY(json_node_double(&node, value_out, error));
    if (!(*value_out >= min && *value_out <= max))
        return json_node_fail(&node, error, TCA_ERR_INVALID, "= %g must be from %g to %g",
                              *value_out, min, max);
    return TCA_OK;
}

static enum tca_status read_type(const struct json_node *parameters, enum rope_type *type_out,
                                 struct tca_error *error)
{
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default",
        [ROPE_LINEAR] = "linear",
        [ROPE_LLAMA3] = "llama3",
        [ROPE_YARN] = "yarn",
    };
    struct json_node node = json_node_get(parameters, "rope_type");
    const char *text;
    size_t bytes;

    *type_out = ROPE_DEFAULT;
    if (!json_node_exists(&node))
        node = json_node_get(parameters, "type");
    if (!json_node_exists(&node))
        return TCA_OK;
    TCA_TRY(json_node_string(&node, &text, &bytes, error));
    for (int i = 0; i <= ROPE_YARN; i++)
        if (strlen(names[i]) == bytes && memcmp(names[i], text, bytes) == 0) {
            *type_out = (enum rope_type)i;
            return TCA_OK;
        }
    return json_node_fail(&node, error, TCA_ERR_UNSUPPORTED,
                          "= \"%.80s\" is not supported, allowed: default, linear, llama3, yarn",
                          text);
}

/* A key beside the parameters wins over one inside, and the model's own length is the default. */
static enum tca_status read_original_positions(const struct json_node *root,
                                               const struct json_node *parameters,
                                               int max_positions, struct rope_config *rope,
                                               struct tca_error *error)
{
    static const char key[] = "original_max_position_embeddings";
    struct json_node node = json_node_get(root, key);
    int64_t positions = max_positions;

    if (!json_node_exists(&node))
        node = json_node_get(parameters, key);
    if (json_node_exists(&node))
        TCA_TRY(json_node_int(&node, 1, MODEL_POSITIONS_MAX, &positions, error));
    rope->original_max_positions = (int)positions;
    return TCA_OK;
}

static enum tca_status read_llama3(const struct json_node *parameters, struct rope_config *rope,
                                   struct tca_error *error)
{
    struct json_node high = json_node_get(parameters, "high_freq_factor");

    TCA_TRY(read_real(parameters, "low_freq_factor", 1e-3, 1e6, (double)NAN, &rope->low_freq_factor,
                      error));
    TCA_TRY(read_real(parameters, "high_freq_factor", 1e-3, 1e6, (double)NAN,
                      &rope->high_freq_factor, error));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return json_node_fail(&high, error, TCA_ERR_INVALID,
                              "= %g must be greater than low_freq_factor = %g",
                              rope->high_freq_factor, rope->low_freq_factor);
    return TCA_OK;
}

/* What multiplies cos and sin for a stretch of `scale`. */
static double mscale_of(double scale, double mscale)
{
    return scale <= 1 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static enum tca_status read_yarn(const struct json_node *parameters, struct rope_config *rope,
                                 struct tca_error *error)
{
    struct json_node truncate = json_node_get(parameters, "truncate");
    struct json_node fast = json_node_get(parameters, "beta_fast");
    double mscale, mscale_all_dim;
    bool truncates = true;

    TCA_TRY(read_real(parameters, "beta_fast", 1e-3, 1e6, 32, &rope->beta_fast, error));
    TCA_TRY(read_real(parameters, "beta_slow", 1e-3, 1e6, 1, &rope->beta_slow, error));
    if (rope->beta_fast < rope->beta_slow)
        return json_node_fail(&fast, error, TCA_ERR_INVALID,
                              "= %g must not be less than beta_slow = %g", rope->beta_fast,
                              rope->beta_slow);
    TCA_TRY(
        read_real(parameters, "attention_factor", 1e-3, 1e3, 0, &rope->attention_factor, error));
    TCA_TRY(read_real(parameters, "mscale", 0, 1e3, 0, &mscale, error));
    TCA_TRY(read_real(parameters, "mscale_all_dim", 0, 1e3, 0, &mscale_all_dim, error));
    if (rope->attention_factor <= 0 && mscale > 0 && mscale_all_dim > 0)
        rope->attention_factor =
            mscale_of(rope->factor, mscale) / mscale_of(rope->factor, mscale_all_dim);
    if (json_node_exists(&truncate))
        TCA_TRY(json_node_bool(&truncate, &truncates, error));
    rope->keeps_fractions = !truncates;
    return TCA_OK;
}

/* A yarn factor that is null is the ratio of the lengths. */
static enum tca_status read_factor(const struct json_node *parameters, int max_positions,
                                   struct rope_config *rope, struct tca_error *error)
{
    double initial = (double)NAN;

    if (rope->type == ROPE_YARN && max_positions > rope->original_max_positions)
        initial = (double)max_positions / rope->original_max_positions;
    return read_real(parameters, "factor", 1, 1e6, initial, &rope->factor, error);
}

static enum tca_status read_stretch(const struct json_node *root,
                                    const struct json_node *parameters, int max_positions,
                                    struct rope_config *rope, struct tca_error *error)
{
    if (rope->type == ROPE_DEFAULT)
        return TCA_OK;
    if (rope->type != ROPE_LINEAR)
        TCA_TRY(read_original_positions(root, parameters, max_positions, rope, error));
    TCA_TRY(read_factor(parameters, max_positions, rope, error));
    if (rope->type == ROPE_LLAMA3)
        return read_llama3(parameters, rope, error);
    return rope->type == ROPE_YARN ? read_yarn(parameters, rope, error) : TCA_OK;
}

static enum tca_status refuse_partial(const struct json_node *object, struct tca_error *error)
{
    struct json_node node = json_node_get(object, "partial_rotary_factor");
    double part = 1;

    if (json_node_exists(&node))
        TCA_TRY(json_node_double(&node, &part, error));
    if (part < 1 || part > 1)
        return json_node_fail(&node, error, TCA_ERR_UNSUPPORTED,
                              "= %g is not supported, allowed: 1", part);
    return TCA_OK;
}

enum tca_status rope_config_read(const struct json_node *root, int max_positions,
                                 struct rope_config *rope_out, struct tca_error *error)
{
    struct json_node parameters = json_node_get(root, "rope_parameters");
    struct json_node scaling = json_node_get(root, "rope_scaling");
    struct rope_config rope = {0};

    if (json_node_exists(&parameters) && json_node_exists(&scaling))
        return json_node_fail(&scaling, error, TCA_ERR_UNSUPPORTED,
                              "is set beside rope_parameters, allowed: one of them");
    if (json_node_exists(&scaling))
        parameters = scaling;
    if (json_node_exists(&parameters))
        TCA_TRY(json_node_expect(&parameters, JSON_TYPE_OBJECT, error));
    TCA_TRY(refuse_partial(root, error));
    TCA_TRY(refuse_partial(&parameters, error));
    TCA_TRY(read_type(&parameters, &rope.type, error));
    TCA_TRY(read_real(root, "rope_theta", 1.001, 1e12, 10000, &rope.theta, error));
    TCA_TRY(read_real(&parameters, "rope_theta", 1.001, 1e12, rope.theta, &rope.theta, error));
    TCA_TRY(read_stretch(root, &parameters, max_positions, &rope, error));
    *rope_out = rope;
    return TCA_OK;
}
