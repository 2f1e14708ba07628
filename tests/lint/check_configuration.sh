#!/bin/sh
# Fail when docs/configuration.md is not what the programs' tables of settings say.
# Usage: check_configuration.sh REPO_ROOT BIN_DIR
set -eu
"$1/docs/make_configuration.sh" "$2" | diff "$1/docs/configuration.md" - && exit 0
echo "run: docs/make_configuration.sh $2 > docs/configuration.md"
exit 1
