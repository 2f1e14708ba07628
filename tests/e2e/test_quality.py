"""bench/quality: its scores, samples, result files and tables, and the tool itself against the service
with needle-9m. Usage: test_quality.py TCA_COORDINATOR_PROGRAM [unittest arguments]"""

import contextlib
import importlib.util
import io
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "bench" / "quality" / "tca_quality.py"
PROGRAM = sys.argv[1]
LIMIT_S = 240

try:
    import grpc  # noqa: F401
    import grpc_tools  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

sys.path.insert(0, str(TOOL.parent))
import plan  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import scoring  # noqa: E402
import tasks  # noqa: E402
import texts  # noqa: E402
from progress import Progress  # noqa: E402
from results import Mismatch, Results  # noqa: E402


def count(text):
    """Stands in for a tokenizer."""
    return len(text) // 3 + 1


def answer(question=0, ask="dense", score=1.0, **fields):
    numbers = {"completion_tokens": 5, "decode_ms": 40, "first_token_ms": 100, "kept_share": 1.0,
               "kept_mass_mean": 1.0, "kept_mass_min": 1.0, "core_cache_bytes": 100, "full_kv_bytes": 100}
    return {"kind": "answer", "task": "t", "length": 4096, "document": 0, "question": question,
            "prefill": "dense", "ask": ask, "score": score, **numbers, **fields}


class Scoring(unittest.TestCase):
    def test_a_score_is_the_share_of_references_in_the_answer(self):
        self.assertEqual(scoring.score("It is ABC-12.", ["abc-12"]), 1.0)
        self.assertEqual(scoring.score("one, Three", ["one", "two", "three", "four"]), 0.5)
        self.assertEqual(scoring.score("", ["x"]), 0.0)

    def test_wilsons_interval(self):
        for successes, trials, low, high in ((8, 10, 0.4902, 0.9433), (0, 10, 0, 0.2775),
                                             (40, 40, 0.9124, 1), (0, 0, 0, 1)):
            with self.subTest(successes=successes, trials=trials):
                found = scoring.wilson(successes, trials)
                self.assertAlmostEqual(found[0], low, 4)
                self.assertAlmostEqual(found[1], high, 4)

    def test_only_many_pairs_and_a_small_loss_are_lossless(self):
        self.assertEqual(scoring.verdict(200, 5, 3), "yes, net loss 2")
        self.assertEqual(scoring.verdict(200, 5, 2), "no, net loss 3")
        self.assertEqual(scoring.verdict(199, 0, 0), "net loss 0, too few pairs")


class Samples(unittest.TestCase):
    def test_a_sample_fills_its_length_and_holds_its_references(self):
        source = texts.Source("test")
        for task in plan.TASKS.values():
            with self.subTest(task=task.name):
                made = [tasks.make_sample(task, 6000, number, 5, 3, source, count) for number in (0, 0, 1)]
                self.assertEqual(made[0], made[1])
                self.assertNotEqual(made[0].text, made[2].text)
                self.assertEqual(len(made[0].questions), min(3, task.questions_most))
                for question in made[0].questions:
                    used = count(made[0].prompt(question)) + task.max_tokens
                    self.assertLess(used, 6010)  # one rounding a piece
                    self.assertGreater(used, 5700)
                    for reference in question.references:
                        self.assertIn(reference, made[0].text)

    def test_questions_ask_for_different_things(self):
        for name in ("needle_single", "needle_multikey", "niah_multikey_1", "niah_multikey_2"):
            sample = tasks.make_sample(plan.TASKS[name], 6000, 0, 5, 4, texts.Source("test"), count)
            self.assertEqual(len({question.text for question in sample.questions}), 4)

    def test_too_short_a_length_is_refused(self):
        with self.assertRaisesRegex(ValueError, "niah_multikey_1: 150 tokens are too few"):
            tasks.make_sample(plan.TASKS["niah_multikey_1"], 150, 0, 0, 4, texts.Source("test"), count)

    def test_calibration_and_test_text_share_no_file(self):
        with tempfile.TemporaryDirectory() as folder:
            source, out = pathlib.Path(folder, "in"), pathlib.Path(folder, "out")
            source.mkdir()
            for number in range(40):
                (source / f"{number}.txt").write_text(f"word{number} " * 50)
            words = {}
            for part in texts.PARTS:
                done = subprocess.run([sys.executable, TOOL, "corpus", "--part", part, "--text", source,
                                       "--out", out, "--count", "2", "--bytes", "9000"],
                                      capture_output=True, text=True, check=True)
                files = [pathlib.Path(line) for line in done.stdout.splitlines()]
                self.assertEqual([file.stat().st_size for file in files], [9000, 9000])
                whole = [word for file in files for word in file.read_text().split()[1:-1]]
                words[part] = set(whole)
            self.assertFalse(words["calibration"] & words["test"])
            self.assertEqual(len(words["calibration"] | words["test"]), 40)
        self.assertEqual([texts.part_of(f"{number}.txt") for number in (0, 1)], ["test", "calibration"])


