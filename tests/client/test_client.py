"""The client against a server on another implementation of gRPC: what goes over the wire, what is
printed where, exit codes. Usage: test_client.py PATH_OF_TCA"""
import hashlib
import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree

from fake_server import Server, environment, grpc, pb

from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

TCA = sys.argv.pop(1) if len(sys.argv) > 1 else "build/host/bin/tca"
MIB = 1024 * 1024
WAIT_S = 60  # a deadline, not a measurement


def random_bytes(count):
    return random.Random(7).randbytes(count)


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def document(state="READY", **fields):
    fields = dict({"document_id": "book", "token_count": 16384, "kv_bytes": 3 * MIB}, **fields)
    return pb.Document(state=pb.Document.State.Value(state), **fields)


def event(sequence, **body):
    body.setdefault("document", document("PREFILLING"))
    return pb.DocumentEvent(sequence=sequence, **body)


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server.grpc)
        self.server.__enter__()
        self.addCleanup(self.server.__exit__)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.uploads = []  # of each upload: (header, chunks)

    def command(self, *words):
        return [TCA, *words]

    def start(self, *words, before=(), **options):
        options = dict(dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE), **options)
        process = subprocess.Popen([*before, *self.command(*words)], env=environment(self.server), **options)
        self.addCleanup(lambda: (process.kill(), process.communicate()))
        return process

    def run_tca(self, *words, code=0, data=b""):
        done = subprocess.run(self.command(*words), env=environment(self.server), input=data, capture_output=True,
                              timeout=WAIT_S)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout.decode(), done.stderr.decode()

    def file(self, data, name="book.txt"):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as out:
            out.write(data)
        return path

    def take_uploads(self):
        def upload(requests, context):
            chunks = []
            header = next(requests).header
            self.uploads.append((header, chunks))
            for request in requests:
                chunks.append(request.chunk)
                done = request.chunk.offset + len(request.chunk.data)
                yield event(len(chunks), document=document("UPLOADING"), committed={"bytes": done})
            yield event(90, progress={"phase": "PREFILLING", "tokens_total": 16384, "tokens_done": 8192,
                                      "eta_ms": 6600, "tokens_per_s": 1234})
            yield event(91, document=document())

        self.server.handlers["Documents/Upload"] = upload

    def check_upload(self, data, offset=0):
        header, chunks = self.uploads.pop()
        self.assertEqual(b"".join(chunk.data for chunk in chunks), data[offset:])
        for chunk in chunks:
            self.assertEqual(chunk.offset, offset)
            self.assertLessEqual(len(chunk.data), MIB)
            offset += len(chunk.data)
        self.assertEqual([chunk.last for chunk in chunks], [False] * (len(chunks) - 1) + [True])
        return header

    # put

    def test_put_sends_a_file_in_chunks_and_says_its_id(self):
        self.take_uploads()
        data = random_bytes(3 * MIB + 17)
        out, err = self.run_tca("put", self.file(data))
        self.assertEqual(out, "book\n")
        self.assertIn("prefilling  50 %  8,192 of 16,384 tokens  1,234 tokens/s  ETA 6.6 s\n", err)
        self.assertIn("ready: 16,384 tokens, 3.0 MiB of KV cache", err)
        self.assertNotIn("\x1b", err)
        header = self.check_upload(data)
        self.assertEqual(header.total_bytes, len(data))
        self.assertEqual(header.sha256, hashlib.sha256(data).digest())
        self.assertEqual(header.display_name, "book.txt")
        self.assertEqual(header.document_id, "")

    def test_put_takes_sizes_around_a_chunk(self):
        self.take_uploads()
        for size in (0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB):
            data = random_bytes(size)
            self.run_tca("put", self.file(data))
            self.check_upload(data)

    def test_put_options_reach_the_header(self):
        self.take_uploads()
        self.no_document()
        self.run_tca("put", self.file(b"\0\0\0\1"), "--id", "x.1", "--rule", "r", "--keep", "0.25", "--raw", "--pin",
                     "--system", "Be brief.", "--token-ids")
        header = self.check_upload(b"\0\0\0\1")
        self.assertEqual((header.document_id, header.prefill.rule, header.prefill.keep), ("x.1", "r", 0.25))
        self.assertEqual((header.raw, header.pinned, header.system), (True, True, "Be brief."))
        self.assertEqual(header.encoding, pb.UploadHeader.TOKEN_IDS_U32LE)

    def no_document(self):
        def get(request, context):
            context.abort(grpc.StatusCode.NOT_FOUND, "document_id: no document " + request.document_id)

        self.server.handlers["Documents/Get"] = get

    def test_put_streams_stdin_of_unknown_size(self):
        self.take_uploads()
        data = random_bytes(2 * MIB + 5)
        process = self.start("put", "-", stdin=subprocess.PIPE)
        process.stdin.write(data[:10])
        process.stdin.flush()
        time.sleep(0.5)  # a slow pipe
        process.communicate(data[10:], timeout=WAIT_S)
        self.assertEqual(process.returncode, 0)
        header = self.check_upload(data)
        self.assertEqual((header.total_bytes, header.sha256), (0, b""))

    def test_put_reads_events_while_it_sends(self):
        def upload(requests, context):
            next(requests)
            # Far more than flow control lets pass unread, before any chunk is taken.
            for i in range(300):
                yield event(i + 1, document=document("UPLOADING", display_name="x" * 20000))
            for _ in requests:
                pass
            yield event(999, document=document())

        self.server.handlers["Documents/Upload"] = upload
        self.run_tca("put", self.file(random_bytes(8 * MIB)))

    def test_put_resumes_where_the_server_says(self):
        offset = MIB + 5
        self.server.handlers["Documents/Get"] = lambda request, context: document("UPLOADING", byte_count=offset)
        self.take_uploads()
        data = random_bytes(3 * MIB)
        self.run_tca("put", self.file(data), "--id", "book")
        self.assertEqual(self.check_upload(data, offset).resume_offset, offset)
        self.run_tca("put", "-", "--id", "book", data=data, code=1)  # no digest vouches for a pipe

    def test_put_sends_a_finished_document_from_its_start(self):
        self.server.handlers["Documents/Get"] = lambda request, context: document(byte_count=100)
        self.take_uploads()
        self.run_tca("put", self.file(b"y" * 100), "--id", "book")
        self.assertEqual(self.check_upload(b"y" * 100).resume_offset, 0)

    def test_put_reports_a_refusal(self):
        def upload(requests, context):
            next(requests)
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "document_id: book\x1b[2J")
            yield

        self.server.handlers["Documents/Upload"] = upload
        out, err = self.run_tca("put", self.file(random_bytes(8 * MIB)), code=1)
        self.assertEqual(out, "")
        self.assertEqual(err.splitlines()[-1], "tca: ALREADY_EXISTS: document_id: book?[2J")

    def test_put_of_a_refused_pipe_does_not_wait_for_the_pipe(self):
        def upload(requests, context):
            next(requests)
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            yield

        self.server.handlers["Documents/Upload"] = upload
        process = self.start("put", "-", stdin=subprocess.PIPE)
        self.assertEqual(process.wait(WAIT_S), 1)

    def test_put_names_a_file_that_cannot_be_read(self):
        _, err = self.run_tca("put", "/nowhere/book.txt", code=1)
        self.assertEqual(err, "tca: /nowhere/book.txt: No such file or directory\n")
        self.take_uploads()
        _, err = self.run_tca("put", self.folder.name, code=1)
        self.assertIn("Is a directory", err)

    def test_interrupted_put_says_how_to_go_on(self):
        has_begun, is_cancelled = threading.Event(), threading.Event()

        def upload(requests, context):
            context.add_callback(is_cancelled.set)
            next(requests)
            yield event(1, document=document("UPLOADING"), committed={"bytes": 5})
            has_begun.set()
            is_cancelled.wait(WAIT_S)

        self.server.handlers["Documents/Upload"] = upload
        process = self.start("put", self.file(b"some text"))
        self.assertTrue(has_begun.wait(WAIT_S))
        self.assertIn(b"uploading", process.stderr.readline())  # the event has arrived
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 130)
        self.assertTrue(is_cancelled.wait(WAIT_S))
        self.assertIn(b"tca put --id book", err)

    # ask, generate

    def answer(self, *texts, reason="EOS", **usage_fields):
        self.asked = []

        def ask(request, context):
            self.asked.append(request)
            yield pb.AskEvent(sequence=1, accepted={"request_id": "r", "seed": 2**64 - 1})
            yield pb.AskEvent(sequence=2, progress={"tokens_total": 10, "tokens_done": 5})
            for text in texts:
                yield pb.AskEvent(sequence=3, delta={"text": text, "token_ids": [7]})
            usage = {"document_tokens": 16384, "question_tokens": 9, "completion_tokens": 3, "first_token_ms": 850,
                     "decode_ms": 100, "kept_share": 1, **usage_fields}
            yield pb.AskEvent(sequence=4, finished={"reason": reason, "usage": usage})

        self.server.handlers["Generation/Ask"] = ask

    def test_ask_prints_the_answer_on_stdout_and_usage_on_stderr(self):
        self.answer("forty", "", "-two \u00e9\x1b")
        out, err = self.run_tca("ask", "book", "How many?")
        self.assertEqual(out, "forty-two \u00e9\x1b\n")  # a pipe gets it as it is
        self.assertEqual(err.splitlines()[-1],
                         "[EOS; 16,384 document tokens; 9 question + 3 answer tokens; first token 850 ms; "
                         "then 20.0 tokens/s; kept 100.0 % of the cache]")
        self.assertEqual((self.asked[0].document_id, self.asked[0].question), ("book", "How many?"))
        self.assertEqual(self.asked[0].WhichOneof("source"), "document_id")

    def test_usage_says_what_was_kept(self):
        self.answer("x", kept_share=0.0312, kept_mass_mean=0.9876, kept_mass_min=0.5, core_cache_bytes=1536 * 1024,
                    full_kv_bytes=48 << 20)
        _, err = self.run_tca("ask", "book", "How many?")
        self.assertTrue(err.splitlines()[-1].endswith(
            "; kept 3.1 % of the cache; mass 98.8 % (least 50.0 %); core cache 1.5 MiB of 48.0 MiB]"), err)
        self.answer("x", document_tokens=0, kept_share=0.25, core_cache_bytes=100, full_kv_bytes=400)
        _, err = self.run_tca("generate", "Long", "--evict", "--temperature", "1")
        self.assertTrue(err.splitlines()[-1].endswith(
            "; kept 25.0 % of the cache; core cache 100 B of 400 B; seed 18446744073709551615]"), err)
        self.answer("x", document_tokens=0, kept_share=1)
        self.assertNotIn("kept", self.run_tca("generate", "Short")[1])

    def test_an_answer_that_finishes_again_and_again_is_said_once(self):
        def ask(request, context):
            for _ in range(100):
                yield pb.AskEvent(finished={"reason": "EOS", "usage": {"document_tokens": 16384, "kept_share": 1}})

        self.server.handlers["Generation/Ask"] = ask
        _, err = self.run_tca("ask", "book", "How many?")
        self.assertEqual(err, "[EOS; 16,384 document tokens; 0 question + 0 answer tokens; first token 0 ms; "
                              "kept 100.0 % of the cache]\n")

    def test_ask_options_reach_the_request(self):
        self.answer("x\n")
        out, err = self.run_tca("ask", "book", "-", *(
            "--max-tokens 7 --temperature 0.5 --top-k -3 --top-p 0.9 --min-p 0.1 --repetition-penalty 1.1 "
            "--seed 18446744073709551615 --stop . --stop ! --logprobs 2 --ignore-eos --raw --parse-special --rule r "
            "--keep 0.5 --tau 0.75 --evict --no-wait").split(), data=b"Why?\0")
        self.assertEqual(out, "x\n")
        self.assertIn("seed 18446744073709551615]", err)
        expected = pb.AskRequest(
            document_id="book", question="Why?\0", raw=True, parse_special=True, no_wait=True, max_tokens=7,
            stop=[".", "!"], ignore_eos=True, logprobs=2,
            sampling={"temperature": 0.5, "top_k": -3, "top_p": 0.9, "min_p": 0.1, "seed": 2**64 - 1,
                      "repetition_penalty": 1.1},
            attention={"rule": "r", "keep": 0.5, "tau": 0.75, "evict": True})
        self.assertEqual(self.asked[0], expected)

    def test_generate_sends_a_prompt(self):
        self.answer("x")
        self.run_tca("generate", "Once")
        self.assertEqual(self.asked[0].WhichOneof("source"), "prompt")
        self.assertEqual(self.asked[0].prompt, "Once")

    def test_logprobs_follow_the_answer(self):
        def ask(request, context):
            chance = {"token_id": 5, "logprob": -0.5, "top": [{"token_id": 5, "logprob": -0.5},
                                                              {"token_id": 6, "logprob": -1.25}]}
            yield pb.AskEvent(delta={"text": "x", "token_ids": [5], "logprobs": [chance]})
            yield pb.AskEvent(finished={"reason": "LENGTH"})

        self.server.handlers["Generation/Ask"] = ask
        _, err = self.run_tca("ask", "book", "?", "--logprobs", "2")
        self.assertEqual(err, "5 -0.5000 : 5 -0.5000 6 -1.2500\n[LENGTH]\n")

    # ask --heatmap

    def selecting_answer(self, *selections, tokens=1024, code=None):
        self.asked = []

        def ask(request, context):
            self.asked.append(request)
            yield pb.AskEvent(accepted={"request_id": "r", "document_tokens": tokens})
            for layer, kv_head, bins in selections:
                yield pb.AskEvent(selection={"layer": layer, "kv_head": kv_head, "bins": bins})
            yield pb.AskEvent(delta={"text": "x"})
            if code is not None:
                context.abort(code, "no more")
            yield pb.AskEvent(finished={"reason": "EOS"})

        self.server.handlers["Generation/Ask"] = ask

    def ask_heatmap(self, path, question="Why?", *words, code=0):
        out, err = self.run_tca("ask", "book", question, "--heatmap", path, *words, code=code)
        self.assertEqual(os.listdir(self.folder.name), [name for name in ("map.svg",) if os.path.exists(path)])
        return out, err

    def test_heatmap_draws_what_each_head_kept(self):
        columns = [0] * 128 + [2] * 64 + [4] * 64
        self.selecting_answer((1, 0, columns), (0, 1, [4] * 256), (0, 0, [1] + [0] * 255))
        path = os.path.join(self.folder.name, "map.svg")
        question = "Why <&>\n\"\x1b\ufffe\u00e9?" + " and" * 100
        out, err = self.ask_heatmap(path, question, "--rule", "pooled")
        self.assertEqual((out, err), ("x\n", "[EOS]\n"))
        self.assertTrue(self.asked[0].attention.report_selection)
        svg = xml.etree.ElementTree.parse(path).getroot()
        name = "{http://www.w3.org/2000/svg}"
        texts = [element.text for element in svg.iter(name + "text")]
        shown = "Why <&> \"\\x1b\ufffd\u00e9?" + " and" * 100
        self.assertEqual(texts[0], shown[:84] + "\u2026")
        self.assertEqual(texts[1], "book, 1,024 tokens, rule pooled: kept 45.9 % (a head 0.1 to 100.0 %)")
        for label in ("0.0", "0.1", "1.0", "0.1 %", "100.0 %", "37.5 %", "kept of a column's 4 tokens", "1,000"):
            self.assertIn(label, texts)
        self.assertEqual([element.text for element in svg.iter(name + "title")][1:],
                         ["layer 0, head 0: kept 0.10 %", "layer 0, head 1: kept 100.00 %",
                          "layer 1, head 0: kept 37.50 %"])
        paths = [element.get("d") for element in svg.iter(name + "path") if element.get("fill")]
        self.assertEqual(paths, ["M0 0h1v1h-1z", "M128 2h64v1h-64z", "M0 1h256v1h-256zM192 2h64v1h-64z"])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o666 & ~current_umask())

    def test_heatmap_goes_with_json(self):
        self.selecting_answer((0, 0, [4] * 256))
        path = os.path.join(self.folder.name, "map.svg")
        out, err = self.ask_heatmap(path, "Why?", "--json")
        self.assertEqual(len(out.splitlines()), 4)
        self.assertTrue(os.path.exists(path))

    def test_heatmap_of_a_dense_answer_is_not_written(self):
        self.selecting_answer()
        path = os.path.join(self.folder.name, "map.svg")
        out, err = self.ask_heatmap(path)
        self.assertEqual(out, "x\n")
        self.assertIn(f"tca: {path}: not written, the answer read all of the document\n", err)
        self.assertFalse(os.path.exists(path))

    def test_heatmap_of_a_failed_answer_leaves_the_old_file(self):
        path = self.file(b"old", "map.svg")
        self.selecting_answer((0, 0, [4] * 256), code=grpc.StatusCode.ABORTED)
        self.assertIn("tca: ABORTED: no more", self.ask_heatmap(path, code=1)[1])
        self.selecting_answer((0, 0, [4] * 3))
        self.assertIn("layer 0, head 0: 3 bins, allowed: 256", self.ask_heatmap(path, code=1)[1])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_heatmap_that_finds_no_room_leaves_the_old_file(self):
        path = self.file(b"old", "map.svg")
        self.selecting_answer((0, 0, [4] * 256))
        # Signals as in Python, which ignores SIGXFSZ: the write fails instead. No Python code between fork
        # and exec, where gRPC's threads may have left anything.
        process = self.start("ask", "book", "Why?", "--heatmap", path, restore_signals=False,
                             before=("prlimit", "--fsize=100"))
        out, err = process.communicate(timeout=WAIT_S)
        self.assertEqual((process.returncode, out), (1, b"x\n"))
        self.assertIn(f"tca: {path}: File too large\n".encode(), err)
        self.assertEqual(os.listdir(self.folder.name), ["map.svg"])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_heatmap_names_a_file_that_cannot_be_written_before_it_asks(self):
        self.selecting_answer((0, 0, [4] * 256))
        for path, part in (("/nowhere/map.svg", "No such file or directory"),
                           (self.folder.name, "not a regular file"), ("/dev/null", "not a regular file")):
            self.assertEqual(self.run_tca("ask", "book", "Why?", "--heatmap", path, code=1),
                             ("", f"tca: {path}: {part}\n"))
        self.assertEqual((self.asked, os.listdir(self.folder.name)), ([], []))
        self.assertIn("heatmap", self.run_tca("generate", "x", "--heatmap", "f", code=2)[1])

    def endless_answer(self):
        is_cancelled = threading.Event()
        self.has_begun = threading.Event()

        def ask(request, context):
            if context.add_callback(is_cancelled.set):
                self.has_begun.set()
            while context.is_active():
                yield pb.AskEvent(delta={"text": "word "})
                time.sleep(0.01)

        self.server.handlers["Generation/Ask"] = ask
        return is_cancelled

    def test_the_answer_streams_and_ctrl_c_cancels_the_question(self):
        is_cancelled = self.endless_answer()
        process = self.start("ask", "book", "?")
        self.assertEqual(os.read(process.stdout.fileno(), 5), b"word ")
        self.assertFalse(is_cancelled.is_set())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 130)
        self.assertTrue(is_cancelled.wait(WAIT_S))
        self.assertEqual(err, b"tca: interrupted\n")

    def test_each_delta_is_printed_at_once(self):
        is_read = threading.Event()

        def ask(request, context):
            yield pb.AskEvent(delta={"text": "first "})
            if is_read.wait(WAIT_S):
                yield pb.AskEvent(delta={"text": "last"})

        self.server.handlers["Generation/Ask"] = ask
        process = self.start("ask", "book", "?")
        self.assertEqual(os.read(process.stdout.fileno(), 6), b"first ")
        is_read.set()
        self.assertEqual(process.communicate(timeout=WAIT_S)[0], b"last\n")

    def test_a_reader_that_leaves_cancels_the_question(self):
        is_cancelled = self.endless_answer()
        process = self.start("ask", "book", "?")
        os.read(process.stdout.fileno(), 5)
        process.stdout.close()
        self.assertTrue(is_cancelled.wait(WAIT_S))
        self.assertEqual(process.wait(WAIT_S), 1)
        self.assertEqual(process.stderr.read(), b"")

    def test_timeout_is_the_calls_deadline(self):
        is_cancelled = self.endless_answer()
        timeout = 0.5  # longer where a loaded machine lets it pass before the call has begun
        while not self.has_begun.is_set():
            _, err = self.run_tca("--timeout", str(timeout), "ask", "book", "?", code=1)
            self.assertIn("tca: DEADLINE_EXCEEDED", err)
            timeout *= 2
        self.assertTrue(is_cancelled.wait(WAIT_S))

    # on a terminal

    def on_terminal(self, *words):
        controller, terminal = pty.openpty()
        process = self.start(*words, stdout=terminal, stderr=terminal)
        os.close(terminal)
        seen = b""
        while select.select([controller], [], [], WAIT_S)[0]:
            try:
                data = os.read(controller, 4096)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            seen += data
        os.close(controller)
        self.assertEqual(process.wait(WAIT_S), 0)
        return seen.decode()

    def test_a_terminal_gets_a_bar_that_is_wiped(self):
        self.take_uploads()
        seen = self.on_terminal("put", self.file(b"some text"))
        self.assertIn("prefilling [############            ]  50 %", seen)
        self.assertIn("\r\x1b[Kready: ", seen)

    def test_a_terminal_is_not_steered_by_the_answer(self):
        self.answer("a\x1b[2Jb\u009bc\td")
        seen = self.on_terminal("ask", "book", "?")
        self.assertIn("a\\x1b[2Jb\\u009bc\td\r\n", seen)

    # --json

    def check_json_lines(self, out, messages):
        lines = [json.loads(line) for line in out.splitlines()]
        expected = [json_format.MessageToDict(message, preserving_proto_field_name=True) for message in messages]
        self.assertEqual(lines, expected)

    def test_json_is_protobufs_mapping_one_event_a_line(self):
        events = [
            pb.AskEvent(sequence=1, accepted={"request_id": "r", "document_tokens": 2**60, "seed": 2**64 - 1}),
            pb.AskEvent(sequence=2, progress={}),
            pb.AskEvent(sequence=3, delta={"text": "\u00e9\"\\\n\0\U0001f600", "token_ids": [1, 0, 2], "logprobs": [
                {"token_id": 1, "logprob": -0.1, "top": [{"token_id": 1, "logprob": -0.1}]}]}),
            pb.AskEvent(sequence=4, selection={"layer": 1, "bins": [1, 2, 3]}),
            pb.AskEvent(heartbeat={}),
            pb.AskEvent(sequence=5, finished={"reason": "STOP", "usage": {"kept_share": 0.1, "decode_ms": 12}}),
        ]
        self.server.handlers["Generation/Ask"] = lambda request, context: iter(events)
        out, err = self.run_tca("--json", "ask", "book", "?")
        self.check_json_lines(out, events)
        self.assertEqual(err, "")

    def test_json_of_documents(self):
        one = document(sha256=bytes(range(32)), create_time={"seconds": 1769860800, "nanos": 5000000}, pinned=True)
        events = [event(2**63, document=one, committed={"bytes": 2**40}), event(3, heartbeat={}), event(4)]
        self.server.handlers["Documents/Watch"] = lambda request, context: iter(events)
        self.server.handlers["Documents/Get"] = lambda request, context: one
        self.check_json_lines(self.run_tca("watch", "book", "--json")[0], events)
        self.check_json_lines(self.run_tca("get", "book", "--json")[0], [one])

    # documents

    def test_ls_walks_every_page(self):
        tokens = []

        def list_documents(request, context):
            tokens.append(request.page_token)
            page = len(tokens)
            return pb.ListDocumentsResponse(documents=[document(document_id=f"book-{page}", display_name="a\nb")],
                                            next_page_token=f"t{page}" if page < 3 else "")

        self.server.handlers["Documents/List"] = list_documents
        out, _ = self.run_tca("ls")
        self.assertEqual(tokens, ["", "t1", "t2"])
        lines = out.splitlines()
        self.assertEqual(lines[0].split(), ["ID", "STATE", "TOKENS", "BYTES", "KV", "PINNED", "NAME"])
        self.assertEqual(lines[3].split(), ["book-3", "READY", "16,384", "-", "3.0", "MiB", "-", "a\\x0ab"])
        self.assertEqual(len(lines), 4)

    def test_ls_takes_any_number_of_short_entries(self):
        def list_documents(request, context):
            first, time = int(request.page_token or 0), {"seconds": 1_790_000_000, "nanos": 5_000_000}
            end = min(first + request.page_size, 1000)
            return pb.ListDocumentsResponse(
                documents=[pb.Document(document_id=str(number), state="UPLOADING", model="m",
                                       create_time=time, last_used_time=time)
                           for number in range(first, end)],
                next_page_token=str(end) if end < 1000 else "")

        self.server.handlers["Documents/List"] = list_documents
        out, _ = self.run_tca("ls")
        self.assertEqual([line.split()[0] for line in out.splitlines()[1:]], [str(number) for number in range(1000)])

    def test_get_shows_every_field(self):
        self.server.handlers["Documents/Get"] = lambda request, context: document(
            "FAILED", sha256=b"\xab" * 32, create_time={"seconds": 1769860800}, error_message="too long")
        out, _ = self.run_tca("get", "book")
        for part in ("FAILED", "ab" * 32, "2026-01-31 12:00:00Z", "too long"):
            self.assertIn(part, out)

    def test_pin_unpin_and_rm_say_nothing(self):
        updates = []

        def update(request, context):
            updates.append((request.document_id, request.pinned, request.display_name))
            return document()

        self.server.handlers["Documents/Update"] = update
        self.server.handlers["Documents/Delete"] = lambda request, context: pb.DeleteDocumentResponse()
        self.assertEqual(self.run_tca("pin", "book"), ("", ""))
        self.assertEqual(self.run_tca("unpin", "book"), ("", ""))
        self.assertEqual(updates, [("book", True, ""), ("book", False, "")])
        self.assertEqual(self.run_tca("rm", "book"), ("", ""))
        self.assertEqual(self.run_tca("rm", "book", "--json"), ("{}\n", ""))

    def test_a_missing_document_is_named(self):
        self.no_document()
        self.assertEqual(self.run_tca("get", "x", code=1), ("", "tca: NOT_FOUND: document_id: no document x\n"))

    # service

    def test_tokenize_prints_ids(self):
        seen = []

        def tokenize(request, context):
            seen.append((request.text, request.parse_special))
            return pb.TokenizeResponse(token_ids=[5, 0, 70000])

        self.server.handlers["Generation/Tokenize"] = tokenize
        self.assertEqual(self.run_tca("tokenize", "a b")[0], "5 0 70000\n")
        self.run_tca("tokenize", "-", "--parse-special", data=b"<s>")
        self.assertEqual(seen, [("a b", False), ("<s>", True)])

    def test_info_lists_model_and_workers(self):
        info = pb.ServerInfo(version="9.9", model={"name": "needle", "max_tokens": 65536, "profile": "b0b"},
                             workers=[{"rank": 0, "device": "cpu", "state": "READY"}, {"rank": 1, "state": "LOST"}])
        self.server.handlers["Admin/GetServerInfo"] = lambda request, context: info
        out, _ = self.run_tca("info")
        for part in ("9.9", "needle", "65,536", "b0b", "cpu", "LOST"):
            self.assertIn(part, out)

    def test_health_exits_0_only_when_serving(self):
        self.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        self.assertEqual(self.run_tca("health", code=1)[0], "NOT_SERVING\n")
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(self.run_tca("health")[0], "SERVING\n")
        self.assertIn("tca: UNAVAILABLE", self.run_tca("--server", "127.0.0.1:1", "health", code=1)[1])

    def test_drain_calls_drain(self):
        drained = threading.Event()

        def drain(request, context):
            drained.set()
            return pb.DrainResponse()

        self.server.handlers["Admin/Drain"] = drain
        self.run_tca("drain")
        self.assertTrue(drained.is_set())

    # usage

    def test_usage_errors_exit_2_and_say_so(self):
        for words, part in ((["fly"], 'unknown command "fly"'), (["ask", "book"], "takes ID QUESTION"), ([], "missing"),
                            (["ask", "a", "b", "--max-tokens", "x"], "--max-tokens"),
                            (["ask", "a", "b", "--max-tokens", "9999999999"], "--max-tokens"),
                            (["ask", "a", "b", "--seed", "-1"], "--seed"), (["--timeout", "-1", "ls"], "--timeout"),
                            (["--server", "here", "ls"], '--server: value "here", allowed: HOST:PORT')):
            self.assertIn(part, self.run_tca(*words, code=2)[1])
        self.assertIn("usage: tca put", self.run_tca("put", "--help")[0])


if __name__ == "__main__":
    unittest.main()
