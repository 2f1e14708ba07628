"""A gRPC server of the public API that does what a test tells it, on grpcio and protobuf: an
implementation of the wire that shares nothing with the client's."""
import concurrent.futures
import importlib
import os
import pathlib
import sys
import tempfile

try:
    import grpc
    from grpc_tools import protoc
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def load_messages():
    folder = tempfile.TemporaryDirectory()
    proto = SOURCE / "proto"
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["", f"-I{proto}", f"-I{well_known}", f"--python_out={folder.name}", str(proto / "tca.proto")])
    assert code == 0
    sys.path.insert(0, folder.name)
    messages = importlib.import_module("tca_pb2")
    sys.path.remove(folder.name)
    folder.cleanup()
    return messages


pb = load_messages()


class Server:
    """`handlers`: path without its slash -> function(request or iterator, context) that returns a
    message, or is a generator of messages. Set before a client calls; may change between calls."""

    def __init__(self):
        self.handlers = {}
        services = {}
        for service in pb.DESCRIPTOR.services_by_name.values():
            services[service.full_name] = {m.name: self._method(service, m) for m in service.methods}
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        for name, methods in services.items():
            self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        self.port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def _method(self, service, method):
        path = f"{service.name}/{method.name}"
        streams = {(False, False): grpc.unary_unary_rpc_method_handler,
                   (False, True): grpc.unary_stream_rpc_method_handler,
                   (True, True): grpc.stream_stream_rpc_method_handler}

        def call(request, context):
            return self.handlers[path](request, context)

        def call_stream(request, context):
            yield from self.handlers[path](request, context)

        shape = (path == "Documents/Upload", path in ("Documents/Upload", "Documents/Watch", "Generation/Ask"))
        request = getattr(pb, method.input_type.name)
        response = getattr(pb, method.output_type.name)
        return streams[shape](call_stream if shape[1] else call, request_deserializer=request.FromString,
                              response_serializer=response.SerializeToString)

    def __enter__(self):
        self.grpc.start()
        return self

    def __exit__(self, *_):
        self.grpc.stop(0).wait()


def environment(server):
    return dict(os.environ, TCA_SERVER=server.address, LC_ALL="C.UTF-8")
