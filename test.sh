#!/usr/bin/env bash
# Installs what the tests need (Chromium and coturn from Debian where it may) and runs every check but those that
# train networks for minutes (-m slow) or need an NVIDIA GPU (-m gpu).
# Arguments go to pytest, which then runs in one process: ./test.sh tests/server ; ./test.sh -k pacing ;
# ./test.sh --cov (last: a path after it would be taken for its value)
set -euo pipefail
export OMP_NUM_THREADS=1  # threads that wait for each other on a busy machine cost minutes
cd "$(dirname "$0")"
python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=.venv/installed-tests
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  .venv/bin/python -m pip --quiet --disable-pip-version-check install --upgrade pip
  .venv/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[dev,train,evaluate]'
  touch "$stamp" .venv/installed-core
fi
missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v turnserver >/dev/null || missing+=(coturn)
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
command -v chromium >/dev/null || echo "no chromium: the browser tests will be skipped" >&2
command -v turnserver >/dev/null || echo "no turnserver: the test of relays will be skipped" >&2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
tests=(.venv/bin/python -m pytest)
[ $# = 0 ] || exec "${tests[@]}" "$@"
# Side by side first; then, alone, what has limits of real time.
status=0
"${tests[@]}" --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder \
  -m "not slow and not gpu and not timing" || status=$?
mapfile -t timed < <(grep -rl --include='test_*.py' 'mark\.timing' tests)
"${tests[@]}" -m "timing and not slow and not gpu" "${timed[@]}" || status=$?
exit $status
