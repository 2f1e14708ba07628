"""The command `tca` in a stranger's hands: every command against the real service, with right and
wrong arguments, files and signals.

Usage: test_cli.py TCA_COORDINATOR_PROGRAM TCA_PROGRAM [unittest arguments]"""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc

from service import LIMIT_S, Service, chunk, header, sha256

import corpus

PROGRAM, TCA = sys.argv[1:3]
DONE, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130
ENDLESS = ("--max-tokens", "60000", "--ignore-eos")  # an answer of minutes, unless it is cancelled


class CliTest(unittest.TestCase):
    """A service and ways to run `tca` against it."""

    @classmethod
    def setUpClass(cls):
        cls.service = Service(PROGRAM, kv_memory="256M", question_kv=0.75, drain_timeout=LIMIT_S)
        cls.book = corpus.build_bytes(8000, facts=3, seed=3)
        cls.folder = tempfile.TemporaryDirectory(prefix="tca-cli-")
        cls.environment = dict(os.environ, TCA_SERVER=cls.service.address, LC_ALL="C.UTF-8")

    @classmethod
    def tearDownClass(cls):
        code = cls.service.stop()
        cls.service.clean()
        cls.folder.cleanup()
        assert code == 0, f"the coordinator ended with {code}"

    def file(self, data, name="book.txt"):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as out:
            out.write(data)
        return path

    def tca(self, *words, code=DONE, data=b"", environment=None):
        """Run it; its stdout and stderr as text."""
        done = subprocess.run([TCA, *words], env=environment or self.environment, input=data,
                              capture_output=True, timeout=LIMIT_S, check=False)
        out, err = done.stdout.decode(), done.stderr.decode()
        self.assertEqual(done.returncode, code, (words, out, err))
        return out, err

    @contextlib.contextmanager
    def running(self, *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL):
        with subprocess.Popen([TCA, *words], env=self.environment, stdout=stdout,
                              stderr=stderr) as client:
            try:
                yield client
            finally:
                client.kill()

    def json(self, *words, code=DONE, data=b""):
        """Run it with --json: each line is an object, and nothing else is on stdout."""
        out, _ = self.tca(*words, "--json", code=code, data=data)
        return [json.loads(line) for line in out.splitlines()]

    def refuses(self, status, *words, data=b"", names=""):
        """It says the status and what is wrong, and prints no answer."""
        out, err = self.tca(*words, code=REFUSED, data=data)
        self.assertEqual(out, "", words)
        self.assertIn(f"tca: {status}: ", err, words)
        self.assertIn(names, err, words)

    def put(self, name, data=b"A short text to talk about.", *options):
        self.tca("put", self.file(data), "--id", name, *options)
        self.addCleanup(lambda: self.tca("rm", name))

    def listed(self):
        return [line.split()[0] for line in self.tca("ls")[0].splitlines()[1:]]

    def wait_until(self, is_there, what):
        deadline = time.monotonic() + LIMIT_S
        while not is_there():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)


