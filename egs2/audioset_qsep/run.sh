#!/usr/bin/env bash
# Query-based separation on AudioSet; without AudioSet (see db.sh), on the small embedded corpus.
#   ./run.sh                                  everything, on the embedded corpus
#   ./run.sh --audioset /path/to/audioset --config ../../conf/train_qsep_care_sep_768.yaml --ngpu 8
#   ./run.sh --quick true                     every stage in a few minutes: does it run at all?
#   ./run.sh --help                           the options of all recipes
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

audioset=${AUDIOSET}
quick=false
split_options "audioset quick" "$@"

if [ "${quick}" = true ]; then
    corpus=quick
    options=(--qsep_config conf/debug/train_qsep_care_sep.yaml --valid_pairs 8 --test_pairs 8
        --scoring_args "--espnet_keys 4")
elif [ -z "${audioset}" ]; then
    corpus=embedded
    options=(--qsep_config conf/train_qsep_care_sep_mini.yaml --valid_pairs 64 --test_pairs 120
        --scoring_args "--espnet_keys 60")
else
    AUDIOSET=$(find_path "AudioSet (db.sh or --audioset)" "${audioset}")
    export AUDIOSET
    corpus=audioset
    options=(--qsep_config conf/train_qsep_care_sep_768.yaml --valid_pairs 2000 --test_pairs 10000)
fi

exec ./qsep.sh \
    --train_set train --valid_set valid --test_sets test \
    --datadir "data/${corpus}" --dumpdir "dump/${corpus}" --expdir "exp/${corpus}" \
    --local_data_opts "--corpus ${corpus}" \
    "${options[@]}" ${rest[@]+"${rest[@]}"}
