"""The tasks of RULER (github.com/NVIDIA/RULER) in its words, for chat models with ChatML tokens.
RULER's essays are replaced by the text that texts.py gives, its word lists by the two here. As in
RULER, white space of real text is made one space, and the answer's first words are given after the
assistant's header."""

import itertools
import random
import re
import string
import uuid
from collections.abc import Callable, Iterator, Sequence

import texts
from tasks import TURN, Draft, Question, Task

NOISE = ("The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.")
NEEDLE = "One of the special magic {kind}s for {key} is: {value}."

ADJECTIVES = ("able ancient average bitter bold brave brief bright brisk broad calm careful cheap clean "
              "clear clever close coarse cold common cool crisp cruel curly damp dark dear deep dense "
              "distant double dry dull eager early easy empty exact faint fair famous fancy fast feeble "
              "fierce final firm flat fluffy fond formal frail free fresh full funny gentle giant glad "
              "golden grand gray great green happy hard harsh heavy hidden hollow honest huge humble "
              "icy idle jolly keen kind large late lazy light little lively lonely long loose loud "
              "lovely lucky mellow mild modern muddy narrow neat noble noisy odd old orange pale plain "
              "polite proud quick quiet rapid rare ready rich ripe rough round royal rusty sharp shiny "
              "short shy silent simple slim slow small smart smooth soft solid sour spare steady steep "
              "stiff still strange strict strong sturdy sudden sunny sweet swift tall tame tender thick "
              "thin tidy tight tiny tough vast warm weak wild wise wooden young").split()
NOUNS = ("actor anchor apple arrow badge bakery barrel basket beach bell berry bottle bridge brush "
         "bucket button cabin camera candle canyon carpet castle chain chair cheese cherry circle clock "
         "cloud coach coast cotton cradle crayon cricket crown curtain dancer desert diamond dinner "
         "doctor dragon drawer eagle engine falcon farmer feather fiddle finger flower forest fountain "
         "garage garden garlic glove guitar hammer harbor helmet hotel island jacket jungle kettle "
         "kitten ladder lantern lemon letter library lizard magnet market meadow mirror monkey mountain "
         "museum needle nephew notebook ocean onion orchard oven painter palace pencil pepper piano "
         "pillow pilot planet pocket poet pony potato prince puzzle rabbit ribbon river rocket saddle "
         "sailor salad school shadow singer spider spoon station stone street summer teacher temple "
         "theater ticket tiger tower tractor tunnel turtle valley village violin wagon walnut window "
         "winter wizard yard zebra").split()


def _distinct(make: Callable[[], str]) -> Iterator[str]:
    seen = set()
    while True:
        made = make()
        if made not in seen:
            seen.add(made)
            yield made


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _keys(rng: random.Random, kind: str, count: int) -> list[str]:
    """Distinct; words are adjective-noun, with a second adjective when pairs would get scarce."""
    if kind == "uuid":
        return list(itertools.islice(_distinct(lambda: _uuid(rng)), count))
    adjectives = 1 if count * 4 < len(ADJECTIVES) * len(NOUNS) else 2
    return list(itertools.islice(_distinct(lambda: "-".join(
        [*rng.sample(ADJECTIVES, adjectives), rng.choice(NOUNS)])), count))


def _value(rng: random.Random, kind: str) -> str:
    return _uuid(rng) if kind == "uuid" else str(rng.randint(1000000, 9999999))


def _ask(instruction: str, question: str, answer: str, wanted: Sequence[str]) -> tuple[str, Question]:
    """What stands before the text, and what after it."""
    return instruction + "\n", Question(f"\n{question}{TURN}{answer}", tuple(wanted))


def _ask_needle(kind: str, keys: Sequence[str], wanted: Sequence[str]) -> tuple[str, Question]:
    """RULER puts everything into the singular where there is one answer."""
    if len(wanted) == 1:
        return _ask(
            f"A special magic {kind} is hidden within the following text. Make sure to memorize it. "
            f"I will quiz you about the {kind} afterwards.",
            f"What is the special magic {kind} for {keys[0]} mentioned in the provided text?",
            f"The special magic {kind} for {keys[0]} mentioned in the provided text is", wanted)
    query = keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + ", and " + keys[-1]
    return _ask(
        f"Some special magic {kind}s are hidden within the following text. Make sure to memorize it. "
        f"I will quiz you about the {kind}s afterwards.",
        f"What are all the special magic {kind}s for {query} mentioned in the provided text?",
        f"The special magic {kind}s for {query} mentioned in the provided text are", wanted)


def _insert(rng: random.Random, lines: list[str], added: Sequence[str], in_order: bool = False) -> str:
    """`added` on lines of their own at random places."""
    places = [rng.randrange(len(lines) + 1) for _ in added]
    if in_order:
        places.sort()
    mixed = [(place, 0, index, line) for index, (place, line) in enumerate(zip(places, added))]
    mixed += [(index, 1, 0, line) for index, line in enumerate(lines)]
    return "\n".join(line for _, _, _, line in sorted(mixed))


