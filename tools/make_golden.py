#!/usr/bin/env python3
"""Make the golden files of tests/data/golden with transformers in float32, on a CPU, offline.

    pip install torch transformers safetensors tokenizers
    python tools/convert_smollm2.py SMOLLM2_DIR
    python tools/make_golden.py [--smollm2 SMOLLM2_DIR] [--only NAME,..]

Three kinds of case, all in the format that tests/data/golden/README.md describes: needle-9m (in the
repository), SmolLM2-135M-Instruct (ids and log-probabilities only) and tiny random models, whose
folders are written too. Weights keep the dtype in which they are stored and are widened to float32,
so that the golden values hold no rounding but float32's.
"""

import argparse
import json
import pathlib
import shutil
import sys

import safetensors.torch
import tokenizers
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "data" / "golden"
NEEDLE = ROOT / "models" / "needle-9m"

TEXT_TOKENS = 2000
TINY_TOKENS = 300
GREEDY_TOKENS = 64

# Chosen for long runs without near ties, so that a greedy comparison reaches far.
NEEDLE_QUESTIONS = (
    "What is the access code for Marble Tower?",
    "What is the serial number of Silver Orchard?",
    "What is the phone extension of unit KT-316?",
    'Continue the quote: "they came into the country of Moab, and"',
    'Continue the quote: "Then she arose with her daughters in law"',
    'Continue the quote: "Surely we will return with thee"',
    'Continue the quote: "and Orpah kissed her mother in law"',
    'Continue the quote: "shall mean the copyright owner or"',
)
CHAT_QUESTIONS = (
    "Write a Python function that adds two numbers.",
    "Write a C program that prints Hello, World!",
    "Explain what a CPU is.",
    "List the planets of the solar system in order.",
    "What is the boiling point of water?",
    "List the twelve months of the year.",
    "Repeat the word hello twenty times.",
)
BARE_PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"

# What every tiny model has unless its row says otherwise. The FFN is an odd number of 16s, so that
# it splits unevenly over ranks; max_position_embeddings holds the 300 tokens.
TINY_DEFAULTS = {
    "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 256, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1024, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "hidden_act": "silu",
}
# config.json comes in several spellings; each is used by one model.
TINY_MODELS = {
    "llama-default": {"arch": "llama", "dtype": "bfloat16", "tie_word_embeddings": True,
                      "num_attention_heads": 8, "num_hidden_layers": 3},
    "llama-linear": {"arch": "llama", "dtype": "float16", "head_dim": 32,
                     "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-llama3": {"arch": "llama", "dtype": "bfloat16", "hidden_size": 96,
                     "num_attention_heads": 6, "num_key_value_heads": 3,
                     "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                      "high_freq_factor": 4.0,
                                      "original_max_position_embeddings": 64}},
    "llama-yarn": {"arch": "llama", "dtype": "float32", "tie_word_embeddings": True,
                   "num_key_value_heads": 2,
                   "rope_scaling": {"rope_type": "yarn", "factor": 16.0,
                                    "original_max_position_embeddings": 64}},
    "qwen2": {"arch": "qwen2", "dtype": "bfloat16", "tie_word_embeddings": True,
              "num_key_value_heads": 2},
    # Two shards; the form in which transformers 5 saves: rope_parameters and dtype.
    "qwen3-sharded": {"arch": "qwen3", "dtype": "bfloat16", "head_dim": 32, "shards": 2,
                      "num_key_value_heads": 4, "num_attention_heads": 8,
                      "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000000.0,
                                          "factor": 4.0, "attention_factor": 1.1, "beta_fast": 24.0,
                                          "beta_slow": 2.0,
                                          "original_max_position_embeddings": 256}},
}


def load(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True)
    return model.eval()


def read_tokenizer(folder):
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(tokenizer, text, is_template=False):
    tokenizer.encode_special_tokens = not is_template
    return tokenizer.encode(text, add_special_tokens=False).ids


def margins(log_probs):
    """Best token of each row, and by how much its log-probability leads the second's."""
    best = log_probs.topk(2, dim=-1)
    return best.indices[..., 0].tolist(), (best.values[..., 0] - best.values[..., 1]).tolist()


def score(model, tokens):
    """Log-probability of each next token, the top token and its margin; [tokens - 1] each."""
    log_probs = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    actual = log_probs.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()
    top, margin = margins(log_probs)
    return {"logprob": actual, "top": top, "margin": margin}


def continue_greedily(model, prompt):
    """GREEDY_TOKENS tokens after the prompt; end tokens do not end it."""
    cache = transformers.DynamicCache()
    tokens, margin, step = [], [], prompt
    while len(tokens) < GREEDY_TOKENS:
        logits = model(torch.tensor([step]), past_key_values=cache, logits_to_keep=1).logits[0]
        top, lead = margins(logits.log_softmax(-1))
        tokens += top
        margin += lead
        step = top
    return {"prompt": prompt, "tokens": tokens, "margin": margin}


def to_json(value):
    """One line for each array of numbers, floats with four decimals."""
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return "[" + ",".join(f"{x:.4f}" if isinstance(x, float) else str(x) for x in value) + "]"
    if isinstance(value, list):
        return "[\n" + ",\n".join(to_json(row) for row in value) + "\n]"
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {to_json(row)}"
                                  for key, row in value.items()) + "\n}"
    return json.dumps(value)


