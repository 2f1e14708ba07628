/* transformers computes these with torch's float32 tensors and Python's doubles; the types below
 * follow it step by step, so that angles agree at a million positions. */
#include "model/rope.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925286766559;

static float tokens_per_radian(const struct rope_config *rope, int i, int head_dim)
{
    return powf((float)rope->theta, (float)(2 * i) / (float)head_dim);
}

/* inv_freq[half]. */
static void stretch_llama3(const struct rope_config *rope, int max_positions, float *inv_freq,
                           int half)
{
    const double positions =
        rope->original_max_positions > 0 ? rope->original_max_positions : max_positions;
    const float low_wavelength = (float)(positions / rope->low_freq_factor);
    const float high_wavelength = (float)(positions / rope->high_freq_factor);
    const float factor = (float)rope->factor;

    for (int i = 0; i < half; i++) {
        float wavelength = (float)two_pi / inv_freq[i];
        float smooth;

        if (wavelength > low_wavelength) {
            inv_freq[i] /= factor;
        } else if (wavelength >= high_wavelength) {
            smooth = ((float)positions / wavelength - (float)rope->low_freq_factor) /
                     (float)(rope->high_freq_factor - rope->low_freq_factor);
            inv_freq[i] = (1.0F - smooth) * inv_freq[i] / factor + smooth * inv_freq[i];
        }
    }
}

/* The dimension that turns `rotations` times over `positions` tokens (arXiv 2309.00071, eq. 17). */
static double correction_dim(double rotations, int head_dim, double theta, double positions)
{
    return head_dim * log(positions / (rotations * two_pi)) / (2 * log(theta));
}

static void stretch_yarn(const struct rope_config *rope, int head_dim, int max_positions,
                         float *inv_freq)
{
    const double positions =
        rope->original_max_positions > 0 ? rope->original_max_positions : max_positions;
    double low = correction_dim(rope->beta_fast, head_dim, rope->theta, positions);
    double high = correction_dim(rope->beta_slow, head_dim, rope->theta, positions);

    if (!rope->keeps_fractions) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, head_dim - 1);
    if (low == high)
        high += 0.001; /* no division by zero */
    for (int i = 0; i < head_dim / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float kept = 1.0F - fminf(fmaxf(ramp, 0.0F), 1.0F);
        float stretched = 1.0F / ((float)rope->factor * tokens_per_radian(rope, i, head_dim));

        inv_freq[i] = stretched * (1.0F - kept) + inv_freq[i] * kept;
    }
}

static float yarn_magnitude(const struct rope_config *rope)
{
    if (rope->attention_factor > 0)
        return (float)rope->attention_factor;
    return rope->factor <= 1 ? 1.0F : (float)(0.1 * log(rope->factor) + 1.0);
}

void rope_frequencies(const struct rope_config *rope, int head_dim, int max_positions,
                      float *inv_freq_out, float *magnitude_out)
{
    const int half = head_dim / 2;

    for (int i = 0; i < half; i++)
        inv_freq_out[i] = 1.0F / tokens_per_radian(rope, i, head_dim);
    *magnitude_out = 1.0F;
    switch (rope->type) {
    case ROPE_DEFAULT:
        break;
    case ROPE_LINEAR:
        for (int i = 0; i < half; i++)
            inv_freq_out[i] /= (float)rope->factor;
        break;
    case ROPE_LLAMA3:
        stretch_llama3(rope, max_positions, inv_freq_out, half);
        break;
    case ROPE_YARN:
        stretch_yarn(rope, head_dim, max_positions, inv_freq_out);
        *magnitude_out = yarn_magnitude(rope);
        break;
    }
}
