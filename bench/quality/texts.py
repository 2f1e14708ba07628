"""Real text, in two parts that share no file: one to calibrate on, one to test on.

By default it is the text that tools/corpus.py finds on a Debian machine (documentation
first), else the texts under a folder. Which part a file belongs to follows from its path below its
root, so that it does not depend on what else is there."""

import hashlib
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import corpus  # noqa: E402

PARTS = ("calibration", "test")


def part_of(path: str) -> str:
    """Of a path below its root, such as "bash/README.gz": as tools/calibration_text.py splits."""
    return PARTS[hashlib.sha256(path.encode()).digest()[-1] % 2]


@dataclass(frozen=True)
class Source:
    part: str
    roots: tuple[str, ...] = ()  # none: Debian's

    def filler(self, seed: str) -> corpus.Filler:
        return corpus.Filler(seed, "prose", self.roots, lambda path: part_of(path) == self.part)


class Text:
    """One text that is extended on demand; the same name and source give the same text."""

    def __init__(self, source: Source, name: str):
        self.filler = None
        self.source, self.name = source, name

    def take(self, byte_count: int) -> str:
        if self.filler is None:  # many tasks need none
            self.filler = self.source.filler(self.name)
        return self.filler.take(byte_count)


def plant(text: str, sentences: Sequence[str], depths: Sequence[float]) -> str:
    """`sentences` between the sentences or lines of `text` nearest to their depths (0 to 1)."""
    return corpus.plant(text, [corpus.Fact(sentence, "", "", depth)
                               for sentence, depth in zip(sentences, depths)])


def write(source: Source, folder: pathlib.Path, count: int, byte_count: int, seed: int) -> list[str]:
    """`count` files of `byte_count` bytes (up to 3 less: whole characters); their names."""
    folder.mkdir(parents=True, exist_ok=True)
    filler = source.filler(f"{seed}/corpus")
    data = filler.take(count * byte_count).encode()
    paths = [folder / f"{source.part}-{index:02}.txt" for index in range(count)]
    for index, path in enumerate(paths):
        piece = data[index * byte_count:(index + 1) * byte_count]
        # Where a cut went through a character, its parts belong to neither file.
        path.write_bytes(piece.decode("utf-8", "ignore").encode())
    return [str(path) for path in paths]
