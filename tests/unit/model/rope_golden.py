"""Print rope_golden.h: what transformers computes for every spelling of a rotary embedding.

Usage, with torch and transformers (made with torch 2.15.0, transformers 5.23.0):
    python3 rope_golden.py > rope_golden.h
"""

import json

from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 8192,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
CASES = {
    "default": {"rope_theta": 1e5},
    "default theta": {},
    "default new": {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    "linear old": {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.5}},
    "linear new": {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.5}},
    "llama3 old": {"rope_theta": 5e5, "max_position_embeddings": 131072,
                   "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "llama3 new, head_dim 128": {"head_dim": 128, "max_position_embeddings": 131072,
                                 "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3",
                                                     **LLAMA3, "factor": 32.0}},
    "yarn old": {"rope_theta": 1e6, "max_position_embeddings": 32768,
                 "rope_scaling": {"type": "yarn", "factor": 4.0,
                                  "original_max_position_embeddings": 32768}},
    "yarn new": {"max_position_embeddings": 131072,
                 "rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0,
                                     "original_max_position_embeddings": 32768,
                                     "beta_fast": 16, "beta_slow": 2}},
    "yarn without original": {"rope_theta": 1e4, "rope_scaling": {"type": "yarn", "factor": 8.0}},
    "yarn attention factor": {"rope_theta": 1e4, "rope_scaling": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096,
        "attention_factor": 1.25}},
    "yarn mscale": {"rope_theta": 1e4, "rope_scaling": {
        "rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
        "mscale": 0.707, "mscale_all_dim": 1.0}},
    "yarn fractions": {"rope_theta": 1.5e5, "rope_scaling": {
        "rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096,
        "truncate": False}},
}


def frequencies(text):
    config = AutoConfig.for_model("llama", **{k: v for k, v in json.loads(text).items()
                                              if k != "model_type"})
    rotary = LlamaRotaryEmbedding(config)
    return rotary.inv_freq, rotary.attention_scaling


print("/* Written by rope_golden.py: do not edit. */")
print("static const struct rope_golden {")
print("    const char *name, *config;\n    int half;\n    float magnitude, inv_freq[64];")
print("} rope_goldens[] = {")
for name, changes in CASES.items():
    text = json.dumps({**BASE, **changes})
    inv_freq, magnitude = frequencies(text)
    quoted = text.replace('"', '\\"')
    print(f'    {{"{name}",\n     "{quoted}",\n     {len(inv_freq)},\n     {magnitude!r}F,\n     {{')
    for value in inv_freq.tolist():
        print(f"         {value:.8e}F,")
    print("     }},")
print("};")