def write_case(name, model_path, model, tokens, prompts):
    if not 0 <= min(tokens) <= max(tokens) < model.config.vocab_size:
        sys.exit(f"make_golden: {name}: a token is outside the vocabulary")
    case = {
        "model": model_path,
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, float32",
        "tokens": tokens,
        **score(model, tokens),
        "greedy": [continue_greedily(model, prompt) for prompt in prompts],
    }
    (GOLDEN / f"{name}.json").write_text(to_json(case) + "\n")
    mean = -sum(case["logprob"]) / len(case["logprob"])
    sure = sum(margin > 0.1 for margin in case["margin"]) / len(case["margin"])
    print(f"{name}: {len(tokens)} tokens, mean -logprob {mean:.3f}, margin > 0.1 at {sure:.1%}; "
          f"first margin < 0.1 of each greedy run: "
          f"{[first_below(run['margin'], 0.1) for run in case['greedy']]}")


def first_below(values, bound):
    return next((index for index, value in enumerate(values) if value < bound), len(values))


def make_needle(text):
    """The text as a document, cut so that a question and its answer fit behind it."""
    tokenizer = read_tokenizer(NEEDLE)
    prefix = encode(tokenizer, "<|im_start|>user\n", is_template=True)
    document = encode(tokenizer, text)

    def ask(question, document_tokens):
        rest = (encode(tokenizer, "\n\nQuestion: ") + encode(tokenizer, question)
                + encode(tokenizer, "<|im_end|>\n<|im_start|>assistant\n", is_template=True))
        return prefix + document[:document_tokens] + rest

    ending = ask(NEEDLE_QUESTIONS[0], 0)[len(prefix):] + encode(tokenizer, "40718")
    ending += encode(tokenizer, "<|im_end|>", is_template=True)
    tokens = prefix + document[:TEXT_TOKENS - len(prefix) - len(ending)] + ending
    prompts = [ask(question, 1700) for question in NEEDLE_QUESTIONS]
    write_case("needle-9m", "models/needle-9m", load(NEEDLE), tokens, prompts)


def make_smollm2(folder, text):
    tokenizer = read_tokenizer(folder)
    prompts = [encode(tokenizer, "<|im_start|>user\n", is_template=True)
               + encode(tokenizer, question)
               + encode(tokenizer, "<|im_end|>\n<|im_start|>assistant\n", is_template=True)
               for question in CHAT_QUESTIONS]
    document = encode(tokenizer, text)
    prompts.append(encode(tokenizer, BARE_PROMPT))
    write_case("smollm2-135m", "made by tools/convert_smollm2.py", load(folder),
               document[:TEXT_TOKENS], prompts)


def random_weight(name, shape, hidden, generator):
    """Sizes that keep every part of the model in the result (a wrong RoPE, bias or norm moves the
    log-probabilities by 0.2 to 1 in the mean), and bfloat16 activations below 0.02."""
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.2 * noise
    if name.endswith("bias"):
        return 0.5 * noise
    if "embed_tokens" in name or "lm_head" in name:
        return noise * 1.6 / hidden ** 0.5
    # The layers' outputs outweigh the embedding, also where it is the output weight.
    gain = 2.0 if "o_proj" in name or "down_proj" in name else 1.0
    return noise * gain / shape[-1] ** 0.5


def write_tiny_model(folder, row):
    row = dict(row)
    arch, dtype, shards = row.pop("arch"), row.pop("dtype"), row.pop("shards", 1)
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
    config = {"architectures": [names[arch]], "model_type": arch, **TINY_DEFAULTS, **row,
              "bos_token_id": None, "eos_token_id": 0}
    config["dtype" if "rope_parameters" in row else "torch_dtype"] = dtype
    if "rope_parameters" in row:
        del config["rope_theta"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    empty = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(sum(folder.name.encode()))
    tensors = {}
    for name, parameter in empty.state_dict().items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        weight = random_weight(name, parameter.shape, config["hidden_size"], generator)
        tensors[name] = weight.to(getattr(torch, dtype)).contiguous()
    write_shards(folder, tensors, shards)


def write_shards(folder, tensors, shards):
    if shards == 1:
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[len(names) * shard // shards:len(names) * (shard + 1) // shards]
        safetensors.torch.save_file({name: tensors[name] for name in part}, folder / file,
                                    {"format": "pt"})
        weight_map |= {name: file for name in part}
    total = sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")


def make_tiny(name):
    folder = GOLDEN / "tiny" / name
    write_tiny_model(folder, TINY_MODELS[name])
    model = load(folder)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, model.config.vocab_size, (TINY_TOKENS,), generator=generator).tolist()
    write_case(f"tiny-{name}", f"tests/data/golden/tiny/{name}", model, tokens,
               [tokens[:20], tokens[100:220]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--smollm2", type=pathlib.Path, help="folder made by convert_smollm2.py")
    parser.add_argument("--only", help="names of cases, comma-separated (default: all)")
    args = parser.parse_args()
    cases = {"needle-9m": lambda: make_needle(text),
             "smollm2-135m": lambda: make_smollm2(args.smollm2, text)}
    cases |= {f"tiny-{name}": (lambda name=name: make_tiny(name)) for name in TINY_MODELS}
    wanted = args.only.split(",") if args.only else list(cases)
    unknown = sorted(set(wanted) - set(cases))
    if unknown:
        sys.exit(f"make_golden: no case {', '.join(unknown)}; there are {', '.join(cases)}")
    if "smollm2-135m" in wanted and args.smollm2 is None:
        sys.exit("make_golden: smollm2-135m needs --smollm2")
    text = (GOLDEN / "text.txt").read_text(encoding="utf-8")
    torch.set_grad_enabled(False)
    for name in wanted:
        cases[name]()


if __name__ == "__main__":
    main()
