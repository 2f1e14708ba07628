"""Scores of answers and what can be said of many: pure functions."""

import math
from collections.abc import Sequence


def score(answer: str, references: Sequence[str]) -> float:
    """RULER's: the share of references that the answer contains, whatever their case."""
    lower = answer.lower()
    return sum(reference.lower() in lower for reference in references) / len(references)


def is_right(value: float) -> bool:
    return value == 1.0


def wilson(successes: float, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval (95 %) of a share. `successes` may be a sum of scores between 0 and 1: the
    interval is then wider than it need be, since such scores vary less than hits and misses."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(
        share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


LOSSLESS_PAIRS = 200
LOSSLESS_NET_LOSS = 2


def verdict(pairs: int, lost: int, won: int) -> str:
    """Whether a rule may be called lossless at a budget, of `pairs` questions asked both ways."""
    net = lost - won
    if net > LOSSLESS_NET_LOSS:
        return f"no, net loss {net}"
    return f"yes, net loss {net}" if pairs >= LOSSLESS_PAIRS else f"net loss {net}, too few pairs"