def _niah(haystack: str, key_kind: str = "word", value_kind: str = "number", keys: int = 1,
          values: int = 1, asked: int = 1):
    """One question asks for `asked` keys; there are as many questions as keys allow."""

    def build(rng: random.Random, text: texts.Text, size: int, questions: int) -> Draft:
        distractors = size if haystack == "needles" else 0
        needle_keys = max(keys, questions * asked)
        names = _keys(rng, key_kind, needle_keys + distractors)
        held = {name: [_value(rng, value_kind) for _ in range(values)] for name in names}
        lines = [[NEEDLE.format(kind=value_kind, key=name, value=value) for value in held[name]]
                 for name in names]
        planted = list(itertools.chain.from_iterable(lines[:needle_keys]))
        rng.shuffle(planted)
        if haystack == "text":
            context = texts.plant(re.sub(r"\s+", " ", text.take(size)), planted,
                                  [rng.random() for _ in planted])
        elif haystack == "noise":
            context = _insert(rng, [NOISE] * size, planted)
        else:
            context = _insert(rng, [group[0] for group in lines[needle_keys:]], planted)
        asks = []
        for first in range(0, questions * asked, asked):
            group = names[first:first + asked]
            wanted = [value for name in group for value in held[name]]
            asks.append(_ask_needle(value_kind, group, wanted))
        return Draft(asks[0][0] + context, tuple(question for _, question in asks))

    return build


def _chain(rng: random.Random, lines: int, hops: int = 4) -> tuple[str, str, list[str]]:
    """(text, value, names) of one chain of assignments in noise."""
    names = list(itertools.islice(_distinct(
        lambda: "".join(rng.choices(string.ascii_uppercase, k=5))), hops + 1))
    value = str(rng.randint(10000, 99999))
    steps = [f"VAR {names[0]} = {value}"]
    steps += [f"VAR {name} = VAR {before}" for before, name in itertools.pairwise(names)]
    return _insert(rng, [NOISE] * lines, steps, in_order=True), value, names


def _tracking(rng: random.Random, _text: texts.Text, size: int, _questions: int) -> Draft:
    instruction = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n"

    def ask(value: str, names: Sequence[str]) -> tuple[str, str]:
        return (f"Question: Find all variables that are assigned the value {value} in the text above.",
                "Answer: According to the chain(s) of variable assignment in the text above, "
                f"{len(names)} variables are assgined the value {value}, they are:")  # RULER's spelling

    example, example_value, example_names = _chain(rng, 5)
    question, answer = ask(example_value, example_names)
    solved = f"{instruction}\n{example}\n{question} {answer} {' '.join(example_names)}\n\n"
    context, value, names = _chain(rng, size)
    before, asked = _ask(instruction, *ask(value, names), names)
    return Draft(solved + before + context, (asked,))


def _frequent(rng: random.Random, _text: texts.Text, size: int, _questions: int) -> Draft:
    """Coined words of six letters; the k-th most frequent has size / (zeta(2) k^2) of the places."""
    zeta_2 = 1.6449340668482264
    words = list(itertools.islice(_distinct(
        lambda: "".join(rng.choices(string.ascii_lowercase, k=6))), 2000))
    words[0] = "..."  # the most frequent is noise
    places = [word for rank, word in enumerate(words, 1)
              for _ in range(int(size / (zeta_2 * rank * rank)))]
    rng.shuffle(places)
    before, asked = _ask(
        "Read the following coded text and track the frequency of each coded word. Find the three "
        "most frequently appeared coded words.",
        "Question: Do not provide any explanation. Please ignore the dots '....'. What are the three "
        "most frequently appeared words in the above coded text?",
        "Answer: According to the coded text above, the three most frequently appeared words are:",
        words[1:4])
    return Draft(before + " ".join(places), (asked,))


MANY = 1000
TASKS = {task.name: task for task in (
    Task("niah_single_1", _niah("noise"), 25, 128),
    Task("niah_single_2", _niah("text"), 0.3, 128),
    Task("niah_single_3", _niah("text", value_kind="uuid"), 0.3, 128),
    Task("niah_multikey_1", _niah("text", keys=4), 0.3, 128, questions_most=4),
    Task("niah_multikey_2", _niah("needles"), 25, 128, questions_most=MANY),
    Task("niah_multikey_3", _niah("needles", "uuid", "uuid"), 80, 128, questions_most=MANY),
    Task("niah_multivalue", _niah("text", values=4), 0.3, 128),
    Task("niah_multiquery", _niah("text", keys=4, asked=4), 0.3, 128),
    Task("vt", _tracking, 25, 30),
    Task("fwe", _frequent, 4, 50),
)}
