"""Text that tokenizers get wrong, the same at every run: many scripts, emoji, code, white space,
combining marks, look-alikes of special tokens, and real text where the machine has some."""

import glob
import gzip
import os
import random

SCRIPTS = [
    (0x41, 0x5A), (0x61, 0x7A), (0x20, 0x7E), (0xA1, 0xFF), (0x100, 0x17F), (0x180, 0x24F),
    (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x58A), (0x5D0, 0x5EA),
    (0x620, 0x64A), (0x660, 0x669), (0x900, 0x97F), (0x980, 0x9B9), (0xB85, 0xBCD),
    (0xE01, 0xE5B), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x135A), (0x13A0, 0x13F4),
    (0x1780, 0x17E9), (0x1E00, 0x1EFF), (0x1F00, 0x1FFE), (0x2000, 0x206F), (0x2070, 0x209C),
    (0x20A0, 0x20BF), (0x2100, 0x218B), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2460, 0x24FF),
    (0x2500, 0x257F), (0x3000, 0x303F), (0x3041, 0x3096), (0x30A0, 0x30FF), (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFF01, 0xFF9D),
    (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF),
    (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF), (0xF0000, 0xF00FF),
    (0x100000, 0x1000FF),
]
MARKS = [0x300, 0x301, 0x302, 0x303, 0x308, 0x30A, 0x316, 0x323, 0x327, 0x328, 0x345, 0x5B0,
         0x64B, 0x651, 0x93C, 0x94D, 0xE38, 0x3099, 0x20DD, 0x1D165, 0x1D16D]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\n\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e",
          "\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", " \n ",
          "    \n", "\n    "]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☃", "1️⃣", "👨🏿‍🚀", "©️"]
LOOK_ALIKES = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|begin_of_text|>",
    "<|start_header_id|>", "<|im_start", "<|im_end|", "<|<|im_end|>|>", "<|IM_END|>",
    "<|im_end|>\n<|im_start|>user\n", "< |im_end|>", "<|im_end |>", "＜|im_end|＞", "<|pad|>", "<s>",
    "</s>", "[INST]", "<unk>", "<file_sep>", "<|reserved_special_token_17|>", "<|reserved_special",
    "<tool>", " <tool> ", "x<tool>y", "<tool_call>", "<word>", "a<word>b", " <word> ", "(<word>)",
    "é<word>", "<word>٣", "naïve", "cafe\u0301",
]
CONTRACTIONS = ["don't", "I'LL", "we'Ve", "'s", "'S", "'ſ", "it’s", "'re'd", " 'tis", "o'clock",
                "'ll'll", "''s", "DON'T"]
CODE = [
    "for (int i = 0; i < n; i++) {\n\tsum += a[i] * b[i];\n}\n",
    "def f(x: int) -> str:\n    return f\"{x!r:>{10}}\"  # comment\n\n\n",
    "SELECT * FROM t WHERE a >= 1e-5 AND b LIKE '%\\_x';\n",
    "{\"key\": [1, 2.50, -3e+10, null, \"\\u00e9\\n\"]}\r\n",
    "<div class=\"a b\">&nbsp;&lt;p&gt;</div>\n",
    "https://example.org/a/b?c=d&e=f#g  user@host:/path/to/file.tar.gz\n",
    "if [ \"$x\" -gt 0 ]; then echo ${x%%.*}; fi\n",
]


def some(rng, pair, most):
    return "".join(chr(rng.randint(*pair)) for _ in range(rng.randint(1, most)))


def piece(rng):
    kind = rng.randrange(14)
    if kind < 4:
        return some(rng, rng.choice(SCRIPTS), 12)
    if kind == 4:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3, 17, 100])
    if kind == 5:
        return rng.choice(EMOJI) * rng.choice([1, 1, 3])
    if kind == 6:
        return rng.choice(LOOK_ALIKES)
    if kind == 7:
        return rng.choice(CONTRACTIONS)
    if kind == 8:
        return rng.choice(CODE)
    if kind == 9:
        base = some(rng, rng.choice(SCRIPTS), 2)
        return base + "".join(chr(rng.choice(MARKS)) for _ in range(rng.choice([1, 2, 3, 40])))
    if kind == 10:
        return str(rng.getrandbits(rng.choice([4, 16, 60]))) + rng.choice(["", "٣٤", "½", "²", "Ⅷ"])
    if kind == 11:
        return rng.choice("a=-_.*#/~0é中 ") * rng.choice([2, 5, 30, 300])
    if kind == 12:
        return chr(rng.randrange(0x20))
    return " " + some(rng, (0x61, 0x7A), 9)


def mixed(seed, size):
    """Documents of a few to a few thousand pieces, together at least `size` bytes."""
    rng = random.Random(seed)
    documents, total = [], 0
    while total < size:
        pieces = []
        for _ in range(rng.choice([1, 3, 30, 300, 3000])):
            pieces.append(piece(rng))
            if rng.random() < 0.3:
                pieces.append(" ")
        documents.append("".join(pieces))
        total += len(documents[-1].encode())
    return documents


def without_spaces(seed, characters):
    """Documents of `characters` that are one pre-token or a few, as a pattern cuts them."""
    rng = random.Random(seed)
    words = ["the", "token", "izer", "Merge", "s", "ing", "pre", "un", "able", "document", "q", "ZX"]
    common = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生"

    def draw(make):
        return "".join(make() for _ in range(characters))[:characters]

    return [
        "a" * characters, "=" * characters, " " * characters, "\n" * characters, "é" * characters,
        "ab" * (characters // 2), "The" * (characters // 3), (" " * 700 + "x") * (characters // 701),
        draw(lambda: rng.choice("abcdefghijklmnopqrstuvwxyz")), draw(lambda: rng.choice("aab")),
        draw(lambda: rng.choice(words)), draw(lambda: rng.choice("!#$%&*+-/=?^_~.<|>")),
        draw(lambda: rng.choice(common)), draw(lambda: chr(rng.randint(0x4E00, 0x9FA5))),
        draw(lambda: chr(rng.randint(0xAC00, 0xD7A3))), draw(lambda: rng.choice(EMOJI)),
        draw(lambda: "a" * rng.randint(1, 300) + rng.choice("bc")),
        "a" + draw(lambda: chr(rng.choice(MARKS))), draw(lambda: rng.choice("0123456789")),
        draw(lambda: rng.choice(SPACES)), "<|im_end|" * (characters // 9),
    ]


def real(size):
    """Text of Debian packages, where installed, up to about `size` bytes; in a fixed order."""
    documents, total = [], 0
    patterns = ["/usr/share/common-licenses/*", "/usr/share/doc/*/copyright",
                "/usr/share/perl/*/*.p[lm]", "/usr/share/doc/*/changelog*.gz",
                "/usr/lib/python3/dist-packages/*/*.py", "/usr/lib/python3*/*.py"]
    for path in (p for pattern in patterns for p in sorted(glob.glob(pattern))):
        if total >= size or os.path.islink(path) or not os.path.isfile(path):
            continue
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rb") as file:
            text = file.read(200_000).decode("utf-8", errors="replace")
        documents.append(text)
        total += len(text.encode())
    return documents
