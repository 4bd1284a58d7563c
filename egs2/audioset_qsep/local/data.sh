#!/usr/bin/env bash
# Stage 1: the lists of AudioSet, or the embedded corpus with lists in the same layout.
#   local/data.sh --datadir DIR --corpus audioset|embedded|quick
# Training clips: those of the balanced and, if present, the unbalanced list, but for a part that is
# held out for validation (a recording's side depends on its id alone). Test clips: the eval list.
set -euo pipefail
. ./path.sh
. ./db.sh

python=${python:-python}
datadir=data
corpus=embedded
while [ $# -ge 2 ]; do
    case $1 in
        --datadir) datadir=$2 ;;
        --corpus) corpus=$2 ;;
        *) echo "error: unknown option $1 of local/data.sh" >&2; exit 1 ;;
    esac
    shift 2
done

# find_list NAME: the file of that name in the corpus, not deeper than three folders
find_list() { find -L "${top}" -maxdepth 3 -name "$1" | LC_ALL=C sort | head -n 1; }

need_list() {
    local file
    file=$(find_list "$1")
    [ -n "${file}" ] || { echo "error: there is no $1 in ${top}" >&2; exit 1; }
    echo "${file}"
}

held_out=(--hold_out 0.05 --hold_out_most 5000)
case ${corpus} in
    embedded)
        top=downloads/embedded
        held_out=(--hold_out 0.1)
        "${python}" -m espnet2_ext make-mini-audioset --out "${top}"
        ;;
    quick)
        top=downloads/quick
        held_out=(--hold_out 0.25)
        "${python}" -m espnet2_ext make-mini-audioset --out "${top}" --train_clips 10 --eval_clips 4 \
            --clip_seconds 3 --classes Piano Hi-hat Cymbal Flute Helicopter Cowbell
        ;;
    *) top=${AUDIOSET:?is not set: write the folder of AudioSet into db.sh} ;;
esac

labels=$(need_list class_labels_indices.csv)
train=$(need_list balanced_train_segments.csv)
more=$(find_list unbalanced_train_segments.csv)
eval=$(need_list eval_segments.csv)
ontology=$(find_list ontology.json)
audio=("${top}")
if [ "${corpus}" = audioset ] && [ ${#AUDIOSET_AUDIO[@]} -gt 0 ]; then audio=("${AUDIOSET_AUDIO[@]}"); fi

"${python}" -m espnet2_ext prepare-audioset --data_dir "${datadir}" --audio "${audio[@]}" \
    --class_labels "${labels}" ${ontology:+--ontology "${ontology}"} \
    --set train_all "${train}" ${more:+"${more}"} --set test "${eval}" "${held_out[@]}"
