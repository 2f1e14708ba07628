/* Frequencies of rotary position embeddings (RoFormer, arXiv 2104.09864) and their stretched
 * forms: linear, llama3 (Llama 3.1's wavelength-dependent factor), yarn (arXiv 2309.00071). */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/model_config.h"

/* inv_freq_out: [head_dim / 2]. *magnitude_out multiplies cos and sin (yarn's attention factor,
 * else 1). Equal to transformers' in float32. */
void rope_frequencies(const struct rope_config *rope, int head_dim, int max_positions,
                      float *inv_freq_out, float *magnitude_out);

#endif
