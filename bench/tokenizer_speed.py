"""Time model/tokenizer against Hugging Face's `tokenizers`: one thread each, in turns, the same
text, special tokens as plain text, the number of ids compared. Then our own time per byte on 4 MB
without a space against that on the text.

usage: tokenizer_speed.py TCA_BENCH_TOKENIZER MODEL_FOLDER [--text FILE] [--rounds N]

Without --text: about 4 MB of the text files in Debian's /usr/share/doc. Each figure is the fastest
of N rounds, in processor time. `tokenizers` is timed twice: with the whole text in one call, and in
pieces of about 4 KB, which suit it better (the ids of pieces differ where they are cut)."""

import argparse
import glob
import json
import os
import random
import subprocess
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402  (reads the environment)

SIZE = 4_000_000


def debian_text():
    parts, total = [], 0
    for path in sorted(glob.glob("/usr/share/doc/*/*")):
        if os.path.isfile(path) and not path.endswith(".gz") and total < SIZE:
            with open(path, "rb") as file:
                parts.append(file.read(300_000).decode("utf-8", errors="replace"))
            total += len(parts[-1])
    return "".join(parts)[:SIZE]


def without_spaces():
    rng = random.Random(5)
    common = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生"
    third = SIZE // 3
    return {
        "one letter": "a" * SIZE,
        "random letters": "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(SIZE)),
        "random punctuation": "".join(rng.choice("!#$%&*+-/=?^_~.") for _ in range(SIZE)),
        "common Chinese": "".join(rng.choice(common) for _ in range(third)),
        "any Chinese": "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(third)),
        "spaces only": " " * SIZE,
    }


def ours(program, folder, path):
    done = subprocess.run([program, "--rounds", "1", folder, path], check=True, capture_output=True)
    return json.loads(done.stdout)


def seconds(function):
    start = time.thread_time()
    result = function()
    return time.thread_time() - start, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("--text")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.text:
        with open(args.text, encoding="utf-8", newline="") as file:
            text = file.read()
    else:
        text = debian_text()
    reference = tokenizers.Tokenizer.from_file(os.path.join(args.folder, "tokenizer.json"))
    reference.encode_special_tokens = True
    pieces = [text[at:at + 4000] for at in range(0, len(text), 4000)]
    best, sizes = {}, {}

    def encode_pieces():
        for piece in pieces:
            reference.encode(piece, add_special_tokens=False)

    def note(name, taken):
        best[name] = min(best.get(name, taken), taken)

    with tempfile.TemporaryDirectory() as top:
        texts = {"ours": text, **without_spaces()}
        for name, made in texts.items():
            with open(os.path.join(top, name), "w", encoding="utf-8", newline="") as file:
                file.write(made)
        for _ in range(args.rounds):
            for name in texts:
                mine = ours(args.program, args.folder, os.path.join(top, name))
                sizes[name] = mine["bytes"], mine["tokens"]
                note(name, mine["fastest_s"])
            taken, whole = seconds(lambda: reference.encode(text, add_special_tokens=False))
            assert len(whole.ids) == sizes["ours"][1], "different ids"
            note("theirs", taken)
            note("theirs in pieces", seconds(encode_pieces)[0])
    size = sizes["ours"][0]
    print(f"{args.folder}: {size:,} bytes, {sizes['ours'][1]:,} tokens, "
          f"tokenizers {tokenizers.__version__}")
    for name in ("ours", "theirs", "theirs in pieces"):
        print(f"  {name:18} {size / best[name] / 1e6:8.2f} MB/s {best[name] / best['ours']:7.1f} x "
              "our time")
    for name in without_spaces():
        rate = sizes[name][0] / best[name]
        print(f"  {name:18} {rate / 1e6:8.2f} MB/s {size / best['ours'] / rate:7.2f} x the time "
              "per byte of the text")


if __name__ == "__main__":
    main()
