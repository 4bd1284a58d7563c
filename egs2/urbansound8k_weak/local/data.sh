#!/usr/bin/env bash
# Stage 1: the lists of UrbanSound8K, or the embedded corpus with lists in the same layout.
#   local/data.sh --datadir DIR --corpus urbansound8k|embedded|quick [--background CLASSES] SET:FOLDS ...
set -euo pipefail
. ./path.sh

python=${python:-python}
datadir=data
corpus=embedded
background=
while [ $# -ge 2 ]; do
    case $1 in
        --datadir) datadir=$2 ;;
        --corpus) corpus=$2 ;;
        --background) background=$2 ;;
        --*) echo "error: unknown option $1 of local/data.sh" >&2; exit 1 ;;
        *) break ;;
    esac
    shift 2
done

recordings=
case ${corpus} in
    embedded) recordings=5 ;;
    quick) recordings=1 ;;
esac
top=${URBANSOUND8K:-}
if [ -n "${recordings}" ]; then
    top=downloads/${corpus}
    "${python}" -m espnet2_ext make-mini-urbansound8k --out "${top}" --recordings "${recordings}" \
        --background "$([ -z "${background}" ] && echo 0 || echo "${recordings}")"
fi

: "${top:?is not set: write the folder of UrbanSound8K into db.sh}"
"${python}" -m espnet2_ext prepare-urbansound8k --urbansound8k "${top}" --data_dir "${datadir}" --background_classes "${background}" --splits "$@"
