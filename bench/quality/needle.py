"""Tasks in the sentences that models/needle-9m was trained on; the service's own template asks."""

import random
from collections.abc import Callable

import texts
from tasks import Draft, Question, Task
from texts import corpus


def _depths(rng: random.Random, count: int) -> list[float]:
    """Spread over the document, at random within equal parts."""
    return [(index + rng.random()) / count for index in range(count)]


def _facts(rng: random.Random, count: int, templates: tuple, **options) -> list:
    """With distinct questions, in the order of their depths."""
    while True:
        facts = corpus.make_facts(count, rng.getrandbits(64), _depths(rng, count), templates,
                                  **options)
        if len({fact.question for fact in facts}) == count:
            return facts


def _plant(text: texts.Text, size: int, facts: list, questions: list[Question]) -> Draft:
    planted = texts.plant(text.take(size), [fact.sentence for fact in facts],
                          [fact.depth for fact in facts])
    return Draft(planted, tuple(questions))


def _with(**options) -> Callable:
    """Facts of all kinds; options: of their values and keys, as corpus.make_facts has them."""
    def build(rng: random.Random, text: texts.Text, size: int, questions: int) -> Draft:
        facts = _facts(rng, questions, corpus.TEMPLATES, **options)
        return _plant(text, size, facts,
                      [Question(fact.question, (fact.answer,)) for fact in facts])
    return build


def _multikey(rng: random.Random, text: texts.Text, size: int, questions: int) -> Draft:
    """Facts of one kind, at least four: the key alone tells them apart."""
    facts = _facts(rng, max(questions, 4), (rng.choice(corpus.TEMPLATES),))
    asked = [Question(fact.question, (fact.answer,)) for fact in facts]
    return _plant(text, size, facts, asked[:questions])


def _multivalue(rng: random.Random, text: texts.Text, size: int, questions: int) -> Draft:
    """Keys with two or three values each, in sentences far apart."""
    facts, asked = [], []
    for fact in _facts(rng, questions, corpus.TEMPLATES):
        values = [fact.answer]
        for other in corpus.make_facts(rng.choice((1, 2)), rng.getrandbits(64)):
            if other.answer in values:
                continue
            values.append(other.answer)
            # Every template ends with the value and a full stop.
            sentence = fact.sentence.removesuffix(fact.answer + ".") + other.answer + "."
            facts.append(corpus.Fact(sentence, fact.question, other.answer, rng.random()))
        facts.append(fact)
        asked.append(Question(fact.question, tuple(values)))
    return _plant(text, size, facts, asked)


MANY = 60
TASKS = {task.name: task for task in (
    Task("needle_single", _with(), 0.35, 24, questions_most=MANY, is_chat=True),
    # Values as those of RULER's niah_single_2; then short values, and keys of common words.
    Task("needle_digits", _with(make_value=corpus.seven_digits), 0.35, 24, questions_most=MANY,
         is_chat=True),
    Task("needle_codes", _with(make_value=corpus.short_code, words=corpus.SHORT_WORDS), 0.35, 24,
         questions_most=MANY, is_chat=True),
    Task("needle_multikey", _multikey, 0.35, 24, questions_most=40, is_chat=True),
    Task("needle_multivalue", _multivalue, 0.35, 48, questions_most=20, is_chat=True),
)}
