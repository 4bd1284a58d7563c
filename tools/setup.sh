#!/usr/bin/env bash
# Find or make the Python environment of this checkout.
#
# The path of its Python is printed on standard output, everything else on standard error. Tried in
# this order: an active environment (venv or conda) that has the package, used as it is; this
# checkout's .venv; a new .venv, made with the first Python 3.12 or 3.13 that works.
#   PYTHON=/path/to/python tools/setup.sh    names the Python to make .venv with
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=${root}/.venv
state=${venv}/.espnet2_ext  # "installing" or "done DIGEST"; written last, so a broken install shows
lock=${root}/.venv.lock
pip_log=${venv}/install.log

say() { echo "setup: $*" >&2; }
die() { echo "setup: error: $1" >&2; shift; printf '  %s\n' "$@" >&2; exit 1; }

# Exit status 0 when Python $1 runs and is one that we can use (a pyenv shim may exist and not run).
works() { "$1" -I -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))' >/dev/null 2>&1; }

has_package() {
    "$1" -I -c '
import importlib.util as u, importlib.metadata as m, sys
sys.exit(any(u.find_spec(n) is None for n in ("torch", "espnet2", "asteroid")) or not m.version("espnet2_ext"))
' >/dev/null 2>&1
}

active_python() {
    local prefix
    for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        [ -n "${prefix}" ] && [ "$(cd "${prefix}" 2>/dev/null && pwd -P)" != "${venv}" ] || continue
        if works "${prefix}/bin/python" && has_package "${prefix}/bin/python"; then
            echo "${prefix}/bin/python"
            return 0
        fi
        say "the active environment ${prefix} does not have espnet2_ext (Python 3.12 or 3.13); using ${venv}"
    done
    return 1
}

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        works "${PYTHON}" || die "PYTHON=${PYTHON} is not a working Python 3.12 or 3.13 with its venv module"
        command -v "${PYTHON}"
        return
    fi
    for candidate in python3.12 python3.13 python3 python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[23]*/bin/python; do
        if works "${candidate}"; then
            command -v "${candidate}"
            return
        fi
    done
    die "no working Python 3.12 or 3.13 was found" \
        "Looked for python3.12, python3.13, python3 and python on the PATH, and for pyenv's versions." \
        "Get one, for example:" \
        "  Debian, Ubuntu   apt install python3.12 python3.12-venv   (or python3.13)" \
        "  macOS            brew install python@3.12" \
        "  conda            conda create -n sep python=3.12 && conda activate sep" \
        "  pyenv            pyenv install 3.12" \
        "or name one:       PYTHON=/path/to/python3.12 $0" \
        "(On Debian and Ubuntu the venv module is a package of its own: python3.12-venv.)"
}

digest() { (cat "${root}/setup.py"; echo "${root}") | cksum | tr ' ' '-'; }

is_done() { [ "$(cat "${state}" 2>/dev/null)" = "done $(digest)" ] && works "${venv}/bin/python"; }

take_lock() {
    local told=false owner
    until mkdir "${lock}" 2>/dev/null; do
        [ -w "${root}" ] || die "cannot write to ${root}, where .venv is to be made"
        owner=$(cat "${lock}/owner" 2>/dev/null || true)
        if [ "${owner#* }" = "$(hostname)" ] && ! kill -0 "${owner% *}" 2>/dev/null; then
            rm -rf "${lock}"  # its owner was killed
            continue
        fi
        ${told} || say "another set-up is at work here (process and host: ${owner:-unknown}); waiting. If there is none: rm -r ${lock}"
        told=true
        sleep 1
    done
    echo "$$ $(hostname)" >"${lock}/owner"
    trap 'rm -rf "${lock}"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

make_venv() {
    local python free
    if [ -e "${venv}" ] && [ ! -e "${state}" ] && ! works "${venv}/bin/python"; then
        die "${venv} is there, was not made by this script, and holds no working Python 3.12 or 3.13" \
            "Move it away and start again."
    fi
    if [ "$(cat "${state}" 2>/dev/null)" = installing ] || ! works "${venv}/bin/python"; then
        python=$(find_python)
        [ ! -e "${state}" ] || say "an earlier installation was broken off; starting it anew"
        say "making ${venv} with ${python} ($("${python}" -V 2>&1))"
        "${python}" -m venv --clear "${venv}" >&2 || die "'${python} -m venv ${venv}' failed"
    fi
    echo installing >"${state}"
    free=$(df -Pk "${root}" | awk 'NR == 2 {print int($4 / 1048576)}')
    [ "${free:-99}" -ge 8 ] || say "warning: ${free} GB are free on this disk and the packages take about 7 GB"
}

# pip ARGS...: run `pip install ARGS` quietly; on failure show the end of its log.
pip() {
    if ! "${venv}/bin/python" -m pip --disable-pip-version-check install "$@" >>"${pip_log}" 2>&1 </dev/null; then
        tail -n 20 "${pip_log}" >&2
        command -v cc >/dev/null || command -v gcc >/dev/null ||
            say "note: there is no C compiler here, and a package may need one (apt install gcc)"
        die "pip could not install the packages; all it said is in ${pip_log}" \
            "Start the same command again when the cause is mended (network, disk space)."
    fi
}

install() {
    say "installing espnet2_ext and its packages into ${venv}: about 7 GB, some minutes, once"
    say "(to watch: tail -f ${pip_log})"
    : >"${pip_log}"
    pip --upgrade pip
    pip -e "${root}[test]"
    echo "done $(digest)" >"${state}.tmp"
    mv "${state}.tmp" "${state}"
    say "done; to use it by hand: . ${venv}/bin/activate"
}

main() {
    active_python && return
    if ! is_done; then
        take_lock
        if ! is_done; then  # the one that held the lock may have done it
            make_venv
            install
        fi
    fi
    echo "${venv}/bin/python"
}

main "$@"
