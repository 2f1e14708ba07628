"""bench/gpu: the table's rows, and the tool itself with the CPU backend and peers that are made up.
Usage: test_gpu_table.py TCA_BENCH TCA_BENCH_KERNELS [unittest arguments]"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "bench" / "gpu" / "gpu_table.py"
TCA_BENCH, KERNELS_BENCH = sys.argv[1:3]
LIMIT_S = 200

sys.path.insert(0, str(TOOL.parent))
import jobs  # noqa: E402
import rows  # noqa: E402

# Stands in for an interpreter with torch: prefill and time of 1000 s or ms, no FlashAttention.
PEER = """#!/bin/sh
shift
while [ "$1" != --model-config ]; do
    case $1 in
    flash*) echo "no such kernel" >&2; exit 3 ;;
    transformers*) echo "{\\"key\\": \\"$1 prefill\\", \\"unit\\": \\"s\\", \\"runs\\": [999, 1000, 2000]}" ;;
    *) echo "{\\"key\\": \\"$1 time\\", \\"unit\\": \\"ms\\", \\"runs\\": [1000000], \\"note\\": \\"made up\\"}" ;;
    esac
    shift
done
"""


def measured(*runs, unit="s"):
    return {"unit": unit, "runs": runs, "clocks": {"sm_mhz": 1500, "memory_mhz": 3200}}


def row(compare, bar, peer="b 1 time"):
    return rows.Row("r", "a row", compare, "a 1 time", peer, bar, bar)


class Rows(unittest.TestCase):
    def test_a_faster_program_has_the_larger_ratio(self):
        one = rows.figure(row(rows.FASTER, 4), {"a 1 time": measured(3, 1, 2), "b 1 time": measured(8)}, {})
        self.assertEqual((one["ratio"], one["holds"], one["error"]), (4, True, ""))
        self.assertEqual([one["ours"][name] for name in ("median", "min", "max")], [2, 1, 3])

    def test_a_higher_rate_has_the_larger_ratio(self):
        one = rows.figure(row(rows.RATE, .85), {"a 1 time": measured(84), "b 1 time": measured(100)}, {})
        self.assertAlmostEqual(one["ratio"], .84)
        self.assertFalse(one["holds"])

    def test_a_limit_needs_no_peer(self):
        for value, holds in ((9, True), (9.1, False)):
            one = rows.figure(row(rows.MOST, 9), {"a 1 time": measured(value)}, {"b 1": "lost"})
            self.assertEqual((one["holds"], one["error"]), (holds, "b 1 time: lost"))

    def test_the_table_shows_failures_and_clocks(self):
        failed = row(rows.FASTER, 2)
        one = rows.figure(failed, {"b 1 time": measured(1)}, {"a 1": "out of memory"})
        good = row(rows.MOST, 9, None)
        two = rows.figure(good, {"a 1 time": measured(1, 2, 3, unit="ms")}, {})
        text = rows.markdown([failed, good], [one, two], {"gpu": "1 x G", "driver": "5"})
        self.assertIn("| a row | failed | failed |  | >= 2x, aim 2x: ? |  |", text)
        self.assertIn("| a row | 2 (1, 3) ms |  |  | <= 9 ms, aim 9: holds | 1500 / 3200 |", text)
        self.assertIn("- r: a 1 time: out of memory", text)

    def test_every_row_is_measured_by_a_program(self):
        every = rows.all_rows(131072, 1048576, 1000000, 8192)
        self.assertEqual(len({one.name for one in every}), len(every))
        items = dict.fromkeys(key.rsplit(" ", 1)[0] for one in every for key in (one.ours, one.peer) if key)
        self.assertEqual(set(jobs.groups(items)), {"tca1-131072", "tca2-131072", "tca2-1000000", "kernels",
                                                   "transformers", "attention"})


class Tool(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.peer = self.folder / "peer.sh"
        self.peer.write_text(PEER)
        self.peer.chmod(0o755)

    def run_tool(self, names, *options, tca_bench=TCA_BENCH):
        done = subprocess.run(
            [sys.executable, TOOL, "--tca-bench", tca_bench, "--kernels-bench", KERNELS_BENCH,
             "--out", self.folder / "out", "--model-config", ROOT / "models" / "needle-9m",
             "--tokens", "2048", "--layer-tokens", "4096", "--group-tokens", "1024", "--chunk", "512",
             "--device", "cpu", "--threads", "1", "--repeat", "1", "--warm-up-s", "0", "--python", self.peer,
             "--rows", names, *options], capture_output=True, text=True, timeout=LIMIT_S, check=False)
        lines = (self.folder / "out" / "figures.jsonl").read_text().splitlines()
        return done, {one["figure"]: one for one in map(json.loads, lines)}

    def test_figures_of_all_programs_and_one_failure(self):
        names = "prefill-dense,prefill-10,attention-3,attention-3-flash,attention-1m,selection-10,batch-3,two-10"
        done, found = self.run_tool(names)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual({name for name, one in found.items() if one["error"]}, {"attention-3-flash"}, found)
        self.assertIn("exit 3: no such kernel", found["attention-3-flash"]["error"])
        self.assertEqual(found["prefill-dense"]["peer"]["median"], 1000)
        self.assertEqual(found["attention-1m"]["peer"]["note"], "made up")
        for name in ("prefill-10", "attention-3", "batch-3", "two-10"):
            one = found[name]
            self.assertAlmostEqual(one["ratio"], one["peer"]["median"] / one["ours"]["median"])
        self.assertGreater(found["selection-10"]["ours"]["median"], 0)
        self.assertIn("C = 1024,", found["selection-10"]["text"])  # not --chunk's
        self.assertIn("keep 10 %", (self.folder / "out" / "table.md").read_text())

    def test_a_run_goes_on_from_what_is_measured(self):
        self.run_tool("question")
        done, found = self.run_tool("question,decode-3", tca_bench="/no/such/program")
        self.assertEqual(found["question"]["error"], "")
        self.assertIn("transformers 2048 decode", found["decode-3"]["error"])
        self.assertEqual(found["decode-3"]["ours"]["unit"], "ms a token")
        self.assertNotIn("tca1", done.stderr)

    def test_a_program_that_takes_too_long_is_ended(self):
        done, found = self.run_tool("question", "--tokens", "131072", "--timeout-s", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("took more than 1 s", found["question"]["error"])


if __name__ == "__main__":
    del sys.argv[1:3]
    unittest.main()
