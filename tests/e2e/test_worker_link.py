"""The coordinator against a worker group that follows a script: who is let in, what travels on the
control link, and what clients see of a group that fails, lies, is late or goes.

Usage: test_worker_link.py TCA_COORDINATOR_PROGRAM [unittest arguments]"""

import contextlib
import json
import os
import pathlib
import queue
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import service
from service import LIMIT_S, Service, Stubs, pb, states

import grpc

with Stubs("control") as (control, control_grpc):
    pass

PROGRAM = sys.argv[1]
Code = grpc.StatusCode
CAPACITY = 64 * 100


class Group:
    """One Attach stream."""

    version = b""  # the coordinator's, once one has started

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.outgoing = queue.Queue()
        self.incoming = queue.Queue()
        self.call = control_grpc.ControlStub(self.channel).Attach(iter(self.outgoing.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for message in self.call:
                self.incoming.put(message)
        except grpc.RpcError as error:
            self.incoming.put(error)
        self.incoming.put(None)

    def send(self, **body):
        self.outgoing.put(control.WorkerMessage(**body))

    def receive(self, kind):
        """The next message, which is of this kind."""
        message = self.incoming.get(timeout=LIMIT_S)
        if not isinstance(message, control.CoordinatorMessage):
            raise AssertionError(f"{kind} was expected, but the stream ended: {message!r}")
        assert message.WhichOneof("body") == kind, (kind, message)
        return getattr(message, kind)

    def end(self):
        """How the coordinator has ended the stream."""
        while (message := self.incoming.get(timeout=LIMIT_S)) is not None:
            if isinstance(message, grpc.RpcError):
                return message
        return None

    def hello(self, secret, version=None, ranks=2):
        self.send(hello=control.Hello(secret=secret, version=version or Group.version, ranks=ranks))

    def ready(self, capacity=CAPACITY, ranks=2, **fields):
        self.send(ready=control.Ready(
            fingerprint=b"f" * 64, kv_capacity_tokens=capacity, kv_bytes_per_token=6144, **fields,
            ranks=[control.RankInfo(rank=rank, device=b"script", host=b"here", kv_heads=2)
                   for rank in range(ranks)]))
        threading.Thread(target=self._stay_alive, daemon=True).start()

    def _stay_alive(self):
        while self.call.is_active():
            self.send(alive=control.Alive())
            time.sleep(1)

    # What a group does.

    def take_document(self):
        """The key and the tokens of the next document."""
        opened = self.opened = self.receive("document_open")
        return opened.key, self.take_ids(opened.key, opened.token_count, "document_tokens")

    def take_question(self):
        opened = self.receive("question_open")
        return opened, self.take_ids(opened.key, opened.token_count, "question_input")

    def take_ids(self, key, count, kind):
        ids = []
        while len(ids) < count:
            message = self.receive(kind)
            assert message.key == key and 4 <= len(message.token_ids) <= 4 * 65536
            ids += struct.unpack(f"<{len(message.token_ids) // 4}i", message.token_ids)
        return ids

    def document_done(self, key, state, **fields):
        self.send(document_done=control.DocumentDone(key=key, state=state, **fields))

    def serve_document(self):
        key, ids = self.take_document()
        self.document_done(key, control.DocumentDone.READY)
        return key, ids

    def close_document(self, key):
        assert self.receive("document_close").key == key
        self.document_done(key, control.DocumentDone.CLOSED)

    def tokens(self, key, ids):
        self.send(question_tokens=control.QuestionTokens(
            key=key, tokens=[control.SampledToken(token_id=token) for token in ids]))

    def question_done(self, key, reason=control.QuestionDone.EOS, **fields):
        self.send(question_done=control.QuestionDone(key=key, reason=reason, **fields))


class WorkerLink(unittest.TestCase):
    def setUp(self):
        self.service = None

    def tearDown(self):
        self.service.clean()

    def start(self, **settings):
        self.service = Service(PROGRAM, wait_ready=False, no_launch=True, **settings)
        self.workers = self.service.wait_line("workers connect to ").split()[-1]
        with open(os.path.join(self.service.state, "worker-secret"), "rb") as file:
            self.secret = file.read()
        Group.version = self.service.info().version.encode()

    def start_ready(self, capacity=CAPACITY, ready=(), **settings):
        self.start(**settings)
        group = Group(self.workers)
        group.hello(self.secret)
        group.receive("welcome")
        group.ready(capacity, **dict(ready))
        self.service.wait_line("ready")
        return group

    def background(self, call):
        """Run a call in a thread; gives a function that waits for its result or its error."""
        results = queue.Queue()

        def run():
            try:
                results.put(call())
            except grpc.RpcError as error:
                results.put(error)

        threading.Thread(target=run, daemon=True).start()
        return lambda: results.get(timeout=LIMIT_S)

    def ids_of(self, text):
        return list(self.service.generation.Tokenize(pb.TokenizeRequest(text=text)).token_ids)

    # Descriptors.

    def test_it_may_have_as_many_descriptors_as_the_hard_limit_allows(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 256), hard))
        try:
            self.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(resource.prlimit(self.service.process.pid, resource.RLIMIT_NOFILE),
                         (hard, hard))

    def test_it_ends_when_it_cannot_take_clients_any_more(self):
        with tempfile.TemporaryFile() as log, contextlib.ExitStack() as idle:
            group = self.start_ready(stderr=log)
            asked = self.background(lambda: self.service.ask(prompt="Go on."))
            opened, _ = group.take_question()
            resource.prlimit(self.service.process.pid, resource.RLIMIT_NOFILE, (200, 200))
            address = self.service.address.rsplit(":", 1)
            for _ in range(260):
                idle.enter_context(socket.create_connection(address, LIMIT_S))
            while self.service.is_serving():
                pass  # it takes a moment to notice
            group.question_done(opened.key)  # who is here already gets the answer
            self.assertEqual(asked().reason, "EOS")
            self.assertEqual(self.service.wait(), 1)
            log.seek(0)
            self.assertIn(b"error coordinator: ended: new clients could not connect", log.read())

    # Who is let in.

    def test_only_one_group_with_the_secret_and_the_version_is_let_in(self):
        self.start(workers=1)
        self.assertEqual(os.stat(os.path.join(self.service.state, "worker-secret")).st_mode & 0o777,
                         0o600)
        for secret, version, code in ((b"wrong", None, Code.UNAUTHENTICATED),
                                      (b"s" * 5000, None, Code.INVALID_ARGUMENT),  # is not unpacked
                                      (b"", None, Code.UNAUTHENTICATED),
                                      (self.secret + b"x", None, Code.UNAUTHENTICATED),
                                      (self.secret[:-1], None, Code.UNAUTHENTICATED),
                                      (self.secret, b"0.0.9", Code.FAILED_PRECONDITION)):
            group = Group(self.workers)
            group.hello(secret, version)
            self.assertEqual(group.end().code(), code, (secret, version))
        group = Group(self.workers)
        group.ready()
        self.assertEqual(group.end().code(), Code.INVALID_ARGUMENT)

        first = Group(self.workers)
        first.hello(self.secret)
        first.receive("welcome")
        second = Group(self.workers)
        second.hello(self.secret)
        self.assertEqual(second.end().code(), Code.FAILED_PRECONDITION)
        self.assertFalse(self.service.is_serving())
        first.ready()
        self.service.wait_line("ready")
        self.assertTrue(self.service.is_serving())
        stopped = self.background(self.service.stop)
        first.receive("stop")
        first.outgoing.put(None)
        self.assertEqual(stopped(), 0)

    def test_the_public_port_does_not_know_the_control_link(self):
        self.start()
        group = Group(self.service.address)
        group.hello(self.secret)
        self.assertEqual(group.end().code(), Code.UNIMPLEMENTED)

    def test_the_group_is_told_the_settings(self):
        self.start(threads=3, chunk=256, kv_memory="5M", max_running=7, max_tokens=5000,
                   dense_below=100, weights="dummy", device="cpu")
        group = Group(self.workers)
        group.hello(self.secret)
        welcome = group.receive("welcome")
        self.assertEqual(welcome, control.Welcome(
            model_folder=str(service.NEEDLE).encode(), device=b"cpu", threads=3,
            kv_memory_bytes=5 << 20, chunk_tokens=256, dummy_weights=True,
            max_sequences=7, max_tokens=5000, window_tokens=1024))

    def test_the_group_is_told_how_to_select(self):
        relative = os.path.relpath(__file__)
        for profile, told in (("none", b"none"), (relative, os.path.realpath(__file__).encode())):
            self.start(window=256, refresh_every=64, profile=profile)
            group = Group(self.workers)
            group.hello(self.secret)
            welcome = group.receive("welcome")
            self.assertEqual((welcome.window_tokens, welcome.refresh_every, welcome.profile,
                              welcome.chunk_tokens), (256, 64, told, 0))
            self.service.clean()
        with self.assertRaises(RuntimeError):
            self.start(profile="no/such.json")

    def test_the_profile_is_told_to_clients(self):
        group = self.start_ready(ready={"profile_id": b"b0b1"})
        self.assertEqual(self.service.info().model.profile, "b0b1")
        self.service.clean()
        group = self.start_ready()  # noqa: F841: the group stays as long as it is held
        self.assertEqual(self.service.info().model.profile, "none")

    # Documents.

    def test_tokens_travel_whole_and_in_order(self):
        group = self.start_ready()
        group_ids = [(7 * number) % 4096 for number in range(3000)]
        data = struct.pack("<3000i", *group_ids)
        uploaded = self.background(lambda: self.service.upload(
            data, chunk_bytes=1000, document_id="ids", encoding=pb.UploadHeader.TOKEN_IDS_U32LE))
        key, ids = group.take_document()
        self.assertEqual(ids, group_ids)
        for done in (1000, 2000):
            group.send(document_progress=control.DocumentProgress(key=key, tokens_done=done))
        group.document_done(key, control.DocumentDone.READY)
        events = uploaded()
        self.assertEqual(states(events)[-1], "READY")
        self.assertIn(2000, [event.progress.tokens_done for event in events])
        self.assertEqual(events[-1].document.kv_bytes, 47 * 64 * 6144)

    def test_a_million_tokens_travel_in_messages_of_bounded_size(self):
        group = self.start_ready(capacity=2_000_000)
        group_ids = [number * 31 % 4096 for number in range(1_000_000)]
        uploaded = self.background(lambda: self.service.upload(
            struct.pack("<1000000i", *group_ids), chunk_bytes=1 << 20, document_id="million",
            encoding=pb.UploadHeader.TOKEN_IDS_U32LE))
        key, ids = group.take_document()
        self.assertEqual(ids, group_ids)
        group.document_done(key, control.DocumentDone.READY)
        self.assertEqual(uploaded()[-1].document.token_count, 1_000_000)

    def test_a_short_document_does_not_wait_for_a_long_one(self):
        group = self.start_ready()
        uploads = [self.background(lambda name=name: self.service.upload(
            b"Some text.", document_id=name)) for name in ("one", "two", "three")]
        first, _ = group.take_document()
        second, _ = group.take_document()
        self.assertEqual(self.service.info().kv_used_tokens, 128)
        group.document_done(second, control.DocumentDone.READY)
        third, _ = group.take_document()
        for key in (first, third):
            group.document_done(key, control.DocumentDone.READY)
        for uploaded in uploads:
            self.assertEqual(states(uploaded())[-1], "READY")

    def test_a_document_that_the_group_cannot_take_fails(self):
        group = self.start_ready()
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        key, _ = group.take_document()
        group.document_done(key, control.DocumentDone.FAILED, code=Code.RESOURCE_EXHAUSTED.value[0],
                            message=b"no memory today")
        error = uploaded()
        self.assertEqual((error.code(), error.details()),
                         (Code.RESOURCE_EXHAUSTED, "no memory today"))
        self.assertEqual(self.service.state_of("book"), "FAILED")
        self.assertEqual(self.service.info().kv_used_tokens, 0)

    def test_delete_waits_for_questions_and_memory(self):
        group = self.start_ready()
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        key, _ = group.serve_document()
        uploaded()
        asked = self.background(lambda: self.service.ask("book", "Who?"))
        question, _ = group.take_question()
        self.assertEqual(question.document_key, key)
        deleted = self.background(lambda: self.service.delete("book"))
        self.assertEqual(asked().code(), Code.ABORTED)
        self.assertEqual(group.receive("question_cancel").key, question.key)
        self.assertEqual(self.service.state_of("book"), "DELETING")
        group.tokens(question.key, [100])  # crossed the cancel
        group.question_done(question.key, control.QuestionDone.CANCELLED)
        group.close_document(key)
        self.assertIsNone(deleted())
        self.assertEqual(self.service.info().kv_used_tokens, 0)

    def test_a_prefill_that_ends_while_it_is_cancelled_is_freed_once(self):
        group = self.start_ready()
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        key, _ = group.take_document()
        deleted = self.background(lambda: self.service.delete("book"))
        self.assertEqual(group.receive("document_close").key, key)
        group.document_done(key, control.DocumentDone.READY)  # crossed the close
        group.document_done(key, control.DocumentDone.CLOSED)
        group.document_done(key, control.DocumentDone.CLOSED)  # of a key that is gone
        self.assertIsNone(deleted())
        self.assertEqual(uploaded().code(), Code.ABORTED)
        self.assertEqual(self.service.info().kv_used_tokens, 0)

    def test_a_stored_document_waits_until_its_memory_is_free(self):
        group = self.start_ready()  # 5,760 tokens for documents
        keys = {}
        for document_id in ("one", "two"):
            data = struct.pack("<3000i", *range(3000))
            uploaded = self.background(lambda: self.service.upload(
                data, document_id=document_id, encoding=pb.UploadHeader.TOKEN_IDS_U32LE))
            if keys:
                self.assertEqual(group.receive("document_close").key, keys["one"])
                self.assertEqual(self.service.state_of("one"), "STORED")
                self.assertEqual(self.service.state_of("two"), "QUEUED")
                group.document_done(keys["one"], control.DocumentDone.CLOSED)
            keys[document_id], _ = group.serve_document()
            uploaded()

    # What a document's prefill attends to.

    def prefill_of(self, group, document_id, **prefill):
        """(rule, keep, dense_below_tokens) as the group is told."""
        uploaded = self.background(lambda: self.service.upload(
            b"Some text.", document_id=document_id, prefill=pb.PrefillOptions(**prefill)))
        group.serve_document()
        uploaded()
        return (group.opened.rule.decode(), group.opened.keep, group.opened.dense_below_tokens)

    def test_a_prefill_s_rule_is_passed_on(self):
        group = self.start_ready(ready={"profile_id": b"b0b1", "has_tca_profile": True})
        self.assertEqual(self.prefill_of(group, "default"), ("block", 0.1, 8192))
        self.assertEqual(self.prefill_of(group, "keep", keep=0.5), ("block", 0.5, 8192))
        self.assertEqual(self.prefill_of(group, "rule", rule="window"), ("window", 0.1, 0))
        self.assertEqual(self.prefill_of(group, "both", rule="tca", keep=0.25), ("tca", 0.25, 0))
        self.assertEqual(self.prefill_of(group, "dense", rule="dense"), ("", 0, 0))
        with self.assertRaises(grpc.RpcError) as caught:
            self.service.upload(b"Some text.", document_id="dense")
        self.assertEqual(caught.exception.code(), Code.ALREADY_EXISTS)

    def test_a_prefill_s_defaults_are_settings(self):
        group = self.start_ready(prefill_rule="window", prefill_keep=0.25, dense_below=100)
        self.assertEqual(self.prefill_of(group, "default"), ("window", 0.25, 100))
        self.service.clean()
        group = self.start_ready(prefill_rule="dense")
        self.assertEqual(self.prefill_of(group, "default"), ("", 0, 0))
        self.assertEqual(self.prefill_of(group, "keep", keep=0.5), ("", 0, 0))

    def test_a_prefill_that_needs_a_profile_is_refused_without(self):
        state = tempfile.mkdtemp(prefix="tca-e2e-")
        self.addCleanup(shutil.rmtree, state)
        group = self.start_ready(state=state, ready={"profile_id": b"b0b1",
                                                     "has_tca_profile": True})
        self.assertEqual(self.prefill_of(group, "old", rule="tca"), ("tca", 0.1, 0))
        self.assertEqual(self.service.stop(), 0)  # its metadata is written behind the answer
        self.service.clean()
        group = self.start_ready(state=state, ready={"profile_id": b"b0b1"})
        with self.assertRaises(grpc.RpcError) as caught:
            self.service.upload(b"Some text.", document_id="new",
                                prefill=pb.PrefillOptions(rule="tca-mass"))
        self.assertEqual(caught.exception.code(), Code.FAILED_PRECONDITION)
        self.assertIn("run tca-calibrate", caught.exception.details())
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.service.watch("old"))
        self.assertEqual(caught.exception.code(), Code.FAILED_PRECONDITION)
        self.assertIn("run tca-calibrate", self.service.get("old").error_message)
        self.assertEqual(self.service.state_of("old"), "FAILED")

    def test_a_restored_document_that_is_put_again_goes_first(self):
        state = tempfile.mkdtemp(prefix="tca-e2e-")
        self.addCleanup(shutil.rmtree, state)
        texts = {"old": b"old " * 3000, "new": b"new " * 3000}
        group = self.start_ready(state=state, capacity=4 * CAPACITY)
        for name, text in texts.items():
            uploaded = self.background(lambda name=name, text=text: self.service.upload(
                text, document_id=name))
            group.serve_document()
            self.assertEqual(states(uploaded())[-1], "READY")
        self.assertEqual(self.service.stop(), 0)
        self.service.clean()

        self.start(state=state)
        call = self.service.upload_stream(texts["old"], document_id="old",
                                          sha256=service.sha256(texts["old"]))
        next(call)
        group = Group(self.workers)
        group.hello(self.secret)
        group.receive("welcome")
        group.ready()  # room for one of the two
        group.serve_document()
        self.assertEqual(states(list(call))[-1], "READY")
        self.assertEqual(self.service.state_of("new"), "STORED")  # used later, but nobody waits

    # What a question attends to.

    def long_document(self, group, tokens, document_id="long"):
        uploaded = self.background(lambda: self.service.upload(
            struct.pack(f"<{tokens}i", *[5] * tokens), chunk_bytes=1 << 20,
            document_id=document_id, encoding=pb.UploadHeader.TOKEN_IDS_U32LE))
        group.serve_document()
        uploaded()

    def attention_of(self, group, document_id="long", fields=None, **attention):
        """(rule, keep, tau, evict, report_selection) as the group is told."""
        asked = self.background(lambda: self.service.ask(
            document_id, **(fields or {"question": "Who?"}),
            attention=pb.AttentionOptions(**attention)))
        opened, _ = group.take_question()
        group.question_done(opened.key)
        asked()
        return opened.rule.decode(), opened.keep, opened.tau, opened.evict, opened.report_selection

    def test_a_question_s_rule_is_passed_on(self):
        group = self.start_ready(capacity=100_000, ready={"profile_id": b"b0b1",
                                                          "has_tca_profile": True})
        dense = ("", 0, 0, False, False)
        self.long_document(group, 8192)
        self.long_document(group, 8191, "short")
        for document_id, attention, told in (
                ("long", {}, ("pooled", 0.03, 0, False, False)),
                ("short", {}, dense),
                ("short", {"keep": 0.5, "tau": 0.5, "report_selection": True}, dense),
                ("short", {"rule": "pooled", "keep": 0.5, "report_selection": True},
                 ("pooled", 0.5, 0, False, True)),
                ("long", {"keep": 0.5}, ("pooled", 0.5, 0, False, False)),
                ("long", {"keep": 0.5, "tau": 0.75}, ("pooled", 0.03, 0.75, False, False)),
                ("long", {"rule": "tca-mass", "tau": 0.75}, ("tca-mass", 0.03, 0.75, False, False)),
                ("long", {"rule": "dense", "report_selection": True}, dense)):
            self.assertEqual(self.attention_of(group, document_id, **attention), told, attention)
        prompt = {"prompt": "Once"}
        self.assertEqual(self.attention_of(group, None, prompt), dense)
        self.assertEqual(self.attention_of(group, None, prompt, rule="dense"), dense)
        self.assertEqual(self.attention_of(group, None, prompt, evict=True),
                         ("pooled", 0.03, 0, True, False))
        self.assertEqual(self.attention_of(group, None, prompt, evict=True, rule="window", keep=0.5,
                                           report_selection=True),
                         ("window", 0.5, 0, True, True))

    def test_a_question_s_defaults_are_settings(self):
        group = self.start_ready(rule="window", keep=0.25, tau=0.5, dense_below=100,
                                 ready={"profile_id": b"b0b1"})
        self.long_document(group, 100)
        self.assertEqual(self.attention_of(group), ("window", 0.25, 0.5, False, False))
        self.assertEqual(self.attention_of(group, keep=0.75), ("window", 0.75, 0, False, False))
        self.service.clean()
        group = self.start_ready(rule="dense")
        with self.assertRaises(grpc.RpcError) as caught:
            self.service.ask(prompt="x", attention=pb.AttentionOptions(evict=True))
        self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
        self.assertIn("the server's is dense", caught.exception.details())

    def test_a_question_that_needs_a_profile_is_refused_without(self):
        group = self.start_ready()
        self.long_document(group, 2000)
        for source in ({"document_id": "long", "question": "Who?"}, {"prompt": "Once"}):
            for attention in ({"tau": 0.5}, {"rule": "tca"}, {"rule": "tca-simpson"}):
                evict = "prompt" in source
                with self.assertRaises(grpc.RpcError) as caught:
                    self.service.ask(**source, attention=pb.AttentionOptions(evict=evict,
                                                                             **attention))
                self.assertEqual(caught.exception.code(), Code.FAILED_PRECONDITION, attention)
                self.assertIn("no profile; run tca-calibrate", caught.exception.details())
        self.assertTrue(group.incoming.empty())

    # What questions hold.

    def used_by_questions(self, document_tokens=0):
        return self.service.info().kv_used_tokens - document_tokens

    def test_a_core_cache_is_reserved(self):
        group = self.start_ready(capacity=64 * 1000, window=64, dense_below=100)
        self.long_document(group, 10_048)  # whole blocks of 64
        for attention, core in (({"keep": 0.2}, 2048), ({}, 640), ({"rule": "dense"}, 0)):
            asked = self.background(lambda attention=attention: self.service.ask(
                "long", "Who?", max_tokens=100, attention=pb.AttentionOptions(**attention)))
            opened, ids = group.take_question()
            own = (len(ids) + 100 + 63) // 64 * 64
            self.assertEqual(self.used_by_questions(10_048), own + core, attention)
            group.question_done(opened.key)
            asked()
            self.assertEqual(self.used_by_questions(10_048), 0)
        with self.assertRaises(grpc.RpcError) as caught:  # of 6,400
            self.service.ask("long", "Who?", max_tokens=1400,
                             attention=pb.AttentionOptions(keep=0.5))
        self.assertEqual(caught.exception.code(), Code.OUT_OF_RANGE)
        self.assertRegex(caught.exception.details(), r"question \d+ and answer 1400 tokens, with 5024 "
                                                     r"kept of the document, .* over 6400")

    def test_an_evicted_prompt_makes_room(self):
        group = self.start_ready(capacity=64 * 1000, window=64)
        text = "word " * 3000
        tokens = len(self.ids_of(text))
        peak = sum((part + 63) // 64 * 64 for part in (tokens + 100, 640, 100))
        self.assertTrue(3200 < peak <= 6400, peak)

        def ask():
            return self.service.ask(prompt=text, raw=True, max_tokens=100,
                                    attention=pb.AttentionOptions(evict=True))

        first = self.background(ask)
        opened, _ = group.take_question()
        self.assertTrue(opened.evict)
        self.assertEqual(self.used_by_questions(), peak)
        second = self.background(ask)
        while self.service.info().waiting == 0:
            pass
        group.send(question_evicted=control.QuestionEvicted(key=opened.key, kv_tokens=768))
        other, _ = group.take_question()
        self.assertEqual(self.used_by_questions(), peak + 768)
        group.send(question_evicted=control.QuestionEvicted(key=other.key, kv_tokens=1 << 63))
        group.send(question_evicted=control.QuestionEvicted(key=99, kv_tokens=0))
        for key, asked in ((opened.key, first), (other.key, second)):
            group.question_done(key, kept_share=0.25)
            self.assertEqual(asked().usage.kept_share, 0.25)
        self.assertEqual(self.used_by_questions(), 0)

    # Questions.

    def question_over(self, group, **fields):
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        group.serve_document()
        uploaded()
        asked = self.background(lambda: self.service.ask("book", "Who?", **fields))
        opened, ids = group.take_question()
        return asked, opened, ids

    def test_a_question_is_passed_on_as_it_was_asked(self):
        group = self.start_ready()
        asked, opened, ids = self.question_over(
            group, max_tokens=9, logprobs=2, sampling=pb.SamplingParams(
                temperature=0.5, top_k=4, top_p=0.75, min_p=0.25, seed=77, repetition_penalty=1.5))
        wanted = control.QuestionOpen(
            key=opened.key, document_key=opened.document_key, token_count=len(ids), max_tokens=9,
            end_token=[2], temperature=0.5, top_k=4, top_p=0.75, min_p=0.25, seed=77,
            repetition_penalty=1.5, logprobs=2, report_logprobs=True)
        self.assertEqual(opened, wanted)
        self.assertEqual(ids[-3:], self.service.generation.Tokenize(pb.TokenizeRequest(
            text="<|im_start|>assistant\n", parse_special=True)).token_ids[-3:])
        time.sleep(0.01)  # so that there is a time to tell
        group.send(question_progress=control.QuestionProgress(key=opened.key, tokens_done=3))
        group.send(question_tokens=control.QuestionTokens(key=opened.key, tokens=[
            control.SampledToken(token_id=300, logprob=-0.5, top=[
                control.TokenChance(token_id=300, logprob=-0.5),
                control.TokenChance(token_id=301, logprob=-1.5)])]))
        group.question_done(opened.key, question_ms=5, decode_ms=6, core_cache_bytes=7,
                            full_kv_bytes=8, exchanged_bytes=9, kept_share=0.5,
                            kept_mass_mean=0.75, kept_mass_min=0.25)
        answer = asked()
        kinds = [kind for kind in answer.kinds if kind != "heartbeat"]
        self.assertEqual(kinds, ["accepted", "progress", "delta", "finished"])
        progress = answer.events[answer.kinds.index("progress")].progress
        self.assertEqual((progress.tokens_done, progress.tokens_total), (3, len(ids)))
        self.assertGreater(progress.eta_ms, 0)
        self.assertEqual(answer.token_ids, [300])
        self.assertEqual([(chance.token_id, chance.logprob) for chance in answer.logprobs[0].top],
                         [(300, -0.5), (301, -1.5)])
        usage = answer.usage
        self.assertEqual((usage.question_ms, usage.decode_ms, usage.core_cache_bytes,
                          usage.full_kv_bytes, usage.exchanged_bytes, usage.kept_share,
                          usage.kept_mass_mean, usage.kept_mass_min),
                         (5, 6, 7, 8, 9, 0.5, 0.75, 0.25))

    def test_greedy_and_ignore_eos(self):
        group = self.start_ready()
        asked, opened, _ = self.question_over(group, ignore_eos=True)
        self.assertEqual((list(opened.end_token), opened.temperature, opened.top_p,
                          opened.repetition_penalty, opened.max_tokens, opened.report_logprobs),
                         ([], 0.0, 1.0, 1.0, 256, False))
        group.question_done(opened.key, control.QuestionDone.LENGTH)
        self.assertEqual(asked().reason, "LENGTH")

    def test_a_stop_string_over_three_tokens_is_found(self):
        group = self.start_ready()
        asked, opened, _ = self.question_over(group, stop=["brown fox"])
        ids = self.ids_of("The quick brown fox jumps over the lazy dog.")
        for token in ids:
            group.tokens(opened.key, [token])
        self.assertEqual(group.receive("question_cancel").key, opened.key)
        group.question_done(opened.key, control.QuestionDone.CANCELLED)
        answer = asked()
        self.assertEqual((answer.text, answer.reason), ("The quick ", "STOP"))
        self.assertLess(len(answer.token_ids), len(ids))

    def test_an_answer_that_is_complete_while_it_is_cancelled_ends_once(self):
        group = self.start_ready()
        asked, opened, _ = self.question_over(group, request_id="r")
        self.service.generation.Cancel(pb.CancelRequest(request_id="r"), timeout=LIMIT_S)
        self.assertEqual(group.receive("question_cancel").key, opened.key)
        group.question_done(opened.key)  # EOS crossed the cancel
        self.assertEqual(asked().reason, "CANCELLED")
        self.assertEqual(self.service.info().running, 0)

    def test_a_question_that_the_group_cannot_answer_fails(self):
        group = self.start_ready()
        asked, opened, _ = self.question_over(group)
        group.question_done(opened.key, control.QuestionDone.FAILED,
                            code=Code.RESOURCE_EXHAUSTED.value[0], message=b"no memory today")
        error = asked()
        self.assertEqual((error.code(), error.details()),
                         (Code.RESOURCE_EXHAUSTED, "no memory today"))

    NO_MEMORY = {"code": Code.RESOURCE_EXHAUSTED.value[0], "message": b"no memory today"}

    def test_a_question_that_the_group_has_no_memory_for_waits(self):
        group = self.start_ready()
        first, running, _ = self.question_over(group)
        second = self.background(lambda: self.service.ask("book", "Where?", sampling=pb.SamplingParams(
            temperature=1, seed=5)))
        opened, ids = group.take_question()
        group.question_done(opened.key, control.QuestionDone.FAILED, **self.NO_MEMORY)
        while self.service.info().waiting == 0:
            pass
        self.assertEqual(self.service.info().running, 1)
        group.question_done(running.key)
        self.assertEqual(first().reason, "EOS")
        again, again_ids = group.take_question()  # nothing came in between
        self.assertEqual(again_ids, ids)
        opened.key = again.key
        self.assertEqual(again, opened)
        # Now it was alone: there is nothing to wait for.
        group.question_done(again.key, control.QuestionDone.FAILED, **self.NO_MEMORY)
        error = second()
        self.assertEqual((error.code(), error.details()),
                         (Code.RESOURCE_EXHAUSTED, "no memory today"))
        self.assertEqual((self.service.info().running, self.used_by_questions()), (0, 64))

    def test_questions_that_are_refused_when_nothing_runs_any_more_are_tried_one_by_one(self):
        group = self.start_ready()
        self.long_document(group, 64)

        def ask():
            return self.background(lambda: self.service.ask("long", "Who?", max_tokens=9))

        for count in (1, 2):
            answers = [ask()]
            running, _ = group.take_question()
            answers += [ask() for _ in range(count)]
            refused = [group.take_question()[0].key for _ in range(count)]
            group.question_done(running.key)
            for key in refused:
                group.question_done(key, control.QuestionDone.FAILED, **self.NO_MEMORY)
            for _ in range(count):
                group.question_done(group.take_question()[0].key)
            self.assertEqual([answer().reason for answer in answers], ["EOS"] * (1 + count))

    def test_a_document_that_the_group_has_no_memory_for_waits(self):
        group = self.start_ready()
        asked, running, _ = self.question_over(group)
        uploaded = self.background(lambda: self.service.upload(b"More text.", document_id="more"))
        key, ids = group.take_document()
        group.document_done(key, control.DocumentDone.FAILED, **self.NO_MEMORY)
        while self.service.state_of("more") != "QUEUED":
            pass
        group.question_done(running.key)
        asked()
        self.assertEqual(group.serve_document()[1], ids)
        self.assertEqual(states(uploaded())[-1], "READY")

    def test_a_client_that_reads_late_gets_everything(self):
        group = self.start_ready(capacity=100_000)
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        group.serve_document()
        uploaded()
        call = self.service.ask_stream("book", "Who?", max_tokens=3000)
        opened, _ = group.take_question()
        word = self.ids_of(" word")
        count = 3000 // len(word)
        for _ in range(count):
            group.tokens(opened.key, word)
        group.question_done(opened.key, control.QuestionDone.LENGTH)
        time.sleep(1)  # nobody reads meanwhile
        answer = service.Answer(list(call))
        self.assertEqual(answer.text, " word" * count)
        self.assertEqual(answer.token_ids, word * count)

    def test_a_long_delta_is_within_what_our_client_unpacks(self):
        group = self.start_ready(capacity=100_000)
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        group.serve_document()
        uploaded()
        client = subprocess.Popen(
            [pathlib.Path(PROGRAM).with_name("tca"), "--server", self.service.address, "--json", "ask",
             "book", "Who?", "--max-tokens", "1000", "--logprobs", "20"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        opened, _ = group.take_question()
        chances = [control.TokenChance(token_id=token, logprob=-1) for token in range(1, 21)]
        group.send(question_tokens=control.QuestionTokens(key=opened.key, tokens=[
            control.SampledToken(token_id=100, logprob=-1, top=chances)] * 1000))
        group.question_done(opened.key, control.QuestionDone.LENGTH)
        out, err = client.communicate(timeout=LIMIT_S)
        self.assertEqual((client.returncode, err), (0, ""))
        deltas = [event["delta"] for event in map(json.loads, out.splitlines()) if "delta" in event]
        self.assertEqual(sum(len(delta["logprobs"]) for delta in deltas), 1000)

    def test_selections_reach_the_client_that_asked(self):
        group = self.start_ready()
        heads = 3000  # more than any model has
        uploaded = self.background(lambda: self.service.upload(b"Some text.", document_id="book"))
        group.serve_document()
        uploaded()
        for asks in (True, False):
            call = self.service.ask_stream("book", "Who?", attention=pb.AttentionOptions(
                rule="pooled", report_selection=asks))
            opened, _ = group.take_question()
            self.assertEqual(opened.report_selection, asks)
            for head in range(heads):
                group.send(question_selection=control.QuestionSelection(
                    key=opened.key, layer=head // 8, kv_head=head % 8,
                    bins=[(head + part) % 300 for part in range(256)]))
            group.tokens(opened.key, self.ids_of("The end."))
            group.question_done(opened.key)
            group.send(question_selection=control.QuestionSelection(key=opened.key))  # too late
            while self.service.info().running > 0:
                pass  # nobody reads meanwhile
            answer = service.Answer(list(call))
            self.assertEqual(answer.text, "The end.")
            selections = [event.selection for event in answer.events
                          if event.WhichOneof("body") == "selection"]
            self.assertEqual([8 * selection.layer + selection.kv_head for selection in selections],
                             list(range(heads)) if asks else [])
            for head, selection in enumerate(selections):
                self.assertEqual(list(selection.bins),
                                 [(head + part) % 300 for part in range(256)])
            kinds = [kind for kind in answer.kinds if kind != "heartbeat"]
            self.assertEqual(kinds[-2:], ["delta", "finished"])

    def test_a_question_that_waits_keeps_the_client_s_deadline(self):
        group = self.start_ready(max_running=1)
        asked, opened, _ = self.question_over(group)
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.service.ask_stream("book", "Who else?", timeout=1))
        self.assertEqual(caught.exception.code(), Code.DEADLINE_EXCEEDED)
        # The client's clock may be ahead of the server's: let the question leave the queue first.
        deadline = time.monotonic() + LIMIT_S
        while self.service.info().waiting > 0:
            self.assertLess(time.monotonic(), deadline)
        group.question_done(opened.key)
        self.assertEqual(asked().reason, "EOS")
        self.assertTrue(group.incoming.empty())  # the one that was too late never came here

    # Groups that fail.

    def lost(self, asked):
        """What everybody sees once the group is lost."""
        error = asked()
        self.assertEqual(error.code(), Code.UNAVAILABLE)
        self.assertIn("RetryInfo", service.details_of(error))
        self.assertNotEqual(self.service.wait(), 0)

    def test_a_group_that_goes_is_lost(self):
        group = self.start_ready()
        asked, _, _ = self.question_over(group)
        group.outgoing.put(None)
        self.lost(asked)

    def test_a_group_that_says_so_is_lost(self):
        group = self.start_ready()
        asked, _, _ = self.question_over(group)
        group.send(group_failed=control.GroupFailed(message=b"rank 1 burns"))
        self.lost(asked)

    def test_a_group_that_breaks_the_protocol_is_lost(self):
        group = self.start_ready()
        asked, _, _ = self.question_over(group)
        group.ready()
        self.assertEqual(group.end().code(), Code.INVALID_ARGUMENT)
        self.lost(asked)

    def test_a_group_with_a_rank_that_does_not_answer_is_lost(self):
        group = self.start_ready(worker_timeout=5)
        asked, _, _ = self.question_over(group)
        group.send(alive=control.Alive(oldest_answer_ms=4999))
        self.assertTrue(self.service.is_serving())
        group.send(alive=control.Alive(oldest_answer_ms=5000))
        self.lost(asked)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
