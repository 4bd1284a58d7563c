#!/usr/bin/env bash
# Query-based separation of your own sounds: a folder with a subfolder for each class, or a table.
#   ./run.sh --sounds ~/my_sounds
#   ./run.sh --sounds ~/my_sounds.csv         columns: path, labels and optionally set and group
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

sounds=${SOUNDS}
valid_share=0.1
test_share=0.1
split_options "sounds valid_share test_share" "$@"

if ! wants_help; then
    [ -n "${sounds}" ] || die "where are the sounds? ./run.sh --sounds FOLDER_OR_TABLE (or write it into db.sh)"
    SOUNDS=$(find_path "the sounds (--sounds or db.sh)" "${sounds}")
    export SOUNDS valid_share test_share
fi

exec ./qsep.sh \
    --train_set train --valid_set valid --test_sets test \
    --qsep_config conf/train_qsep_care_sep_small.yaml \
    "${rest[@]}"
