#!/usr/bin/env bash
# Separation of music from weak labels on MUSDB18; without it (see db.sh), on the small embedded corpus.
#   ./run.sh                                  everything, on the embedded corpus
#   ./run.sh --musdb18 /path/to/musdb18       stem files or HQ's WAV folders
#   ./run.sh --musdb18 ... --config conf/train_weak_crnn.yaml --separator_args "--separator_conf input_norm=true" \
#       --ngpu 1                              the paper's training
#   ./run.sh --quick true                     smoke test: every stage in a minute or two
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

musdb18=${MUSDB18}
quick=false
other=none              # the stem of that name: none (left out), class, or unlabelled
split_options "musdb18 quick other" "$@"
case ${other} in none | class | unlabelled) ;; *) die "--other takes none, class or unlabelled, not '${other}'" ;; esac

# Music: a class sounds for seconds on end, so a clip's probability is the mean of its frames'.
options=(--weak_config conf/train_weak_small.yaml --weak_args "--classifier_conf pooling=average"
    --label_types "strong frame clip" --scoring_args "--espnet_keys 10")
if [ "${quick}" = true ]; then
    corpus=quick
    options=(--weak_config conf/debug/train_weak.yaml --label_types "strong clip" --scoring_args "--espnet_keys 0")
elif [ -z "${musdb18}" ]; then
    corpus=embedded
    options[1]=conf/train_weak_mini.yaml
else
    MUSDB18=$(find_path "MUSDB18 (--musdb18 or db.sh)" "${musdb18}")
    export MUSDB18
    corpus=musdb18
    options+=(--label_types "strong clip") # as in the paper: stems bleed, their frames are not labelled
    # all songs hold the same classes, so which of two songs a class is from is seldom known
    options+=(--weak_args "--classifier_conf pooling=average --remix 0")
fi

exec ./weak.sh \
    --train_set train --valid_set valid --test_sets test --mixtures_from songs --max_bad_share 0.3 \
    --audio_format pcm16 --datadir "data/${corpus}" --dumpdir "dump/${corpus}" --expdir "exp/${corpus}" \
    --local_data_opts "--corpus ${corpus} --decoded dump/${corpus}/stems --other ${other}" \
    "${options[@]}" "${rest[@]}"
