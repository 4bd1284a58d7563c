#!/usr/bin/env bash
# A separator from your own recordings, labelled only with what they contain and, optionally, when.
#   ./run.sh --recordings ~/street.csv        columns: path, labels; or path, onset, offset, label
#   ./run.sh --recordings "clips.csv times.csv"            several; names with blanks in quotes: "'my clips.csv' times.csv"
#   ./run.sh --recordings ... --task query    a separator that answers examples, in place of one with an output a class
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

recordings=${RECORDINGS}
allow_unlabelled=false  # true: recordings without a label are right, all classes are silent in them
task=class              # class: an output for each class; query: it answers examples, as CaRE-SEP does
init=                   # of --task query: the bundle to begin with, else the package's; none: from nothing
classes=                # all there are, such as "dog,car horn"; another label is then refused
valid_share=0.1
test_share=0.1
split_options "recordings allow_unlabelled task init classes valid_share test_share" "$@"

wants_help || [ -n "${recordings}" ] ||
    die "where are the recordings? ./run.sh --recordings TABLE.csv (or write it into db.sh)"
kinds=
if [ -n "${recordings}" ]; then
    RECORDINGS=$(find_paths "the recordings (--recordings or db.sh)" "${recordings}")
    while IFS= read -r table; do
        [ -f "${table}" ] || die "--recordings: ${table} is no table of recordings but a folder"
        if head -n 1 "${table}" | grep -qi onset; then kinds+=frame; else kinds+=clip; fi
    done <<<"${RECORDINGS}"
fi
case ${kinds} in
    *clip*frame* | *frame*clip*) label_types=mixed ;;
    *frame*) label_types="frame clip" ;;
    *clip*) label_types=clip ;;
    *) label_types="as the tables have" ;; # for --help
esac
export RECORDINGS allow_unlabelled classes valid_share test_share

options=(--weak_config conf/train_weak_few.yaml ${init:+--init "${init}"})
if [ "${task}" = query ]; then # from the model in the package on, at its rate; or from nothing
    options=(--weak_config conf/train_qweak_own.yaml --classifier_args "--max_epoch 6" --init "${init:-auto}"
        --fs 32000 --datadir data/query --dumpdir dump/query)
    [ "${init}" != none ] || options=(--weak_config conf/train_qweak_small.yaml --classifier_args "--max_epoch 12")
fi
exec ./weak.sh --task "${task}" \
    --train_set train --valid_set valid --test_sets test --mixtures_from recordings \
    --label_types "${label_types}" "${options[@]}" "${rest[@]}"
