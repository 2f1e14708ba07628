"""Walks the contract of the public API through the real program, workers and model.

Usage: test_service.py TCA_COORDINATOR_PROGRAM [unittest arguments]"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import service
from service import KIB, LIMIT_S, Service, chunk, header, pb, sha256, states, upload_requests

import corpus
import grpc

PROGRAM = sys.argv[1]
HAS_PROCESSES = os.path.basename(PROGRAM) == "tca-coordinator"


class ServiceTest(unittest.TestCase):
    def fails(self, code, call):
        with self.assertRaises(grpc.RpcError) as caught:
            result = call()
            if hasattr(result, "__iter__"):
                list(result)
        self.assertEqual(caught.exception.code(), code, caught.exception)
        return caught.exception

    def wait_until(self, is_there, what):
        deadline = time.monotonic() + LIMIT_S
        while not is_there():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)


class OneService(ServiceTest):
    """Tests that share one service with room for all their documents."""

    @classmethod
    def setUpClass(cls):
        cls.service = Service(PROGRAM)
        cls.book = corpus.build_tokens(1200, facts=4, seed=3)
        cls.data = cls.book.text.encode()
        cls.upload_events = cls.service.upload(cls.data, document_id="book", pinned=True,
                                               display_name="A book")

    @classmethod
    def tearDownClass(cls):
        code = cls.service.stop()
        cls.service.clean()
        assert code == 0, f"the coordinator ended with {code}"

    def answer_holds(self, fact, answer):
        self.assertIn(fact.answer, answer.text, fact.question)

    # Documents.

    def test_an_upload_reports_until_ready(self):
        events = self.upload_events
        self.assertEqual(states(events), ["UPLOADING", "QUEUED", "PREFILLING", "READY"])
        sequences = [event.sequence for event in events if not event.HasField("heartbeat")]
        self.assertEqual(sequences, sorted(set(sequences)))
        committed = [event.committed.bytes for event in events if event.HasField("committed")]
        self.assertEqual(committed[-1], len(self.data))
        progress = [event.progress for event in events if event.HasField("progress")]
        done = [one.tokens_done for one in progress if one.phase == one.PREFILLING]
        self.assertEqual(done, sorted(done))
        document = events[-1].document
        self.assertEqual(document.byte_count, len(self.data))
        self.assertEqual(document.sha256, sha256(self.data))
        self.assertEqual(document.display_name, "A book")
        self.assertTrue(document.pinned)
        self.assertEqual(document.model, "needle-9m")
        self.assertGreater(document.kv_bytes, document.token_count * 1000)
        self.assertGreater(document.create_time.seconds, 1_600_000_000)

    def test_tokens_are_those_of_the_tokenizers_library(self):
        try:
            import tokenizers
        except ImportError:
            self.skipTest("no package tokenizers")
        encoder = tokenizers.Tokenizer.from_file(str(service.NEEDLE / "tokenizer.json"))
        encoder.encode_special_tokens = True
        counted = len(encoder.encode(self.book.text, add_special_tokens=False).ids)
        prefix = len(encoder.encode("user\n", add_special_tokens=False).ids) + 1
        self.assertEqual(self.service.get("book").token_count, counted + prefix)
        text = "Some <|im_end|> text,\n\twith \u00e9\U0001f600 and 12345."
        ids = self.service.generation.Tokenize(pb.TokenizeRequest(text=text)).token_ids
        self.assertEqual(list(ids), encoder.encode(text, add_special_tokens=False).ids)
        encoder.encode_special_tokens = False
        special = self.service.generation.Tokenize(
            pb.TokenizeRequest(text=text, parse_special=True)).token_ids
        self.assertEqual(list(special), encoder.encode(text, add_special_tokens=False).ids)
        self.assertIn(2, special)
        back = self.service.generation.Detokenize(pb.DetokenizeRequest(token_ids=ids)).text
        self.assertEqual(back, text)

    def test_a_cut_character_detokenizes_to_the_replacement_character(self):
        ids = self.service.generation.Tokenize(pb.TokenizeRequest(text="\U0001f9ff")).token_ids
        self.assertGreater(len(ids), 1)
        back = self.service.generation.Detokenize(pb.DetokenizeRequest(token_ids=ids[:-1])).text
        self.assertTrue(back and set(back) == {"\ufffd"}, back)

    def test_watch_tells_the_newest_event_at_once(self):
        events = list(self.service.watch("book"))
        self.assertEqual(states(events), ["READY"])
        self.assertEqual(list(self.service.watch("book", events[-1].sequence)), [])

    def test_the_same_document_again_changes_nothing(self):
        before = self.service.get("book")
        for known in ({}, {"sha256": sha256(self.data)}, {"resume_offset": len(self.data)}):
            events = self.service.upload(self.data, document_id="book", **known)
            self.assertEqual(states(events), ["READY"])
        after = self.service.get("book")
        self.assertEqual((before.create_time, before.token_count, before.pinned),
                         (after.create_time, after.token_count, after.pinned))

    def test_the_same_document_again_with_a_pin_is_pinned(self):
        self.service.upload(b"Text.", document_id="pin-later")
        self.service.upload(b"Text.", document_id="pin-later", pinned=True)
        self.assertTrue(self.service.get("pin-later").pinned)
        self.service.upload(b"Text.", document_id="pin-later")
        self.assertTrue(self.service.get("pin-later").pinned)
        self.service.delete("pin-later")

    def test_another_document_of_that_id_exists(self):
        other = self.data[:-1] + b"?"
        for fields in ({"raw": True}, {"system": "x"}, {"total_bytes": 5}, {"sha256": sha256(b"x")},
                       {"encoding": pb.UploadHeader.TOKEN_IDS_U32LE}):
            self.fails(grpc.StatusCode.ALREADY_EXISTS, lambda fields=fields: self.service.upload(
                self.data, document_id="book", **fields))
        self.fails(grpc.StatusCode.ALREADY_EXISTS,
                   lambda: self.service.upload(other, document_id="book"))
        self.assertEqual(self.service.state_of("book"), "READY")

    def test_the_server_makes_ids(self):
        events = self.service.upload(b"Some short text.")
        made = events[0].document.document_id
        self.assertRegex(made, r"^[A-Za-z0-9._-]{1,128}$")
        self.service.delete(made)

    def test_a_document_of_token_ids_is_taken_as_it_is(self):
        ids = self.service.generation.Tokenize(pb.TokenizeRequest(text="A short text.")).token_ids
        data = b"".join(token.to_bytes(4, "little") for token in ids)
        events = self.service.upload(data, chunk_bytes=7, document_id="ids",
                                     encoding=pb.UploadHeader.TOKEN_IDS_U32LE)
        self.assertEqual(events[-1].document.token_count, len(ids))
        self.service.delete("ids")

    def test_raw_and_system_change_the_prefix(self):
        text = b"A short text."
        plain = self.service.upload(text, document_id="plain")[-1].document.token_count
        raw = self.service.upload(text, document_id="raw", raw=True)[-1].document.token_count
        system = self.service.upload(text, document_id="system",
                                     system="Be brief.")[-1].document.token_count
        self.assertLess(raw, plain)
        self.assertLess(plain, system)
        for document_id in ("plain", "raw", "system"):
            self.service.delete(document_id)

    def test_look_alikes_of_special_tokens_are_plain_text(self):
        text = b"<|im_end|>\n<|im_start|>assistant\n"
        count = self.service.upload(text, document_id="alike", raw=True)[-1].document.token_count
        parsed = self.service.generation.Tokenize(
            pb.TokenizeRequest(text=text.decode(), parse_special=True)).token_ids
        self.assertGreater(count, len(parsed))
        self.service.delete("alike")

    def test_an_upload_resumes_where_it_was_acknowledged(self):
        data = self.data[:2500]
        sent = threading.Event()

        def part():
            yield header("resumed", total_bytes=len(data))
            yield chunk(0, data[:1000])
            sent.wait(LIMIT_S)

        call = self.service.documents.Upload(part(), timeout=LIMIT_S)
        while next(call).document.byte_count < 1000:
            pass
        self.fails(grpc.StatusCode.ABORTED, lambda: self.service.upload(
            data, document_id="resumed", total_bytes=len(data), resume_offset=1000))
        call.cancel()
        sent.set()
        self.assertEqual(self.service.state_of("resumed"), "UPLOADING")
        self.fails(grpc.StatusCode.FAILED_PRECONDITION,
                   lambda: self.service.ask("resumed", "What?"))

        def is_free():
            try:
                self.service.upload(data, document_id="resumed", total_bytes=len(data))
            except grpc.RpcError as error:
                return error.code() != grpc.StatusCode.ABORTED and error
            return None

        self.wait_until(is_free, "the cancelled stream holds the upload")
        error = is_free()
        self.assertEqual(error.code(), grpc.StatusCode.OUT_OF_RANGE)
        self.assertIn("1000", error.details())
        self.assertEqual(self.service.get("resumed").byte_count, 1000)
        events = self.service.upload(data, document_id="resumed", resume_offset=1000)
        self.assertEqual(states(events)[-1], "READY")
        self.assertEqual(events[-1].document.sha256, sha256(data))
        self.service.delete("resumed")

    def test_documents_are_listed_in_pages(self):
        ids = [f"page-{number}" for number in range(5)]
        for document_id in ids:
            self.service.upload(b"Text.", document_id=document_id)
        found, token = [], ""
        while True:
            page = self.service.list(page_size=2, page_token=token)
            self.assertLessEqual(len(page.documents), 2)
            found += [document.document_id for document in page.documents]
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(found, sorted(found))
        self.assertTrue(set(ids) <= set(found))
        for document_id in ids:
            self.service.delete(document_id)
        self.assertFalse(set(ids) & {one.document_id for one in self.service.list().documents})

    def test_update_sets_pin_and_name(self):
        self.service.upload(b"Text.", document_id="updated", display_name="old")
        document = self.service.update("updated", pinned=True)
        self.assertEqual((document.pinned, document.display_name), (True, "old"))
        document = self.service.update("updated", display_name="n\u00e9w\0!")
        self.assertEqual((document.pinned, document.display_name), (False, "n\u00e9w\0!"))
        self.service.delete("updated")

    def test_delete_ends_questions_and_frees_memory(self):
        used = self.service.info().kv_used_tokens
        self.service.upload(self.data, document_id="doomed")
        self.assertGreater(self.service.info().kv_used_tokens, used)
        call = self.service.ask_stream("doomed", "Go on.", max_tokens=2000, ignore_eos=True)
        next(event for event in call if event.HasField("delta"))
        self.service.delete("doomed")
        self.fails(grpc.StatusCode.ABORTED, lambda: list(call))
        self.fails(grpc.StatusCode.NOT_FOUND, lambda: self.service.get("doomed"))
        self.assertEqual(self.service.info().kv_used_tokens, used)

    def test_what_stays_on_disk_is_not_said_to_be_deleted(self):
        self.service.upload(b"Some text.", document_id="stuck")
        state = pathlib.Path(self.service.state)
        (state / "scratch" / "stuck").write_text("where the document's folder would go")
        error = self.fails(grpc.StatusCode.INTERNAL, lambda: self.service.delete("stuck"))
        self.assertIn("stays on disk", error.details())
        self.assertTrue((state / "documents" / "stuck" / "content").exists())

    def test_a_prefill_can_be_cancelled_by_delete(self):
        used = self.service.info().kv_used_tokens
        data = corpus.build_bytes(150_000, seed=5).text.encode()
        call = self.service.upload_stream(data, document_id="long")
        for event in call:
            if event.document.state == pb.Document.PREFILLING:
                break
        self.service.delete("long")
        self.fails(grpc.StatusCode.ABORTED, lambda: list(call))
        self.assertEqual(self.service.info().kv_used_tokens, used)

    def test_a_lost_client_does_not_stop_its_document(self):
        call = self.service.upload_stream(self.data[:2000], document_id="orphan")
        for event in call:
            if event.document.state in (pb.Document.QUEUED, pb.Document.PREFILLING):
                break
        call.cancel()
        self.assertEqual(states(list(self.service.watch("orphan")))[-1], "READY")
        self.service.delete("orphan")

    def test_a_document_can_be_deleted_while_it_is_made(self):
        gone = (grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND)
        for number in range(20):
            call = self.service.upload_stream(b"Some text.", document_id=f"brief-{number}")
            while True:
                try:
                    self.service.delete(f"brief-{number}")
                    break
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
            try:
                self.assertEqual(states(list(call))[-1], "READY")
            except grpc.RpcError as error:
                self.assertIn(error.code(), gone)

    # Questions.

    def test_planted_facts_are_found(self):
        for fact in self.book.facts:
            answer = self.service.ask("book", fact.question)
            self.answer_holds(fact, answer)
            self.assertEqual(answer.kinds[0], "accepted")
            self.assertEqual(answer.reason, "EOS")
            self.assertEqual(answer.usage.completion_tokens, len(answer.token_ids))
            self.assertEqual(answer.accepted.document_tokens,
                             self.service.get("book").token_count)
            self.assertEqual(answer.usage.question_tokens, answer.accepted.question_tokens)
            self.assertEqual(answer.usage.kept_share, 1.0)
            self.assertGreater(answer.usage.full_kv_bytes, 0)
            sequences = [event.sequence for event in answer.events]
            self.assertEqual(sequences, list(range(1, len(sequences) + 1)))

    def test_questions_share_a_document_at_the_same_time(self):
        answers = {}

        def ask(fact):
            answers[fact.question] = self.service.ask("book", fact.question)

        threads = [threading.Thread(target=ask, args=(fact,)) for fact in self.book.facts * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        for fact in self.book.facts:
            self.answer_holds(fact, answers[fact.question])

    def test_follow_ups_have_a_history(self):
        first, second = self.book.facts[:2]
        answer = self.service.ask("book", first.question)
        history = [pb.Turn(role="user", text=first.question),
                   pb.Turn(role="assistant", text=answer.text)]
        followed = self.service.ask("book", second.question, history=history)
        self.assertGreater(followed.accepted.question_tokens,
                           answer.accepted.question_tokens + len(answer.token_ids))
        self.assertGreater(followed.usage.completion_tokens, 0)

    def test_a_prompt_needs_no_document(self):
        fact = self.book.facts[0]
        prompt = fact.sentence + "\n\nQuestion: " + fact.question
        answer = self.service.ask(prompt=prompt)
        self.answer_holds(fact, answer)
        self.assertEqual(answer.usage.document_tokens, 0)
        templated = ("<|im_start|>user\n" + prompt + "<|im_end|>\n<|im_start|>assistant\n")
        raw = self.service.ask(prompt=templated, raw=True, parse_special=True)
        self.assertEqual(raw.text, answer.text)
        self.assertEqual(raw.accepted.question_tokens, answer.accepted.question_tokens)
        plain = self.service.ask(prompt=templated, raw=True, max_tokens=1)
        self.assertGreater(plain.accepted.question_tokens, raw.accepted.question_tokens)

    def test_length_ends_an_answer(self):
        answer = self.service.ask("book", "Go on.", max_tokens=7, ignore_eos=True)
        self.assertEqual(answer.reason, "LENGTH")
        self.assertEqual(len(answer.token_ids), 7)

    def test_stop_strings_are_not_in_the_text(self):
        question = "Go on."
        whole = self.service.ask("book", question, max_tokens=60, ignore_eos=True).text
        for begin, length in ((5, 3), (11, 9), (20, 1)):
            stop = whole[begin:begin + length]
            answer = self.service.ask("book", question, max_tokens=60, ignore_eos=True,
                                      stop=["never there", stop])
            self.assertEqual(answer.reason, "STOP")
            self.assertEqual(answer.text, whole[:whole.index(stop)])
        held = self.service.ask("book", question, max_tokens=60, ignore_eos=True,
                                stop=[whole[10:20] + "\x01"])
        self.assertEqual((held.text, held.reason), (whole, "LENGTH"))

    def test_the_same_seed_gives_the_same_tokens(self):
        def sample(seed):
            return self.service.ask("book", "Go on.", max_tokens=24, ignore_eos=True,
                                    sampling=pb.SamplingParams(temperature=1.5, seed=seed))

        first, again, other = sample(7), sample(7), sample(8)
        self.assertEqual(first.token_ids, again.token_ids)
        self.assertNotEqual(first.token_ids, other.token_ids)
        self.assertEqual(first.accepted.seed, 7)
        picked = sample(0)
        self.assertNotEqual(picked.accepted.seed, 0)
        self.assertEqual(sample(picked.accepted.seed).token_ids, picked.token_ids)

    def test_logprobs_come_with_their_tokens(self):
        answer = self.service.ask("book", self.book.facts[0].question, logprobs=5)
        self.assertEqual([one.token_id for one in answer.logprobs], answer.token_ids)
        for one in answer.logprobs:
            self.assertEqual(len(one.top), 5)
            self.assertEqual(one.top[0].token_id, one.token_id)  # greedy
            self.assertAlmostEqual(one.top[0].logprob, one.logprob, places=5)
            self.assertEqual([chance.logprob for chance in one.top],
                             sorted((chance.logprob for chance in one.top), reverse=True))
            self.assertLessEqual(one.logprob, 0.0)
        self.assertEqual(self.service.ask("book", "Who?", max_tokens=2).logprobs, [])

    def test_cancel_ends_an_answer_early(self):
        call = self.service.ask_stream("book", "Go on.", max_tokens=5000, ignore_eos=True,
                                       request_id="to-cancel")
        events = []
        for event in call:
            events.append(event)
            if event.HasField("delta") and len(events) > 3:
                break
        self.fails(grpc.StatusCode.ALREADY_EXISTS,
                   lambda: self.service.ask("book", "Who?", request_id="to-cancel"))
        self.service.generation.Cancel(pb.CancelRequest(request_id="to-cancel"), timeout=LIMIT_S)
        answer = service.Answer(events + list(call))
        self.assertEqual(answer.reason, "CANCELLED")
        self.assertLess(answer.usage.completion_tokens, 5000)
        self.fails(grpc.StatusCode.NOT_FOUND, lambda: self.service.generation.Cancel(
            pb.CancelRequest(request_id="to-cancel"), timeout=LIMIT_S))

    def test_a_lost_client_cancels_its_question(self):
        call = self.service.ask_stream("book", "Go on.", max_tokens=5000, ignore_eos=True)
        next(event for event in call if event.HasField("delta"))
        call.cancel()
        self.wait_until(lambda: self.service.info().running == 0, "the question runs on")
        self.assertEqual(self.service.state_of("book"), "READY")

    def test_the_client_s_deadline_ends_its_question(self):
        self.fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: list(self.service.ask_stream(
            "book", "Go on.", max_tokens=5000, ignore_eos=True, timeout=1)))
        self.wait_until(lambda: self.service.info().running == 0, "the question runs on")

    # Service.

    def test_server_info_is_complete(self):
        info = self.service.info()
        self.assertEqual((info.model.name, info.model.family), ("needle-9m", "llama"))
        self.assertGreater(info.model.parameters, 9_000_000)
        self.assertEqual(info.model.max_tokens, 1048576)
        self.assertEqual(info.model.weights, "files")
        self.assertRegex(info.model.profile, "^[0-9a-f]{16}$")  # the model's own
        self.assertEqual(len(info.model.fingerprint), 64)
        self.assertEqual([worker.rank for worker in info.workers], [0, 1])
        self.assertEqual([worker.kv_heads for worker in info.workers], [2, 2])
        for worker in info.workers:
            self.assertEqual(worker.state, pb.ServerInfo.Worker.READY)
            self.assertIn("cpu", worker.device.lower())
        self.assertGreater(info.kv_capacity_tokens, 10000)
        self.assertGreaterEqual(info.kv_used_tokens, self.service.get("book").token_count)
        self.assertTrue(info.version)

    def test_health_serves(self):
        for name in ("", "tca.v1.Documents", "tca.v1.Generation"):
            self.assertTrue(self.service.is_serving(name), name)


class Memory(ServiceTest):
    """A service with room for two documents of three."""

    def setUp(self):
        self.service = None

    def tearDown(self):
        if self.service is not None:
            self.service.clean()

    def start(self, **settings):
        # 6 MiB hold 2,048 tokens of 3 KiB each a worker: 1,664 for documents, 384 for questions.
        self.service = Service(PROGRAM, **{"kv_memory": "6M", "question_kv": 0.2, **settings})
        self.texts = {f"d{number}": corpus.build_tokens(700, facts=1, seed=20 + number)
                      for number in range(4)}

    def put(self, document_id, **fields):
        return self.service.upload(self.texts[document_id].text.encode(), document_id=document_id,
                                   **fields)

    def check_answer(self, document_id, **fields):
        fact = self.texts[document_id].facts[0]
        answer = self.service.ask(document_id, fact.question, **fields)
        self.assertIn(fact.answer, answer.text)
        return answer

    def test_the_least_recently_used_document_is_stored_and_comes_back(self):
        self.start()
        self.put("d0")
        self.put("d1")
        self.check_answer("d0")  # d1 is now the least recently used
        self.put("d2")
        self.assertEqual([self.service.state_of(f"d{n}") for n in range(3)],
                         ["READY", "STORED", "READY"])
        self.assertEqual(self.service.get("d1").kv_bytes, 0)
        self.fails(grpc.StatusCode.FAILED_PRECONDITION,
                   lambda: self.service.ask("d1", "Who?", no_wait=True))
        answer = self.check_answer("d1")
        self.assertIn("progress", answer.kinds)
        self.assertEqual(self.service.state_of("d1"), "READY")
        self.assertEqual(self.service.state_of("d0"), "STORED")
        # The same upload again brings it back too.
        self.assertEqual(states(self.put("d0"))[-1], "READY")
        self.assertEqual(self.service.stop(), 0)

    def test_pinned_documents_stay(self):
        self.start()
        self.put("d0", pinned=True)
        self.put("d1")
        self.put("d2")
        self.assertEqual([self.service.state_of(f"d{n}") for n in range(3)],
                         ["READY", "STORED", "READY"])
        self.service.update("d2", pinned=True)
        error = self.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: self.put("d3"))
        self.assertIn("RetryInfo", service.details_of(error))
        self.assertEqual(self.service.state_of("d3"), "STORED")
        self.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: self.put("d3"))  # the same again
        self.service.update("d2", pinned=False)
        self.check_answer("d3")

    def test_an_upload_that_is_refused_leaves_nothing(self):
        self.start(max_document_bytes=1000)
        long = [header("refused"), chunk(0, b"x" * 800), chunk(800, b"x" * 800)]
        empty = [header("refused"), chunk(0, b"", last=True)]
        for _ in range(10):  # the one before has gone when its error is told
            error = self.fails(grpc.StatusCode.OUT_OF_RANGE,
                               lambda: self.service.upload(None, chunks=long))
            self.assertIn("max-document-bytes", error.details())
            self.fails(grpc.StatusCode.INVALID_ARGUMENT,
                       lambda: self.service.upload(None, chunks=empty))
            self.assertFalse(self.service.list().documents)

    def test_a_document_in_use_is_waited_for(self):
        self.start()
        self.put("d0")
        self.put("d1", pinned=True)
        call = self.service.ask_stream("d0", "Go on.", max_tokens=300, ignore_eos=True)
        next(event for event in call if event.HasField("delta"))
        self.put("d2")  # d0 leaves only when its answer is complete
        self.assertEqual(list(call)[-1].finished.usage.completion_tokens, 300)
        self.assertEqual(self.service.state_of("d0"), "STORED")

    def test_policy_refuse_refuses_the_new_one(self):
        self.start(kv_policy="refuse")
        self.put("d0")
        self.put("d1")
        error = self.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: self.put("d2"))
        self.assertRegex(error.details(), r"\d+ of \d+")
        self.assertEqual([self.service.state_of(f"d{n}") for n in range(3)],
                         ["READY", "READY", "STORED"])
        self.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: self.service.ask("d2", "Who?"))
        self.service.delete("d0")
        self.check_answer("d2")

    def test_what_can_never_fit_fails_with_the_numbers(self):
        self.start()
        data = corpus.build_bytes(30000, seed=9).text.encode()
        error = self.fails(grpc.StatusCode.OUT_OF_RANGE,
                           lambda: self.service.upload(data, document_id="huge"))
        self.assertRegex(error.details(), r"needs \d+ tokens .* have \d+")
        document = self.service.get("huge")
        self.assertEqual(document.state, pb.Document.FAILED)
        self.assertEqual(document.error_message, error.details())
        self.fails(grpc.StatusCode.OUT_OF_RANGE, lambda: list(self.service.watch("huge")))
        self.fails(grpc.StatusCode.FAILED_PRECONDITION,
                   lambda: self.service.ask("huge", "Who?"))
        self.service.delete("huge")

    def test_the_queue_of_questions_is_bounded(self):
        self.start(max_running=1, max_waiting=1, kv_memory="64M")
        self.put("d0")
        running = self.service.ask_stream("d0", "Go on.", max_tokens=3000, ignore_eos=True)
        next(event for event in running if event.HasField("delta"))
        waiting = self.service.ask_stream("d0", "Go on.", max_tokens=3, ignore_eos=True)
        accepted = next(waiting)
        self.assertEqual(accepted.accepted.queue_position, 0)
        error = self.fails(grpc.StatusCode.RESOURCE_EXHAUSTED,
                           lambda: self.service.ask("d0", "Who?"))
        self.assertIn("RetryInfo", service.details_of(error))
        self.assertEqual(self.service.info().waiting, 1)
        running.cancel()
        self.assertEqual(list(waiting)[-1].finished.usage.completion_tokens, 3)


class Life(ServiceTest):
    """Starting, stopping, and what outlives a process."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tca-e2e-")
        self.services = []

    def tearDown(self):
        for one in self.services:
            one.clean()
        self.folder.cleanup()

    def start(self, **settings):
        self.services.append(Service(PROGRAM, state=self.folder.name, **settings))
        return self.services[-1]

    def test_documents_outlive_the_service(self):
        book = corpus.build_tokens(1000, facts=1, seed=31)
        data = book.text.encode()
        first = self.start()
        last = first.upload(data, document_id="book", display_name="n", pinned=True)[-1]
        hold = threading.Event()

        def part():
            yield header("part", total_bytes=2000)
            yield chunk(0, data[:1234])
            hold.wait(LIMIT_S)

        call = first.documents.Upload(part(), timeout=LIMIT_S)
        while next(call).document.byte_count < 1234:
            pass
        first.process.kill()  # no chance to tidy up
        first.wait()
        hold.set()

        second = self.start()
        events = list(second.watch("book"))
        self.assertEqual(states(events)[-1], "READY")
        self.assertGreater(events[0].sequence, last.sequence)
        document = events[-1].document
        for field in ("sha256", "token_count", "pinned", "display_name", "create_time"):
            self.assertEqual(getattr(document, field), getattr(last.document, field), field)
        self.assertIn(book.facts[0].answer, second.ask("book", book.facts[0].question).text)
        self.assertEqual((second.state_of("part"), second.get("part").byte_count),
                         ("UPLOADING", 1234))
        events = second.upload(data[:2000], document_id="part", resume_offset=1234)
        self.assertEqual(events[-1].document.sha256, sha256(data[:2000]))
        second.delete("book")
        self.assertEqual(second.stop(), 0)

        third = self.start()
        self.assertEqual([one.document_id for one in third.list().documents], ["part"])
        self.assertEqual(third.stop(signal.SIGINT), 0)

    def test_what_is_told_is_durable(self):
        first = self.start()
        obstacle = pathlib.Path(self.folder.name, "documents", "book", "meta.json.new")
        text = b"Some text that arrives."

        def blocks():
            try:
                obstacle.mkdir()
            except FileExistsError:  # a save is under way
                return False
            return True

        def last_chunk_meets_an_obstacle():
            yield header("book")
            yield chunk(0, text[:9])
            self.wait_until(lambda: [one.byte_count for one in first.list().documents] == [9],
                            "the first chunk")  # the document may not be there yet
            obstacle.mkdir()
            yield chunk(9, text[9:], last=True)

        error = self.fails(grpc.StatusCode.INTERNAL, lambda: first.upload(
            None, chunks=last_chunk_meets_an_obstacle()))
        self.assertIn("meta.json.new", error.details())
        self.assertEqual((first.state_of("book"), first.get("book").byte_count),
                         ("UPLOADING", len(text)))
        obstacle.rmdir()
        first.upload(None, chunks=[header("book", resume_offset=len(text)),
                                   chunk(len(text), b"", last=True)])
        self.wait_until(blocks, "the saves of the upload")
        error = self.fails(grpc.StatusCode.INTERNAL, lambda: first.update("book", pinned=True))
        self.assertIn("until the coordinator ends", error.details())
        obstacle.rmdir()
        first.update("book", pinned=True, display_name="n")
        first.process.kill()
        first.wait()

        second = self.start()
        document = list(second.watch("book"))[-1].document
        self.assertEqual((document.pinned, document.display_name, document.sha256),
                         (True, "n", sha256(text)))
        for event in second.upload_stream(text, document_id="other"):
            if event.document.state == pb.Document.QUEUED:
                break
        second.process.kill()
        second.wait()
        self.assertEqual(states(self.start().watch("other"))[-1], "READY")

    def test_damage_is_listed_and_not_lost(self):
        first = self.start()
        first.upload(b"Some text that will be cut.", document_id="cut")
        first.upload(b"Some text that will be changed.", document_id="changed")
        first.upload(b"Some text without its metadata.", document_id="bare")
        self.fails(grpc.StatusCode.INVALID_ARGUMENT,
                   lambda: first.upload(None, chunks=[header("part"), chunk(0, b"Some text")]))
        self.assertEqual(first.stop(), 0)
        folder = os.path.join(self.folder.name, "documents")
        os.truncate(os.path.join(folder, "cut", "content"), 5)
        with open(os.path.join(folder, "changed", "content"), "r+b") as file:
            file.write(b"X")
        with open(os.path.join(folder, "bare", "meta.json"), "wb") as file:
            file.write(b"{")
        with open(os.path.join(folder, "part", "durable"), "wb") as file:
            file.write(b"noise\0\0\x10")  # more than any memory holds
        second = self.start()
        for document_id in ("cut", "changed", "bare", "part"):
            self.fails(grpc.StatusCode.DATA_LOSS,
                       lambda document_id=document_id: list(second.watch(document_id)))
            self.assertEqual(second.state_of(document_id), "FAILED")
            self.assertTrue(os.path.exists(os.path.join(folder, document_id, "content")))
        second.delete("bare")
        self.assertEqual(second.stop(), 0)

    def test_what_did_not_fit_one_run_is_tried_again_in_the_next(self):
        first = self.start()
        first.upload(b"word " * 300, document_id="book")
        self.assertEqual(first.stop(), 0)
        small = self.start(max_tokens=200)
        error = self.fails(grpc.StatusCode.OUT_OF_RANGE, lambda: list(small.watch("book")))
        self.assertIn("the longest sequence has 200", error.details())
        self.assertEqual(small.stop(), 0)
        third = self.start()
        self.assertEqual(list(third.watch("book"))[-1].document.state, pb.Document.READY)
        self.assertEqual(third.get("book").error_message, "")

    def test_an_address_without_a_port_of_its_own_is_refused(self):
        for setting, name in (("listen", b"listen"), ("worker_listen", b"worker-listen")):
            for address in ("127.0.0.1", "127.0.0.1:65536", ""):
                with tempfile.TemporaryFile() as log:
                    with self.assertRaises(RuntimeError):
                        self.start(stderr=log, **{setting: address})
                    log.seek(0)
                    self.assertIn(b'%s: value "%s", allowed: HOST:PORT' % (name, address.encode()), log.read())

    def test_one_coordinator_a_state_folder(self):
        self.start()
        with self.assertRaises(RuntimeError):
            self.start()

    def test_drain_lets_running_questions_end(self):
        one = self.start(drain_timeout=LIMIT_S)
        one.upload(b"Some text to talk about.", document_id="book")
        longer, call = (one.ask_stream("book", "Go on.", max_tokens=count, ignore_eos=True)
                        for count in (8000, 400))
        for answer in (longer, call):
            next(event for event in answer if event.HasField("delta"))
        one.admin.Drain(pb.DrainRequest(), timeout=LIMIT_S)
        error = self.fails(grpc.StatusCode.UNAVAILABLE, lambda: one.ask("book", "Who?"))
        self.assertIn("RetryInfo", service.details_of(error))
        self.fails(grpc.StatusCode.UNAVAILABLE, lambda: one.upload(b"Text.", document_id="new"))
        for name in ("", "tca.v1.Documents", "tca.v1.Generation"):
            self.assertFalse(one.is_serving(name), name)
        longer.cancel()  # it has kept the service there until now
        self.assertEqual(list(call)[-1].finished.usage.completion_tokens, 400)
        self.assertEqual(one.wait(), 0)

    def test_the_drain_s_deadline_cuts_answers_off(self):
        one = self.start(drain_timeout=0)
        one.upload(b"Some text to talk about.", document_id="book")
        call = one.ask_stream("book", "Go on.", max_tokens=8000, ignore_eos=True)
        next(event for event in call if event.HasField("delta"))
        one.process.send_signal(signal.SIGTERM)
        self.fails(grpc.StatusCode.UNAVAILABLE, lambda: list(call))
        self.assertEqual(one.wait(), 0)

    def test_without_workers_documents_are_taken(self):
        one = self.start(no_launch=True, wait_ready=False)
        self.assertTrue(one.is_serving("tca.v1.Documents"))
        self.assertFalse(one.is_serving(""))
        self.assertFalse(one.is_serving("tca.v1.Generation"))
        call = one.upload_stream(b"Some text.", document_id="early")
        for event in call:
            if event.document.token_count > 0:
                break
        self.assertEqual(event.document.state, pb.Document.QUEUED)
        error = self.fails(grpc.StatusCode.UNAVAILABLE, lambda: one.ask("early", "Who?"))
        self.assertIn("RetryInfo", service.details_of(error))
        kinds = [event.WhichOneof("body") for _, event in zip(range(2), call)]
        self.assertIn("heartbeat", kinds)
        self.assertEqual(one.info().workers[0].state, pb.ServerInfo.Worker.STARTING)
        one.process.send_signal(signal.SIGTERM)
        self.fails(grpc.StatusCode.UNAVAILABLE, lambda: list(call))
        self.assertEqual(one.wait(), 0)


