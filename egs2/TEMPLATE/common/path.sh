# Puts the project's Python on the PATH; makes its environment at the first run. To be sourced in a recipe.
# In a folder made by `espnet2-ext recipe`, there is no checkout around: the active Python is used as it is.
# shellcheck shell=bash
MAIN_ROOT=$(cd ../.. && pwd -P)
export MAIN_ROOT
if [ -d "${MAIN_ROOT}/espnet2_ext" ]; then
    if [ "${python:-python}" = python ]; then
        _python=$("${MAIN_ROOT}/tools/setup.sh") || exit 1
        export PATH="${_python%/*}:${PATH}"
    fi
    export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}" # this checkout's code is what runs
fi
export PYTHONIOENCODING=UTF-8
