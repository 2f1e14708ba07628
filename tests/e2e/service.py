"""A running service for the end-to-end tests: tca-coordinator with its workers and needle-9m, in a
state folder of its own, and a Python client whose stubs are made from the published .proto files.
"""

import hashlib
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(os.environ.get("TCA_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
sys.path[:0] = [str(SOURCE / "tests" / "unit" / "proto"), str(SOURCE / "tools")]

from stubs import SKIPPED, Stubs  # noqa: E402

import grpc  # noqa: E402

try:
    from google.rpc import error_details_pb2
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_status import rpc_status
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

with Stubs() as (pb, pb_grpc):
    pass

NEEDLE = SOURCE / "models" / "needle-9m"
LIMIT_S = 240  # for anything that is waited for: a machine under sanitizers and load is slow
KIB = 1024
TERMINAL = ("READY", "FAILED")


class Service:
    """Start with settings=value pairs (no_launch=True for a flag), use, stop."""

    def __init__(self, program, state=None, wait_ready=True, stderr=None, **settings):
        self.program = program
        self.owned_state = tempfile.mkdtemp(prefix="tca-e2e-") if state is None else None
        self.state = state or self.owned_state
        settings = {"model": NEEDLE, "listen": "127.0.0.1:0", "workers": 2, "threads": 1,
                    "kv_memory": "256M", "state_dir": self.state, "device": "cpu",
                    "restarts": 0, **settings}
        arguments = [f"--{name.replace('_', '-')}={str(value).lower() if value is True else value}"
                     for name, value in settings.items()]
        self.process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=stderr,
                                        text=True)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.address = self.wait_line("listening on ").split()[-1]
            if wait_ready:
                self.wait_line("ready")
        except RuntimeError:
            self.clean()
            raise
        self.channel = grpc.insecure_channel(self.address)
        self.documents = pb_grpc.DocumentsStub(self.channel)
        self.generation = pb_grpc.GenerationStub(self.channel)
        self.admin = pb_grpc.AdminStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_line(self, prefix):
        while True:
            line = self.lines.get(timeout=LIMIT_S)
            if line is None:
                raise RuntimeError(f"the coordinator ended with {self.process.wait(LIMIT_S)}")
            if line.startswith(prefix):
                return line

    def stop(self, signal_number=signal.SIGTERM):
        """Its exit code."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.wait()

    def wait(self):
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def clean(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        self.reader.join(LIMIT_S)
        self.process.stdout.close()
        if self.owned_state:
            shutil.rmtree(self.owned_state, ignore_errors=True)

    def processes(self, name=None):
        """The ids of the processes (of that name) that descend from the coordinator."""
        names, parents = {}, {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                text = pathlib.Path("/proc", entry, "stat").read_text(encoding="utf-8")
            except OSError:  # it has ended
                continue
            names[int(entry)] = text[text.index("(") + 1:text.rindex(")")]
            parents[int(entry)] = int(text[text.rindex(")") + 2:].split()[1])
        return [process for process in sorted(names) if name in (None, names[process])
                and self.process.pid in ancestors(process, parents)]

    # Documents.

    def upload(self, data, chunk_bytes=64 * KIB, chunks=None, timeout=LIMIT_S, **header):
        """All events; ends when the document is READY."""
        return list(self.upload_stream(data, chunk_bytes, chunks, timeout, **header))

    def upload_stream(self, data, chunk_bytes=64 * KIB, chunks=None, timeout=LIMIT_S, **header):
        requests = upload_requests(data, chunk_bytes, **header) if chunks is None else chunks
        return self.documents.Upload(iter(requests), timeout=timeout)

    def get(self, document_id):
        return self.documents.Get(pb.GetDocumentRequest(document_id=document_id), timeout=LIMIT_S)

    def state_of(self, document_id):
        return pb.Document.State.Name(self.get(document_id).state)

    def watch(self, document_id, from_sequence=0, timeout=LIMIT_S):
        return self.documents.Watch(
            pb.WatchRequest(document_id=document_id, from_sequence=from_sequence), timeout=timeout)

    def update(self, document_id, pinned=False, display_name=""):
        return self.documents.Update(pb.UpdateDocumentRequest(
            document_id=document_id, pinned=pinned, display_name=display_name), timeout=LIMIT_S)

    def delete(self, document_id):
        self.documents.Delete(pb.DeleteDocumentRequest(document_id=document_id), timeout=LIMIT_S)

    def list(self, page_size=0, page_token=""):
        return self.documents.List(pb.ListDocumentsRequest(
            page_size=page_size, page_token=page_token), timeout=LIMIT_S)

    # Questions.

    def ask_stream(self, document_id=None, question="", timeout=LIMIT_S, **fields):
        if document_id is not None:
            fields["document_id"] = document_id
        return self.generation.Ask(pb.AskRequest(question=question, **fields), timeout=timeout)

    def ask(self, document_id=None, question="", **fields):
        return Answer(list(self.ask_stream(document_id, question, **fields)))

    def info(self):
        return self.admin.GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT_S)

    def wait_idle(self):
        """Until no question runs or waits: one that is cancelled may take a moment."""
        deadline = time.monotonic() + LIMIT_S
        while (info := self.info()).running + info.waiting > 0:
            assert time.monotonic() < deadline, info
            time.sleep(0.05)

    def is_serving(self, name=""):
        status = self.health.Check(health_pb2.HealthCheckRequest(service=name),
                                   timeout=LIMIT_S).status
        return status == health_pb2.HealthCheckResponse.SERVING


class Answer:
    """The events of one Ask, taken apart."""

    def __init__(self, events):
        self.events = events
        self.kinds = [event.WhichOneof("body") for event in events]
        self.accepted = events[self.kinds.index("accepted")].accepted
        self.deltas = [event.delta for event in events if event.WhichOneof("body") == "delta"]
        self.text = "".join(delta.text for delta in self.deltas)
        self.token_ids = [token for delta in self.deltas for token in delta.token_ids]
        self.logprobs = [logprob for delta in self.deltas for logprob in delta.logprobs]
        self.finished = events[-1].finished
        self.reason = pb.AskEvent.Finished.Reason.Name(self.finished.reason)
        self.usage = self.finished.usage


def ancestors(process, parents):
    while process in parents:
        process = parents[process]
        yield process


def header(document_id="", **fields):
    return pb.UploadRequest(header=pb.UploadHeader(document_id=document_id, **fields))


def chunk(offset, data, last=False):
    return pb.UploadRequest(chunk=pb.UploadChunk(offset=offset, data=data, last=last))


def upload_requests(data, chunk_bytes=64 * KIB, **fields):
    begin = fields.get("resume_offset", 0)
    yield header(**fields)
    for offset in range(begin, max(len(data), begin + 1), chunk_bytes):
        piece = data[offset:offset + chunk_bytes]
        yield chunk(offset, piece, offset + len(piece) >= len(data))


def states(events):
    """The states of a stream's events, each once in a row."""
    names = [pb.Document.State.Name(event.document.state) for event in events]
    return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]


def sha256(data):
    return hashlib.sha256(data).digest()


def details_of(error):
    """The google.rpc details of a failed call, by their type's last name."""
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details if status is not None else ():
        name = detail.type_url.rsplit(".", 1)[-1]
        message = getattr(error_details_pb2, name)()
        detail.Unpack(message)
        found[name] = message
    return found