class Bookkeeping(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "results.jsonl")

    def test_a_torn_line_is_done_again(self):
        results = Results(self.path)
        results.add_answer(**answer(0))
        results.add_answer(**answer(1))
        data = self.path.read_bytes()
        self.path.write_bytes(data[:-10])
        again = Results(self.path)
        key = {"task": "t", "length": 4096, "document": 0, "prefill": "dense", "ask": "dense"}
        self.assertTrue(again.has(question=0, **key))
        self.assertFalse(again.has(question=1, **key))
        again.add_answer(**answer(1))
        self.assertEqual(self.path.read_bytes(), data)

    def test_results_of_something_else_are_not_mixed_in(self):
        Results(self.path).begin({"seed": 1, "model": "m"})
        Results(self.path).begin({"seed": 1, "model": "m"})
        with self.assertRaisesRegex(Mismatch, "made with seed = 1, this run has 2"):
            Results(self.path).begin({"seed": 2, "model": "m"})
        Results(self.path).add_document(task="t", length=1, document=0, sha256="a")
        with self.assertRaisesRegex(Mismatch, "another text"):
            Results(self.path).check_document("t", 1, 0, "b")

    def test_only_what_is_missing_is_planned(self):
        wanted = plan.Plan(tasks=("needle_single",), lengths=(4096,), questions=3, per_document=2,
                           asks=("pooled:0.1", "dense"), prefills=("block:0.1", "dense"))
        results = Results(self.path)
        jobs = list(run.jobs_of(wanted, results))
        self.assertEqual([job.number for job in jobs], [0, 1])
        asked = {prefill.text: [(question, ask.text) for question, ask in missing]
                 for prefill, missing in jobs[1].missing.items()}
        self.assertEqual(asked, {"dense": [(0, "dense"), (0, "pooled:0.1")],
                                 "block:0.1": [(0, "dense"), (0, "pooled:0.1")]})
        self.assertEqual(next(iter(jobs[1].missing)).text, "dense")
        for prefill, ask in (("dense", "dense"), ("dense", "pooled:0.1"), ("block:0.1", "dense")):
            results.add_answer(**answer(0, ask, task="needle_single", document=1, prefill=prefill))
        (last,) = [job for job in run.jobs_of(wanted, results) if job.number == 1]
        self.assertEqual([(prefill.text, [(question, ask.text) for question, ask in missing])
                          for prefill, missing in last.missing.items()],
                         [("block:0.1", [(0, "pooled:0.1")])])

    def test_settings_are_read_or_refused(self):
        self.assertEqual(plan.parse_setting("evict/pooled:0.39"),
                         plan.Setting("evict/pooled:0.39", "pooled", 0.39, 0.0, "evict"))
        self.assertEqual(plan.parse_setting("pooled:tau=0.9").tau, 0.9)
        self.assertEqual(plan.parse_setting("tca").keep, 0)
        for text in ("", ":0.1", "pooled:", "pooled:2", "pooled:0", "pooled:x", "later/pooled", "a:tau=2"):
            with self.assertRaisesRegex(ValueError, "allowed"):
                plan.parse_setting(text)
        for text in ("evict/block:0.1", "block:tau=0.9"):
            with self.assertRaisesRegex(ValueError, "allowed: RULE or RULE:KEEP"):
                plan.parse_setting(text, is_prefill=True)
        for preset in plan.PRESETS.values():
            preset.settings()

    def test_progress_expects_what_is_left_to_take_as_long(self):
        now = [0.0]
        out = io.StringIO()
        progress = Progress(out, lambda: now[0])
        progress.expect("prefill", 200)
        progress.expect("ask", 40)
        now[0] = 30.0
        progress.advance("prefill", 100, "a")
        now[0] = 60.0
        progress.advance("ask", 10, "b")
        self.assertEqual(progress.eta_s(), 30 + 90)
        self.assertEqual(out.getvalue().splitlines()[-1], " 33%  ETA 2:00  b")


