#!/usr/bin/env python3
"""tca-bench against llama.cpp on the same weights and threads, run in turn on this machine.

    compare_llama.py TCA_BENCH MODEL_DIR MODEL.gguf [--threads 2] [--rounds 3] [--python PYTHON]
                     [--ranks N] [--json]

tools/convert_smollm2.py makes MODEL_DIR and MODEL.gguf. Every round runs each program once, in
alternating order, so that a machine that slows down slows both; the figures are medians over the
rounds. --ranks N adds a row for N ranks of threads / N threads each, over MPI. --python is an
interpreter that has llama-cpp-python."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIMIT_S = 900


def run(command):
    """The one JSON line that the command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode != 0:
        sys.stderr.write(done.stderr[-4000:])
        sys.exit(done.returncode if done.returncode == 77 else 1)
    return json.loads(done.stdout.splitlines()[-1])


def commands_of(args):
    sizes = ["--prompt-tokens", str(args.prompt_tokens), "--decode-tokens", str(args.decode_tokens),
             "--repeat", str(args.repeat)]
    ours = [args.tca_bench, "--model", args.model_dir, "--json", *sizes]
    commands = {
        "llama.cpp": [args.python, str(ROOT / "bench" / "peers" / "run_llama.py"), args.gguf,
                      "--threads", str(args.threads), *sizes],
        "tca": [*ours, "--local-ranks", "1", "--threads", str(args.threads)],
    }
    if args.ranks > 1:
        commands[f"tca, {args.ranks} ranks"] = [
            str(ROOT / "tests" / "support" / "mpirun.sh"), str(args.ranks), *ours,
            "--threads", str(max(1, args.threads // args.ranks))]
    return commands


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("tca_bench")
    parser.add_argument("model_dir")
    parser.add_argument("gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=2048)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3, help="counted repetitions in each program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    commands = commands_of(args)
    rates = {name: {"prefill": [], "decode": []} for name in commands}
    for number in range(args.rounds):
        for name in list(commands) if number % 2 == 0 else reversed(list(commands)):
            line = run(commands[name])
            rates[name]["prefill"].append(line["prefill_tokens_per_s"])
            rates[name]["decode"].append(line["decode_tokens_per_s"])
    base = {phase: statistics.median(values) for phase, values in rates["llama.cpp"].items()}
    rows = []
    for name, phases in rates.items():
        row = {"program": name}
        for phase, values in phases.items():
            middle = statistics.median(values)
            row |= {f"{phase}_tokens_per_s": middle, f"{phase}_least": min(values),
                    f"{phase}_most": max(values), f"{phase}_ratio": middle / base[phase]}
        rows.append(row)
    if args.json:
        print(json.dumps({"threads": args.threads, "prompt_tokens": args.prompt_tokens,
                          "decode_tokens": args.decode_tokens, "rounds": args.rounds,
                          "load_average": os.getloadavg()[0], "rows": rows}))
        return
    print(f"{args.threads} threads, prefill of {args.prompt_tokens} tokens, {args.decode_tokens} "
          f"tokens decoded after it, medians of {args.rounds} rounds (least, most), ratio to "
          f"llama.cpp; load average {os.getloadavg()[0]:.1f}")
    for row in rows:
        print(f"{row['program']:14}" + "".join(
            f"  {phase} {row[phase + '_tokens_per_s']:8.1f} tokens/s ({row[phase + '_least']:.1f}, "
            f"{row[phase + '_most']:.1f}) {row[phase + '_ratio']:.2f}x"
            for phase in ("prefill", "decode")))


if __name__ == "__main__":
    main()
