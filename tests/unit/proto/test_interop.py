"""Python's own gRPC clients, unchanged, against the server of proto/.

Usage: test_interop.py ECHO_SERVER_PROGRAM"""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

from stubs import SKIPPED, Stubs

import grpc

try:
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.rpc import error_details_pb2
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )
    from grpc_status import rpc_status
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

LIMIT_S = 60
MIB = 1024 * 1024


class Server:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"

    def set_health(self, state, name=""):
        self.process.stdin.write(f"{state} {name}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "set\n"

    def command(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self):
        out, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, [int(number) for number in out.split()]


class ServerTest(unittest.TestCase):
    def setUp(self):
        self.server = Server(sys.argv[1])
        self.channel = grpc.insecure_channel(self.server.address)

    def tearDown(self):
        self.channel.close()
        code, counts = self.server.stop()
        self.assertEqual(code, 0)
        self.assertEqual(counts[0], counts[1], "a call that began was never closed")

    def unary(self, method, request, **options):
        options.setdefault("timeout", LIMIT_S)
        return self.channel.unary_unary(f"/test.Echo/{method}")(request, **options)

    def assert_fails(self, code, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception)
        return caught.exception


class Calls(ServerTest):
    def test_unary(self):
        self.assertEqual(self.unary("Unary", b"hi\0there"), b"hi\0there")
        self.assertEqual(self.unary("Unary", b""), b"")

    def test_client_stream(self):
        collect = self.channel.stream_unary("/test.Echo/Collect")
        self.assertEqual(collect((b"x" * MIB for _ in range(20)), timeout=LIMIT_S), b"20971520")
        self.assertEqual(collect(iter([]), timeout=LIMIT_S), b"0")

    def test_server_stream(self):
        count = self.channel.unary_stream("/test.Echo/Count")
        self.assertEqual(list(count(b"3000", timeout=LIMIT_S)), [b"%d" % i for i in range(3000)])
        self.assertEqual(list(count(b"0", timeout=LIMIT_S)), [])

    def test_both_stream(self):
        chat = self.channel.stream_stream("/test.Echo/Chat")
        sent = [b"%d" % i for i in range(500)]
        self.assertEqual(list(chat(iter(sent), timeout=LIMIT_S)), sent)

    def test_unknown_method_and_service(self):
        self.assert_fails(grpc.StatusCode.UNIMPLEMENTED, lambda: self.unary("Nothing", b""))
        stranger = self.channel.unary_unary("/no.Such/Method")
        self.assert_fails(grpc.StatusCode.UNIMPLEMENTED, lambda: stranger(b"", timeout=LIMIT_S))

    def test_two_messages_for_a_unary_method(self):
        wrong = self.channel.stream_unary("/test.Echo/Unary")
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT,
                          lambda: wrong(iter([b"a", b"b"]), timeout=LIMIT_S))
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT,
                          lambda: wrong(iter([]), timeout=LIMIT_S))

    def test_status_message_in_unicode(self):
        error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT,
                                  lambda: self.unary("Fail", "50% of 中文 €".encode()))
        self.assertEqual(error.details(), "50% of 中文 €")


