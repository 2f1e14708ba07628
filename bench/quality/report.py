"""Tables (Markdown) and a plot (PNG) of a result file."""

import pathlib
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import scoring
from plan import Gate

DENSE = "dense"
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)  # of the plot's kept share
Pair = tuple[str, str]  # (prefill, ask)


@dataclass(frozen=True)
class Figures:
    """Of the answers to one set of questions under one prefill and ask. The reference of a question
    is its dense answer over the densely prefilled document or, where the file has none, over this."""

    n: int
    score: float  # mean
    low: float  # Wilson, 95 %
    high: float
    right: int  # answers that hold every reference
    pairs: int  # questions that have a reference
    dense_right: int  # of those
    lost: int  # reference right, answer not
    won: int  # the reverse
    kept_share: float  # means
    mass_mean: float
    mass_least: float  # the least of all
    core_bytes: float  # means
    full_bytes: float
    first_token_ms: float  # medians
    token_ms: float | None


def _figures(rows: Sequence[dict], reference: Callable[[dict], dict | None]) -> Figures:
    n = len(rows)
    total = sum(row["score"] for row in rows)
    low, high = scoring.wilson(total, n)
    right = [scoring.is_right(row["score"]) for row in rows]
    pairs = [(scoring.is_right(other["score"]), is_right) for row, is_right in zip(rows, right)
             if (other := reference(row)) is not None]
    per_token = [row["decode_ms"] / (row["completion_tokens"] - 1) for row in rows
                 if row["completion_tokens"] > 1]

    def mean(name: str) -> float:
        return statistics.fmean(row[name] for row in rows)

    return Figures(
        n=n, score=total / n, low=low, high=high, right=sum(right), pairs=len(pairs),
        dense_right=sum(dense for dense, _ in pairs),
        lost=sum(dense and not own for dense, own in pairs),
        won=sum(own and not dense for dense, own in pairs), kept_share=mean("kept_share"),
        mass_mean=mean("kept_mass_mean"), mass_least=min(row["kept_mass_min"] for row in rows),
        core_bytes=mean("core_cache_bytes"), full_bytes=mean("full_kv_bytes"),
        first_token_ms=statistics.median(row["first_token_ms"] for row in rows),
        token_ms=statistics.median(per_token) if per_token else None)


class Report:
    def __init__(self, rows: Iterable[dict]):
        rows = list(rows)
        self.identity = next((row for row in rows if row["kind"] == "run"), {})
        self.documents = [row for row in rows if row["kind"] == "document"]
        self.answers = [row for row in rows if row["kind"] == "answer"]
        self.of_question: dict[tuple, dict[Pair, dict]] = defaultdict(dict)
        for row in self.answers:
            self.of_question[self._question(row)][row["prefill"], row["ask"]] = row

    @staticmethod
    def _question(row: dict) -> tuple:
        return row["task"], row["length"], row["document"], row["question"]

    def _reference(self, row: dict) -> dict | None:
        answers = self.of_question[self._question(row)]
        return answers.get((DENSE, DENSE)) or answers.get((row["prefill"], DENSE))

    def groups(self, *names: str) -> dict[tuple, Figures]:
        """Figures by the values of these fields, in the order of the file, dense first."""
        found: dict[tuple, list[dict]] = defaultdict(list)
        for row in self.answers:
            found[tuple(row[name] for name in names)].append(row)
        return {key: _figures(group, self._reference) for key, group in found.items()}

    def totals(self) -> dict[Pair, Figures]:
        return self.groups("prefill", "ask")

    def markdown(self) -> str:
        if not self.answers:
            return "no answers yet\n"
        parts = [self._head(), _total_table(self.totals()),
                 _detail_table(self.groups("task", "length", "prefill", "ask"))]
        if self.documents:
            parts.append(self._document_table())
        return "\n".join(parts)

    def _head(self) -> str:
        told = self.identity
        options = " ".join(f"{name}={value}" for name, value in told.get("options", {}).items())
        return (f"Model {told.get('model')} ({told.get('fingerprint', '')[:12]}), profile "
                f"{told.get('profile')}, seed {told.get('seed')}, text {told.get('text')}, "
                f"coordinator {options or told.get('server')}.\n")

    def _document_table(self) -> str:
        found: dict[tuple, list[dict]] = defaultdict(list)
        for row in self.documents:
            found[row["length"], row["prefill"]].append(row)
        lines = _table(("length", "prefill", "documents", "tokens, mean", "prefill, median",
                        "tokens/s, median"))
        for (length, prefill), rows in sorted(found.items()):
            rates = [1000 * row["tokens"] / max(row["prefill_ms"], 1) for row in rows]
            lines.append(_row((
                f"{length:,}", prefill, len(rows),
                f"{statistics.fmean(row['tokens'] for row in rows):,.0f}",
                f"{statistics.median(row['prefill_ms'] for row in rows) / 1000:,.1f} s",
                f"{statistics.median(rates):,.0f}")))
        return "\n".join(lines) + "\n"

    def check(self, gates: Sequence[Gate]) -> list[tuple[bool, str]]:
        """(held, what) of each gate; one whose answers are missing is not held."""
        totals = self.totals()
        checked = []
        for gate in gates:
            figures = totals.get((gate.prefill, gate.ask))
            value = None if figures is None else figure(figures, gate.figure)
            limit = f"{'at least' if gate.is_least else 'at most'} {gate.limit:.4g}"
            held = value is not None and (value >= gate.limit if gate.is_least
                                          else value <= gate.limit)
            shown = "no answers" if value is None else f"{value:.4g}"
            checked.append((held, f"{gate.prefill} prefill, {gate.ask}: {gate.figure} {shown}, "
                                  f"wanted {limit}"))
        return checked


