#!/usr/bin/env python3
"""The peers in Python on one GPU, as JSON lines {"key", "unit", "runs", "note"}.

    torch_peers.py ITEM.. --model-config DIR [--repeat 3] [--warm-up-s 10]

    transformers TOKENS  Hugging Face transformers with SDPA, random weights in bf16: a prefill, then
                         decode steps behind it
    cudnn TOKENS         causal attention of one call, Llama-3.1-8B's 32 and 8 heads of 128, by torch's
                         SDPA over cuDNN
    flash TOKENS         the same over FlashAttention-2
    cudnn-full QxK       Q queries over K keys without a mask
    cudnn-chunks TOKENS  causal attention in chunks of 8192, measured at some positions and integrated

Exits 77 where torch or transformers is missing."""

import argparse
import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    print(f"torch_peers: {error}", file=sys.stderr)
    sys.exit(77)

Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
CHUNK, POINTS = 8192, (1 / 16, 1 / 4, 1 / 2, 1)  # of the positions that are integrated
DECODE_STEPS, PIECE = 8, 16384


def report(key, unit, runs, note=""):
    print(json.dumps({"key": key, "unit": unit, "runs": runs, "note": note}), flush=True)


def timed(call):
    """Milliseconds, and what the call returns."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start), result


def repeat(args, call):
    """Milliseconds of each run, after whatever is left of the warm-up."""
    end = time.monotonic() + args.warm_up_s
    args.warm_up_s = 0
    while time.monotonic() < end:
        timed(call)
    return [timed(call)[0] for _ in range(args.repeat)]


def random_heads(heads, tokens):
    return torch.randn(1, heads, tokens, HEAD_DIM, dtype=torch.bfloat16, device="cuda")


def attention(backend, queries, keys, is_causal):
    """A call that ran once, and what had to be done for it."""
    q, k, v = (random_heads(heads, tokens) for heads, tokens in
               ((Q_HEADS, queries), (KV_HEADS, keys), (KV_HEADS, keys)))

    def call():
        with sdpa_kernel([backend]):
            F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=k.shape[1] < Q_HEADS)
    try:
        call()
    except RuntimeError as error:
        print(f"torch_peers: {backend}: {error}; with repeated KV heads instead", file=sys.stderr)
        k, v = (x.repeat_interleave(Q_HEADS // KV_HEADS, 1) for x in (k, v))
        call()
        return call, "KV heads repeated"
    return call, ""


def causal(args, program, tokens):
    backend = SDPBackend.CUDNN_ATTENTION if program == "cudnn" else SDPBackend.FLASH_ATTENTION
    call, note = attention(backend, tokens, tokens, True)
    report(f"{program} {tokens} time", "ms", repeat(args, call), note)


def full(args, queries, keys):
    call, note = attention(SDPBackend.CUDNN_ATTENTION, queries, keys, False)
    flop = 4 * queries * keys * Q_HEADS * HEAD_DIM
    report(f"cudnn-full {queries}x{keys} rate", "TFLOP/s",
           [flop / ms * 1e-9 for ms in repeat(args, call)], note)


def between(points, position):
    """Linear between the two neighbours; points: (position, value), rising."""
    for (left, low), (right, high) in zip(points, points[1:]):
        if position <= right:
            return low + (high - low) * (position - left) / (right - left)
    raise ValueError(position)


def chunks(args, tokens):
    """Each chunk: its own tokens causally, and those before it by a call whose time is interpolated."""
    call, note = attention(SDPBackend.CUDNN_ATTENTION, CHUNK, CHUNK, True)
    own = repeat(args, call)
    curves = [[(0, 0.0)] for _ in own]
    for position in sorted({-(-int(point * tokens) // CHUNK) * CHUNK for point in POINTS}):
        call, _ = attention(SDPBackend.CUDNN_ATTENTION, CHUNK, position, False)
        for curve, ms in zip(curves, repeat(args, call)):
            curve.append((position, ms))
        del call
    totals = [sum(ms + between(curve, first) for first in range(0, tokens, CHUNK))
              for ms, curve in zip(own, curves)]
    report(f"cudnn-chunks {tokens} time", "ms", totals, f"integrated{', ' + note if note else ''}")


def make_model(folder):
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16,
                                                              attn_implementation="sdpa")
    return model.eval(), f"transformers {transformers.__version__}"


def prefill(model, ids, piece):
    cache = None
    for first in range(0, ids.shape[1], piece):
        out = model(ids[:, first:first + piece], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
    return out


def decode(model, out):
    """Milliseconds of each step but the first."""
    runs = []
    for _ in range(DECODE_STEPS):
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        ms, out = timed(lambda: model(token, past_key_values=out.past_key_values, use_cache=True))
        runs.append(ms)
    return runs[1:]


def generate(args, tokens):
    model, note = make_model(args.model_config)
    ids = torch.randint(model.config.vocab_size, (1, tokens), device="cuda")
    piece, runs, warm_ms = tokens, [], 0.0
    try:
        warm_ms += timed(lambda: prefill(model, ids, piece))[0]
    except torch.cuda.OutOfMemoryError:
        piece, note = PIECE, f"{note}, in pieces of {PIECE} tokens"
    while len(runs) < args.repeat:
        out = None  # two runs' caches may not fit
        torch.cuda.empty_cache()
        ms, out = timed(lambda: prefill(model, ids, piece))
        if warm_ms >= 1e3 * args.warm_up_s:
            runs.append(ms / 1e3)
        warm_ms += ms
    report(f"transformers {tokens} prefill", "s", runs, note)
    report(f"transformers {tokens} decode", "ms a token", decode(model, out), note)


def measure(args, item):
    program, size = item.split()
    if program == "transformers":
        generate(args, int(size))
    elif program == "cudnn-full":
        full(args, *map(int, size.split("x")))
    elif program == "cudnn-chunks":
        chunks(args, int(size))
    elif program in ("cudnn", "flash"):
        causal(args, program, int(size))
    else:
        sys.exit(f"torch_peers: {item}: no such item")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("items", nargs="+")
    parser.add_argument("--model-config", required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--warm-up-s", type=float, default=10)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch_peers: torch sees no GPU")
    with torch.inference_mode():
        for item in args.items:
            measure(args, item)


if __name__ == "__main__":
    main()