class Limits(ServerTest):
    def test_messages_up_to_4_mib(self):
        self.assertEqual(len(self.unary("Unary", bytes(4 * MIB))), 4 * MIB)
        self.assert_fails(grpc.StatusCode.RESOURCE_EXHAUSTED,
                          lambda: self.unary("Unary", bytes(4 * MIB + 1)))
        self.assertEqual(self.unary("Unary", b"still here"), b"still here")

    def test_compressed_messages_are_refused(self):
        # 100 MiB of zeros are 100 KiB on the wire: nothing would bound what they become.
        self.assert_fails(
            grpc.StatusCode.UNIMPLEMENTED,
            lambda: self.unary("Unary", bytes(MIB), compression=grpc.Compression.Gzip))

    def test_a_slow_reader_makes_the_server_busy_and_loses_nothing(self):
        answers = self.channel.unary_stream("/test.Echo/Flood")(b"x", timeout=LIMIT_S)
        time.sleep(0.3)
        received = 0
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in answers:
                received += 1
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(int(caught.exception.details()), received)

    def test_unfinished_messages_cannot_take_all_memory(self):
        # Each of 120 calls sends 4 MiB and then nothing: 480 MiB for the server to keep.
        codes = []
        ended = threading.Event()

        def requests():
            yield bytes(4 * MIB - 64)
            ended.wait(LIMIT_S)

        def client():
            try:
                list(self.channel.stream_stream("/test.Echo/Unary")(requests(), timeout=LIMIT_S))
            except grpc.RpcError as error:
                codes.append(error.code())
                ended.set()

        threads = [threading.Thread(target=client) for _ in range(120)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertIn(grpc.StatusCode.RESOURCE_EXHAUSTED, codes)
        with grpc.insecure_channel(self.server.address) as channel:
            answer = channel.unary_unary("/test.Echo/Unary")(b"others", timeout=LIMIT_S)
        self.assertEqual(answer, b"others")

    def test_a_client_that_never_reads_does_not_stop_others(self):
        answers = self.channel.unary_stream("/test.Echo/Count")(b"100000000", timeout=LIMIT_S)
        next(answers)
        time.sleep(0.3)
        self.assertEqual(self.unary("Unary", b"others"), b"others")
        answers.cancel()


class Frames(ServerTest):
    """HTTP/2 by hand: what the libraries do not show."""

    DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7  # kinds of frames
    END_STREAM = ACK = 1  # flags
    END_HEADERS = 4
    INITIAL_WINDOW = 4  # a setting

    def setUp(self):
        super().setUp()
        host, port = self.server.address.split(":")
        self.connection = socket.create_connection((host, int(port)), LIMIT_S)
        self.reader = self.connection.makefile("rb")
        self.received = []
        self.connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(self.SETTINGS)

    def tearDown(self):
        self.reader.close()
        self.connection.close()
        super().tearDown()

    def send(self, kind, payload=b"", stream=0, flags=0):
        self.connection.sendall(len(payload).to_bytes(3, "big") + bytes([kind, flags]) +
                                stream.to_bytes(4, "big") + payload)

    def begin(self, stream, path, message, flags=0):
        """A call and its first message."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test",
                  "te": "trailers", "content-type": "application/grpc"}
        texts = [text.encode() for field in fields.items() for text in field]
        coded = [bytes([len(text)]) + text for text in texts]
        self.send(self.HEADERS, b"".join(b"\0" + name + value for name, value
                                         in zip(coded[::2], coded[1::2])), stream, self.END_HEADERS)
        self.send(self.DATA, b"\0" + len(message).to_bytes(4, "big") + message, stream, flags)

    def receive(self):
        """Kind, flags, stream, payload; None at the end of the connection."""
        head = self.reader.read(9)
        if not head:
            return None
        self.received.append((head[3], head[4], int.from_bytes(head[5:], "big"),
                              self.reader.read(int.from_bytes(head[:3], "big"))))
        return self.received[-1]

    def status(self, stream):
        """Read up to the headers that end a call."""
        while True:
            kind, flags, of, payload = self.receive()
            if kind == self.HEADERS and of == stream and flags & self.END_STREAM:
                return payload

    def test_the_window_of_streams_never_shrinks(self):
        # C-core resets a client that ends its stream under a window that shrank below zero. It
        # measures with pings how to set the window anew; there must be neither.
        self.begin(1, "/test.Echo/Unary", b"hi", self.END_STREAM)
        self.status(1)
        self.send(self.PING, b"the last")
        while self.receive()[3] != b"the last":
            pass
        settings = [pair for kind, _, _, payload in self.received if kind == self.SETTINGS
                    for pair in struct.iter_unpack(">HI", payload)]
        windows = [value for name, value in settings if name == self.INITIAL_WINDOW]
        self.assertEqual(windows, [2 << 20])
        self.assertEqual([payload for kind, _, _, payload in self.received if kind == self.PING],
                         [b"the last"])

    def test_a_stop_ends_calls_before_connections(self):
        # With a call open, C-core would close right behind its status; without, it waits until the
        # client answers a ping, and so has read the status.
        self.begin(1, "/test.Echo/Chat", b"hi")
        while self.receive()[0] != self.DATA:
            pass
        self.server.command("drain")
        stream, refusal = 1, b""
        while b"the server is stopping" not in refusal:
            stream += 2
            self.begin(stream, "/test.Echo/Unary", b"hi", self.END_STREAM)
            refusal = self.status(stream)
        self.send(self.DATA, stream=1, flags=self.END_STREAM)
        self.status(1)
        self.assertNotIn(self.GOAWAY, [kind for kind, _, _, _ in self.received])
        kind = None
        while kind != self.PING:
            kind, _, _, payload = self.receive()
        self.send(self.PING, payload, flags=self.ACK)
        while self.receive() is not None:
            pass


class Ends(ServerTest):
    def closed(self, count):
        """Wait until that many calls or more have begun on the server and all are closed."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            started, closed = map(int, self.unary("Stats", b"").split())
            if started == closed >= count:
                return True
            time.sleep(0.01)
        return False

    def test_deadline(self):
        timeout = 0.3  # longer where a loaded machine lets it pass before the call has begun
        while self.unary("Stats", b"").startswith(b"0 "):
            self.assert_fails(grpc.StatusCode.DEADLINE_EXCEEDED,
                              lambda: self.unary("Hang", b"", timeout=timeout))
            timeout *= 2
        self.assertTrue(self.closed(1))

    def test_cancel_in_mid_stream(self):
        answers = self.channel.unary_stream("/test.Echo/Count")(b"100000000", timeout=LIMIT_S)
        for _ in range(10):
            next(answers)
        answers.cancel()
        self.assertTrue(self.closed(1))

    def test_a_connection_that_breaks(self):
        other = grpc.insecure_channel(self.server.address)
        answers = other.unary_stream("/test.Echo/Count")(b"100000000")
        next(answers)
        other.close()
        self.assertTrue(self.closed(1))

    def test_garbage_on_the_socket(self):
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096),
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(4096)):
            with socket.create_connection(tuple(self.server.address.split(":"))) as connection:
                connection.sendall(garbage)
        self.assertEqual(self.unary("Unary", b"still here"), b"still here")

    def test_fifty_clients_at_once(self):
        failures = []

        def client(number):
            try:
                with grpc.insecure_channel(
                        self.server.address,
                        options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                    chat = channel.stream_stream("/test.Echo/Chat")
                    count = channel.unary_stream("/test.Echo/Count")
                    for round_ in range(5):
                        sent = [b"%d.%d.%d" % (number, round_, i) for i in range(20)]
                        if list(chat(iter(sent), timeout=LIMIT_S)) != sent:
                            failures.append(f"{number}: chat")
                        answers = count(b"1000", timeout=LIMIT_S)
                        if number % 2 == 0:
                            next(answers)
                            answers.cancel()
                        elif len(list(answers)) != 1000:
                            failures.append(f"{number}: count")
            except grpc.RpcError as error:
                failures.append(f"{number}: {error}")

        threads = [threading.Thread(target=client, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


class Messages(ServerTest):
    """The public API's stubs, made from the .proto file by grpc_tools."""

    def setUp(self):
        super().setUp()
        self.generation = tca_grpc.GenerationStub(self.channel)

    def test_texts_with_nul(self):
        answer = self.generation.Tokenize(tca.TokenizeRequest(text="a\0b"), timeout=LIMIT_S)
        self.assertEqual(list(answer.token_ids), [97, 0, 98])

    def raw_tokenize(self, wire):
        return self.assert_fails(
            grpc.StatusCode.INVALID_ARGUMENT,
            lambda: self.channel.unary_unary("/tca.v1.Generation/Tokenize")(wire, timeout=LIMIT_S))

    def test_garbage_as_a_message(self):
        self.raw_tokenize(b"\xff\xff\xff")
        self.raw_tokenize(b"\x0a\xff\xff\xff\xff\x0f")

    def test_invalid_utf_8_names_its_field(self):
        error = self.raw_tokenize(b"\x0a\x02a\xff")
        self.assertEqual(error.details(), "text: not valid UTF-8 at byte 1 of 2")
        status = rpc_status.from_call(error)
        self.assertEqual(status.message, error.details())
        request = error_details_pb2.BadRequest()
        self.assertTrue(status.details[0].Unpack(request))
        self.assertEqual(request.field_violations[0].field, "text")
        self.assertEqual(request.field_violations[0].description,
                         "not valid UTF-8 at byte 1 of 2")

    def test_a_refusal_says_when_to_retry(self):
        error = self.assert_fails(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            lambda: self.generation.Cancel(tca.CancelRequest(), timeout=LIMIT_S))
        retry = error_details_pb2.RetryInfo()
        self.assertTrue(rpc_status.from_call(error).details[0].Unpack(retry))
        self.assertEqual(retry.retry_delay.ToMilliseconds(), 1500)


class Health(ServerTest):
    NAME = "tca.v1.Generation"

    def setUp(self):
        super().setUp()
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def check(self, name):
        return self.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_S).status

    def test_check(self):
        self.assertEqual(self.check(""), health_pb2.HealthCheckResponse.NOT_SERVING)
        self.assert_fails(grpc.StatusCode.NOT_FOUND, lambda: self.check(self.NAME))
        self.server.set_health("serving", self.NAME)
        self.assertEqual(self.check(self.NAME), health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(self.check(""), health_pb2.HealthCheckResponse.NOT_SERVING)

    def test_list(self):
        self.server.set_health("serving", self.NAME)
        if not hasattr(self.health, "List"):
            self.skipTest("this grpcio-health-checking has no List")
        statuses = self.health.List(health_pb2.HealthListRequest(), timeout=LIMIT_S).statuses
        self.assertEqual({name: answer.status for name, answer in statuses.items()},
                         {"": health_pb2.HealthCheckResponse.NOT_SERVING,
                          self.NAME: health_pb2.HealthCheckResponse.SERVING})

    def test_watch(self):
        states = health_pb2.HealthCheckResponse
        watch = self.health.Watch(health_pb2.HealthCheckRequest(service=self.NAME),
                                  timeout=LIMIT_S)
        self.assertEqual(next(watch).status, states.SERVICE_UNKNOWN)
        self.server.set_health("serving", self.NAME)
        self.assertEqual(next(watch).status, states.SERVING)
        self.server.set_health("serving", self.NAME)  # no change, no message
        self.server.set_health("not_serving", self.NAME)
        self.assertEqual(next(watch).status, states.NOT_SERVING)
        self.server.command("end_watches")
        self.assert_fails(grpc.StatusCode.UNAVAILABLE, lambda: next(watch))

    def test_a_watcher_that_left_is_forgotten(self):
        watch = self.health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=LIMIT_S)
        next(watch)
        watch.cancel()
        for _ in range(5):
            self.server.set_health("serving")
            self.server.set_health("not_serving")
        self.assertEqual(self.check(""), health_pb2.HealthCheckResponse.NOT_SERVING)


def without_json_names(file):
    """protoc adds them to a descriptor set, and leaves them out of Python's stubs."""
    def clear(message):
        for field in message.field:
            field.ClearField("json_name")
        for nested in message.nested_type:
            clear(nested)

    for message in file.message_type:
        clear(message)
    return file


class Reflection(ServerTest):
    SERVICES = ["tca.v1.Documents", "tca.v1.Generation", "tca.v1.Admin", "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]

    def setUp(self):
        super().setUp()
        self.database = self.fresh()

    def fresh(self):
        """One that has asked nothing yet: it answers from what it has without asking again."""
        return ProtoReflectionDescriptorDatabase(self.channel)

    def test_services_are_listed(self):
        self.assertCountEqual(self.database.get_services(), self.SERVICES)

    def test_descriptors_equal_the_proto_files(self):
        pool = descriptor_pool.DescriptorPool(self.database)
        for name in self.SERVICES[:3]:
            theirs = tca.DESCRIPTOR.services_by_name[name.rpartition(".")[2]]
            ours = pool.FindServiceByName(name)
            self.assertEqual([(m.name, m.input_type.full_name, m.output_type.full_name,
                               m.client_streaming, m.server_streaming) for m in ours.methods],
                             [(m.name, m.input_type.full_name, m.output_type.full_name,
                               m.client_streaming, m.server_streaming) for m in theirs.methods])
        ours, theirs = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
        pool.FindFileByName("tca.proto").CopyToProto(ours)
        tca.DESCRIPTOR.CopyToProto(theirs)
        self.assertEqual(without_json_names(ours), without_json_names(theirs))
        self.assertNotIn(b"protobuf-c", ours.SerializeToString())

    def test_symbols_of_every_kind(self):
        for symbol, file in (("tca.v1.Documents", "tca.proto"),
                             ("tca.v1.Documents.Upload", "tca.proto"),
                             ("tca.v1.AskEvent.Finished.Reason", "tca.proto"),
                             ("tca.v1.AskEvent.Finished.EOS", "tca.proto"),
                             ("tca.v1.AskEvent.delta", "tca.proto"),
                             ("tca.v1.AskRequest.source", "tca.proto"),
                             ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
                             ("google.rpc.RetryInfo", "google/rpc/error_details.proto")):
            self.assertEqual(self.fresh().FindFileContainingSymbol(symbol).name, file)
        for symbol in ("tca.v1", "tca.v1.Nothing", "tca.v1.Document.", "", "tca.v1.Documentx",
                       "tca.v1.AskEvent.Finished.Reason.EOS"):
            with self.subTest(symbol):
                self.assertRaises(KeyError, self.fresh().FindFileContainingSymbol, symbol)
        self.assertRaises(KeyError, self.database.FindFileByName, "control.proto")

    def ask(self, service, requests):
        call = self.channel.stream_stream(
            f"/grpc.reflection.{service}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
        return list(call(iter(requests), timeout=LIMIT_S))

    def test_both_versions_answer_a_whole_stream(self):
        requests = [
            reflection_pb2.ServerReflectionRequest(host="here", file_by_filename="tca.proto"),
            reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="tca.v1.Document"),
            reflection_pb2.ServerReflectionRequest(
                file_containing_extension=reflection_pb2.ExtensionRequest(
                    containing_type="tca.v1.Document", extension_number=1)),
            reflection_pb2.ServerReflectionRequest(),
            reflection_pb2.ServerReflectionRequest(list_services=""),
        ]
        for service in ("v1", "v1alpha"):
            answers = self.ask(service, requests)
            self.assertEqual([answer.original_request for answer in answers], requests)
            self.assertEqual(answers[0].valid_host, "here")
            self.assertEqual(len(answers[0].file_descriptor_response.file_descriptor_proto), 2)
            self.assertEqual(answers[1].error_response.error_code,
                             grpc.StatusCode.NOT_FOUND.value[0])
            self.assertEqual(answers[2].error_response.error_code,
                             grpc.StatusCode.NOT_FOUND.value[0])
            self.assertEqual(answers[3].error_response.error_code,
                             grpc.StatusCode.INVALID_ARGUMENT.value[0])
            self.assertEqual(len(answers[4].list_services_response.service), len(self.SERVICES))


if __name__ == "__main__":
    with Stubs() as (tca, tca_grpc):
        unittest.main(argv=sys.argv[:1] + sys.argv[2:], verbosity=2)
