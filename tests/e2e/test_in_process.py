"""The contract's main paths by 50 clients at once, right and wrong requests mixed, on a service
whose workers run inside the coordinator's process: what a sanitizer has to say about our code, it
says about this. Built with none, the test still checks that nothing is lost, left or hung.

Usage: test_in_process.py LOCAL_SERVICE LOCAL_SERVICE_WITH_FAULTS [unittest arguments]
$TCA_SANITIZE: what the programs were built with, as in -fsanitize=."""

import os
import random
import sys
import tempfile
import threading
import unittest

import service
import test_wrong_inputs as wrong
from service import LIMIT_S, Service, chunk, header, pb, sha256, states

import corpus
import grpc

PROGRAM, FAULTY = sys.argv[1:3]
SANITIZERS = os.environ.get("TCA_SANITIZE", "")
CLIENTS = 50
# What may end a call of a client whose document or question another client takes away.
LOST = (grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


class OneClient(wrong.Client):
    """A client of its own, with documents of its own and some that all share."""

    def __init__(self, test, number):
        super().__init__(test.service.address)
        self.test = test
        self.number = number
        self.rng = random.Random(number)
        self.book = f"own-{number}"
        self.text = test.texts[number % len(test.texts)]

    def run(self):
        actions = [self.wrong_request, self.wrong_request, self.wrong_upload, self.list,
                   self.ask_shared, self.cancel_by_id, self.lose_answer, self.lose_upload,
                   self.tokenize, self.watch_shared, self.deadline, self.take_shared_away]
        self.put_own()
        self.rng.shuffle(actions)
        for action in actions[:6]:
            action()
        self.ask_own()
        self.documents.Delete(pb.DeleteDocumentRequest(document_id=self.book), timeout=LIMIT_S)

    def put_own(self):
        data = self.text.encode()
        size = self.rng.choice((97, 1000, len(data)))
        requests = service.upload_requests(data, size, document_id=self.book,
                                           pinned=self.rng.random() < 0.2)
        events = list(self.documents.Upload(requests, timeout=LIMIT_S))
        self.test.assertEqual(states(events)[-1], "READY", self.book)
        self.test.assertEqual(events[-1].document.sha256, sha256(data))

    def ask(self, document_id, question="Go on.", **fields):
        return self.generation.Ask(pb.AskRequest(document_id=document_id, question=question,
                                                 **fields), timeout=LIMIT_S)

    def ask_own(self):
        answer = service.Answer(list(self.ask(self.book, max_tokens=4, ignore_eos=True)))
        self.test.assertEqual((len(answer.token_ids), answer.reason), (4, "LENGTH"))

    def ask_shared(self):
        fact = self.rng.choice(self.test.book.facts)
        answer = service.Answer(list(self.ask("book", fact.question, logprobs=2)))
        self.test.assertIn(fact.answer, answer.text)

    def cancel_by_id(self):
        name = f"question-{self.number}"
        call = self.ask("book", request_id=name, max_tokens=5000, ignore_eos=True)
        next(call)
        self.generation.Cancel(pb.CancelRequest(request_id=name), timeout=LIMIT_S)
        reason = list(call)[-1].finished.reason
        self.test.assertEqual(reason, pb.AskEvent.Finished.CANCELLED)

    def lose_answer(self):
        call = self.ask("book", max_tokens=1000, ignore_eos=True)
        for _ in range(self.rng.randrange(3)):
            next(call)
        call.cancel()

    def lose_upload(self):
        name = f"lost-{self.number}"
        call = self.documents.Upload(iter([header(name), chunk(0, b"some text")]), timeout=LIMIT_S)
        next(call)
        call.cancel()
        try:
            self.documents.Delete(pb.DeleteDocumentRequest(document_id=name), timeout=LIMIT_S)
        except grpc.RpcError as error:  # the call was gone before its first bytes were kept
            self.test.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)

    def list(self):
        token, seen = "", []
        while True:
            page = self.documents.List(pb.ListDocumentsRequest(page_size=7, page_token=token),
                                       timeout=LIMIT_S)
            seen += [document.document_id for document in page.documents]
            token = page.next_page_token
            if not token:
                break
        self.test.assertIn("book", seen)
        self.test.assertEqual(seen, sorted(set(seen)))

    def tokenize(self):
        ids = self.generation.Tokenize(pb.TokenizeRequest(text=self.text), timeout=LIMIT_S)
        back = self.generation.Detokenize(pb.DetokenizeRequest(token_ids=ids.token_ids),
                                          timeout=LIMIT_S)
        self.test.assertEqual(back.text, self.text)

    def watch_shared(self):
        events = list(self.documents.Watch(pb.WatchRequest(document_id="book"), timeout=LIMIT_S))
        self.test.assertEqual(events[-1].document.state, pb.Document.READY)

    def deadline(self):
        with self.test.assertRaises(grpc.RpcError) as caught:
            list(self.generation.Ask(pb.AskRequest(
                document_id="book", question="Go on.", max_tokens=1000, ignore_eos=True),
                timeout=self.rng.uniform(0.01, 0.3)))
        self.test.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def take_shared_away(self):
        """Clients ask, watch and delete one document that others put back."""
        name = f"shared-{self.number % 3}"
        data = self.test.texts[0].encode()
        for call in (lambda: self.documents.Upload(
                         service.upload_requests(data, 700, document_id=name), timeout=LIMIT_S),
                     lambda: self.documents.Watch(pb.WatchRequest(document_id=name),
                                                  timeout=LIMIT_S),
                     lambda: self.ask(name, max_tokens=2, ignore_eos=True)):
            try:
                list(call())
            except grpc.RpcError as error:
                self.test.assertIn(error.code(), LOST, error.details())
        try:
            self.documents.Delete(pb.DeleteDocumentRequest(document_id=name), timeout=LIMIT_S)
        except grpc.RpcError as error:
            self.test.assertIn(error.code(), LOST, error.details())

    def wrong_request(self):
        for name in self.rng.sample(sorted(wrong.WRONG), 8):
            call, code, _ = wrong.WRONG[name]
            self.refused(name, call, code)

    def wrong_upload(self):
        for name in self.rng.sample(sorted(wrong.WRONG_UPLOADS), 4):
            chunks, fields, code, _ = wrong.WRONG_UPLOADS[name]
            document_id = f"wrong-{self.number}-{name.replace(' ', '-')}"
            self.refused(name, wrong.chunked(*chunks, document_id=document_id, **fields), code)

    def refused(self, name, call, code):
        with self.test.assertRaises(grpc.RpcError, msg=name) as caught:
            call(self)
        self.test.assertEqual(caught.exception.code(), code, (name, caught.exception.details()))