class Cli(CliTest):
    # What a stranger does first.

    def test_a_text_is_put_asked_and_removed(self):
        path = self.file(self.book.text.encode())
        out, err = self.tca("put", path, "--id", "book")
        self.assertEqual(out, "book\n")
        self.assertRegex(err, r"ready: [0-9,]+ tokens")
        for fact in self.book.facts:
            out, err = self.tca("ask", "book", fact.question)
            self.assertIn(fact.answer, out)
            self.assertTrue(out.endswith("\n"))
            self.assertRegex(err, r"^\[EOS; [0-9,]+ document tokens; \d+ question \+ \d+ answer "
                                  r"tokens; first token .*\]\n$")
        self.assertIn("book", self.listed())
        out, _ = self.tca("get", "book")
        self.assertIn("READY", out)
        self.assertIn("book.txt", out)  # the name of the file
        out, _ = self.tca("watch", "book")
        self.tca("put", path, "--id", "book")  # again: nothing to do
        self.assertEqual(self.tca("rm", "book"), ("", ""))
        self.assertNotIn("book", self.listed())
        self.refuses("NOT_FOUND", "get", "book", names="book")
        self.refuses("NOT_FOUND", "rm", "book", names="book")
        self.refuses("NOT_FOUND", "ask", "book", "Who?", names="book")

    def test_the_server_makes_an_id(self):
        out, _ = self.tca("put", self.file(b"Some text."))
        self.assertRegex(out, r"^[A-Za-z0-9._-]+\n$")
        self.tca("rm", out.strip())

    def test_pins_are_set_and_taken_off(self):
        self.put("pinned")
        self.assertNotIn("pinned", self.json("get", "pinned")[0])
        self.tca("pin", "pinned")
        self.assertIs(self.json("get", "pinned")[0]["pinned"], True)
        document, = self.json("unpin", "pinned")
        self.assertEqual(document["document_id"], "pinned")
        self.assertNotIn("pinned", self.json("get", "pinned")[0])
        self.assertEqual(self.json("get", "pinned")[0]["display_name"], "book.txt")
        self.put("at-once", b"Another text.", "--pin")
        self.assertIs(self.json("get", "at-once")[0]["pinned"], True)
        self.refuses("NOT_FOUND", "pin", "no-such")
        self.refuses("NOT_FOUND", "unpin", "no-such")

    def test_generate_needs_no_document(self):
        out, err = self.tca("generate", "Hello", "--max-tokens", "5", "--ignore-eos")
        self.assertIn("LENGTH", err)
        self.assertIn("5 answer tokens", err)
        again, _ = self.tca("generate", "-", "--max-tokens", "5", "--ignore-eos", data=b"Hello")
        self.assertEqual(again, out)
        sampled = [self.tca("generate", "Hello", "--max-tokens", "12", "--ignore-eos", "--seed",
                            "5", "--temperature", "1.5")[0] for _ in range(2)]
        self.assertEqual(*sampled)
        _, err = self.tca("generate", "Hello", "--max-tokens", "3", "--ignore-eos", "--logprobs",
                          "2", "--top-k", "40", "--top-p", "0.9", "--min-p", "0.01",
                          "--repetition-penalty", "1.1")
        self.assertEqual(len(re.findall(r"^\d+ -?\d+\.\d{4} : \d+ -?\d+\.\d{4} \d+ ", err, re.M)),
                         3, err)

    def test_stop_strings_end_an_answer(self):
        whole, _ = self.tca("generate", "Hello", "--max-tokens", "30", "--ignore-eos")
        stop = whole[8:10]
        out, err = self.tca("generate", "Hello", "--max-tokens", "30", "--ignore-eos",
                            "--stop", "never there", "--stop", stop)
        self.assertEqual(out.removesuffix("\n"), whole[:whole.index(stop)].removesuffix("\n"))
        self.assertIn("STOP", err)

    def test_tokenize_prints_ids(self):
        out, _ = self.tca("tokenize", "Some text.")
        ids = [int(word) for word in out.split()]
        self.assertEqual(self.json("tokenize", "-", data=b"Some text."), [{"token_ids": ids}])
        special = self.json("tokenize", "<|im_end|>", "--parse-special")[0]["token_ids"]
        self.assertEqual(len(special), 1)
        self.assertGreater(len(self.json("tokenize", "<|im_end|>")[0]["token_ids"]), 1)

    def test_info_and_health(self):
        out, _ = self.tca("info")
        self.assertIn("needle-9m", out)
        info, = self.json("info")
        self.assertEqual(info["model"]["name"], "needle-9m")
        self.assertEqual(len(info["workers"]), 2)
        self.assertGreater(int(info["kv_capacity_tokens"]), 1000)
        self.assertEqual(self.tca("health")[0], "SERVING\n")
        self.assertEqual(self.json("health"), [{"status": "SERVING"}])

    # Machines read, too.

    def test_json_is_protobuf_s_mapping(self):
        data = self.book.text.encode()
        events = self.json("put", self.file(data), "--id", "json")
        self.addCleanup(lambda: self.tca("rm", "json"))
        last = events[-1]
        self.assertEqual(last["document"]["state"], "READY")
        self.assertEqual(int(last["document"]["byte_count"]), len(data))
        self.assertEqual(base64.b64decode(last["document"]["sha256"]), sha256(data))
        sequences = [int(event["sequence"]) for event in events]
        self.assertEqual(sequences, sorted(sequences))
        self.assertTrue(any("committed" in event for event in events))
        document, = self.json("get", "json")
        self.assertEqual({**document, "last_used_time": 0},
                         {**last["document"], "last_used_time": 0})
        page, = self.json("ls")
        self.assertIn(document, page["documents"])
        self.assertEqual(self.json("watch", "json")[-1]["document"]["state"], "READY")

        fact = self.book.facts[0]
        events = self.json("ask", "json", fact.question, "--logprobs", "1")
        kinds = [(set(event) - {"sequence"}).pop() for event in events]
        self.assertEqual((kinds[0], kinds[-1]), ("accepted", "finished"))
        deltas = [event["delta"] for event in events if "delta" in event]
        self.assertIn(fact.answer, "".join(delta.get("text", "") for delta in deltas))
        self.assertEqual([one["token_id"] for delta in deltas for one in delta["logprobs"]],
                         [token for delta in deltas for token in delta["token_ids"]])
        finished = events[-1]["finished"]
        self.assertEqual(finished["reason"], "EOS")
        self.assertEqual(int(finished["usage"]["document_tokens"]), document_tokens(document))

    def test_failures_say_so_with_json_too(self):
        out, err = self.tca("get", "no-such", "--json", code=REFUSED)
        self.assertIn("NOT_FOUND", out + err)
        for line in out.splitlines():
            json.loads(line)

    # Files that are not what they should be.

    def test_stdin_is_a_file(self):
        out, _ = self.tca("put", "-", "--id", "piped", data=self.book.text.encode())
        self.addCleanup(lambda: self.tca("rm", "piped"))
        self.assertEqual(out, "piped\n")
        self.assertEqual(base64.b64decode(self.json("get", "piped")[0]["sha256"]),
                         sha256(self.book.text.encode()))
        fact = self.book.facts[1]
        out, _ = self.tca("ask", "piped", "-", data=fact.question.encode())
        self.assertIn(fact.answer, out)

    def test_a_pipe_does_not_go_on_where_another_ended(self):
        requests = [header("half"), chunk(0, b"hello")]
        with self.assertRaises(grpc.RpcError):
            self.service.upload(None, chunks=requests)
        self.assertEqual(self.service.state_of("half"), "UPLOADING")
        self.addCleanup(lambda: self.tca("rm", "half"))
        _, err = self.tca("put", "-", "--id", "half", data=b"HELLO world", code=REFUSED)
        self.assertIn("5 bytes are there", err)
        self.tca("put", self.file(b"hello world"), "--id", "half")

    def test_bad_files_are_refused_and_leave_nothing(self):
        missing = os.path.join(self.folder.name, "missing.txt")
        for path, words in ((missing, "No such file"), (self.folder.name, "directory")):
            out, err = self.tca("put", path, "--id", "bad", code=REFUSED)
            self.assertIn(path, err)
            self.assertIn(words, err)
        self.refuses("INVALID_ARGUMENT", "put", self.file(b""), "--id", "bad", names="0 bytes")
        self.refuses("INVALID_ARGUMENT", "put", "-", "--id", "bad", names="0 bytes")
        self.refuses("INVALID_ARGUMENT", "put", self.file(b"text\xff\xfe\0\1 binary"), "--id",
                     "bad", names="byte 4")
        self.refuses("INVALID_ARGUMENT", "put", self.file(b"\5\0\0\0\0"), "--id", "bad", "--token-ids",
                     names="5 bytes")
        self.refuses("INVALID_ARGUMENT", "put", self.file(b"text"), "--id", "a/b",
                     names="document_id")
        self.refuses("INVALID_ARGUMENT", "put", self.file(b"text"), "--id", "bad", "--rule",
                     "magic", names="prefill.rule")
        self.assertNotIn("bad", self.listed())

    def test_a_document_that_is_too_long_says_how_much_too_long(self):
        path = self.file(corpus.build_bytes(120_000, seed=9).text.encode())
        out, err = self.tca("put", path, "--id", "long", code=REFUSED)
        self.assertRegex(err, r"OUT_OF_RANGE: .*\d{5}.*\d{5}")
        document, = self.json("get", "long")
        self.assertEqual(document["state"], "FAILED")
        self.assertIn(document["error_message"], err)
        self.refuses("OUT_OF_RANGE", "watch", "long")
        self.refuses("FAILED_PRECONDITION", "ask", "long", "Who?")
        self.tca("rm", "long")

    def test_another_text_does_not_take_an_id(self):
        self.put("taken")
        self.refuses("ALREADY_EXISTS", "put", self.file(b"Another text."), "--id", "taken",
                     names="taken")

    def test_token_ids_are_a_document(self):
        ids = self.json("tokenize", "Some text of some tokens.")[0]["token_ids"]
        data = b"".join(token.to_bytes(4, "little") for token in ids)
        self.put("ids", data, "--token-ids")
        self.assertEqual(document_tokens(self.json("get", "ids")[0]), len(ids))

    # Wrong commands.

    def test_wrong_usage_is_2_and_says_how(self):
        for words in ((), ("guess",), ("--guess", "ls"), ("ls", "more"), ("put",), ("ask", "book"),
                      ("ask", "book", "Who?", "--max-tokens", "many"), ("get", "book", "--guess"),
                      ("generate", "x", "--temperature", "warm"), ("rm",), ("put", "x", "--id"),
                      ("ls", "--timeout", "soon"), ("generate", "x", "--seed", "-1")):
            out, err = self.tca(*words, code=USAGE)
            self.assertEqual(out, "", words)
            self.assertRegex(err, r"^tca: |try: |usage", words)
        for words in (("--help",), ("ask", "--help"), ("put", "--help")):
            out, err = self.tca(*words)
            self.assertIn("tca", out)
            self.assertEqual(err, "")

    def test_wrong_values_are_the_server_s_to_judge(self):
        for option, value in (("--max-tokens", "-1"), ("--temperature", "-1"), ("--top-p", "2"),
                              ("--logprobs", "21"), ("--top-k", "-3"), ("--min-p", "7")):
            self.refuses("INVALID_ARGUMENT", "generate", "x", option, value,
                         names=option[2:].replace("-", "_"))
        self.refuses("INVALID_ARGUMENT", "generate", "")
        self.refuses("INVALID_ARGUMENT", "generate", "x", "--rule", "tca", names="attention.rule")

    def test_nobody_listens(self):
        nobody = dict(self.environment, TCA_SERVER="127.0.0.1:1")
        for words in (("ls",), ("health",), ("ask", "book", "Who?")):
            out, err = self.tca(*words, "--timeout", "20", code=REFUSED, environment=nobody)
            self.assertIn("UNAVAILABLE", err)
            self.assertEqual(out, "")
        self.tca("ls", "--server", self.service.address, environment=nobody)

    # Ctrl-C.

    def test_ctrl_c_cancels_the_question_on_the_server(self):
        self.put("talk")
        with self.running("ask", "talk", "Go on.", *ENDLESS) as client:
            self.assertTrue(client.stdout.read(1))  # the answer is on its way
            self.assertEqual(self.service.info().running, 1)
            rest = threading.Thread(target=client.stdout.read)
            rest.start()
            client.send_signal(signal.SIGINT)
            self.assertEqual(client.wait(LIMIT_S), INTERRUPTED)
            rest.join(LIMIT_S)
        self.wait_until(lambda: self.service.info().running == 0, "the question runs on")
        self.assertEqual(self.service.state_of("talk"), "READY")

    def test_ctrl_c_does_not_stop_a_document_that_has_arrived(self):
        path = self.file(corpus.build_bytes(60_000, seed=5).text.encode())
        with self.running("put", path, "--id", "left", stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as client:
            self.addCleanup(lambda: self.tca("rm", "left"))
            for line in client.stderr:
                if b"prefilling" in line:
                    break
            client.send_signal(signal.SIGINT)
            text = client.stderr.read().decode()
            self.assertEqual(client.wait(LIMIT_S), INTERRUPTED, text)
        self.assertIn("tca watch left", text)
        self.tca("watch", "left")
        self.assertEqual(self.service.state_of("left"), "READY")

    def test_a_lost_reader_ends_the_answer(self):
        self.put("pipe")
        with self.running("ask", "pipe", "Go on.", *ENDLESS) as client:
            self.assertTrue(client.stdout.read(1))
            client.stdout.close()
            self.assertEqual(client.wait(LIMIT_S), REFUSED)
        self.wait_until(lambda: self.service.info().running == 0, "the question runs on")


class CliEnd(CliTest):
    def test_drain_ends_the_service(self):
        self.assertEqual(self.tca("health")[0], "SERVING\n")
        with self.running("generate", "Hello", *ENDLESS) as longer, \
                self.running("generate", "Hello", "--max-tokens", "300",
                             "--ignore-eos") as client:
            for one in (longer, client):
                self.assertTrue(one.stdout.read(1))
            self.assertEqual(self.tca("drain")[0], "")
            out, _ = self.tca("health", code=REFUSED)
            self.assertEqual(out, "NOT_SERVING\n")
            self.refuses("UNAVAILABLE", "put", self.file(b"text"), "--id", "late")
            self.refuses("UNAVAILABLE", "generate", "late")
            longer.kill()  # it has kept the service there until now
            client.communicate()
            self.assertEqual(client.returncode, DONE)  # what ran could end
        self.assertEqual(self.service.wait(), 0)


def document_tokens(document):
    return int(document["token_count"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
