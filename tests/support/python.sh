#!/bin/sh
# Run a Python script with the tests' interpreter: that of .venv, which tests/run.sh makes, or else
# python3. Usage: python.sh SCRIPT [ARG..]; scripts exit 77 when a package is missing.
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
PYTHONDONTWRITEBYTECODE=1 exec "$python" "$@"
