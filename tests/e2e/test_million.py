"""A document of a million tokens goes in, in spite of a slow client and one that is killed, is
tokenised and listed in little memory, and leaves in the middle of its prefill.

Usage: test_million.py TCA_COORDINATOR_PROGRAM TCA_PROGRAM [unittest arguments]"""

import os
import subprocess
import sys
import time
import unittest

from service import KIB, LIMIT_S, SKIPPED, Service, pb, sha256, states
import service

import corpus
import grpc

try:
    import tokenizers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

PROGRAM, TCA = sys.argv[1:3]
MIB = 1024 * KIB
TOKENS = 1_000_000
BYTES_MIN = 4_000_000
# Text, tokens, and what the tokenizer and gRPC need to work on them; a copy too many is seen.
COORDINATOR_BYTES_MAX = 80 * MIB
PAUSE_S = 6  # longer than heartbeats and than anything that is sent without data


def count_tokens(encoder, text):
    return len(encoder.encode(text, add_special_tokens=False).ids)


def build_text():
    """Real text, in which words of one token make up for needle-9m's small vocabulary: it has 2.9
    bytes a token for real text, larger vocabularies have more than 4. With its count of tokens."""
    encoder = tokenizers.Tokenizer.from_file(str(service.NEEDLE / "tokenizer.json"))
    encoder.encode_special_tokens = True
    words = sorted(token[1:] for token in encoder.get_vocab()
                   if token[0] == "\u0120" and token[1:].isalpha() and len(token) > 6)
    lines = [" ".join(words[(number * step) % len(words)] for number in range(20)) + ".\n"
             for step in range(1, 200)]
    real = corpus.build_bytes(1_900_000, seed=11).text
    made = "".join(lines)
    left = TOKENS - count_tokens(encoder, real)
    made = made * int(left / count_tokens(encoder, made) * 0.999)
    parts = [(real[at * len(real) // 100:(at + 1) * len(real) // 100],
              made[at * len(made) // 100:(at + 1) * len(made) // 100]) for at in range(100)]
    text = "".join(one + other for one, other in parts)
    return text, count_tokens(encoder, text)


def memory_of(process_id, name):
    """A line of /proc/PID/status, in bytes."""
    with open(f"/proc/{process_id}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * KIB
    raise KeyError(name)


class Million(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        text, cls.tokens = build_text()
        cls.data = text.encode()

    def setUp(self):
        self.service = Service(PROGRAM, kv_memory="4G")
        self.addCleanup(self.service.clean)

    def worker_memory(self, name):
        workers = self.service.processes("tca-worker")
        self.assertEqual(len(workers), 2)
        return max(memory_of(worker, name) for worker in workers)

    def acknowledged(self):
        try:
            return self.service.get("big").byte_count
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
            return 0

    def wait_until(self, is_there, what):
        deadline = time.monotonic() + LIMIT_S
        while not is_there():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    def upload_slowly_and_die(self):
        """Feed `tca put` piece by piece, stop for a while, kill it. The bytes that were sent."""
        command = [TCA, "put", "-", "--id", "big", "--server", self.service.address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as client:
            try:
                return self.feed(client.stdin)
            finally:
                client.kill()

    def feed(self, pipe):
        sent = 0
        while sent < 9 * MIB // 4:  # the client holds back the newest part, of 1 MiB or less
            sent += pipe.write(self.data[sent:sent + 50_000])
            pipe.flush()
            time.sleep(0.03)
        self.wait_until(lambda: self.acknowledged() >= MIB, "nothing is acknowledged")
        self.assertLessEqual(self.acknowledged(), sent)
        time.sleep(PAUSE_S)
        before = self.acknowledged()
        sent += pipe.write(self.data[sent:sent + 2 * MIB])
        pipe.flush()
        self.wait_until(lambda: self.acknowledged() > before, "the upload stands still")
        return sent

    def resume(self, offset):
        """As fast as it goes, with the largest chunks. The running call, in its prefill."""
        call = self.service.upload_stream(self.data, chunk_bytes=MIB, document_id="big",
                                          total_bytes=len(self.data), sha256=sha256(self.data),
                                          resume_offset=offset)
        for event in call:
            if event.HasField("progress") and event.progress.tokens_done >= 4096 and \
                    event.document.state == pb.Document.PREFILLING:
                return call, event
        return self.fail("the prefill ended")

    def test_a_million_tokens_come_and_go(self):
        self.assertGreater(len(self.data), BYTES_MIN)
        self.assertGreater(self.tokens, TOKENS * 0.99)
        idle = {name: self.worker_memory(name) for name in ("VmSize", "VmRSS")}

        sent = self.upload_slowly_and_die()
        self.wait_until(self.is_released, "the killed client's stream holds the upload")
        offset = self.acknowledged()
        self.assertGreaterEqual(offset, MIB)
        self.assertLessEqual(offset, sent)
        call, event = self.resume(offset)

        document = event.document
        self.assertEqual(document.sha256, sha256(self.data))
        self.assertEqual(document.byte_count, len(self.data))
        self.assertGreater(document.token_count, self.tokens)  # the prefix of the chat format
        self.assertLess(document.token_count, self.tokens + 10)
        listed = self.service.list().documents
        self.assertEqual([(one.document_id, one.token_count) for one in listed],
                         [("big", document.token_count)])
        self.assertGreaterEqual(self.service.info().kv_used_tokens, document.token_count)
        reserved = self.worker_memory("VmSize") - idle["VmSize"]
        self.assertGreaterEqual(reserved, 3 * KIB * document.token_count)

        self.service.delete("big")
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.ABORTED)
        self.assertEqual(self.service.info().kv_used_tokens, 0)
        # A thread's first malloc alone may reserve 64 MiB of addresses; the document had 3 GiB.
        self.assertLess(self.worker_memory("VmSize") - idle["VmSize"], 256 * MIB)
        self.assertLess(self.worker_memory("VmRSS") - idle["VmRSS"], 64 * MIB)
        self.assertEqual(len(self.service.list().documents), 0)
        self.assertEqual(os.listdir(os.path.join(self.service.state, "documents")), [])

        events = self.service.upload(b"Some text to talk about.", document_id="next")
        self.assertEqual(states(events)[-1], "READY")
        peak = memory_of(self.service.process.pid, "VmHWM")
        print(f"{len(self.data)} bytes, {document.token_count} tokens: the coordinator's memory "
              f"was {peak // MIB} MiB at most", file=sys.stderr)
        self.assertLess(peak, COORDINATOR_BYTES_MAX)
        self.assertEqual(self.service.stop(), 0)

    def is_released(self):
        """A second upload of one id is ABORTED while the first is open."""
        requests = [service.header("big", resume_offset=len(self.data) + 1)]
        try:
            list(self.service.upload_stream(b"", chunks=requests))
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.OUT_OF_RANGE
        return False


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
