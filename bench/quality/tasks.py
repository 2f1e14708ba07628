"""What is asked: documents of a wanted length in tokens, and questions with their references. The
tasks are in ruler.py and needle.py; here is what they have in common.

A task builds a draft of any size (bytes of text, lines or words: its own unit); `make_sample` looks
for the size at which prefix, document, longest question and answer fill the wanted length. The same
seed, task, length and document number give the same sample, whatever was made before."""

import dataclasses
import random
from collections.abc import Callable

import texts

FILLED_LEAST = 0.99  # of the wanted length, unless one more unit would not fit
TRIES = 40


@dataclasses.dataclass(frozen=True)
class Question:
    text: str  # all that follows the document, or the question alone (Task.is_chat)
    references: tuple[str, ...]  # what the answer must contain


@dataclasses.dataclass(frozen=True)
class Draft:
    text: str
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    name: str
    # (random numbers, text, size, number of questions) -> Draft
    build: Callable[[random.Random, "texts.Text", int, int], Draft]
    unit_tokens: float  # of one unit of size, roughly: where the search begins
    max_tokens: int  # of an answer
    questions_most: int = 1  # that one document can carry
    # The server puts its chat template around document and question; else the prefix and the whole
    # question, control tokens included, come from here.
    is_chat: bool = False


@dataclasses.dataclass(frozen=True)
class Sample:
    task: Task
    length: int
    number: int  # of the document, from 0
    prefix: str  # control tokens and text before the document
    text: str
    questions: tuple[Question, ...]

    def prompt(self, question: Question) -> str:
        """Document and question as one raw text."""
        return self.prefix + self.text + after_document(self.task, question)


PREFIX = "<|im_start|>user\n"  # ChatML, as the service writes it: both families' models use it
TURN = "<|im_end|>\n<|im_start|>assistant\n"


def after_document(task: Task, question: Question) -> str:
    return f"\n\nQuestion: {question.text}{TURN}" if task.is_chat else question.text


def make_sample(task: Task, length: int, number: int, seed: int, questions: int,
                source: texts.Source, count: Callable[[str], int]) -> Sample:
    """`count`: tokens of a text in which control tokens count as such. ValueError: no document of
    this length can carry so many questions."""
    name = f"{seed}/{task.name}/{length}/{number}"
    questions = min(questions, task.questions_most)
    text = texts.Text(source, name)

    def build(size: int) -> Draft:
        return task.build(random.Random(name), text, size, questions)

    def used(draft: Draft) -> int:
        longest = max((after_document(task, question) for question in draft.questions), key=len)
        return count(PREFIX) + count(draft.text) + count(longest) + task.max_tokens

    draft = fit(build, used, length, task.unit_tokens)
    if draft is None:
        raise ValueError(f"{task.name}: {length} tokens are too few for {questions} questions")
    return Sample(task, length, number, PREFIX, draft.text, draft.questions)


def fit(build: Callable[[int], Draft], used: Callable[[Draft], int], limit: int,
        unit_tokens: float) -> Draft | None:
    """The draft that fills `limit` best without passing it; None: the smallest passes it."""
    fits, passes, best = 0, None, None
    size = max(1, int(limit / unit_tokens))
    for _ in range(TRIES):
        draft = build(size)
        tokens = used(draft)
        if tokens <= limit:
            fits, best = size, draft
            if tokens >= limit * FILLED_LEAST:
                break
        else:
            passes = size
        if passes is not None and passes - fits <= 1:
            break
        # Aim inside the allowed range, by the tokens per unit of this very draft.
        size = int(size * limit * (1 + FILLED_LEAST) / 2 / tokens)
        size = max(size, fits + 1) if passes is None else min(max(size, fits + 1), passes - 1)
    return best
