#!/usr/bin/env bash
# The driver of query-based separation: ESPnet's stages and option names. Called by a recipe's run.sh.
set -euo pipefail
# shellcheck source=egs2/TEMPLATE/qsep1/utils.sh
. "$(dirname "$0")/utils.sh"

common_defaults 32000
# Data
valid_pairs=500
valid_seconds=2.0
test_pairs=0
test_seconds=0
list_anchors=
pairs_seed=0
# Model and training
qsep_config=conf/train_qsep_care_sep_small.yaml
qsep_tag=
qsep_exp=
qsep_args=
bundle=
inference_tag=
scoring_args=

usage() {
    echo "Usage: ./run.sh [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 4 lists, 5 checks, 6 training, 7 inference, 8 scoring, 9 report.
$(common_help)
Mixtures
  --valid_pairs      number of validation mixtures (${valid_pairs})
  --valid_seconds    their length in seconds; 0: whole clips (${valid_seconds})
  --test_pairs       number of mixtures of each test set; 0: each clip once as first target (${test_pairs})
  --test_seconds     their length in seconds; 0: whole clips (${test_seconds})
  --list_anchors     a tagger's folder: its anchors_SET.npz place the lists' segments (default: by energy)
  --pairs_seed       seed of the lists (${pairs_seed})
Model
  --qsep_config      YAML of the model and its training; alias: --config (${qsep_config})
  --qsep_tag         name of the experiment (from the YAML's name)
  --qsep_exp         its folder (EXPDIR/qsep_TAG)
  --qsep_args        more options for training, as ESPnet takes them (${qsep_args})
  --bundle           score this model instead of training one: a bundle, or an experiment's folder (${bundle})
  --inference_tag    suffix of the folders of outputs and scores (${inference_tag})
  --scoring_args     more options for scoring (${scoring_args})"
}

config_option=qsep_config
parse_options "$@"
# shellcheck source=egs2/TEMPLATE/qsep1/path.sh
. ./path.sh
# shellcheck source=egs2/TEMPLATE/qsep1/cmd.sh
. ./cmd.sh
: "${cuda_cmd:?is not set in cmd.sh}"
export python

[ -f "${qsep_config}" ] || die "--config (--qsep_config): there is no file ${qsep_config}"
fs=${fs/%k/000}

# check_bundle: before anything is made for it, see that --bundle names a model
check_bundle() {
    local file
    [ -e "${bundle}" ] || die "--bundle: there is no ${bundle}"
    if [ -d "${bundle}" ]; then
        for file in config.yaml "${inference_model}"; do
            [ -e "${bundle}/${file}" ] || die "--bundle: ${bundle} is no trained experiment: it has no ${file}" \
                "(--inference_model names the weights)"
        done
    elif ! "${python}" -c 'import sys, zipfile
sys.exit(not any(n.endswith("bundle.yaml") for n in zipfile.ZipFile(sys.argv[1]).namelist()))' \
        "${bundle}" >/dev/null 2>&1; then
        die "--bundle: ${bundle} is no bundle: give what a recipe or 'espnet2-ext pack' has written"
    fi
}

if [ -n "${bundle}" ]; then # the test sets alone, and a folder of its own for the outputs
    check_bundle
    train_set='' valid_set='' skip_train=true
    qsep_tag=${qsep_tag:-$(basename "${bundle}" .zip)}
    qsep_tag=${qsep_tag#qsep_}
fi
if [ -z "${qsep_tag}" ]; then
    qsep_tag=$(basename "${qsep_config}" .yaml)
    [ -z "${qsep_args}" ] || qsep_tag+=$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<<"${qsep_args}")
fi
qsep_exp=${qsep_exp:-${expdir}/qsep_${qsep_tag}}
valid_list=${datadir}/${valid_set}/valid_pairs.tsv

name_sets_and_jobs

# draw SET LIST PAIRS SECONDS: a list of mixtures of a set's clips
draw() {
    local anchors=()
    [ -z "${list_anchors}" ] || anchors=(--anchor_file "${list_anchors}/anchors_$1.npz")
    py draw_lists --bank "${dumpdir}/$1" --out "$2" --num_pairs "$3" --segment "$4" --seed "${pairs_seed}" \
        ${anchors[@]+"${anchors[@]}"}
}

# Stages 1 to 3 are those of utils.sh. Lists are drawn from a bank once and written; test lists are rendered as well.
stage_4() {
    local set
    for set in ${sets}; do need "${dumpdir}/${set}/bank.json" 3; done
    [ -n "${bundle}" ] || draw "${valid_set}" "${valid_list}" "${valid_pairs}" "${valid_seconds}"
    for set in ${test_sets}; do
        draw "${set}" "${datadir}/${set}/pairs.tsv" "${test_pairs}" "${test_seconds}"
        OMP_NUM_THREADS=1 py render_lists --list "${datadir}/${set}/pairs.tsv" --bank "${dumpdir}/${set}" \
            --out "${dumpdir}/${set}_pairs" "${jobs[@]}"
    done
}

# A network that tags has one output for each class of the label table, unless --qsep_args says otherwise:
# options num_classes=K for those parts of the YAML (extractor_conf, query_net_conf) that give a number.
fit_classes() {
    local table=${dumpdir}/${train_set}/labels.tsv part
    need "${table}" 3
    classes=()
    for part in $(awk '/^[a-z]/ { part = $1 } /^ +num_classes: *[1-9]/ { sub(":", "", part); print part }' \
        "${qsep_config}"); do
        classes+=("--${part}" "num_classes=$(($(wc -l <"${table}") - 1))")
    done
}

read -ra more <<<"${qsep_args}"
training=(--config "${qsep_config}" --output_dir "${qsep_exp}" --resume true)
training+=(--train_bank "${dumpdir}/${train_set}" --valid_bank "${dumpdir}/${valid_set}")
training+=(--valid_pairs "${valid_list}")

stage_5() {
    local with id
    need "${valid_list}" 4
    name_training "${qsep_config}" "${qsep_args}" "$(of "${valid_list%.tsv}.json" list_hash)"
    if is_marked "${qsep_exp}/.checked" "${id}"; then
        log "checked already"
        return
    fi
    fit_classes
    py qsep_check "${training[@]}" ${classes[@]+"${classes[@]}"} ${more[@]+"${more[@]}"}
    mark "${qsep_exp}/.checked" "${id}"
}

stage_6() {
    local with id
    need "${dumpdir}/${train_set}/bank.json" 3
    need "${valid_list}" 4
    name_training "${qsep_config}" "${qsep_args}" "$(of "${valid_list%.tsv}.json" list_hash)"
    fit_classes
    train_once "${qsep_exp}" "${id}" "${with}" \
        train_espnet "${qsep_exp}" qsep_train "${training[@]}" ${classes[@]+"${classes[@]}"} ${more[@]+"${more[@]}"}
}

outputs() { echo "${qsep_exp}/inference_${inference_tag:+${inference_tag}_}$1"; } # of a test set
tags() { echo "${qsep_exp}/tagging_${inference_tag:+${inference_tag}_}$1"; }
has_tags() { [ -e "$(outputs "$1")/self/tags.npz" ]; }

# `model`: options that name the model to use, the experiment's own or that of --bundle
name_model() {
    local folder=${bundle:-${qsep_exp}}
    model=(--bundle "${bundle}")
    [ ! -f "${bundle}" ] || return 0
    need "${folder}/${inference_model}" 6
    model=(--train_config "${folder}/config.yaml" --model_file "${folder}/${inference_model}")
}

stage_7() {
    local set options
    name_model
    inference_options
    [ ! -d "${bundle}" ] || options+=(--no_tags) # an experiment does not tell its classes
    for set in ${test_sets}; do
        rendered "${dumpdir}/${set}_pairs" "${datadir}/${set}/pairs.json" list_hash
        py qsep_inference --data_dir "${dumpdir}/${set}_pairs" --output_dir "$(outputs "${set}")" \
            "${model[@]}" ${options[@]+"${options[@]}"}
    done
    tag_clips
}

# Tags of every clip, each once, by a model that tags: a list of mixtures has some clips more often than others.
tag_clips() {
    local set options inference_args=
    inference_options
    for set in ${test_sets}; do
        ! has_tags "${set}" || py tag_inference --bank "${dumpdir}/${set}" --output_dir "$(tags "${set}")" \
            "${model[@]}" "${options[@]}"
    done
}

stage_8() {
    local set options
    read -ra options <<<"${scoring_args}"
    for set in ${test_sets}; do
        need "$(outputs "${set}")" 7
        rendered "${dumpdir}/${set}_pairs" "${datadir}/${set}/pairs.json" list_hash
        OMP_NUM_THREADS=1 py qsep_scoring --data_dir "${dumpdir}/${set}_pairs" \
            --inference_dir "$(outputs "${set}")" "${jobs[@]}" ${options[@]+"${options[@]}"}
        has_tags "${set}" || continue
        need "$(tags "${set}")/about.json" 7
        OMP_NUM_THREADS=1 py tag_scoring --bank "${dumpdir}/${set}" --tags_dir "$(tags "${set}")"
    done
}

stage_9() {
    local set folders=()
    for set in ${test_sets}; do
        need "$(outputs "${set}")/scores/summary.json" 8
        folders+=(--inference_dir "$(outputs "${set}")")
    done
    if [ -n "${bundle}" ]; then
        name_model
        py qsep_describe --exp_dir "${qsep_exp}" --labels "${dumpdir}/${set}_pairs/labels.tsv" "${model[@]}"
    fi
    py report --exp_dir "${qsep_exp}" "${folders[@]}"
    [ -z "${bundle}" ] || return 0
    py qsep_pack --exp_dir "${qsep_exp}" --model_file "${qsep_exp}/${inference_model}" \
        --train_bank "${dumpdir}/${train_set}" "${folders[@]}" -o "${qsep_exp}/${qsep_tag}.zip"
}

titles=("" "the corpus's lists" "decode every clip, manifest" "archive at ${fs} Hz" "draw and render lists"
    "checks" "training" "inference" "scoring" "report and bundle")
kinds=("" data data data data train train eval eval eval)
run_stages "${dumpdir}" "${qsep_exp}"; exit 0 # on one line: nothing more is read, were this file changed meanwhile
