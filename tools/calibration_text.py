#!/usr/bin/env python3
"""Text for tca-calibrate from the documentation of this Debian machine.

    tools/calibration_text.py --bytes 700000 --out calibration.txt

Takes files under /usr/share/doc and /usr/share/common-licenses whose path, relative to
/usr/share/doc, has an even SHA-256 (its last hexadecimal digit); the others are left to tests, so that
nothing is tested on text that it was calibrated on. Files come in the order of their digests, up to
16,000 characters each. The same packages give the same text. Standard library alone."""

import argparse
import hashlib
import os
import pathlib
import re
import sys

import corpus

DOC = "/usr/share/doc"
ROOTS = (DOC, "/usr/share/common-licenses")
NAME = re.compile(r"(README|NEWS|FAQ|TODO|INSTALL|AUTHORS|[A-Z]+([.-].*)?|.*\.(txt|md|rst|pod|texi))"
                  r"(\.gz)?")
PIECE_CHARS = 16000


def digest_of(path):
    return hashlib.sha256(os.path.relpath(path, DOC).encode()).hexdigest()


def is_calibration(path):
    """False: the file's text belongs to tests."""
    return int(digest_of(path)[-1], 16) % 2 == 0


def list_files():
    paths = []
    for root in ROOTS:
        for folder, _, files in os.walk(root):
            paths += [os.path.join(folder, name) for name in files if NAME.fullmatch(name)]
    return sorted((path for path in paths
                   if os.path.isfile(path) and not os.path.islink(path) and is_calibration(path)),
                  key=digest_of)


def read_text(path):
    """The start of the file; "" for what is not text in UTF-8."""
    text = re.sub(r"\n{3,}", "\n\n", corpus.read_utf8(path).replace("\r\n", "\n")).strip()
    if len(text) > PIECE_CHARS:
        text = text[:PIECE_CHARS].rsplit("\n", 1)[0]
    return text + "\n\n" if text else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bytes", type=int, required=True, help="stop after about so many")
    parser.add_argument("--out", required=True, help="file for the text")
    args = parser.parse_args()
    parts, size, files = [], 0, 0
    for path in list_files():
        text = read_text(path)
        parts.append(text)
        size += len(text.encode())
        files += text != ""
        if size >= args.bytes:
            break
    else:
        sys.exit(f"calibration_text: the documentation here has only {size} bytes")
    pathlib.Path(args.out).write_text("".join(parts))
    print(f"{args.out}: {size} bytes of {files} files")


if __name__ == "__main__":
    main()
