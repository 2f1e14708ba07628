#!/usr/bin/env python3
"""Long real text with planted facts, for tests and demonstrations.

    corpus.py --tokens 16000 --facts 20 --seed 7 --out doc.txt --questions q.json
    corpus.py --bytes 80000 --facts 3 --out doc.txt --questions q.json     (standard library alone)

The text is cut from documentation, licences and sources that a Debian machine holds anyway
(`ROOTS`); nothing is downloaded. The same seed, size and set of installed packages give the same
text. The facts use the sentences that models/needle-9m was trained on, so that it can be asked for
them; q.json is a list of {"question", "answer", "fact", "depth", "byte_offset"}.

`--tokens` counts with the package `tokenizers` and needle-9m's (or --tokenizer's) tokenizer.json;
without the package it estimates, and says so.
"""

import argparse
import dataclasses
import gzip
import html.parser
import json
import os
import pathlib
import random
import re
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
NEEDLE_TOKENIZER = REPOSITORY / "models" / "needle-9m" / "tokenizer.json"

# Searched in this order: the next group is used when the one before it runs out of text.
PROSE_ROOTS = ("/usr/share/doc", "/usr/share/common-licenses", "/usr/share/info")
CODE_ROOTS = ("/usr/share/perl", "/usr/share/perl5", "/usr/lib/python3", "/usr/lib/python3.11",
              "/usr/share/cmake-3.25", "/usr/include")
PROSE_NAME = re.compile(r"(^(README|NEWS|FAQ|TODO|INSTALL|AUTHORS|[A-Z]+)([.-].*)?|.*\."
                        r"(txt|md|rst|html?|pod|texi))(\.gz)?$")
RECORD_NAME = re.compile(r"^(copyright|changelog.*|.*[Cc]hange[Ll]og.*)(\.gz)?$")
CODE_NAME = re.compile(r".*\.(pm|pl|pod|py|cmake|h|hpp|c)$")

PIECE_CHARS = 5000  # about this much of a file at a time, cut at a blank line
MAX_FILE_BYTES = 2 << 20
BYTES_PER_TOKEN = 2.9  # of needle-9m's 4,096 tokens on this text; only without `tokenizers`

TEMPLATES = (  # sentence, question; {k} is never at the start of a sentence in lower case
    ("The access code for {k} is {v}.", "What is the access code for {k}?"),
    ("Note that the serial number of {k} is {v}.", "What is the serial number of {k}?"),
    ("{k} was assigned the locker {v}.", "Which locker was {k} assigned?"),
    ("Remember: the password of {k} is {v}.", "What is the password of {k}?"),
    ("According to the register, {k} holds ticket {v}.", "Which ticket does {k} hold?"),
    ("The reference value of {k} equals {v}.", "What does the reference value of {k} equal?"),
    ("The phone extension of {k} is {v}.", "What is the phone extension of {k}?"),
    ("In the ledger, {k} is listed under {v}.", "Under what is {k} listed in the ledger?"),
)
# Words that needle-9m spells right when it is asked for them in short texts; others it may garble.
WORDS = ("acorn amber anchor barrel basket beacon bridge candle candy canyon carbon castle cedar "
         "cloud copper crystal desert dragon engine falcon feather finger forest garden glacier "
         "granite hammer harbor hollow insect island ivory jacket ladder lantern library maple "
         "marble meadow mirror mountain needle ocean orchard packet paper pepper pillar pocket "
         "prairie quarry ribbon river saddle salmon shadow silver spider spring summer thunder "
         "tunnel valley walnut window winter wizard").split()
# Of one or two of its tokens each, capitalised too: among a million tokens it finds these more surely.
SHORT_WORDS = ("apple ball bank barn bear bell bird bone bread butter button cable cake card "
               "cat cave chain clock coin cow cup dream dress dust ear egg father field fire "
               "fish flag fog foot fork game gate gift glass gold hall hand hat hero hill hook "
               "house ice jar key king knot lake lamp leg lemon letter lion lock log map mask "
               "master mill mine mother mouse nail nest net night nose nut oak office oil "
               "onion orange oven pan park pen pig pin plant plate pocket pond port post pot "
               "prince rail rain rat rice ring road rock rose sail sand sea seat seed shade "
               "shell shield ship shirt shop sign sister soap sock sound soup spade spring "
               "stamp star station stick stone store storm string suit sun sword table tail "
               "tank tent thread tooth town toy train tray tree vase vest vine wall water wave "
               "wax well wind window wine wing winter worm yard").split()


@dataclasses.dataclass
class Fact:
    sentence: str
    question: str
    answer: str
    depth: float  # 0 start, 1 end of the document
    byte_offset: int = 0


@dataclasses.dataclass
class Document:
    text: str
    facts: list  # of Fact, in the order in which they stand in the text
    tokens: int  # counted or estimated; 0 when the size was asked for in bytes


