"""How far a run is: a bar with the time that is left on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

LINE_EVERY_S = 30
BAR_CHARS = 24


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


class Progress:
    """Work of several kinds, each with a weight (tokens). What is left of a kind is expected to take
    as long for its weight as what is done of it; a kind not yet begun counts like the others."""

    def __init__(self, out: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic):
        self.out, self.clock = out, clock
        self.is_terminal = out.isatty()
        self.left: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.spent: dict[str, float] = {}
        self.began = self.shown = self.last = clock()

    def expect(self, kind: str, weight: float) -> None:
        self.left[kind] = self.left.get(kind, 0) + weight

    def advance(self, kind: str, weight: float, label: str) -> None:
        """`weight` of `kind` is done, in the time since the last call."""
        now = self.clock()
        self.left[kind] -= weight
        self.done[kind] = self.done.get(kind, 0) + weight
        self.spent[kind] = self.spent.get(kind, 0) + now - self.last
        self.last = now
        self._show(now, label)

    def eta_s(self) -> float | None:
        total = sum(self.done.values())
        if total == 0:
            return None
        mean = sum(self.spent.values()) / total
        left = 0.0
        for kind, weight in self.left.items():
            done = self.done.get(kind, 0)
            left += max(weight, 0) * (self.spent[kind] / done if done else mean)
        return left

    def line(self, label: str) -> str:
        eta, spent = self.eta_s(), sum(self.spent.values())
        if eta is None:
            return label
        share = 1.0 if spent + eta == 0 else spent / (spent + eta)
        bar = "#" * int(share * BAR_CHARS)
        bar = f"[{bar:<{BAR_CHARS}}] " if self.is_terminal else ""
        return f"{bar}{share:4.0%}  ETA {duration(eta)}  {label}"

    def _show(self, now: float, label: str) -> None:
        if self.is_terminal:
            self.out.write(f"\r\x1b[K{self.line(label)[:100]}")
        elif now - self.shown >= LINE_EVERY_S:
            self.out.write(self.line(label) + "\n")
        else:
            return
        self.shown = now
        self.out.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.out.write(("\r\x1b[K" if self.is_terminal else "") + text + "\n")
        self.out.flush()

    def finish(self) -> None:
        if self.is_terminal:
            self.out.write("\r\x1b[K")
        self.out.flush()