class InProcess(unittest.TestCase):
    maxDiff = None

    def test_fifty_clients_leave_nothing_behind(self):
        self.service = Service(PROGRAM, max_running=4, kv_memory="128M",
                               question_kv=0.4)
        self.addCleanup(self.service.clean)
        self.book = corpus.build_bytes(3000, facts=2, seed=3)
        self.texts = [corpus.build_bytes(400 + 150 * number, seed=number).text
                      for number in range(4)]
        self.service.upload(self.book.text.encode(), document_id="book", pinned=True)
        used = self.service.info().kv_used_tokens
        failures = []

        def one_client(number):
            client = OneClient(self, number)
            try:
                client.run()
            except Exception as error:  # noqa: BLE001: a thread's failure must reach the test
                failures.append(f"client {number}: {error!r}")
            finally:
                client.channel.close()

        threads = [threading.Thread(target=one_client, args=(number,), daemon=True)
                   for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        self.assertEqual(failures, [])
        self.assertFalse(any(thread.is_alive() for thread in threads), "a client hangs")

        for fact in self.book.facts:
            self.assertIn(fact.answer, self.service.ask("book", fact.question).text)
        self.service.wait_idle()
        left = {document.document_id for document in self.service.list(1000).documents}
        self.assertEqual({name for name in left if not name.startswith("shared")}, {"book"})
        for name in left - {"book"}:
            self.service.delete(name)
        self.assertEqual(self.service.info().kv_used_tokens, used)
        self.check_end(self.service.stop(), 0)

    def check_end(self, code, expected):
        self.assertEqual(code, expected, "a sanitizer's report is above, if there is one")

    def test_it_ends_in_the_middle_of_everything(self):
        one = Service(PROGRAM, drain_timeout=0, question_kv=0.5)
        self.addCleanup(one.clean)
        one.upload(b"Some text to talk about.", document_id="book")
        calls = [one.ask_stream("book", "Go on.", max_tokens=8000, ignore_eos=True)
                 for _ in range(3)]
        for call in calls:
            next(call)
        calls.append(one.upload_stream(corpus.build_bytes(30000, seed=1).text.encode(),
                                       document_id="half"))
        calls.append(one.upload_stream(b"", chunks=Endless(), document_id="open"))
        next(calls[-1])
        one.process.terminate()
        for call in calls:
            with self.assertRaises(grpc.RpcError) as caught:
                list(call)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.check_end(one.stop(), 0)

    def test_it_ends_before_the_workers_are_there(self):
        one = Service(PROGRAM, wait_ready=False)
        self.addCleanup(one.clean)
        one.process.terminate()
        self.assertIn(one.stop(), (0, 1))  # 1: the ranks found nobody to attach to

    @unittest.skipUnless(SANITIZERS, "built without a sanitizer")
    def test_sanitizers_see_faults_in_our_code(self):
        with tempfile.TemporaryFile() as log:
            one = Service(FAULTY, stderr=log)
            self.addCleanup(one.clean)
            code = one.stop()
            log.seek(0)
            text = log.read().decode(errors="replace")
        self.assertNotEqual(code, 0, text)
        wanted = "data race" if "thread" in SANITIZERS else "detected memory leaks"
        self.assertIn(wanted, text)
        self.assertIn("plant_faults", text)


class Endless:
    """Requests of an upload that never says that it is whole."""

    def __iter__(self):
        yield header("open")
        yield chunk(0, b"some text")
        threading.Event().wait(LIMIT_S)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
