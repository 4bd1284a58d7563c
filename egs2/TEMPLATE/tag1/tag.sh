#!/usr/bin/env bash
# The driver of taggers: ESPnet's stages and option names. Called by a recipe's run.sh; the data of stages 1
# to 3 are those of the separation's driver.
set -euo pipefail
# shellcheck source=egs2/TEMPLATE/tag1/utils.sh
. "$(dirname "$0")/utils.sh"

common_defaults 32000
# Model and training
tag_config=conf/mini/tag_care_cls.yaml
tag_tag=
tag_exp=
tag_args=
inference_tag=
anchor_seconds=2.0
anchor_sets=

usage() {
    echo "Usage: ./run.sh --task tagging [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 5 checks, 6 training, 7 tagging, 8 scoring, 9 report, 10 anchors.
$(common_help)
Model
  --tag_config       YAML of the tagger and its training; alias: --config (${tag_config})
  --tag_tag          name of the experiment (from the YAML's name)
  --tag_exp          its folder (EXPDIR/tag_TAG)
  --tag_args         more options for training, as ESPnet takes them (${tag_args})
  --inference_tag    suffix of the folders of tags and scores (${inference_tag})
  --anchor_seconds   length of the anchors in seconds, as the separator's pair_conf: segment (${anchor_seconds})
  --anchor_sets      sets to find anchors in (the training set)"
}

config_option=tag_config
parse_options "$@"
# shellcheck source=egs2/TEMPLATE/tag1/path.sh
. ./path.sh
# shellcheck source=egs2/TEMPLATE/tag1/cmd.sh
. ./cmd.sh
: "${cuda_cmd:?is not set in cmd.sh}"
export python

[ -f "${tag_config}" ] || die "--config (--tag_config): there is no file ${tag_config}"
fs=${fs/%k/000}
if [ -z "${tag_tag}" ]; then
    tag_tag=$(basename "${tag_config}" .yaml)
    [ -z "${tag_args}" ] || tag_tag+=$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<<"${tag_args}")
    tag_tag=${tag_tag#tag_} # the folder's name begins with tag_ already
fi
tag_exp=${tag_exp:-${expdir}/tag_${tag_tag}}

name_sets_and_jobs

# Stages 1 to 3 are those of utils.sh; there are no lists to draw in stage 4.

# `training`, its options, and `with` and `id` of name_training. A tagger has one output for each class of the
# label table.
set_training() {
    local table=${dumpdir}/${train_set}/labels.tsv set more
    for set in "${train_set}" "${valid_set}"; do need "${dumpdir}/${set}/bank.json" 3; done
    read -ra more <<<"${tag_args}"
    training=(--config "${tag_config}" --output_dir "${tag_exp}" --resume true
        --train_bank "${dumpdir}/${train_set}" --valid_bank "${dumpdir}/${valid_set}"
        --query_net_conf "num_classes=$(($(wc -l <"${table}") - 1))" ${more[@]+"${more[@]}"})
    name_training "${tag_config}" "${tag_args}" "$(of "${dumpdir}/${valid_set}/bank.json" manifest_hash)"
}

stage_5() {
    local training with id
    set_training
    if is_marked "${tag_exp}/.checked" "${id}"; then
        log "checked already"
        return
    fi
    py tag_check "${training[@]}"
    mark "${tag_exp}/.checked" "${id}"
}

stage_6() {
    local training with id
    set_training
    train_once "${tag_exp}" "${id}" "${with}" \
        train_espnet "${tag_exp}" tag_train "${training[@]}"
}

tags() { echo "${tag_exp}/tagging_${inference_tag:+${inference_tag}_}$1"; } # of a test set

# listen MODULE ARGS...: a step with the trained model
listen() {
    local module=$1 options
    shift
    need "${tag_exp}/${inference_model}" 6
    inference_options
    py "${module}" "$@" --train_config "${tag_exp}/config.yaml" --model_file "${tag_exp}/${inference_model}" \
        ${options[@]+"${options[@]}"}
}

stage_7() {
    local set
    for set in ${test_sets}; do
        need "${dumpdir}/${set}/bank.json" 3
        listen tag_inference --bank "${dumpdir}/${set}" --output_dir "$(tags "${set}")"
    done
}

stage_8() {
    local set
    for set in ${test_sets}; do
        need "$(tags "${set}")/about.json" 7
        OMP_NUM_THREADS=1 py tag_scoring --bank "${dumpdir}/${set}" --tags_dir "$(tags "${set}")"
    done
}

stage_9() {
    local set folders=()
    for set in ${test_sets}; do
        need "$(tags "${set}")/scores.json" 8
        folders+=(--tags_dir "$(tags "${set}")")
    done
    OMP_NUM_THREADS=1 py tag_report --exp_dir "${tag_exp}" "${folders[@]}"
}

# Anchors for a separator's training: --qsep_args "--anchor_file FILE"
stage_10() {
    local set inference_args=${inference_args//--frames/} # anchors are made of frames anyway
    for set in ${anchor_sets:-${train_set}}; do
        need "${dumpdir}/${set}/bank.json" 3
        listen tag_anchors --bank "${dumpdir}/${set}" --out "${tag_exp}/anchors_${set}.npz" \
            --segment "${anchor_seconds}"
    done
}

titles=("" "the corpus's lists" "decode every clip, manifest" "archive at ${fs} Hz" "" "checks" "training"
    "tagging of the test sets" "scoring" "report" "anchors")
kinds=("" data data data data train train eval eval eval eval)
run_stages "${dumpdir}" "${tag_exp}"; exit 0 # on one line: nothing more is read, were this file changed meanwhile