def figure(figures: Figures, name: str) -> float:
    """The figures that gates name."""
    return {
        "n": figures.n,
        "right": figures.right,
        "loss": figures.lost - figures.won,
        "kept share": figures.kept_share,
        "kept answers": 1 - figures.lost / figures.dense_right if figures.dense_right else 0.0,
        "cache saved": 1 - figures.core_bytes / figures.full_bytes if figures.full_bytes else 0.0,
    }[name]


def _table(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bytes(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def _total_table(totals: dict[Pair, Figures]) -> str:
    lines = _table(("prefill", "rule", "n", "all right", "dense right", "still right", "lost", "won",
                    "lossless"))
    for (prefill, ask), one in totals.items():
        is_dense = (prefill, ask) == (DENSE, DENSE)
        still = f"{one.dense_right - one.lost} ({_percent(figure(one, 'kept answers'))})"
        lines.append(_row((
            prefill, ask, one.n, one.right, one.dense_right,
            *(("", "", "", "") if is_dense else
              (still, one.lost, one.won, scoring.verdict(one.pairs, one.lost, one.won))))))
    return "\n".join(lines) + "\n"


def _detail_table(groups: dict[tuple, Figures]) -> str:
    lines = _table(("task", "length", "prefill", "rule", "n", "score (95 %)", "lost / won", "kept",
                    "mass, mean", "mass, least", "core cache", "full KV", "first token", "ms/token"))
    for (task, length, prefill, ask), one in groups.items():
        lines.append(_row((
            task, f"{length:,}", prefill, ask, one.n,
            f"{one.score:.3f} ({one.low:.3f} to {one.high:.3f})", f"{one.lost} / {one.won}",
            _percent(one.kept_share), f"{one.mass_mean:.3f}", f"{one.mass_least:.3f}",
            _bytes(one.core_bytes), _bytes(one.full_bytes), f"{one.first_token_ms:,.0f} ms",
            "" if one.token_ms is None else f"{one.token_ms:.1f}")))
    return "\n".join(lines) + "\n"


def plot(report: Report, path: pathlib.Path, pyplot: ModuleType) -> None:
    """Score against kept share as a PNG, one panel a length."""
    groups = report.groups("length", "prefill", "ask")
    lengths = sorted({length for length, _, _ in groups})
    prefills = list(dict.fromkeys(prefill for _, prefill, _ in groups))
    least = min(one.kept_share for one in groups.values())
    rules = list(dict.fromkeys(ask.partition(":")[0] for _, _, ask in groups))
    chart, panels = pyplot.subplots(1, len(lengths), figsize=(1.5 + 4.5 * len(lengths), 4.4),
                                    sharey=True, squeeze=False, layout="constrained")
    for panel, length in zip(panels[0], lengths):
        for place, prefill in enumerate(prefills):
            for index, rule in enumerate(rules):
                points = sorted((one.kept_share, one.score, one.low, one.high)
                                for (at, own, ask), one in groups.items()
                                if (at, own, ask.partition(":")[0]) == (length, prefill, rule))
                if not points:
                    continue
                shares, scores, lows, highs = zip(*points)
                shares = [share * 1.05**place for share in shares]  # side by side where equal
                errors = [[score - low for score, low in zip(scores, lows)],
                          [high - score for score, high in zip(scores, highs)]]
                label = rule if prefill == DENSE else f"{rule}, prefill {prefill}"
                panel.errorbar(shares, scores, yerr=errors, label=label, color=f"C{index % 10}",
                               marker="os^Dvp"[place % 6], linestyle="-" if place == 0 else ":",
                               capsize=3, linewidth=1.2, markersize=5, alpha=0.9)
        panel.set_title(f"{length:,} tokens")
        panel.set_xlabel("kept share of the document")
        panel.set_xscale("log")
        ticks = [share for share in TICKS if share >= 0.6 * least]
        panel.set_xticks(ticks, [f"{100 * share:.3g} %" for share in ticks])
        panel.minorticks_off()
        panel.set_ylim(-0.03, 1.03)
        panel.grid(True, alpha=0.25)
    panels[0][0].set_ylabel("score (95 % interval)")
    labels = {label: handle for panel in panels[0]
              for handle, label in zip(*panel.get_legend_handles_labels())}
    chart.legend(labels.values(), labels.keys(), loc="outside right upper", fontsize=8)
    tasks = ", ".join(dict.fromkeys(row["task"] for row in report.answers))
    chart.suptitle(f"{report.identity.get('model')}: {tasks}")
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(path, dpi=150, format="png")
    pyplot.close(chart)
