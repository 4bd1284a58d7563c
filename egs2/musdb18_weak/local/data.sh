#!/usr/bin/env bash
# Stage 1: the lists of MUSDB18's stems, or the embedded corpus with lists in the same layout.
#   local/data.sh --datadir DIR --corpus musdb18|embedded|quick [--decoded DIR --other none|class|unlabelled]
set -euo pipefail
. ./path.sh

command=("${python:-python}" -m espnet2_ext)
top=downloads/$4
case $4 in
    embedded) "${command[@]}" make-mini-musdb18 --out "${top}" ;;
    quick) "${command[@]}" make-mini-musdb18 --out "${top}" --train_songs 4 --test_songs 2 --seconds 8 10 ;;
    *) top=${MUSDB18:?is not set: write the folder of MUSDB18 into db.sh} ;;
esac
"${command[@]}" prepare-musdb18 lists --musdb18 "${top}" --data_dir "$2" "${@:5}"
