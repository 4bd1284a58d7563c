#!/usr/bin/env bash
# Run the tests; sets everything up first when that is needed.
#   tools/test.sh                     all of them
#   tools/test.sh -x -k bank          pytest's options are passed on
#   tools/test.sh tests/core          some of them
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=$("${root}/tools/setup.sh")
"${python}" -c 'import pytest' 2>/dev/null || {
    echo "error: ${python} has no pytest; install the test packages: ${python} -m pip install -e '${root}[test]'" >&2
    exit 1
}
what=("${root}/tests")
for arg in "$@"; do
    if [ -e "${arg%%::*}" ]; then what=(); fi
done
# The nets under test are tiny: one thread each is the fastest, and keeps two processes off each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export PYTHONPATH=${root}${PYTHONPATH:+:${PYTHONPATH}}
exec "${python}" -m pytest -q --rootdir "${root}" -c "${root}/pyproject.toml" ${what[@]+"${what[@]}"} "$@"
