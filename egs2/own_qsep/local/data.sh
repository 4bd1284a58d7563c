#!/usr/bin/env bash
# Stage 1: the lists of your own sounds (from the environment, as run.sh sets them).
#   SOUNDS=/path [background=/path] valid_share=0.1 test_share=0.1 local/data.sh --datadir DIR
set -euo pipefail
. ./path.sh

datadir=data
[ "${1:-}" != --datadir ] || datadir=$2

"${python:-python}" -m espnet2_ext prepare-own "${SOUNDS:?is not set: the folder or table}" \
    ${background:+--background "${background}"} --data_dir "${datadir}" \
    --valid_share "${valid_share:-0.1}" --test_share "${test_share:-0.1}"
