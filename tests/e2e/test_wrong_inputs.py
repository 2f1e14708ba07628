"""Wrong inputs get the status code that the API promises, name what is wrong, and harm nobody:
first one at a time, then by 50 clients at once while right questions are answered.

Usage: test_wrong_inputs.py TCA_COORDINATOR_PROGRAM [unittest arguments]"""

import random
import sys
import threading
import unittest

import service
from service import KIB, LIMIT_S, Service, chunk, header, pb, pb_grpc

import corpus
import grpc

PROGRAM = sys.argv[1]
CLIENTS = 50
Code = grpc.StatusCode
NAN, INFINITY = float("nan"), float("inf")
TOO_LONG_ID = "x" * 129


def ask(**fields):
    fields.setdefault("question", "Who?")
    if "prompt" not in fields:
        fields.setdefault("document_id", "book")
    return lambda client: list(client.generation.Ask(pb.AskRequest(**fields), timeout=LIMIT_S))


def sampling(**fields):
    return ask(sampling=pb.SamplingParams(**fields))


def attention(**fields):
    return ask(attention=pb.AttentionOptions(**fields))


def prompt_attention(**fields):
    return ask(prompt="x", question="", attention=pb.AttentionOptions(**fields))


def upload(*requests):
    return lambda client: list(client.documents.Upload(iter(requests), timeout=LIMIT_S))


def headed(**fields):
    """An upload of a new document that is refused at its header."""
    fields.setdefault("document_id", "refused")
    return upload(pb.UploadRequest(header=pb.UploadHeader(**fields)), chunk(0, b"x", True))


def chunked(*chunks, **fields):
    """An upload of a new document that is refused at a chunk."""
    fields.setdefault("document_id", "refused")
    return upload(pb.UploadRequest(header=pb.UploadHeader(**fields)), *chunks)


def documents(method, request):
    return lambda client: list_of(getattr(client.documents, method)(request, timeout=LIMIT_S))


def generation(method, request):
    return lambda client: list_of(getattr(client.generation, method)(request, timeout=LIMIT_S))


def list_of(result):
    return list(result) if isinstance(result, grpc.Call) else result


def raw_bytes(path, data):
    """A request whose bytes are no such message."""
    return lambda client: list_of(client.channel.unary_stream(path)(data, timeout=LIMIT_S)
                                  if path.endswith("Ask") else
                                  client.channel.unary_unary(path)(data, timeout=LIMIT_S))


def turn(role, text="x"):
    return pb.Turn(role=role, text=text)


