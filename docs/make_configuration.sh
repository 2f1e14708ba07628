#!/bin/sh
# Print docs/configuration.md from the programs' own tables of settings.
# Usage: docs/make_configuration.sh BIN_DIR > docs/configuration.md
set -eu
bin=$1
cat <<'TEXT'
# Configuration

Made by `docs/make_configuration.sh` from the programs' tables of settings; a test compares.
`--name VALUE` and `--name=VALUE` are the same, the last mention wins. A config file (`--config`) has
`name = value` lines without the dashes, and lines that start with `#`; the command line wins over it.
BYTES take a suffix K, M, G or T, powers of 1024.

## tca-coordinator

TEXT
"$bin/tca-coordinator" --help=markdown
cat <<'TEXT'

## tca-worker

The coordinator starts its workers itself unless `--no-launch` is set. The secret is read from
`TCA_WORKER_SECRET` where no file is given.

TEXT
"$bin/tca-worker" --help=markdown
cat <<'TEXT'

## tca

Options that every command takes; `tca COMMAND --help` has the others. `TCA_SERVER` names the server
where `--server` does not.

TEXT
"$bin/tca" --help=markdown
cat <<'TEXT'

## tca-calibrate

See [tca.md](tca.md), "Calibrating".

TEXT
"$bin/tca-calibrate" --help=markdown
