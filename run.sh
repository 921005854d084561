#!/usr/bin/env bash
# Makes a virtual environment beside this file, installs the server in it and starts it.
# Options are passed on: ./run.sh --port 9000 ; ./run.sh --help
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=.venv/installed-core
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  echo "installing (about a minute, once) ..." >&2
  .venv/bin/python -m pip --quiet --disable-pip-version-check install --upgrade pip
  .venv/bin/python -m pip --quiet --disable-pip-version-check install --editable .
  touch "$stamp"
fi
exec .venv/bin/portraittalk serve "$@"