IDS = pb.UploadHeader.TOKEN_IDS_U32LE
MIB = 1024 * KIB
# Name of the case: (call, code, words of the message).
WRONG = {
    # Ask.
    "no source": (lambda client: list(client.generation.Ask(pb.AskRequest(question="x"),
                                                            timeout=LIMIT_S)),
                  Code.INVALID_ARGUMENT, "source"),
    "no document": (ask(document_id="none"), Code.NOT_FOUND, "none"),
    "bad document id": (ask(document_id="a/b"), Code.INVALID_ARGUMENT, "document_id"),
    "long document id": (ask(document_id=TOO_LONG_ID), Code.INVALID_ARGUMENT, "129"),
    "dots": (ask(document_id=".."), Code.INVALID_ARGUMENT, "document_id"),
    "bad request id": (ask(request_id="a b"), Code.INVALID_ARGUMENT, "request_id"),
    "no question": (ask(question=""), Code.INVALID_ARGUMENT, "question"),
    "empty prompt": (ask(prompt="", question=""), Code.INVALID_ARGUMENT, "prompt"),
    "prompt and question": (ask(prompt="x"), Code.INVALID_ARGUMENT, "question"),
    "long prompt": (ask(prompt="word " * 20000, question=""), Code.OUT_OF_RANGE, "questions"),
    "negative max_tokens": (ask(max_tokens=-1), Code.INVALID_ARGUMENT, "max_tokens"),
    "huge max_tokens": (ask(max_tokens=2000000), Code.OUT_OF_RANGE, "1048576"),
    "more than questions have": (ask(max_tokens=20000), Code.OUT_OF_RANGE, "questions"),
    "logprobs": (ask(logprobs=21), Code.INVALID_ARGUMENT, "logprobs: 21, allowed: 0 to 20"),
    "negative logprobs": (ask(logprobs=-1), Code.INVALID_ARGUMENT, "logprobs"),
    "stops": (ask(stop=["x"] * 17), Code.INVALID_ARGUMENT, "stop: 17"),
    "empty stop": (ask(stop=["x", ""]), Code.INVALID_ARGUMENT, "stop[1]"),
    "long stop": (ask(stop=["x" * 257]), Code.INVALID_ARGUMENT, "stop[0]"),
    "role": (ask(history=[turn("system"), turn("assistant")]), Code.INVALID_ARGUMENT,
             "history[0].role"),
    "order of turns": (ask(history=[turn("assistant"), turn("user")]), Code.INVALID_ARGUMENT,
                       "history[0].role"),
    "odd history": (ask(history=[turn("user")]), Code.INVALID_ARGUMENT, "history"),
    "raw history": (ask(raw=True, history=[turn("user"), turn("assistant")]),
                    Code.INVALID_ARGUMENT, "history"),
    "temperature": (sampling(temperature=-1), Code.INVALID_ARGUMENT, "sampling.temperature: -1"),
    "temperature nan": (sampling(temperature=NAN), Code.INVALID_ARGUMENT, "sampling.temperature"),
    "temperature inf": (sampling(temperature=INFINITY), Code.INVALID_ARGUMENT,
                        "sampling.temperature"),
    "top_k": (sampling(top_k=-1), Code.INVALID_ARGUMENT, "sampling.top_k"),
    "top_p": (sampling(top_p=1.5), Code.INVALID_ARGUMENT, "sampling.top_p: 1.5, allowed: 0 to 1"),
    "min_p": (sampling(min_p=-0.5), Code.INVALID_ARGUMENT, "sampling.min_p"),
    "repetition_penalty": (sampling(repetition_penalty=-1), Code.INVALID_ARGUMENT,
                           "sampling.repetition_penalty"),
    "unknown rule": (attention(rule="magic"), Code.INVALID_ARGUMENT,
                     'attention.rule: "magic", allowed: dense, window, block, pooled, tca'),
    "keep out of range": (attention(keep=-1), Code.INVALID_ARGUMENT,
                          "attention.keep: -1, allowed: 0 to 1"),
    "keep nan": (attention(keep=NAN), Code.INVALID_ARGUMENT, "attention.keep"),
    "keep of dense": (attention(rule="dense", keep=0.5), Code.INVALID_ARGUMENT,
                      'attention.keep: 0.5, allowed: 0 with attention.rule "dense"'),
    "tau out of range": (attention(tau=1.5), Code.INVALID_ARGUMENT,
                         "attention.tau: 1.5, allowed: 0 to 1"),
    "tau of dense": (attention(rule="dense", tau=0.5), Code.INVALID_ARGUMENT,
                     'attention.tau: 0.5, allowed: 0 with attention.rule "dense"'),
    "evict of a document": (attention(evict=True), Code.INVALID_ARGUMENT,
                            "attention.evict: true, allowed: only with prompt"),
    "evict with dense": (prompt_attention(rule="dense", evict=True), Code.INVALID_ARGUMENT,
                         "attention.evict: true, allowed: only with a sparse attention.rule"),
    "rule of a prompt": (prompt_attention(rule="pooled"), Code.INVALID_ARGUMENT,
                         "allowed: only with document_id or attention.evict"),
    "keep of a prompt": (prompt_attention(keep=0.5), Code.INVALID_ARGUMENT,
                         "allowed: only with document_id or attention.evict"),
    "tau of a prompt": (prompt_attention(tau=0.5), Code.INVALID_ARGUMENT,
                        "allowed: only with document_id or attention.evict"),
    "ask of noise": (raw_bytes("/tca.v1.Generation/Ask", b"\xff\xff\xff"), Code.INVALID_ARGUMENT,
                     ""),
    "question of no UTF-8": (raw_bytes("/tca.v1.Generation/Ask", b"\x12\x04book\x2a\x02\xff\xfe"),
                             Code.INVALID_ARGUMENT, "question"),
    "many empty turns": (raw_bytes("/tca.v1.Generation/Ask", b"\x22\x00" * (2 * MIB - 64)),
                         Code.RESOURCE_EXHAUSTED, ""),
    "a message over 4 MiB": (ask(question="x" * (4 * MIB)), Code.RESOURCE_EXHAUSTED, ""),
    "a method that is none": (raw_bytes("/tca.v1.Generation/Guess", b""), Code.UNIMPLEMENTED, ""),
    # Cancel, Tokenize, Detokenize.
    "cancel of nothing": (generation("Cancel", pb.CancelRequest(request_id="none")), Code.NOT_FOUND,
                          "none"),
    "cancel without id": (generation("Cancel", pb.CancelRequest()), Code.INVALID_ARGUMENT,
                          "request_id"),
    "long text": (generation("Tokenize", pb.TokenizeRequest(text="x" * (MIB + 1))),
                  Code.INVALID_ARGUMENT, "text"),
    "id outside": (generation("Detokenize", pb.DetokenizeRequest(token_ids=[1, 4096])),
                   Code.INVALID_ARGUMENT, "token_ids[1]: 4096, allowed: 0 to 4095"),
    "negative id": (generation("Detokenize", pb.DetokenizeRequest(token_ids=[-1])),
                    Code.INVALID_ARGUMENT, "token_ids[0]"),
    "many ids": (generation("Detokenize", pb.DetokenizeRequest(token_ids=[5] * 1000001)),
                 Code.INVALID_ARGUMENT, "1000001"),
    # Documents.
    "get of nothing": (documents("Get", pb.GetDocumentRequest(document_id="none")), Code.NOT_FOUND,
                       "none"),
    "get without id": (documents("Get", pb.GetDocumentRequest()), Code.INVALID_ARGUMENT,
                       "document_id"),
    "watch of nothing": (documents("Watch", pb.WatchRequest(document_id="none")), Code.NOT_FOUND,
                         "none"),
    "update of nothing": (documents("Update", pb.UpdateDocumentRequest(document_id="none")),
                          Code.NOT_FOUND, "none"),
    "long name": (documents("Update", pb.UpdateDocumentRequest(document_id="book", pinned=True,
                                                               display_name="x" * 1025)),
                  Code.INVALID_ARGUMENT, "display_name"),
    "delete of nothing": (documents("Delete", pb.DeleteDocumentRequest(document_id="none")),
                          Code.NOT_FOUND, "none"),
    "page size": (documents("List", pb.ListDocumentsRequest(page_size=1001)),
                  Code.INVALID_ARGUMENT, "page_size: 1001"),
    "negative page size": (documents("List", pb.ListDocumentsRequest(page_size=-1)),
                           Code.INVALID_ARGUMENT, "page_size"),
    "page token": (documents("List", pb.ListDocumentsRequest(page_token="a/b")),
                   Code.INVALID_ARGUMENT, "page_token"),
    # Upload: headers.
    "no messages": (upload(), Code.INVALID_ARGUMENT, "header"),
    "chunk first": (upload(chunk(0, b"x", True)), Code.INVALID_ARGUMENT, "header"),
    "empty message": (upload(pb.UploadRequest()), Code.INVALID_ARGUMENT, ""),
    "upload id": (headed(document_id="a b"), Code.INVALID_ARGUMENT, "document_id"),
    "upload name": (headed(display_name="x" * 1025), Code.INVALID_ARGUMENT, "display_name"),
    "upload system": (headed(system="x" * 65537), Code.INVALID_ARGUMENT, "system"),
    "system and raw": (headed(system="x", raw=True), Code.INVALID_ARGUMENT, "system"),
    "digest": (headed(sha256=b"x"), Code.INVALID_ARGUMENT, "sha256"),
    "encoding": (headed(encoding=7), Code.INVALID_ARGUMENT, "encoding: 7"),
    "resume of nothing": (headed(resume_offset=5), Code.OUT_OF_RANGE, "allowed: 0"),
    "too many bytes": (headed(total_bytes=2 ** 63), Code.INVALID_ARGUMENT, "total_bytes"),
    "more bytes than documents may have": (headed(total_bytes=2 ** 26 + 1), Code.OUT_OF_RANGE,
                                           "header.total_bytes: 67108865, allowed: 0 to 67108864"),
    "upload rule": (headed(prefill=pb.PrefillOptions(rule="magic")), Code.INVALID_ARGUMENT,
                    "prefill.rule"),
    "upload keep of dense": (headed(prefill=pb.PrefillOptions(rule="dense", keep=0.1)),
                             Code.INVALID_ARGUMENT, "header.prefill.keep: 0.1, allowed: 0 with"),
    "upload keep": (headed(prefill=pb.PrefillOptions(keep=1.1)), Code.INVALID_ARGUMENT,
                    "header.prefill.keep: 1.1, allowed: 0 to 1"),
    "upload keep nan": (headed(prefill=pb.PrefillOptions(keep=NAN)), Code.INVALID_ARGUMENT,
                        "prefill.keep"),
    "other document": (headed(document_id="book", raw=True), Code.ALREADY_EXISTS, "raw"),
    "other rule": (headed(document_id="book", prefill=pb.PrefillOptions(rule="block")),
                   Code.ALREADY_EXISTS, "prefill.rule"),
    "resume of a whole": (headed(document_id="book", resume_offset=5), Code.OUT_OF_RANGE, ""),
}
# These make and drop a document of their own, so that clients do not meet: "refused" gets a number.
WRONG_UPLOADS = {
    "zero bytes": ([chunk(0, b"", True)], {}, Code.INVALID_ARGUMENT, "0 bytes"),
    "end without last": ([chunk(0, b"")], {}, Code.INVALID_ARGUMENT, "last"),
    "offset": ([chunk(5, b"x", True)], {}, Code.OUT_OF_RANGE, "chunk.offset: 5, allowed: 0"),
    "long chunk": ([chunk(0, b"x" * (MIB + 1), True)], {}, Code.INVALID_ARGUMENT, "1048577"),
    "text of no UTF-8": ([chunk(0, b"abc\xff", True)], {}, Code.INVALID_ARGUMENT, "byte 3"),
    "half a character": ([chunk(0, b"abc\xc3", True)], {}, Code.INVALID_ARGUMENT, "byte 3"),
    "more than announced": ([chunk(0, b"abc", True)], {"total_bytes": 2}, Code.INVALID_ARGUMENT,
                            "total_bytes"),
    "less than announced": ([chunk(0, b"abc", True)], {"total_bytes": 4}, Code.INVALID_ARGUMENT,
                            "total_bytes"),
    "token outside": ([chunk(0, b"\x05\0\0\0\0\x10\0\0", True)], {"encoding": IDS},
                      Code.INVALID_ARGUMENT, "4096 at index 1"),
    "half a token": ([chunk(0, b"\x05\0\0\0\0", True)], {"encoding": IDS}, Code.INVALID_ARGUMENT,
                     "5 bytes"),
    "two headers": ([header("refused")], {}, Code.INVALID_ARGUMENT, "header"),
}


