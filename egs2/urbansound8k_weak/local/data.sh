#!/usr/bin/env bash
# Stage 1: the lists of UrbanSound8K, or the embedded corpus with lists in the same layout.
#   local/data.sh --datadir DIR --corpus urbansound8k|embedded|quick [--background CLASSES] SET:FOLDS ...
set -euo pipefail
. ./path.sh

command=("${python:-python}" -m espnet2_ext)
datadir=$2 corpus=$4 background='' recordings=5
shift 4
[ "$1" != --background ] || { background=$2; shift 2; }
if [ "${corpus}" = urbansound8k ]; then
    top=${URBANSOUND8K:?is not set: write the folder of UrbanSound8K into db.sh}
else
    top=downloads/${corpus}
    [ "${corpus}" = embedded ] || recordings=1
    "${command[@]}" make-mini-urbansound8k --out "${top}" --recordings "${recordings}" \
        --background "$([ -z "${background}" ] && echo 0 || echo "${recordings}")"
fi
"${command[@]}" prepare-urbansound8k --urbansound8k "${top}" --data_dir "${datadir}" \
    --background_classes "${background}" --splits "$@"
