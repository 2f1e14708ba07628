"""The service as any client sees it: gRPC, with stubs made from proto/tca.proto at run time; and a
coordinator of one's own, started and stopped with the connection."""

import hashlib
import importlib
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import grpc
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
PIECE_BYTES = 512 * 1024  # of one Tokenize request (the server takes 1 MiB) and of an upload's chunk
START_S = 600
CALL_S = 60
PREFILL_S = 6 * 3600
ANSWER_S = 6 * 3600


def _load_stubs() -> tuple[ModuleType, ModuleType]:
    with tempfile.TemporaryDirectory() as folder:
        well_known = pathlib.Path(protoc.__file__).parent / "_proto"
        if protoc.main(["", f"-I{ROOT / 'proto'}", f"-I{well_known}", f"--python_out={folder}",
                        f"--grpc_python_out={folder}", str(ROOT / "proto" / "tca.proto")]) != 0:
            raise RuntimeError("protoc failed on proto/tca.proto")
        sys.path.insert(0, folder)
        try:
            return importlib.import_module("tca_pb2"), importlib.import_module("tca_pb2_grpc")
        finally:
            sys.path.remove(folder)


pb, pb_grpc = _load_stubs()


def describe(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"


class Coordinator:
    """A tca-coordinator on a free port, with its state and log in a folder that goes with it.
    `options`: its settings, dashes or underscores. Of the main thread: until stop(), SIGINT and
    SIGTERM end the program, and so all calls of it, in place of raising KeyboardInterrupt: grpc
    may wait for ever once that came while it held a lock."""

    def __init__(self, program: str, options: dict[str, object]):
        self.folder = tempfile.mkdtemp(prefix="tca-quality-")
        self.log = pathlib.Path(self.folder) / "log"
        self.is_interrupted = False
        arguments = {"listen": "127.0.0.1:0", "state_dir": self.folder + "/state", **options}
        try:
            with open(self.log, "wb") as log:
                self.process = subprocess.Popen(
                    [program, *(f"--{name.replace('_', '-')}={value}"
                                for name, value in arguments.items())],
                    stdout=subprocess.PIPE, stderr=log, text=True)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise RuntimeError(f"{program}: {error.strerror}") from error
        self.handlers = {number: signal.signal(number, self._interrupt)
                         for number in (signal.SIGINT, signal.SIGTERM)}
        # A coordinator that never gets ready ends the wait for its next line.
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        try:
            self.address = self._wait_line("listening on ").split()[-1]
            self._wait_line("ready")
        except RuntimeError as error:
            self.stop()
            self.raise_if_interrupted(error)
            raise
        finally:
            watchdog.cancel()
        threading.Thread(target=self.process.stdout.read, daemon=True).start()  # keep it writable

    def _interrupt(self, *_: object) -> None:
        self.is_interrupted = True
        self.process.kill()

    def raise_if_interrupted(self, error: Exception) -> None:
        """KeyboardInterrupt, if that is what the failure comes of."""
        if self.is_interrupted:
            raise KeyboardInterrupt from error

    def _wait_line(self, prefix: str) -> str:
        for line in self.process.stdout:
            if line.startswith(prefix):
                return line.rstrip("\n")
        raise RuntimeError(f"the coordinator ended with {self.process.wait()}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return ""

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(CALL_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        shutil.rmtree(self.folder, ignore_errors=True)


class Client:
    """Calls of the service; every failure is a grpc.RpcError."""

    def __init__(self, address: str):
        self.channel = grpc.insecure_channel(address)
        self.documents = pb_grpc.DocumentsStub(self.channel)
        self.generation = pb_grpc.GenerationStub(self.channel)
        self.admin = pb_grpc.AdminStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def info(self):
        return self.admin.GetServerInfo(pb.GetServerInfoRequest(), timeout=CALL_S)

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """A long text in pieces that end at a line's end, which may cost a token more each."""
        ids: list[int] = []
        for piece in _pieces(text):
            request = pb.TokenizeRequest(text=piece, parse_special=parse_special)
            ids += self.generation.Tokenize(request, timeout=CALL_S).token_ids
        return ids

    def upload(self, document_id: str, data: bytes, progress: Callable[[int, int], None],
               **header: object):
        """The Document, READY. `progress` hears of (tokens done, tokens in all)."""
        header |= {"document_id": document_id, "total_bytes": len(data),
                   "sha256": hashlib.sha256(data).digest()}

        def requests() -> Iterator[object]:
            yield pb.UploadRequest(header=pb.UploadHeader(**header))
            for offset in range(0, len(data), PIECE_BYTES):
                piece = data[offset:offset + PIECE_BYTES]
                yield pb.UploadRequest(chunk=pb.UploadChunk(
                    offset=offset, data=piece, last=offset + len(piece) == len(data)))

        event = None
        for event in self.documents.Upload(requests(), timeout=PREFILL_S):
            if event.WhichOneof("body") == "progress" and event.progress.tokens_total:
                progress(event.progress.tokens_done, event.progress.tokens_total)
        return event.document

    def delete(self, document_id: str) -> None:
        try:
            self.documents.Delete(pb.DeleteDocumentRequest(document_id=document_id), timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise

    def ask(self, **fields: object):
        """(text of the answer, the Finished event)."""
        text, finished = [], None
        for event in self.generation.Ask(pb.AskRequest(**fields), timeout=ANSWER_S):
            if event.WhichOneof("body") == "delta":
                text.append(event.delta.text)
            elif event.WhichOneof("body") == "finished":
                finished = event.finished
        return "".join(text), finished


def _pieces(text: str) -> Iterator[str]:
    data = text.encode()
    start = 0
    while start < len(data):
        end = start + PIECE_BYTES
        if end < len(data):
            cut = data.rfind(b"\n", start, end) + 1
            if cut <= start:  # no line ends here: before a character, then
                while data[end] & 0xC0 == 0x80:
                    end -= 1
            else:
                end = cut
        yield data[start:end].decode()
        start = end


def has_special(text: str) -> bool:
    """Whether parse_special could read a control token in it."""
    return re.search(r"<\|\w+\|>", text) is not None
