#!/usr/bin/env python3
"""Questions with known answers, asked of the service densely and under TCA's rules.

    tca_quality.py run --preset needles-32k                   # or --task .. --length .. --ask ..
    tca_quality.py report bench/results/needles-32k.jsonl --plot needles-32k.png
    tca_quality.py corpus --part calibration --out DIR        # texts for tca-calibrate
    tca_quality.py list                                       # tasks and presets

A run appends each result to its file and goes on where it ended when it is started again. It exits
with 1 when the server refused a setting, or a preset's figures do not hold; with 130 after Ctrl-C."""

import argparse
import dataclasses
import importlib
import pathlib
import signal
import sys
from types import ModuleType

import texts
from plan import PRESETS, ROOT, TASKS, Plan
from report import Report, plot
from results import Mismatch, Results, read


def parse_options(words: list[str]) -> dict[str, str]:
    options = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"--option {word}: allowed: NAME=VALUE, as tca-coordinator --help lists")
        options[name.replace("-", "_")] = value
    return options


def plan_of(args: argparse.Namespace) -> Plan:
    """The preset, with what the command line says in its stead. ValueError: it makes no sense."""
    given = {"tasks": args.task, "lengths": args.length, "questions": args.questions,
             "per_document": args.per_document, "asks": args.ask, "prefills": args.prefill,
             "seed": args.seed, "model": args.model, "max_tokens": args.max_tokens}
    given = {name: tuple(value) if isinstance(value, list) else value
             for name, value in given.items() if value is not None}
    if args.preset:
        plan = PRESETS[args.preset]
        if set(given) - {"model", "questions"}:
            plan = dataclasses.replace(plan, gates=())  # they are of the preset's own settings
    else:
        for name in ("task", "length", "ask", "out"):
            if not getattr(args, name):
                raise ValueError(f"--{name} is missing (or --preset)")
        plan = Plan(tasks=(), lengths=(), questions=20, per_document=20, asks=())
    options = {**dict(plan.options), **parse_options(args.option)}
    plan = dataclasses.replace(plan, **given, options=tuple(sorted(options.items())))
    for task in plan.tasks:
        if task not in TASKS:
            raise ValueError(f"--task {task}: allowed: {', '.join(TASKS)}")
    if min(plan.questions, plan.per_document, *plan.lengths) < 1:
        raise ValueError("--length, --questions and --per-document: allowed: 1 or more")
    plan.settings()
    if plan.model is None and args.server is None:
        raise ValueError("--model is missing (or --server)")
    return plan


def run(args: argparse.Namespace) -> int:
    plan = plan_of(args)
    if args.plot:
        import_plot()  # to know it before the work
    source = texts.Source(args.part, tuple(args.text))
    results = Results(args.out or ROOT / "bench" / "results" / f"{args.preset}.jsonl")
    from run import run_plan  # here, because nothing else needs grpcio

    refused = run_plan(plan, source, results, args.server or args.coordinator, bool(args.server))
    report = Report(results.rows)
    write_report(report, args)
    checked = report.check(plan.gates)
    for held, what in checked:
        print(f"{'held' if held else 'NOT HELD'}: {what}")
    return 0 if not refused and all(held for held, _ in checked) else 1


def import_plot() -> ModuleType:
    """matplotlib.pyplot, drawing into files."""
    try:
        import matplotlib
    except ImportError as error:
        raise RuntimeError(f"--plot: {error} (pip install -r bench/quality/requirements.txt)") from error
    matplotlib.use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def write_report(report: Report, args: argparse.Namespace) -> None:
    if args.plot and report.answers:
        plot(report, args.plot, import_plot())
    print(report.markdown())


def show_report(args: argparse.Namespace) -> int:
    write_report(Report(read(args.file)), args)
    return 0


def write_corpus(args: argparse.Namespace) -> int:
    source = texts.Source(args.part, tuple(args.text))
    for path in texts.write(source, args.out, args.count, args.bytes, args.seed):
        print(path)
    return 0


def show_list(_args: argparse.Namespace) -> int:
    print("tasks:", *TASKS)
    for name, plan in PRESETS.items():
        print(f"{name}: {plan.questions} questions each of {', '.join(plan.tasks)} at "
              f"{', '.join(map(str, plan.lengths))} tokens; prefill {', '.join(plan.prefills)}; asks "
              f"{', '.join(plan.asks)}; model {plan.model or '(--model)'}")
    return 0


def add_text_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", action="append", default=[], metavar="DIR",
                        help="take real text from here only, not Debian's (repeatable)")
    parser.add_argument("--part", choices=texts.PARTS, default="test",
                        help="of the text's files, which a hash of their paths divides")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="ask, and report")
    one.add_argument("--preset", choices=PRESETS, help="a recorded run; other options replace its own")
    one.add_argument("--task", action="append", help="repeatable, as --length, --ask and --prefill")
    one.add_argument("--length", action="append", type=int, metavar="TOKENS",
                     help="of document, question and answer together")
    one.add_argument("--questions", type=int, metavar="N", help="of each task and length (20)")
    one.add_argument("--per-document", type=int, metavar="N", help="at most so many each (20)")
    one.add_argument("--max-tokens", type=int, metavar="N", help="of an answer (the task's)")
    one.add_argument("--ask", action="append", metavar="RULE[:KEEP]",
                     help="dense, pooled:0.05, pooled:tau=0.9, tca; evict/pooled:0.39 with the document "
                          "in the prompt")
    one.add_argument("--prefill", action="append", metavar="RULE[:KEEP]", help="dense (default), block:0.1")
    one.add_argument("--seed", type=int)
    one.add_argument("--out", type=pathlib.Path, help="result file (bench/results/PRESET.jsonl)")
    one.add_argument("--plot", type=pathlib.Path, metavar="PNG")
    one.add_argument("--server", metavar="HOST:PORT", help="ask this one, start none")
    one.add_argument("--model", metavar="DIR")
    one.add_argument("--coordinator", default=str(ROOT / "build" / "host" / "bin" / "tca-coordinator"),
                     metavar="PROGRAM")
    one.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                     help="setting of the coordinator that is started (repeatable)")
    add_text_options(one)
    one.set_defaults(function=run)
    one = commands.add_parser("report", help="tables and plot of a result file")
    one.add_argument("file", type=pathlib.Path)
    one.add_argument("--plot", type=pathlib.Path, metavar="PNG")
    one.set_defaults(function=show_report)
    one = commands.add_parser("corpus", help="write texts into a folder")
    one.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    one.add_argument("--count", type=int, default=4, help="files (4)")
    one.add_argument("--bytes", type=int, default=600_000, help="of each (600000)")
    one.add_argument("--seed", type=int, default=0)
    add_text_options(one)
    one.set_defaults(function=write_corpus)
    commands.add_parser("list", help="tasks and presets").set_defaults(function=show_list)
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop our coordinator then too
    try:
        return args.function(args)
    except (Mismatch, OSError, RuntimeError, ValueError) as error:
        print(f"tca_quality: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        print("\ntca_quality: interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
