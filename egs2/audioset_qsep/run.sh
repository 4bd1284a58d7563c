#!/usr/bin/env bash
# Query-based separation on AudioSet; without AudioSet (see db.sh), on the small embedded corpus.
#   ./run.sh                                  everything, on the embedded corpus
#   ./run.sh --audioset /path/to/audioset --config ../../conf/train_qsep_care_sep_768.yaml --ngpu 8
#   ./run.sh --quick true                     smoke test: every stage in a few minutes
#   ./run.sh --task tagging                   a tagger on the same data, and anchors from it
#   ./run.sh --help                           all options (with --task tagging: those of taggers)
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

audioset=${AUDIOSET}
quick=false
task=separation
split_options "audioset quick task" "$@"

corpus=audioset
[ -n "${audioset}" ] || corpus=embedded
[ "${quick}" != true ] || corpus=quick
if [ "${corpus}" = audioset ]; then
    AUDIOSET=$(find_path "AudioSet (db.sh or --audioset)" "${audioset}")
    export AUDIOSET
fi
case ${task}/${corpus} in
    separation/quick) options=(--qsep_config conf/debug/train_qsep_care_sep.yaml --valid_pairs 8
        --test_pairs 8 --presence_mixtures 8 --scoring_args "--espnet_keys 4") ;;
    separation/embedded) options=(--qsep_config conf/train_qsep_care_components_mini.yaml --valid_pairs 64
        --test_pairs 120 --test_protocols conditions:24 --scoring_args "--espnet_keys 60") ;;
    separation/audioset) options=(--qsep_config conf/train_qsep_care_sep_768.yaml --valid_pairs 2000
        --test_pairs 10000) ;;
    tagging/quick) options=(--tag_config conf/debug/train_tag.yaml --anchor_seconds 0.5) ;;
    tagging/embedded) options=(--tag_config conf/mini/tag_care_cls.yaml --anchor_seconds 2.03) ;;
    tagging/audioset) options=(--tag_config conf/train_tag_care_cls_768.yaml) ;;
    *) die "--task takes separation or tagging, not '${task}'" ;;
esac
driver=qsep
[ "${task}" = separation ] || driver=tag

exec "./${driver}.sh" \
    --train_set train --valid_set valid --test_sets test \
    --datadir "data/${corpus}" --dumpdir "dump/${corpus}" --expdir "exp/${corpus}" \
    --local_data_opts "--corpus ${corpus}" \
    "${options[@]}" "${rest[@]}"
