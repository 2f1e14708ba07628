"""tca-calibrate against a plain numpy transformer, over numbers of ranks, and on bad input.

Usage: test_calibrate.py TCA_CALIBRATE_PROGRAM [unittest arguments]

The reference computes queries and keys of a whole document in float32, draws the same sample (the
generator is a published one), selects with its own few lines of each rule, and masks a dense
attention. bfloat16 activations move masses a little: `TOLERANCE`."""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    print("the package numpy is missing")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDLE = ROOT / "models" / "needle-9m"
TINY = ROOT / "tests" / "data" / "golden" / "tiny" / "llama-default"
TEXT = ROOT / "tests" / "data" / "golden" / "text.txt"
PROGRAM = sys.argv[1]
LIMIT_S = 240
MEAN_TOLERANCE = 0.002
TOLERANCE = 0.02

BLOCK, OBSERVERS, SPAN, JUDGED, POOL = 64, 64, 1024, 128, 16
LENGTH, WINDOW, SEED = 2304, 128, 5
TCA_KEEPS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)


def run(*arguments, ranks=0):
    """tca-calibrate on `ranks` processes, or without mpirun with one local rank."""
    command = [PROGRAM, *map(str, arguments)]
    if ranks == 0:
        command += ["--local-ranks", "1"] if "--local-ranks" not in command else []
    else:
        command = [str(ROOT / "tests" / "support" / "mpirun.sh"), str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def make_tiny_model(folder):
    """The golden tiny model with more positions and a tokenizer whose ids are bytes."""
    config = json.loads((TINY / "config.json").read_text())
    config["max_position_embeddings"] = 8192
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TINY / "model.safetensors", folder)
    # The characters that stand for bytes in byte-level BPE: printable ones for themselves.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    vocab = {chr(byte) if byte in plain else chr(next(others)): byte for byte in range(256)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "added_tokens": [], "normalizer": None, "decoder": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}}))


# --- The reference: a Llama in numpy -----------------------------------------------------------