class Tables(unittest.TestCase):
    def rows(self):
        dense = [answer(number, score=score) for number, score in enumerate((1.0, 1.0, 0.5, 1.0))]
        pooled = [answer(number, "pooled:0.1", score, kept_share=0.125, kept_mass_mean=0.9,
                         kept_mass_min=0.5 - 0.1 * number, core_cache_bytes=10)
                  for number, score in enumerate((1.0, 0.0, 1.0, 0.0))]
        return dense + pooled

    def test_figures_are_paired_with_dense(self):
        figures = report.Report(self.rows()).totals()["dense", "pooled:0.1"]
        self.assertEqual((figures.n, figures.score, figures.right), (4, 0.5, 2))
        self.assertEqual((figures.dense_right, figures.lost, figures.won), (3, 2, 1))
        self.assertAlmostEqual(figures.mass_least, 0.2)
        self.assertEqual(figures.token_ms, 10)
        self.assertAlmostEqual(report.figure(figures, "kept answers"), 1 / 3)
        self.assertEqual(report.figure(figures, "loss"), 1)
        self.assertEqual(report.figure(figures, "cache saved"), 0.9)

    def test_another_prefill_is_paired_with_the_dense_one(self):
        rows = self.rows() + [answer(0, score=0.0, prefill="block:0.1")]
        figures = report.Report(rows).totals()["block:0.1", "dense"]
        self.assertEqual((figures.pairs, figures.lost, figures.won), (1, 1, 0))

    def test_the_table_shows_them(self):
        text = report.Report(self.rows()).markdown()
        self.assertIn("| dense | pooled:0.1 | 4 | 2 | 3 | 1 (33.3 %) | 2 | 1 | net loss 1, too few pairs |", text)
        self.assertIn("| t | 4,096 | dense | pooled:0.1 | 4 | 0.500 (0.150 to 0.850) | 2 / 1 | 12.5 % | 0.900 "
                      "| 0.200 | 0.0 KiB | 0.1 KiB | 100 ms | 10.0 |", text)

    def test_gates_say_whether_they_hold(self):
        checked = report.Report(self.rows()).check((
            plan.at_most("pooled:0.1", "loss", 1), plan.at_least("pooled:0.1", "right", 3),
            plan.at_least("window:0.1", "n", 1)))
        self.assertEqual(checked, [
            (True, "dense prefill, pooled:0.1: loss 1, wanted at most 1"),
            (False, "dense prefill, pooled:0.1: right 2, wanted at least 3"),
            (False, "dense prefill, window:0.1: n no answers, wanted at least 1")])

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "no matplotlib")
    def test_the_plot_is_a_png(self):
        import tca_quality

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "plot.png")
            report.plot(report.Report(self.rows()), path, tca_quality.import_plot())
            self.assertEqual(path.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")


class Tool(unittest.TestCase):
    """The whole of it, on a real service."""

    def command(self, path, *words):
        return [sys.executable, TOOL, "run", "--model", plan.NEEDLE_MODEL, "--coordinator", PROGRAM,
                "--task", "needle_single", "--length", "4096", "--questions", "3", "--per-document", "2",
                "--option", "workers=2", "--option", "threads=1", "--option", "kv-memory=128M",
                "--out", path, *words]

    def run_tool(self, path, *words, code=0):
        done = subprocess.run(self.command(path, *words), capture_output=True, text=True, timeout=LIMIT_S)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout, done.stderr

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "results.jsonl")

    def rows(self, kind):
        return [row for row in map(json.loads, self.path.read_text().splitlines()) if row["kind"] == kind]

    def test_a_run_is_recorded_goes_on_and_is_reported(self):
        self.run_tool(self.path, "--ask", "dense")
        answers = self.rows("answer")
        self.assertEqual([(row["document"], row["question"]) for row in answers], [(0, 0), (0, 1), (1, 0)])
        for row in answers:
            self.assertEqual((row["ask"], row["prefill"], row["kept_share"]), ("dense", "dense", 1.0))
            self.assertEqual(row["score"], 1.0, row)
            self.assertGreater(row["document_tokens"], 3900)
            self.assertLessEqual(row["document_tokens"] + row["question_tokens"] + 24, 4096)
        self.assertEqual([row["tokens"] for row in self.rows("document")],
                         [answers[0]["document_tokens"], answers[2]["document_tokens"]])

        # Without its last answer: only that one comes again. A refused rule does not stop the others.
        whole = self.path.read_bytes()
        self.path.write_bytes(whole[:whole[:-1].rindex(b"\n") + 8])
        out, err = self.run_tool(self.path, "--ask", "dense", "--ask", "guess:0.1", "--ask", "prompt/dense",
                                 code=1)
        self.assertIn("guess:0.1: INVALID_ARGUMENT: attention.rule", err)
        kept = whole[:-1].rindex(b"\n") + 1
        self.assertEqual(self.path.read_bytes()[:kept], whole[:kept])
        again = self.rows("answer")
        self.assertEqual(sum(row["ask"] == "dense" for row in again), 3)
        self.assertEqual([row["score"] for row in again if row["ask"] == "prompt/dense"], [1.0] * 3)
        self.assertIn("| dense | prompt/dense | 3 | 3 | 3 | 3 (100.0 %) | 0 | 0 |", out)
        done = subprocess.run([sys.executable, TOOL, "report", self.path], capture_output=True, text=True,
                              check=True)
        self.assertEqual(done.stdout, out)

    def test_an_interrupted_run_leaves_no_process(self):
        process = subprocess.Popen(self.command(self.path, "--ask", "dense", "--questions", "400"),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with contextlib.closing(process.stderr):
            while not (self.path.exists() and b'"answer"' in self.path.read_bytes()):
                self.assertIsNone(process.poll())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(signal.SIGTERM)
            error = process.communicate(timeout=LIMIT_S)[1]
        self.assertEqual(process.returncode, 130)
        self.assertIn("interrupted; the same command goes on", error)
        self.assertTrue(children)
        for child in children:
            self.assertFalse(pathlib.Path("/proc", child).exists())


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
