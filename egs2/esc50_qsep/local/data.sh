#!/usr/bin/env bash
# Stage 1: the lists of ESC-50, by its official folds; a set is named after its folds (folds123).
#   ESC50=/path local/data.sh --datadir DIR 1 2 3 / 1 2 3 / 4       (training / validation / test)
set -euo pipefail
. ./path.sh

datadir=data
if [ "${1:-}" = --datadir ]; then datadir=$2; shift 2; fi

sets=()
while read -r -a folds; do
    name=folds$(printf '%s' "${folds[@]}")
    case " ${sets[*]-} " in *" ${name} "*) continue ;; esac
    sets+=(--set "${name}" "${folds[@]}")
done <<<"$(echo "$*" | tr '/' '\n')"

"${python:-python}" -m espnet2_ext prepare-esc50 --esc50 "${ESC50:?is not set: the folder of ESC-50}" \
    --data_dir "${datadir}" "${sets[@]}"
