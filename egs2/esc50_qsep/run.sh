#!/usr/bin/env bash
# Query-based separation on ESC-50: folds 1 to 3 train, mixtures of fold 4 are scored.
#   ./run.sh --esc50 /path/to/ESC-50
#   ./run.sh --esc50 PATH --zero_shot MODEL.zip      score a trained model on all folds, train none
#   ./run.sh --esc50 PATH --task tagging      a tagger on the same folds (five_folds.sh: cross-validation)
#   ./run.sh --help                           all options (with --task tagging: those of taggers)
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

esc50=${ESC50}
train_folds="1 2 3"
valid_folds=            # empty: the validation mixtures are made of the training folds' clips
test_folds=4
zero_shot=              # a bundle, or an experiment's folder (its --inference_model)
task=separation
split_options "esc50 train_folds valid_folds test_folds zero_shot task" "$@"

case ${task} in
    separation) driver=qsep options="--qsep_config conf/train_qsep_few.yaml --valid_pairs 64
        --test_pairs 0 --test_seconds 0 --test_protocols conditions:24" ;;
    tagging) driver=tag options="--tag_config conf/mini/tag_care_cls.yaml --anchor_seconds 2.03" ;;
    *) die "--task takes separation or tagging, not '${task}'" ;;
esac
[ -z "${zero_shot}" ] || [ "${task}" = separation ] || die "--zero_shot is for --task separation"
if ! wants_help; then
    [ -n "${esc50}" ] || die "where is ESC-50? ./run.sh --esc50 /path/to/ESC-50 (or write it into db.sh)"
    ESC50=$(find_path "ESC-50 (--esc50 or db.sh)" "${esc50}")
    export ESC50
fi
if [ -n "${zero_shot}" ] && ! wants_help; then # every clip of every fold; folders of its own
    test_folds=$(column "${ESC50}/meta/esc50.csv" fold)
    bundle=$(find_path "the model (--zero_shot)" "${zero_shot}")
    rest=(--bundle "${bundle}" --datadir data/zero_shot --dumpdir dump/zero_shot --expdir exp/zero_shot "${rest[@]}")
    train_folds=${test_folds} valid_folds=''
fi
# The sets are named after their folds, so the results show them.
name() { echo "folds${1// /}"; }
valid_folds=${valid_folds:-${train_folds}}

# shellcheck disable=SC2086
exec "./${driver}.sh" \
    --train_set "$(name "${train_folds}")" --valid_set "$(name "${valid_folds}")" \
    --test_sets "$(name "${test_folds}")" --local_data_opts "${train_folds}/${valid_folds}/${test_folds}" \
    ${options} "${rest[@]}"
