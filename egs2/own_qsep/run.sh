#!/usr/bin/env bash
# Query-based separation of your own sounds: a folder with a subfolder for each class, or a table.
#   ./run.sh --sounds ~/my_sounds
#   ./run.sh --sounds ~/my_sounds.csv         columns: path, labels and optionally set and group
#   ./run.sh --sounds ~/dog --background ~/street    one class, and other sounds that it is mixed with
#   ./run.sh --sounds ~/my_sounds --quick true       every stage in a minute or two; the model learns nothing
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

sounds=${SOUNDS}
background=
valid_share=0.1
test_share=0.1
quick=false
init=
split_options "sounds background valid_share test_share quick init" "$@"

if ! wants_help; then
    [ -n "${sounds}" ] || die "where are the sounds? ./run.sh --sounds FOLDER_OR_TABLE (or write it into db.sh)"
    SOUNDS=$(find_path "the sounds (--sounds or db.sh)" "${sounds}")
    [ -z "${background}" ] || background=$(find_path "the background (--background)" "${background}")
    export SOUNDS background valid_share test_share
fi
config=conf/train_qsep_own.yaml
[ "${init}" != none ] || config=conf/train_qsep_few.yaml
options=(--qsep_config "${config}" --init "${init:-auto}" --valid_pairs auto)
[ "${quick}" != true ] || options=(--qsep_config conf/debug/train_qsep_care_sep.yaml --valid_pairs 8 --test_pairs 8
    --presence_mixtures 8 --scoring_args "--espnet_keys 4" --datadir data/quick --dumpdir dump/quick --expdir exp/quick
    --init "${init:-none}")

exec ./qsep.sh \
    --train_set train --valid_set valid --test_sets test --query_set train \
    "${options[@]}" "${rest[@]}"
