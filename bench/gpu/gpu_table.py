#!/usr/bin/env python3
"""The speed of tca on GPUs beside its peers, in one run: a table of figures and what is wanted of them.

    gpu_table.py --tca-bench PATH --kernels-bench PATH --out DIR [--gpus 2] [--rows NAME,..]

DIR gets measured.jsonl (every measurement; a run that is started again goes on from there),
figures.jsonl, table.md and the programs' logs. A measurement that fails or takes too long is reported
in the table, and the rest goes on. docs/benchmarks.md says what is needed."""

import argparse
import json
import pathlib
import sys
import time

import clocks
import jobs
import rows as table

# Llama-3.1-8B, with room for a million tokens.
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "rope_scaling": {
        "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "max_position_embeddings": 1048576, "tie_word_embeddings": False, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "bos_token_id": 128000, "eos_token_id": 128001,
    "torch_dtype": "bfloat16"}


class Results:
    """measured.jsonl: what the machine is, then one measurement a line."""

    def __init__(self, path, machine):
        self.path, self.measured, self.errors = path, {}, {}
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if lines and lines[0] != machine:
            sys.exit(f"{path} was made on {lines[0]}, this is {machine}: choose another folder")
        if not lines:
            self._append(machine)
        self.measured = {line["key"]: line for line in lines[1:]}

    def add(self, **measured):
        self.measured[measured["key"]] = measured
        self._append(measured)

    def _append(self, line):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def measure_group(args, name, items, wanted, results, sampler):
    """Where a process fails, the first of its items that is missing is at fault: on with the others."""
    def take(line, since, now):
        for key, unit, runs, note in jobs.measurements(line):
            results.add(key=key, unit=unit, runs=runs, note=note, clocks=sampler.between(since, now))

    while items:
        began = time.monotonic()
        error = jobs.run(jobs.command(args, items), args.out / f"{name}.log", args.timeout_s, take)
        left = [item for item in items if any(key.rsplit(" ", 1)[0] == item
                                              and key not in results.measured for key in wanted)]
        jobs.say(f"{name}: {len(items) - len(left)} of {len(items)} in "
                 f"{time.monotonic() - began:.0f} s{': ' + error if error else ''}")
        if left:
            results.errors[left[0]] = f"{name}: {error or 'the program did not print it'}"
        items = left[1:]


def chosen_rows(args):
    rows = table.all_rows(args.tokens, args.layer_tokens, args.group_tokens,
                          jobs.KERNELS_CHUNK[args.device])
    if args.rows is None:
        return [row for row in rows if row.gpus == args.gpus]
    names = args.rows.split(",")
    unknown = set(names) - {row.name for row in rows}
    if unknown:
        sys.exit(f"--rows: {', '.join(sorted(unknown))}: no such row, there are "
                 f"{', '.join(row.name for row in rows)}")
    return [row for row in rows if row.name in names]


def write_config(args):
    if args.model_config is None:
        folder = args.out / "llama-3.1-8b"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        args.model_config = str(folder)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tca-bench", required=True)
    parser.add_argument("--kernels-bench", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--model-config", help="a folder with config.json; default: Llama-3.1-8B's shape")
    parser.add_argument("--gpus", type=int, choices=(1, 2), default=1, help="whose rows, without --rows")
    parser.add_argument("--rows", help="names of rows, with commas between them")
    parser.add_argument("--repeat", type=int, default=3, help="runs of a measurement")
    parser.add_argument("--warm-up-s", type=int, default=10, help="before a program's first")
    parser.add_argument("--timeout-s", type=int, default=300, help="of a program")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch")
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--layer-tokens", type=int, default=1048576, help="of the row attention-1m")
    parser.add_argument("--group-tokens", type=int, default=1000000, help="of the rows two-1m")
    parser.add_argument("--chunk", type=int, default=4096,
                        help="of the models' prefills; tca-bench-kernels has its own")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--threads", type=int, default=0, help="of a CPU rank")
    return parser.parse_args()


def main():
    args = parse_arguments()
    rows = chosen_rows(args)
    args.out.mkdir(parents=True, exist_ok=True)
    write_config(args)
    machine = clocks.machine()
    results = Results(args.out / "measured.jsonl", machine)
    wanted = list(dict.fromkeys(key for row in rows for key in (row.ours, row.peer) if key is not None))
    items = dict.fromkeys(key.rsplit(" ", 1)[0] for key in wanted if key not in results.measured)
    sampler = clocks.Clocks()
    try:
        for name, group in jobs.groups(items).items():
            measure_group(args, name, group, wanted, results, sampler)
    finally:
        sampler.stop()
        figures = [table.figure(row, results.measured, results.errors) for row in rows]
        text = table.markdown(rows, figures, machine)
        (args.out / "figures.jsonl").write_text("".join(
            json.dumps(one | machine) + "\n" for one in figures))
        (args.out / "table.md").write_text(text)
        print(text, end="")
    sys.exit(1 if any(one["error"] for one in figures) else 0)


if __name__ == "__main__":
    main()
