# Puts the project's Python on the PATH; makes its environment at the first run. To be sourced in a recipe.
# shellcheck shell=bash
MAIN_ROOT=$(cd ../.. && pwd -P)
export MAIN_ROOT
if [ "${python:-python}" = python ]; then
    _python=$("${MAIN_ROOT}/tools/setup.sh") || exit 1
    export PATH="${_python%/*}:${PATH}"
fi
export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}" # this checkout's code is what runs
export PYTHONIOENCODING=UTF-8
