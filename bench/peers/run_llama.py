#!/usr/bin/env python3
"""Speed of llama.cpp on a GGUF: prefill of a prompt and greedy decoding after it, as one JSON line.

    run_llama.py MODEL.gguf [--threads 2] [--prompt-tokens 2048] [--decode-tokens 64] [--repeat 3]

Needs llama-cpp-python (built here: pip install llama-cpp-python; CMake's GGML_NATIVE is on by
default). Flash attention is on, KV is f16 (llama.cpp's default). The keys of the line are those of
`tca-bench --json`. Figures are medians over the repetitions, after one that is not counted."""

import argparse
import ctypes
import json
import random
import statistics
import sys
import time

try:
    import llama_cpp
    import numpy
except ImportError as error:
    print(f"run_llama: {error}", file=sys.stderr)
    sys.exit(77)

SEED = 1


def open_model(path, context_tokens, threads):
    llama_cpp.llama_backend_init()
    # llama.cpp's own lines would mix with ours; the callback must outlive the call.
    open_model.log = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(open_model.log, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(path.encode(),
                                                 llama_cpp.llama_model_default_params())
    if not model:
        sys.exit(f"run_llama: {path}: not a model that llama.cpp can read")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context_tokens
    params.n_batch = 2048
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        sys.exit(f"run_llama: {path}: no context of {context_tokens} tokens")
    return model, context


def decode(context, tokens):
    array = (llama_cpp.llama_token * len(tokens))(*tokens)
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
        sys.exit("run_llama: llama_decode failed")


def best_token(context, vocab):
    logits = llama_cpp.llama_get_logits_ith(context, -1)
    return int(numpy.ctypeslib.as_array(logits, shape=(vocab,)).argmax())


def time_run(context, vocab, prompt, decode_tokens):
    """Seconds of the prefill to the first token, and of the tokens after it."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    start = time.perf_counter()
    for first in range(0, len(prompt), 2048):
        decode(context, prompt[first:first + 2048])
    token = best_token(context, vocab)
    middle = time.perf_counter()
    for _ in range(decode_tokens):
        decode(context, [token])
        token = best_token(context, vocab)
    return middle - start, time.perf_counter() - middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=2048)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()

    model, context = open_model(args.model, args.prompt_tokens + args.decode_tokens + 16,
                                args.threads)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rng = random.Random(SEED)
    prompt = [rng.randrange(vocab) for _ in range(args.prompt_tokens)]
    runs = [time_run(context, vocab, prompt, args.decode_tokens) for _ in range(args.repeat + 1)][1:]
    prefill_s, decode_s = (statistics.median(column) for column in zip(*runs))
    print(json.dumps({
        "model": args.model, "program": f"llama-cpp-python {llama_cpp.__version__}",
        "threads": args.threads, "prompt_tokens": args.prompt_tokens,
        "decode_tokens": args.decode_tokens, "repeat": args.repeat,
        "prefill_s": round(prefill_s, 6),
        "prefill_tokens_per_s": round(args.prompt_tokens / prefill_s, 2),
        "decode_s": round(decode_s, 6),
        "decode_tokens_per_s": round(args.decode_tokens / decode_s, 2)}), flush=True)


if __name__ == "__main__":
    main()
