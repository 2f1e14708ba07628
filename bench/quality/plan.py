"""What to run: tasks, lengths, questions, how documents are prefilled and how questions are asked;
and the presets of the recorded runs."""

import dataclasses
import pathlib

import needle
import ruler
from tasks import Task

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDLE_MODEL = ROOT / "models" / "needle-9m"
TASKS: dict[str, Task] = {**needle.TASKS, **ruler.TASKS}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A rule and its budget, written RULE[:KEEP|:tau=MASS]; of a question also evict/RULE.. and
    prompt/RULE..: the document is then part of the prompt, and evicted or not."""

    text: str
    rule: str
    keep: float = 0.0  # 0: the server's
    tau: float = 0.0
    source: str = "document"  # or prompt, evict

    @property
    def is_prompt(self) -> bool:
        return self.source != "document"


def parse_setting(text: str, is_prefill: bool = False) -> Setting:
    """ValueError says what is allowed."""
    head, slash, rest = text.partition("/")
    source, rest = (head, rest) if slash else ("document", text)
    rule, colon, budget = rest.partition(":")
    numbers = {"keep": 0.0, "tau": 0.0}
    name, value = ("tau", budget[4:]) if budget.startswith("tau=") else ("keep", budget)
    if colon:
        try:
            numbers[name] = float(value)
        except ValueError:
            numbers[name] = -1.0
    sources = ("document",) if is_prefill else ("document", "prompt", "evict")
    is_budget = not colon or 0 < numbers[name] <= 1
    if not rule or source not in sources or not is_budget or (is_prefill and numbers["tau"]):
        shape = "RULE or RULE:KEEP" if is_prefill else "[evict/|prompt/]RULE[:KEEP|:tau=MASS]"
        raise ValueError(f"{text}: allowed: {shape}, with KEEP and MASS over 0 up to 1")
    return Setting(text, rule, numbers["keep"], numbers["tau"], source)


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a recorded run must show of the questions asked by `ask` after `prefill`: `figure` (see
    report.figure) is at least or at most `limit`."""

    ask: str
    figure: str
    limit: float
    is_least: bool
    prefill: str = "dense"


def at_least(ask: str, figure: str, limit: float, **more: str) -> Gate:
    return Gate(ask, figure, limit, True, **more)


def at_most(ask: str, figure: str, limit: float, **more: str) -> Gate:
    return Gate(ask, figure, limit, False, **more)


@dataclasses.dataclass(frozen=True)
class Plan:
    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    questions: int  # of each task and length
    per_document: int  # at most so many over one document
    asks: tuple[str, ...]
    max_tokens: int = 0  # of an answer; 0: the task's
    prefills: tuple[str, ...] = ("dense",)
    seed: int = 0
    options: tuple[tuple[str, str], ...] = ()  # of a coordinator of our own
    model: str | None = None  # folder; None: --model says it
    gates: tuple[Gate, ...] = ()

    def task(self, name: str) -> Task:
        task = TASKS[name]
        return dataclasses.replace(task, max_tokens=self.max_tokens or task.max_tokens)

    def settings(self) -> tuple[list[Setting], list[Setting]]:
        """(prefills, asks). ValueError: one is no setting, or stands twice."""
        prefills = [parse_setting(text, is_prefill=True) for text in self.prefills]
        asks = [parse_setting(text) for text in self.asks]
        for texts in (self.prefills, self.asks):
            for text in texts:
                if texts.count(text) > 1:
                    raise ValueError(f"{text}: is given twice")
        # Evicted prompts are prefilled each for itself: once is enough, and dense goes first.
        return sorted(prefills, key=lambda each: each.rule != "dense"), sorted(
            asks, key=lambda each: (each.is_prompt, each.rule != "dense"))


NEEDLE = {"model": str(NEEDLE_MODEL), "tasks": ("needle_single",), "per_document": 20}
CPU = {"chunk": "1024"}  # tokens a prefill step; sparse results compare at equal steps only


def _options(**options: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({**CPU, **options}.items()))


PRESETS: dict[str, Plan] = {
    "needles-32k": Plan(
        **NEEDLE, lengths=(32768,), questions=40, prefills=("dense", "block:0.1", "window:0.1"),
        asks=("dense", "pooled:0.05", "pooled:0.03", "window:0.05"),
        options=_options(kv_memory="1G"),
        gates=(at_least("dense", "n", 40), at_most("pooled:0.05", "kept share", 0.05),
               at_most("pooled:0.05", "loss", 1), at_least("pooled:0.05", "cache saved", 0.9),
               at_most("dense", "loss", 1, prefill="block:0.1"))),
    "needles-128k": Plan(
        **NEEDLE, lengths=(131072,), questions=40, prefills=("dense", "block:0.1"),
        asks=("dense", "pooled:0.02", "window:0.02"), options=_options(kv_memory="2G"),
        gates=(at_least("dense", "n", 40), at_most("pooled:0.02", "kept share", 0.02),
               at_most("pooled:0.02", "loss", 1), at_least("pooled:0.02", "cache saved", 0.9),
               at_most("dense", "loss", 1, prefill="block:0.1"))),
    "lossless-200": Plan(
        **NEEDLE, lengths=(32768,), questions=200, asks=("dense", "pooled:0.03", "window:0.03"),
        seed=200, options=_options(kv_memory="1G"), gates=(at_least("pooled:0.03", "n", 200),)),
    "evict-32k": Plan(
        **NEEDLE, lengths=(32768,), questions=40, asks=("dense", "evict/pooled:0.35"),
        options=_options(kv_memory="2G", question_kv="0.6"),
        gates=(at_most("evict/pooled:0.35", "loss", 1),
               at_least("evict/pooled:0.35", "cache saved", 0.61))),
    "smollm2-niah": Plan(
        tasks=("niah_single_2", "niah_multikey_1"), lengths=(3000, 4600, 6200, 7800), questions=24,
        per_document=2, max_tokens=40,  # the answer is wanted at once
        asks=("dense", "pooled:0.1", "pooled:0.05", "window:0.1", "tca:0.39"),
        # These documents are shorter than those that the service would rather read densely, and the
        # usual window would be more than a tenth of them.
        options=_options(kv_memory="1G", dense_below="0", window="256"),
        gates=(at_least("dense", "right", 100), at_least("pooled:0.1", "kept answers", 0.95),
               at_most("window:0.1", "kept answers", 1 / 3))),
}