class Client:
    """What the calls above use, on a channel of its own."""

    def __init__(self, address):
        options = [("grpc.use_local_subchannel_pool", 1),
                   ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=options)
        self.documents = pb_grpc.DocumentsStub(self.channel)
        self.generation = pb_grpc.GenerationStub(self.channel)


class WrongInputs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.maxDiff = None
        cls.service = Service(PROGRAM)
        cls.book = corpus.build_tokens(800, facts=2, seed=3)
        cls.service.upload(cls.book.text.encode(), document_id="book", pinned=True)

    @classmethod
    def tearDownClass(cls):
        code = cls.service.stop()
        cls.service.clean()
        assert code == 0, f"the coordinator ended with {code}"

    def refused(self, client, name, call, code, words):
        with self.assertRaises(grpc.RpcError, msg=name) as caught:
            call(client)
        error = caught.exception
        self.assertEqual(error.code(), code, (name, error.details()))
        self.assertIn(words, error.details(), name)
        return error

    def refused_upload(self, client, name, document_id):
        chunks, fields, code, words = WRONG_UPLOADS[name]
        self.refused(client, name, chunked(*chunks, document_id=document_id, **fields), code, words)

    def test_each_has_its_code_and_names_its_field(self):
        client = Client(self.service.address)
        for name, (call, code, words) in WRONG.items():
            with self.subTest(name):
                self.refused(client, name, call, code, words)

    def test_uploads_that_break_off_leave_nothing(self):
        client = Client(self.service.address)
        for number, name in enumerate(WRONG_UPLOADS):
            with self.subTest(name):
                self.refused_upload(client, name, f"broken-{number}")
                with self.assertRaises(grpc.RpcError):
                    while True:  # its removal may take a moment
                        self.service.get(f"broken-{number}")

    def test_a_wrong_digest_fails_the_document(self):
        client = Client(self.service.address)
        self.refused(client, "digest",
                     chunked(chunk(0, b"abc", True), document_id="digest",
                             sha256=service.sha256(b"abd")), Code.INVALID_ARGUMENT, "sha256")
        self.assertEqual(self.service.state_of("digest"), "FAILED")
        self.service.delete("digest")

    def test_what_was_acknowledged_survives_a_bad_chunk(self):
        client = Client(self.service.address)
        self.refused(client, "bad second chunk",
                     chunked(chunk(0, b"good "), chunk(5, b"\xff"), document_id="kept"),
                     Code.INVALID_ARGUMENT, "byte 5")
        self.assertEqual(self.service.get("kept").byte_count, 5)
        self.service.upload(b"good end", document_id="kept", resume_offset=5)
        self.assertEqual(self.service.state_of("kept"), "READY")
        self.service.delete("kept")

    def test_details_say_the_same_to_programs(self):
        client = Client(self.service.address)
        error = self.refused(client, "details", sampling(top_p=2), Code.INVALID_ARGUMENT, "top_p")
        violation = service.details_of(error)["BadRequest"].field_violations[0]
        self.assertEqual(violation.field, "sampling.top_p")
        self.assertEqual(violation.description, "2, allowed: 0 to 1")

    def test_fifty_clients_at_once(self):
        failures = []

        def one_client(number):
            rng = random.Random(number)
            client = Client(self.service.address)
            names = rng.sample(sorted(WRONG), 12) + rng.sample(sorted(WRONG_UPLOADS), 4)
            try:
                for index, name in enumerate(names):
                    if name in WRONG:
                        self.refused(client, name, *WRONG[name])
                    else:
                        self.refused_upload(client, name, f"many-{number}-{index}")
                if number % 5 == 0:
                    fact = self.book.facts[number // 5 % 2]
                    events = list(client.generation.Ask(pb.AskRequest(
                        document_id="book", question=fact.question), timeout=LIMIT_S))
                    self.assertIn(fact.answer, service.Answer(events).text)
                elif number % 5 == 1:  # gone in the middle of an answer
                    call = client.generation.Ask(pb.AskRequest(
                        document_id="book", question="Go on.", max_tokens=500, ignore_eos=True),
                        timeout=LIMIT_S)
                    next(call)
                    call.cancel()
                elif number % 5 == 2:  # gone in the middle of an upload
                    call = client.documents.Upload(iter([header(f"gone-{number}"),
                                                         chunk(0, b"some text")]), timeout=LIMIT_S)
                    next(call)
                    call.cancel()
            except Exception as error:  # noqa: BLE001: a thread's failure must reach the test
                failures.append(f"client {number}: {error!r}")
            finally:
                client.channel.close()

        threads = [threading.Thread(target=one_client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        self.assertEqual(failures, [])
        fact = self.book.facts[0]
        self.assertIn(fact.answer, self.service.ask("book", fact.question).text)
        self.service.wait_idle()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