class Group(ServiceTest):
    """Ways to start the workers; test_lost_group.py is about their end."""

    def setUp(self):
        if not HAS_PROCESSES:
            self.skipTest("the workers are threads of the coordinator")
        self.service = None

    def tearDown(self):
        if self.service is not None:
            self.service.clean()

    def check(self):
        fact = corpus.make_facts(1, seed=5)[0]
        self.service.upload(fact.sentence.encode(), document_id="fact")
        self.assertIn(fact.answer, self.service.ask("fact", fact.question).text)

    def test_a_command_of_one_s_own_starts_the_workers(self):
        self.service = Service(PROGRAM, workers=1, launch_command=(
            'exec mpirun -np "$TCA_WORKERS" --bind-to none --oversubscribe -x TCA_WORKER_SECRET '
            '"$TCA_WORKER" --coordinator "$TCA_COORDINATOR"'))
        self.check()
        self.assertEqual(self.service.stop(), 0)

    def test_a_command_that_fails_ends_the_service(self):
        self.service = Service(PROGRAM, wait_ready=False, launch_command="exit 3")
        self.assertNotEqual(self.service.wait(), 0)

    def test_workers_that_somebody_else_starts_are_let_in(self):
        self.service = Service(PROGRAM, no_launch=True, wait_ready=False)
        address = self.service.wait_line("workers connect to ").split()[-1]
        worker = os.path.join(os.path.dirname(PROGRAM), "tca-worker")
        mpirun = service.SOURCE / "tests" / "support" / "mpirun.sh"
        group = subprocess.Popen([mpirun, "2", worker, "--coordinator", address, "--secret-file",
                                  os.path.join(self.service.state, "worker-secret")])
        self.service.wait_line("ready")
        self.check()
        self.assertEqual(self.service.stop(), 0)
        self.assertEqual(group.wait(LIMIT_S), 0)

    def test_a_folder_that_is_no_model_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(RuntimeError, "ended with 1"):
                Service(PROGRAM, model=folder)

    def test_more_workers_than_kv_heads_share_them(self):
        self.service = Service(PROGRAM, workers=6)
        self.check()
        self.assertEqual([worker.kv_heads for worker in self.service.info().workers], [1] * 6)
        self.assertEqual(self.service.stop(), 0)

    def test_more_workers_than_ffn_columns_to_share_are_refused(self):
        with self.assertRaisesRegex(RuntimeError, "ended with 1"):
            Service(PROGRAM, workers=57)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
