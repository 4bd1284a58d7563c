#!/usr/bin/env bash
# Stage 1: the lists of AudioSet, or the embedded corpus with lists in the same layout.
#   local/data.sh --datadir DIR --corpus audioset|embedded|quick
# Training clips: those of the balanced and, if present, the unbalanced list, but for a part that is
# held out for validation (a recording's side depends on its id alone). Test clips: the eval list.
set -euo pipefail
. ./path.sh
. ./db.sh

command=("${python:-python}" -m espnet2_ext)
top=downloads/$4
audio=("${top}")
case $4 in
    embedded)
        held_out=(--hold_out 0.1)
        "${command[@]}" make-mini-audioset --out "${top}" ;;
    quick)
        held_out=(--hold_out 0.25)
        "${command[@]}" make-mini-audioset --out "${top}" --train_clips 10 --eval_clips 4 --clip_seconds 3 \
            --classes Piano Hi-hat Cymbal Flute Helicopter Cowbell ;;
    *)
        held_out=(--hold_out 0.05 --hold_out_most 5000)
        top=${AUDIOSET:?is not set: write the folder of AudioSet into db.sh}
        audio=("${AUDIOSET_AUDIO[@]:-${top}}") ;;
esac

# find_list NAME: the file of that name in the corpus, not deeper than three folders
find_list() { find -L "${top}" -maxdepth 3 -name "$1" | LC_ALL=C sort | head -n 1; }
need_list() { find_list "$1" | grep . || { echo "error: there is no $1 in ${top}" >&2; exit 1; }; }

labels=$(need_list class_labels_indices.csv)
train=$(need_list balanced_train_segments.csv)
more=$(find_list unbalanced_train_segments.csv)
eval=$(need_list eval_segments.csv)
ontology=$(find_list ontology.json)
"${command[@]}" prepare-audioset --data_dir "$2" --audio "${audio[@]}" \
    --class_labels "${labels}" ${ontology:+--ontology "${ontology}"} \
    --set train_all "${train}" ${more:+"${more}"} --set test "${eval}" "${held_out[@]}"