def read_tensors(folder):
    """All tensors of a folder's safetensors files (bfloat16) as float32 arrays."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, about in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            start, end = about["data_offsets"]
            bits = np.frombuffer(data[8 + size + start:8 + size + end], "<u2").astype(np.uint32)
            tensors[name] = (bits << 16).view(np.float32).reshape(about["shape"])
    return tensors


def round_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000).view(np.float32)


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, theta):
    """x: [tokens, heads, dim], by its position."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def queries_and_keys(folder, ids):
    """[(q [tokens, q_heads, dim], k [tokens, kv_heads, dim])] of every layer."""
    config = json.loads((folder / "config.json").read_text())
    weights = read_tensors(folder)
    eps, dim, tokens = config["rms_norm_eps"], config["head_dim"], len(ids)
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    x = weights["model.embed_tokens.weight"][ids]
    hidden = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    layers = []
    for index in range(config["num_hidden_layers"]):
        layer = {name: weights[f"model.layers.{index}.{name}.weight"] for name in (
            "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj",
            "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
            "mlp.down_proj")}
        normed = round_bf16(rms_norm(x, layer["input_layernorm"], eps))
        q, k, v = (round_bf16(part).reshape(tokens, -1, dim) for part in (
            normed @ layer[f"self_attn.{name}_proj"].T for name in "qkv"))
        q, k = (round_bf16(rotate(part, config["rope_theta"])) for part in (q, k))
        layers.append((q, k))
        heads = []
        for head in range(q.shape[1]):
            scores = q[:, head] @ k[:, head // group].T / math.sqrt(dim) + hidden
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(scores @ v[:, head // group] / scores.sum(-1, keepdims=True))
        x = x + round_bf16(np.concatenate(heads, -1)) @ layer["self_attn.o_proj"].T
        normed = round_bf16(rms_norm(x, layer["post_attention_layernorm"], eps))
        gate = normed @ layer["mlp.gate_proj"].T
        gated = gate / (1 + np.exp(-gate)) * (normed @ layer["mlp.up_proj"].T)
        x = x + round_bf16(gated) @ layer["mlp.down_proj"].T
    return layers


class Random:
    """xoshiro256** seeded by splitmix64."""

    MASK = (1 << 64) - 1

    def __init__(self, seed):
        self.state = []
        for _ in range(4):
            seed = (seed + 0x9e3779b97f4a7c15) & self.MASK
            value = ((seed ^ seed >> 30) * 0xbf58476d1ce4e5b9) & self.MASK
            value = ((value ^ value >> 27) * 0x94d049bb133111eb) & self.MASK
            self.state.append(value ^ value >> 31)

    def below(self, end):
        s = self.state
        rotated = (s[1] * 5 & self.MASK)
        rotated = (rotated << 7 | rotated >> 57) & self.MASK
        result, shifted = rotated * 9 & self.MASK, s[1] << 17 & self.MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = (s[3] << 45 | s[3] >> 19) & self.MASK
        return int((result >> 11) * 2.0**-53 * end)


def draw_sample():
    """The one position of a document of LENGTH, and its judged rows."""
    random = Random(SEED ^ 0x7361)
    first, width = -(-((LENGTH + 1) // 2) // BLOCK), (OBSERVERS + SPAN) // BLOCK
    position = (first + random.below(LENGTH // BLOCK - first - width + 1)) * BLOCK
    judged = []
    for row in range(OBSERVERS, OBSERVERS + SPAN):
        if random.below(OBSERVERS + SPAN - row) < JUDGED - len(judged):
            judged.append(position + row)
    return position, judged


# --- The reference: rules and masses -----------------------------------------------------------

def shares_of(q, k, rows, earlier):
    """Shares of attention of some rows of one query head to the earlier tokens."""
    scores = q[rows] @ k.T / math.sqrt(q.shape[-1])
    scores[np.arange(k.shape[0])[None, :] > np.array(rows)[:, None]] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return (scores / scores.sum(-1, keepdims=True))[:, :earlier].astype(np.float64)


def largest(values, count):
    return np.argsort(-values, kind="stable")[:max(count, 0)]


def always(earlier):
    kept = np.zeros(earlier, bool)
    kept[:BLOCK] = kept[-WINDOW:] = True
    return kept


def blocks_of(values):
    """[blocks, 64] of the blocks that may be chosen: behind the sinks, before the window."""
    return values[BLOCK:-WINDOW].reshape(-1, BLOCK)


def select_block(observed, budget):
    kept = always(observed.shape[-1])
    mass = np.stack([blocks_of(row).sum(-1) for row in observed]).max(0)
    for block in largest(mass, (budget - BLOCK - WINDOW) // BLOCK):
        kept[(block + 1) * BLOCK:(block + 2) * BLOCK] = True
    return kept


def select_pooled(observed, budget):
    kept = always(observed.shape[-1])
    padded = np.pad(observed.max(0), POOL)
    pooled = np.lib.stride_tricks.sliding_window_view(padded, 2 * POOL + 1).max(-1)
    kept[BLOCK + largest(pooled[BLOCK:-WINDOW], budget - BLOCK - WINDOW)] = True
    return kept


def select_tca(last, mu, sigma):
    """Simpson, one observing query; `last`: [heads of the group, earlier]."""
    kept = always(last.shape[-1])
    blocks = blocks_of(last.max(0))
    simpson = (blocks**2).sum(-1) / blocks.sum(-1)**2
    sizes = np.exp(-(np.arange(7) - mu)**2 / (2 * sigma**2))
    edges = np.cumsum((sizes / sizes.sum())[::-1])  # from the largest size down
    for place, block in enumerate(np.argsort(simpson, kind="stable")):  # least redundant first
        size = 1 << 6 - int(np.searchsorted(edges, (place + 0.5) / len(blocks)))
        kept[(block + 1) * BLOCK + largest(blocks[block], size)] = True
    return kept


def curves(q, k, head, shares):
    """One KV head's masses for `block` and for `pooled`, and a function of (mu, sigma) for `tca`."""
    position, judged = draw_sample()
    group = q.shape[1] // k.shape[1]
    queries = [q[:, head * group + i] for i in range(group)]
    judged_shares = np.concatenate(
        [shares_of(query, k[:, head], judged, position) for query in queries])
    observers = list(range(position, position + OBSERVERS))
    observed = np.concatenate(
        [shares_of(query, k[:, head], observers, position) for query in queries])
    last = observed[OBSERVERS - 1::OBSERVERS]

    def mass(kept):
        return 1 - judged_shares[:, ~kept].sum(-1).mean()

    budgets = [min(position, max(math.ceil(np.float32(share).item() * position), BLOCK + WINDOW))
               for share in shares]
    return ([1.0 if budget == position else mass(select_block(observed, budget))
             for budget in budgets],
            [1.0 if budget == position else mass(select_pooled(observed, budget))
             for budget in budgets],
            lambda mu, sigma: mass(select_tca(last, mu, sigma)))


class ReferenceTest(unittest.TestCase):
    def check(self, folder, ids, layers_checked):
        with tempfile.TemporaryDirectory() as out:
            path = pathlib.Path(out) / "profile.json"
            done = run("--model", folder, "--out", path, "--longest", LENGTH, "--positions", 1,
                       "--questions", 0, "--window", WINDOW, "--seed", SEED, "--threshold", 0.8,
                       TEXT)
            self.assertEqual(done.returncode, 0, done.stderr)
            profile = json.loads(path.read_text())
        self.assertEqual(profile["lengths"], [LENGTH])
        self.assertEqual(profile["window_tokens"], WINDOW)
        self.assertEqual(profile["calibration_tokens"], LENGTH)
        worst = np.zeros(2)
        layers = queries_and_keys(folder, ids[:LENGTH])
        self.assertEqual(profile["layers"], len(layers))
        for layer in layers_checked:
            q, k = layers[layer]
            for head in range(profile["kv_heads"]):
                block, pooled, tca = curves(q, k, head, profile["shares"])
                for name, want in (("prefill", block), ("question", pooled)):
                    gaps = np.abs(np.array(profile[name][0][layer][head]) - want)
                    worst = np.maximum(worst, (gaps.mean(), gaps.max()))
                    what = f"{name}, layer {layer}, KV head {head}: {gaps}"
                    self.assertLess(gaps.mean(), MEAN_TOLERANCE, what)
                    self.assertLess(gaps.max(), TOLERANCE, what)
                mu, sigma = profile["tca"][layer][head]
                if mu < 60:  # else nothing reached the threshold but whole blocks
                    self.assertGreater(tca(mu, sigma), 0.8 - TOLERANCE)
        print(f"{folder.name}: worst curve's mean difference {worst[0]:.4f}, worst point's "
              f"{worst[1]:.4f}", file=sys.stderr)

    def test_needle_9m(self):
        try:
            import tokenizers
        except ImportError:
            self.skipTest("the package tokenizers is missing")
        encoder = tokenizers.Tokenizer.from_file(str(NEEDLE / "tokenizer.json"))
        encoder.encode_special_tokens = True
        prefix, text = (encoder.encode(part, add_special_tokens=False).ids
                        for part in ("user\n", TEXT.read_text() + "\n\n"))
        self.check(NEEDLE, [1, *prefix, *text], range(6))

    def test_tiny_model(self):
        with tempfile.TemporaryDirectory() as folder:
            make_tiny_model(pathlib.Path(folder))
            self.check(pathlib.Path(folder), list(TEXT.read_bytes()), range(3))

    def test_a_damaged_profile_is_replaced(self):
        with tempfile.TemporaryDirectory() as folder:
            make_tiny_model(pathlib.Path(folder))
            path = pathlib.Path(folder) / "tca-profile.json"  # where it goes by default
            path.write_text("{")
            done = run("--model", folder, "--longest", LENGTH, "--window", WINDOW, TEXT)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(path.read_text())["lengths"], [LENGTH])


class RanksTest(unittest.TestCase):
    def profile(self, folder, *arguments, ranks=0):
        path = pathlib.Path(folder) / "profile.json"
        done = run("--model", NEEDLE, "--out", path, "--longest", LENGTH, "--questions", 2,
                   "--window", 256, *arguments, TEXT, ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 questions a document", done.stderr)
        self.assertEqual(done.stdout.count(str(path)), 1)  # rank 0 alone talks
        self.assertEqual(os.listdir(folder), ["profile.json"])
        return path.read_text()

    def test_ranks_write_the_same_file(self):
        with tempfile.TemporaryDirectory() as folder:
            one = self.profile(folder)
            self.assertEqual(self.profile(folder, ranks=1), one)
            self.assertEqual(self.profile(folder, ranks=2), one)
            self.assertEqual(self.profile(folder, "--local-ranks", 3), one)
            self.assertNotEqual(self.profile(folder, "--seed", 2), one)


class WrongInputsTest(unittest.TestCase):
    def refused(self, code, message, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            done = run("--out", f"{folder}/profile.json", *arguments)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(message, done.stderr)
            self.assertEqual(os.listdir(folder), [])

    def test_usage(self):
        self.refused(2, "at least one file of text", "--model", NEEDLE)
        self.refused(2, "--model DIR", TEXT)
        self.refused(2, "--positions: value \"0\", allowed: 1 to 64", "--model", NEEDLE,
                     "--positions", 0, TEXT)
        self.refused(2, "threshold", "--model", NEEDLE, "--threshold", "1.5", TEXT)
        self.refused(2, "--rule", "--model", NEEDLE, "--rule", "block", TEXT)

    def test_input(self):
        self.refused(1, "no-such-model", "--model", "no-such-model", TEXT)
        self.refused(1, "no-such-text: No such file", "--model", NEEDLE, "no-such-text")
        self.refused(1, "safetensors: is not UTF-8 text", "--model", NEEDLE,
                     NEEDLE / "model-00001-of-00002.safetensors")
        self.refused(1, "--longest: value 100, allowed: 2304 to 1048064", "--model", NEEDLE,
                     "--longest", 100, TEXT)
        self.refused(1, "too few for documents up to 8192 tokens", "--model", NEEDLE, "--longest",
                     8192, TEXT)
        self.refused(1, "--window: value 4096, allowed: 0 to 2048", "--model", NEEDLE, "--longest",
                     8192, "--window", 4096, TEXT)
        self.refused(1, "no KV memory for 2304 tokens", "--model", NEEDLE, "--longest", LENGTH,
                     "--window", WINDOW, "--kv-memory", "4M", TEXT)
        self.refused(1, "kv-memory: 4398046511104 bytes, allowed: up to ", "--model", NEEDLE,
                     "--longest", LENGTH, "--window", WINDOW, "--kv-memory", "4T", TEXT)

    def test_a_folder_that_cannot_be_written_to_is_noticed_first(self):
        done = run("--model", NEEDLE, "--out", "/no-such-folder/profile.json", TEXT)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("--out: /no-such-folder/: No such file", done.stderr)
        self.assertNotIn("%", done.stderr)

    def test_help(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("--positions N", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
