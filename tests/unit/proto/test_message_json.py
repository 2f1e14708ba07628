"""The JSON of random messages against google.protobuf's own json_format.

Usage: test_message_json.py PRINT_JSON_PROGRAM"""

import json
import math
import random
import subprocess
import sys

from stubs import Stubs

from google.protobuf import descriptor as pb
from google.protobuf import json_format

TYPES = ["UploadRequest", "Document", "DocumentEvent", "ListDocumentsResponse", "AskRequest",
         "AskEvent", "TokenizeResponse", "ServerInfo"]
ROUNDS = 300
TEXTS = ["", "plain", "a\0b", "line\nbreak\ttab\r", "\"quotes\" \\ /", "\x01\x1f\x7f", "é€🎉中文",
         "\u2028\u2029", "</script>", "x" * 1000]
DOUBLES = [0.0, -0.0, 1.0, -1.5, 0.1, 1 / 3, 1e300, 5e-324, 1e15, 123456789.123456789, 1e16, 2 ** 53,
           math.inf, -math.inf, math.nan]
FLOATS = [0.0, 1.0, 0.1, -2.5, 1 / 3, 3.4e38, 1e-45, 16777216.0, -0.001, math.inf, math.nan]


def random_value(field, rng):
    kind = field.type
    if kind == pb.FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS)
    if kind == pb.FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.choice([0, 1, 2, 3, 4, 32, 100]))
    if kind == pb.FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if kind == pb.FieldDescriptor.TYPE_DOUBLE:
        return rng.choice(DOUBLES + [rng.uniform(-1, 1), rng.lognormvariate(0, 50)])
    if kind == pb.FieldDescriptor.TYPE_FLOAT:
        return rng.choice(FLOATS + [rng.uniform(-30, 0)])
    if kind == pb.FieldDescriptor.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values] + [99])
    if kind == pb.FieldDescriptor.TYPE_INT32:
        return rng.choice([0, 1, -1, 2 ** 31 - 1, -2 ** 31, rng.randrange(100000)])
    if kind == pb.FieldDescriptor.TYPE_UINT32:
        return rng.choice([0, 1, 2 ** 32 - 1, rng.randrange(100000)])
    if kind == pb.FieldDescriptor.TYPE_INT64:
        return rng.choice([0, 1, -1, 2 ** 63 - 1, -2 ** 63])
    if kind == pb.FieldDescriptor.TYPE_UINT64:
        return rng.choice([0, 1, 2 ** 64 - 1, 2 ** 53 + 1, rng.randrange(1000)])
    raise NotImplementedError(field.full_name)


def fill(message, rng):
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds = rng.choice([0, -1, 1700000000, -62135596800, 253402300799])
        message.nanos = rng.choice([0, 1, 1000, 120000000, 999999999, 5000000])
        return
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4:
            continue
        repeated = field.is_repeated
        if field.type == pb.FieldDescriptor.TYPE_MESSAGE:
            for _ in range(rng.randrange(4) if repeated else 1):
                child = getattr(message, field.name)
                child = child.add() if repeated else child
                child.SetInParent() if not repeated else None
                fill(child, rng)
        elif repeated:
            values = [random_value(field, rng) for _ in range(rng.randrange(5))]
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, random_value(field, rng))


def same(ours, theirs):
    """Equal, with numbers by value: json_format prints a float as the double beside it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, bool) or isinstance(theirs, bool) or isinstance(theirs, str):
        return ours is theirs if isinstance(theirs, bool) else ours == theirs
    return ours == theirs and math.copysign(1, ours) == math.copysign(1, theirs)


def main():
    rng = random.Random(1)
    with Stubs() as (tca, _):
        # The very bytes of one, since a value can be right and still written badly.
        exact = tca.AskRequest(document_id="b", sampling=tca.SamplingParams(temperature=0.1, top_p=1,
                                                                            seed=7), stop=["\n", ""])
        messages = [exact]
        for name in TYPES:
            for round_ in range(ROUNDS):
                message = getattr(tca, name)()
                if round_ > 0:  # the first is empty
                    fill(message, rng)
                messages.append(message)
        wire = b""
        for message in messages:
            packed = message.SerializeToString()
            wire += b"%s %d\n" % (message.DESCRIPTOR.full_name.encode(), len(packed)) + packed
        run = subprocess.run([sys.argv[1]], input=wire, capture_output=True, timeout=120)
        if run.returncode != 0:
            sys.exit(f"{sys.argv[1]} ended with {run.returncode}: {run.stderr.decode()}")
        lines = run.stdout.decode("utf-8").split("\n")[:-1]
        if len(lines) != len(messages):
            sys.exit(f"{len(lines)} lines for {len(messages)} messages")
        if lines[0] != ('{"document_id":"b","sampling":{"temperature":0.1,"top_p":1,"seed":"7"},'
                        '"stop":["\\n",""]}'):
            sys.exit(lines[0])
        for message, line in zip(messages, lines):
            theirs = json_format.MessageToJson(message, preserving_proto_field_name=True)
            if not same(json.loads(line), json.loads(theirs)):
                sys.exit(f"{message.DESCRIPTOR.full_name}\nours   {line}\ntheirs {theirs}")
    print(f"{len(messages)} messages agree")


main()
