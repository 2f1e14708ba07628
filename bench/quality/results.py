"""The result file: one JSON object a line, appended as results come, read back to go on.

    {"kind": "run", ...}       what the results depend on beside their own fields; must not change
    {"kind": "document", ...}  one prefill
    {"kind": "answer", ...}    one question asked under one rule

A line that a crash cut short is removed when the file is opened again."""

import json
import pathlib
from collections.abc import Iterator

ANSWER_KEY = ("task", "length", "document", "question", "prefill", "ask")


class Mismatch(Exception):
    """The file holds results of something else."""


def read(path: pathlib.Path) -> Iterator[dict]:
    """Every whole line. ValueError names one that is no JSON object."""
    data = path.read_bytes()
    for number, line in enumerate(data[:data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from error
        yield row


class Results:
    def __init__(self, path: pathlib.Path):
        self.path = path
        self.rows: list[dict] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self.rows = list(read(path))
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                with open(path, "r+b") as file:
                    file.truncate(whole)
        self.done = {tuple(row[name] for name in ANSWER_KEY)
                     for row in self.rows if row["kind"] == "answer"}
        self.documents = {(row["task"], row["length"], row["document"]): row["sha256"]
                          for row in self.rows if row["kind"] == "document"}

    def begin(self, identity: dict) -> None:
        """Say what the results come from. Mismatch: those in the file come from something else."""
        earlier = next((row for row in self.rows if row["kind"] == "run"), None)
        if earlier is None:
            self._append({"kind": "run", **identity})
            return
        for name in {**earlier, **identity}:
            if name != "kind" and earlier.get(name) != identity.get(name):
                raise Mismatch(f"{self.path} was made with {name} = {earlier.get(name)!r}, this run "
                               f"has {identity.get(name)!r}: choose another file")

    def has(self, **key: object) -> bool:
        return tuple(key[name] for name in ANSWER_KEY) in self.done

    def check_document(self, task: str, length: int, document: int, sha256: str) -> None:
        earlier = self.documents.setdefault((task, length, document), sha256)
        if earlier != sha256:
            raise Mismatch(f"{self.path}: document {document} of {task} at {length} tokens has another "
                           "text now (other packages installed?): choose another file")

    def add_document(self, **fields: object) -> None:
        self._append({"kind": "document", **fields})

    def add_answer(self, **fields: object) -> None:
        self._append({"kind": "answer", **fields})
        self.done.add(tuple(fields[name] for name in ANSWER_KEY))

    def _append(self, row: dict) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.append(row)
