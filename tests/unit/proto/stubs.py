"""The .proto files as Python modules, made in a folder that goes when the test ends."""

import importlib
import os
import sys
import tempfile

SKIPPED = 77

try:
    import grpc
    from grpc_tools import protoc
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)


class Stubs:
    def __init__(self, proto="tca"):
        self.proto = proto

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        source = os.path.join(os.environ["TCA_SOURCE"], "proto")
        wellknown = os.path.join(os.path.dirname(protoc.__file__), "_proto")
        arguments = ["protoc", f"-I{source}", f"-I{wellknown}", f"--python_out={self.folder.name}",
                     f"--grpc_python_out={self.folder.name}", os.path.join(source, f"{self.proto}.proto")]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc failed")
        sys.path.insert(0, self.folder.name)
        return (importlib.import_module(f"{self.proto}_pb2"),
                importlib.import_module(f"{self.proto}_pb2_grpc"))

    def __exit__(self, *_):
        sys.path.remove(self.folder.name)
        self.folder.cleanup()
