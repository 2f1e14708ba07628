"""A bundle, moved to where nothing of the build is near, with made-up weights: its programs find one
another, a tokenizer and the shapes of models; sequences may be longer than the model's, answers end
by their length alone, and ids that the tokenizer lacks are written as U+FFFD.

Usage: test_bundle.py BUNDLE_SCRIPT TCA_COORDINATOR TCA_WORKER TCA [unittest arguments]"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from service import LIMIT_S, Service, pb

import corpus

SCRIPT, PROGRAMS = sys.argv[1], sys.argv[2:5]
POSITIONS, VOCABULARY, NEEDLE_VOCABULARY, TOKENS = 256, 8192, 4096, 40

SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
         "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCABULARY, "rope_theta": 10000.0,
         "rms_norm_eps": 1e-5, "max_position_embeddings": POSITIONS, "tie_word_embeddings": True,
         "hidden_act": "silu"}


class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tca-bundle-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        subprocess.run([SCRIPT, cls.folder / "made", *PROGRAMS], check=True, timeout=LIMIT_S,
                       stdout=subprocess.DEVNULL)
        cls.bundle = (cls.folder / "made").rename(cls.folder / "moved")

    def shape(self, **changes):
        folder = tempfile.mkdtemp(prefix="shape-", dir=self.folder)
        pathlib.Path(folder, "config.json").write_text(json.dumps(SHAPE | changes), encoding="utf-8")
        return folder

    def start(self, model, **settings):
        service = Service(self.bundle / "bin" / "tca-coordinator", model=model, weights="dummy",
                          dense_below=0, **settings)
        self.addCleanup(service.clean)
        return service

    def ask(self, service):
        answer = service.ask("text", "What is it?", max_tokens=TOKENS,
                             sampling=pb.SamplingParams(temperature=1, seed=1))
        self.assertEqual(answer.reason, "LENGTH")
        self.assertEqual(len(answer.token_ids), TOKENS)
        return answer

    def test_programs_and_data_are_found(self):
        service = self.start(self.shape(), max_tokens=4096)
        info = service.info()
        self.assertEqual((info.model.weights, info.model.max_tokens), ("dummy", 4096))
        for worker in service.processes("tca-worker"):
            program = pathlib.Path(os.readlink(f"/proc/{worker}/exe"))
            self.assertEqual(program, self.bundle / "libexec" / "tca-worker")
        self.assertEqual(len(service.processes("tca-worker")), 2)
        for shape in ("llama-3.1-8b", "qwen2.5-7b", "smollm2-135m"):
            self.assertTrue((self.bundle / "share/tca/shapes" / shape / "config.json").exists())

    def test_sequences_are_longer_than_the_models(self):
        service = self.start(self.shape(), max_tokens=4096)
        data = corpus.build_bytes(6000, seed=3).text.encode()
        document = service.upload(data, document_id="text")[-1].document
        self.assertEqual(document.state, pb.Document.READY)
        self.assertGreater(document.token_count, 2 * POSITIONS)
        answer = self.ask(service)
        outside = sum(token >= NEEDLE_VOCABULARY for token in answer.token_ids)
        self.assertGreater(outside, 0)
        self.assertGreaterEqual(answer.text.count("\N{REPLACEMENT CHARACTER}"), outside)

    def test_end_tokens_do_not_end_answers(self):
        service = self.start(self.shape(), max_tokens=1024)
        service.upload(b"It is a text.", document_id="text")
        ids = self.ask(service).token_ids
        service.stop()
        service = self.start(self.shape(eos_token_id=ids[5]), max_tokens=1024)
        service.upload(b"It is a text.", document_id="text")
        self.assertEqual(self.ask(service).token_ids, ids)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]])
