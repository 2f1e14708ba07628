"""Who measures what: one process for all measurements of a program, so that weights are made once."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUESTION_TOKENS, DECODE_TOKENS = 64, 64
KERNELS_CHUNK = {"cuda": 8192, "cpu": 1024}  # tca-bench-kernels' own, whatever --chunk says
GROUP_KV_BYTES = "68G"  # of a rank, for a document of a million tokens on two
LONG_TOKENS = 500_000  # above: one run to warm up is enough, and takes long


def groups(items):
    """{name of a process: its items}, in their order."""
    found = {}
    for item in items:
        program, size = item.split()[:2]
        name = {"layer": "kernels", "chunk": "kernels", "transformers": "transformers"}.get(
            program, f"{program}-{size}" if program.startswith("tca") else "attention")
        found.setdefault(name, []).append(item)
    if "kernels" in found:  # in the order in which they are measured
        found["kernels"].sort(key=lambda item: item.startswith("chunk"))
    return found


def command(args, items):
    """What measures the items of one group, a JSON object a line."""
    program = items[0].split()[0]
    if program in ("layer", "chunk"):
        return _kernels_command(args, items)
    if program.startswith("tca"):
        return _tca_command(args, items)
    return [args.python, str(ROOT / "bench" / "gpu" / "torch_peers.py"), *items, "--model-config",
            args.model_config, "--repeat", str(args.repeat), "--warm-up-s", str(args.warm_up_s)]


def _kernels_command(args, items):
    lists = {"layer": [], "chunk": []}
    for item in items:
        program, size, keep = item.split()
        lists[program].append(f"{size}:{keep}")
    if not lists["layer"]:  # the warm-up is before a prefill
        lists["layer"] = lists["chunk"][:1]
    options = [word for option, program in (("--prefill", "layer"), ("--chunk", "chunk"))
               if lists[program] for word in (option, ",".join(lists[program]))]
    return [args.kernels_bench, "--device", args.device, "--threads", str(args.threads), "--json",
            "--warm-up-s", str(args.warm_up_s), *options]


def _tca_command(args, items):
    program, size = items[0].split()[:2]
    ranks, is_long = int(program.removeprefix("tca")), int(size) > LONG_TOKENS
    start = [str(ROOT / "tests" / "support" / "mpirun.sh"), str(ranks)] if ranks > 1 else []
    return [*start, args.tca_bench, "--model", args.model_config, "--dummy-weights", "--json",
            "--device", args.device, "--local-ranks", "0" if ranks > 1 else "1",
            "--threads", str(args.threads), "--chunk", str(args.chunk), "--prompt-tokens", size,
            "--question-tokens", str(QUESTION_TOKENS), "--decode-tokens", str(DECODE_TOKENS),
            "--repeat", str(args.repeat), "--warm-up", "0" if is_long else "1",
            "--warm-up-s", str(args.warm_up_s), *(("--kv-memory", GROUP_KV_BYTES) if is_long else ()),
            "--settings", ",".join(item.split()[2] for item in items)]


def measurements(line):
    """(key, unit, runs, note) of one JSON object that a program printed."""
    if "key" in line:
        yield line["key"], line["unit"], line["runs"], line.get("note", "")
    elif line.get("name") == "prefill":
        yield f"layer {line['tokens']} {line['keep']:g} time", "ms", line["runs_ms"], ""
    elif line.get("name", "").startswith("chunk"):
        key = f"chunk {line['position']} {line['keep']:g}"
        yield f"{key} rate", "TFLOP/s", [line["merged_tflops"]], ""
        yield f"{key} share", "%", [100 * line["selection_share"]], ""
    elif "prefill_runs_s" in line:
        key = (f"tca{line['ranks']} {line['prompt_tokens']} {line['prefill_rule']}:"
               f"{line['prefill_keep']:g}/{line['rule']}:{line['keep']:g}/{line['batch']}")
        tokens = line["decode_tokens"] * line["batch"]
        yield f"{key} prefill", "s", line["prefill_runs_s"], ""
        yield f"{key} question", "ms", [1e3 * run for run in line["question_runs_s"]], ""
        yield f"{key} decode", "ms a token", [1e3 * run / tokens for run in line["decode_runs_s"]], ""


def run(words, log_path, timeout_s, take):
    """Hand every JSON object of the process to take(object, start, end): since when it was measured.
    Returns what went wrong, or ""."""
    start = time.monotonic()
    try:
        with open(log_path, "a", encoding="utf-8") as log:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True,
                                       start_new_session=True)
    except OSError as error:
        return str(error)
    timer = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    since = start
    try:
        for text in process.stdout:
            if text.startswith("{"):
                now = time.monotonic()
                take(json.loads(text), since, now)
                since = now
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return ""
    if time.monotonic() - start >= timeout_s:
        return f"took more than {timeout_s} s"
    said = log_path.read_text(encoding="utf-8", errors="replace").split("\n")
    return f"exit {code}: {next((line for line in reversed(said) if line.strip()), 'no word why')}"


def say(text):
    print(text, file=sys.stderr, flush=True)
