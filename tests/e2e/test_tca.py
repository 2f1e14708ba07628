"""TCA through the real service: facts are found in a sparsely prefilled document by a core cache of
some percent, alike on 1 to 4 ranks; what is not kept of an evicting prompt is really freed.

Usage: test_tca.py TCA_COORDINATOR_PROGRAM TCA_PROGRAM [unittest arguments]"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom

import grpc

from service import Service, pb

import corpus

PROGRAM, CLIENT = sys.argv[1:3]
TOKENS = 14000
FACTS = 10
WINDOW = 256  # the least budget is then 6 % of this text
LAYERS, KV_HEADS = 6, 4  # of needle-9m
PAGE = os.sysconf("SC_PAGE_SIZE")


def attention(**fields):
    return pb.AttentionOptions(**fields)


def resident_bytes(process):
    return int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def most_resident_bytes(process):
    """Ever: a moment between two events of an answer is not missed."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024


class Tca(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.book = corpus.build_tokens(TOKENS, facts=FACTS, seed=21)
        cls.data = cls.book.text.encode()

    def start(self, **settings):
        one = Service(PROGRAM, window=WINDOW, **settings)
        self.addCleanup(one.clean)
        return one

    def count(self, one, document, facts, **fields):
        answers = [one.ask(document, fact.question, **fields) for fact in facts]
        return sum(fact.answer in answer.text for fact, answer in zip(facts, answers)), answers

    def test_rules_find_what_dense_finds(self):
        one = self.start(workers=1, threads=2)
        one.upload(self.data, document_id="sparse")
        one.upload(self.data, document_id="dense", prefill=pb.PrefillOptions(rule="dense"))
        facts = self.book.facts
        dense, answers = self.count(one, "dense", facts, attention=attention(rule="dense"))
        self.assertGreaterEqual(dense, FACTS - 1)
        self.assertEqual(answers[0].usage.kept_share, 1.0)
        for document in ("dense", "sparse"):
            found, answers = self.count(one, document, facts)
            self.assertGreaterEqual(found, dense - 1, document)
            for answer in answers:
                usage = answer.usage
                self.assertLess(usage.kept_share, 0.08)
                self.assertTrue(0 < usage.kept_mass_min <= usage.kept_mass_mean <= 1)
                self.assertLess(usage.core_cache_bytes, usage.full_kv_bytes / 10)
        # The control: with the last tokens alone, at the same budget, facts are not to be had.
        found, answers = self.count(one, "dense", facts, attention=attention(rule="window"))
        self.assertLess(found, FACTS / 2)
        self.assertLess(answers[0].usage.kept_share, 0.08)
        self.heatmap(one, facts[FACTS // 2])
        self.tau(one, facts[0])
        self.assertEqual(one.stop(), 0)

    def heatmap(self, one, fact):
        """The kept tokens of each head add up to its share, and the drawing is one."""
        answer = one.ask("dense", fact.question, attention=attention(report_selection=True))
        selections = [event.selection for event in answer.events
                      if event.WhichOneof("body") == "selection"]
        self.assertEqual([(selection.layer, selection.kv_head) for selection in selections],
                         [(layer, head) for layer in range(LAYERS) for head in range(KV_HEADS)])
        kept = sum(sum(selection.bins) for selection in selections)
        self.assertAlmostEqual(kept / (LAYERS * KV_HEADS) / answer.usage.document_tokens,
                               answer.usage.kept_share, places=6)
        place = int(fact.depth * 256)
        near = sum(sum(selection.bins[place - 2:place + 3]) for selection in selections)
        self.assertGreater(near, 0)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "kept.svg")
            subprocess.run([CLIENT, "--server", one.address, "ask", "dense", fact.question,
                            "--heatmap", file], check=True, capture_output=True)
            self.assertEqual(xml.dom.minidom.parse(str(file)).documentElement.tagName, "svg")

    def tau(self, one, fact):
        """More mass costs more tokens, and every head gets at least what its budget can bring."""
        low = one.ask("dense", fact.question, attention=attention(tau=0.5)).usage
        high = one.ask("dense", fact.question, attention=attention(tau=0.95)).usage
        self.assertGreater(high.kept_mass_mean, 0.93)
        self.assertGreater(high.kept_share, low.kept_share)
        self.assertGreaterEqual(low.kept_mass_mean, 0.5)

    def test_ranks_keep_the_same(self):
        facts = self.book.facts[::5]
        wanted = None
        for workers in (1, 3, 4):
            one = self.start(workers=workers)
            one.upload(self.data, document_id="book")
            answers = [one.ask("book", fact.question) for fact in facts]
            self.assertEqual(one.stop(), 0)
            seen = [(answer.text, answer.usage.kept_share, answer.usage.kept_mass_min)
                    for answer in answers]
            wanted = wanted or seen
            self.assertEqual(seen, wanted, workers)

    def test_an_evicting_prompt_gives_its_memory_back(self):
        one = self.start(workers=1, question_kv=0.9, kv_memory="512M")
        fact = self.book.facts[3]
        prompt = f"{self.book.text}\n\nQuestion: {fact.question}"
        worker, = one.processes("tca-worker")
        least, used_most, used_least = 1 << 60, 0, 1 << 60
        text = ""
        for event in one.ask_stream(prompt=prompt, max_tokens=400, ignore_eos=True,
                                    attention=attention(rule="pooled", keep=0.39, evict=True)):
            body = event.WhichOneof("body")
            used = one.info().kv_used_tokens
            if body == "progress":
                used_most = max(used_most, used)
            if body == "delta":
                text += event.delta.text
                least = min(least, resident_bytes(worker))
                used_least = min(used_least, used)
            if body == "finished":
                usage = event.finished.usage
        self.assertIn(fact.answer, text)
        self.assertLess(usage.core_cache_bytes, 0.45 * usage.full_kv_bytes)
        tokens = usage.question_tokens
        self.assertGreaterEqual(used_most, tokens)
        self.assertLess(used_least, 0.45 * tokens)
        freed = usage.full_kv_bytes / (tokens + usage.completion_tokens) * tokens
        self.assertGreater(most_resident_bytes(worker) - least, 0.5 * freed)
        with self.assertRaises(grpc.RpcError) as refused:
            one.ask("book", "Why?", attention=attention(evict=True))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(one.stop(), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