class _TextOfHtml(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.parts = []
        self.hidden = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")
        if tag in ("p", "div", "li", "tr", "h1", "h2", "h3", "pre", "dt", "dd"):
            self.parts.append("\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if self.hidden <= 0:
            self.parts.append(data)


def read_utf8(path):
    """The start of the file, unpacked; "" for what is not text in UTF-8."""
    try:
        with (gzip.open(path) if path.endswith(".gz") else open(path, "rb")) as file:
            text = file.read(MAX_FILE_BYTES).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""
    return "" if re.search(r"[\x00-\x08\x0e-\x1f]", text) else text


def _read_text(path):
    """The file as plain text; "" for what is not text in UTF-8."""
    text = read_utf8(path)
    if re.search(r"\.html?(\.gz)?$", path):
        parser = _TextOfHtml()
        parser.feed(text)
        text = "".join(parser.parts)
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _list_files(roots, name, accept):
    paths = []
    for root in roots:
        for folder, _, files in os.walk(root):
            found = [os.path.join(folder, file) for file in files if name.fullmatch(file)]
            paths += [path for path in found if accept(path[len(root):].lstrip("/"))]
    return sorted(path for path in paths if os.path.isfile(path) and not os.path.islink(path))


def _cut_piece(text, start):
    """The end of the piece that starts at `start`: a blank line if one is near, else a line."""
    if len(text) - start <= PIECE_CHARS + PIECE_CHARS // 2:
        return len(text)
    for mark in ("\n\n", "\n", " "):
        end = text.find(mark, start + PIECE_CHARS, start + PIECE_CHARS + PIECE_CHARS // 2)
        if end >= 0:
            return end + len(mark)
    return start + PIECE_CHARS


def _pieces_of(paths, rng):
    """One piece of every file, then the next piece of every file, ..., in a new order each time."""
    open_at = {path: 0 for path in paths}
    while open_at:
        order = sorted(open_at)
        rng.shuffle(order)
        for path in order:
            text = _read_text(path)
            start = open_at[path]
            end = _cut_piece(text, start)
            open_at[path] = end
            if end >= len(text):
                del open_at[path]
            if text[start:end].strip():
                yield text[start:end].strip() + "\n\n"


def _pieces(kind, seed, roots, accept):
    prose = (roots or PROSE_ROOTS, PROSE_NAME)
    records = (roots or PROSE_ROOTS, RECORD_NAME)
    code = (roots or CODE_ROOTS, CODE_NAME)
    groups = {"prose": (prose, code, records), "code": (code, prose, records)}[kind]
    found = False
    while True:
        for index, (folders, name) in enumerate(groups):
            files = _list_files(folders, name, accept)
            for piece in _pieces_of(files, random.Random(f"{seed}/{index}")):
                found = True
                yield piece
        if not found:
            raise RuntimeError(f"no text found under {', '.join(roots or PROSE_ROOTS + CODE_ROOTS)}")


class Filler:
    """A text that is extended on demand and always starts the same for one seed. `accept` chooses
    files by their path below their root."""

    def __init__(self, seed=0, kind="prose", roots=(), accept=lambda path: True):
        self.source = _pieces(kind, seed, tuple(roots), accept)
        self.parts = []
        self.byte_count = 0

    def take(self, byte_count):
        """The first `byte_count` bytes, less what would cut a character."""
        while self.byte_count < byte_count:
            self.parts.append(next(self.source))
            self.byte_count += len(self.parts[-1].encode())
        return "".join(self.parts).encode()[:byte_count].decode("utf-8", "ignore")


def _make_key(rng, starts_sentence, words):
    kind = rng.choice(("name", "name", "the", "unit"))
    if kind == "unit" and not starts_sentence:
        letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2))
        return f"unit {letters}-{rng.randrange(100, 1000)}"
    if kind == "the" and not starts_sentence:
        return "the " + " ".join(rng.sample(words, rng.choice((1, 2))))
    return " ".join(word.capitalize() for word in rng.sample(words, rng.choice((1, 2, 3))))


def _make_value(rng):
    kind = rng.choice(("digits", "digits", "word", "hex"))
    if kind == "digits":
        return _digits(rng, rng.randrange(4, 9))
    if kind == "hex":
        return "".join(rng.choice("0123456789abcdef") for _ in range(8))
    return rng.choice(WORDS)


def _digits(rng, count):
    return "".join(rng.choice("0123456789") for _ in range(count))


def seven_digits(rng):
    """The values of RULER's needles."""
    return _digits(rng, 7)


def short_code(rng):
    """Four to six digits, as door codes have."""
    return _digits(rng, rng.randrange(4, 7))


def make_facts(count, seed=0, depths=None, templates=TEMPLATES, make_value=_make_value, words=WORDS):
    """`count` facts with distinct keys of `words`; at `depths`, or spread evenly over the document."""
    rng = random.Random(f"{seed}/facts")
    if depths is None:
        depths = [(index + 0.5) / count for index in range(count)]
    if len(depths) != count or any(not 0 <= depth <= 1 for depth in depths):
        raise ValueError(f"{count} depths between 0 and 1 are needed, got {depths}")
    facts, used = [], set()
    order = list(templates)
    for index, depth in enumerate(sorted(depths)):
        if index % len(order) == 0:
            rng.shuffle(order)
        sentence, question = order[index % len(order)]
        key = _make_key(rng, sentence.startswith("{k}"), words)
        while used & set(key.lower().split()) - {"the", "unit"}:
            key = _make_key(rng, sentence.startswith("{k}"), words)
            if len(used) > len(words) // 2:
                used.clear()  # many facts: words come again, but not in neighbours
        used |= set(key.lower().split())
        value = make_value(rng)
        facts.append(Fact(sentence.format(k=key, v=value), question.format(k=key), value, depth))
    return facts


def plant(text, facts):
    """`text` with each fact's sentence between two sentences or lines nearest to its depth."""
    places = [match.end() for match in re.finditer(r"[a-z)]\. (?=[A-Z])|\n", text)] or [len(text)]
    chosen = []
    for fact in facts:
        wanted = fact.depth * len(text)
        taken = set(chosen)
        free = [place for place in places if place not in taken] or places
        chosen.append(min(free, key=lambda place: abs(place - wanted)))
    parts, start, offset = [], 0, 0
    for place, fact in sorted(zip(chosen, facts), key=lambda pair: pair[0]):
        before = text[start:place]
        offset += len(before.encode())
        fact.byte_offset = offset
        planted = fact.sentence + ("\n" if before.endswith("\n") else " ")
        offset += len(planted.encode())
        parts += [before, planted]
        start = place
    return "".join(parts) + text[start:]


def build_bytes(byte_count, facts=0, seed=0, depths=None, kind="prose", roots=()):
    """A Document of `byte_count` bytes (up to 3 less: whole characters)."""
    planted = make_facts(facts, seed, depths)
    fact_bytes = sum(len(fact.sentence.encode()) + 1 for fact in planted)
    if fact_bytes > byte_count // 2:
        raise ValueError(f"{facts} facts need {fact_bytes} bytes; {byte_count} are too few")
    text = plant(Filler(seed, kind, roots).take(byte_count - fact_bytes), planted)
    return Document(text, planted, 0)


def build_tokens(token_count, facts=0, seed=0, depths=None, kind="prose", roots=(),
                 tokenizer=NEEDLE_TOKENIZER):
    """A Document of at most `token_count` tokens, and at least 99 % of that."""
    try:
        import tokenizers
    except ImportError:
        document = build_bytes(int(token_count * BYTES_PER_TOKEN), facts, seed, depths, kind, roots)
        print(f"corpus: no package tokenizers: {len(document.text.encode())} bytes for an "
              f"estimated {token_count} tokens", file=sys.stderr)
        document.tokens = token_count
        return document
    encoder = tokenizers.Tokenizer.from_file(str(tokenizer))
    encoder.encode_special_tokens = True
    filler = Filler(seed, kind, roots)
    planted = make_facts(facts, seed, depths)
    byte_count = int(token_count * BYTES_PER_TOKEN)
    for _ in range(12):
        text = plant(filler.take(byte_count), planted)
        tokens = len(encoder.encode(text, add_special_tokens=False).ids)
        if token_count * 0.99 <= tokens <= token_count:
            return Document(text, planted, tokens)
        # Aim at the middle of the allowed range, by the bytes per token of this very text.
        byte_count = int(byte_count + (token_count * 0.996 - tokens) * len(text.encode()) / tokens)
    raise RuntimeError(f"no length of {token_count} tokens found in 12 tries")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--bytes", type=int)
    size.add_argument("--tokens", type=int)
    parser.add_argument("--facts", type=int, default=0, help="how many to plant")
    parser.add_argument("--depths", help="where, from 0 to 1, comma-separated (default: evenly)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("prose", "code"), default="prose")
    parser.add_argument("--root", action="append", default=[], help="take text from here only")
    parser.add_argument("--tokenizer", default=NEEDLE_TOKENIZER, help="tokenizer.json for --tokens")
    parser.add_argument("--out", required=True, help="file for the text")
    parser.add_argument("--questions", help="file for questions and answers (JSON)")
    args = parser.parse_args()
    depths = [float(depth) for depth in args.depths.split(",")] if args.depths else None
    try:
        options = {"facts": args.facts, "seed": args.seed, "depths": depths, "kind": args.kind,
                   "roots": args.root}
        document = (build_bytes(args.bytes, **options) if args.bytes is not None
                    else build_tokens(args.tokens, tokenizer=args.tokenizer, **options))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"corpus: {error}")
    pathlib.Path(args.out).write_bytes(document.text.encode())
    if args.questions:
        rows = [{"question": fact.question, "answer": fact.answer, "fact": fact.sentence,
                 "depth": round(fact.depth, 4), "byte_offset": fact.byte_offset}
                for fact in document.facts]
        pathlib.Path(args.questions).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
