#!/usr/bin/env bash
# Stage 1: the lists of MUSDB18's stems, or the embedded corpus with lists in the same layout.
#   local/data.sh --datadir DIR --corpus musdb18|embedded|quick --decoded DIR --other none|class|unlabelled
set -euo pipefail
. ./path.sh

python=${python:-python}
datadir=data
corpus=embedded
options=()
while [ $# -ge 2 ]; do
    case $1 in
        --datadir) datadir=$2 ;;
        --corpus) corpus=$2 ;;
        --decoded | --other) options+=("$1" "$2") ;;
        *) echo "error: unknown option $1 of local/data.sh" >&2; exit 1 ;;
    esac
    shift 2
done

case ${corpus} in
    embedded)
        top=downloads/embedded
        "${python}" -m espnet2_ext make-mini-musdb18 --out "${top}"
        ;;
    quick)
        top=downloads/quick
        "${python}" -m espnet2_ext make-mini-musdb18 --out "${top}" --train_songs 4 --test_songs 2 --seconds 8 10
        ;;
    *) top=${MUSDB18:?is not set: write the folder of MUSDB18 into db.sh} ;;
esac

"${python}" -m espnet2_ext prepare-musdb18 lists --musdb18 "${top}" --data_dir "${datadir}" \
    ${options[@]+"${options[@]}"}
