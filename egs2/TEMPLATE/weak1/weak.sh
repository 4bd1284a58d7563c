#!/usr/bin/env bash
# The driver of separation from weak labels: ESPnet's stages and option names. Called by a recipe's run.sh.
set -euo pipefail
# shellcheck source=egs2/TEMPLATE/common/utils.sh
. "$(dirname "$0")/utils.sh"

common_defaults 16000
# Data
mixtures_from=drawn
train_mixtures=20000
valid_mixtures=5000
test_mixtures=5000
mean_events=5
test_mean_events=
background_classes=
train_known=strong
mixture_args=
test_mixture_args=
mixtures_seed=0
# Model and training
weak_config=conf/train_weak_small.yaml
weak_tag=
label_types="strong frame clip"
strategy=
trials=1
trainer=espnet
weak_args=
classifier_args=
separator_args=
inference_tag=
scoring_args=

usage() {
    echo "Usage: ./run.sh [--option value ...]
Stages: 1 data, 2 scan, 3 archive, 4 mixtures, 5 classifiers, 6 separators, 7 inference, 8 scoring, 9 report.
$(common_help)
Mixtures
  --mixtures_from    drawn: from a bank of events; songs: chunks of songs, whole ones for the test; recordings:
                     chunks of labelled recordings (${mixtures_from})
  --train_mixtures   number of training mixtures (${train_mixtures})
  --valid_mixtures   number of validation mixtures (${valid_mixtures})
  --test_mixtures    number of mixtures of each test set (${test_mixtures})
  --mean_events      the paper's lambda, events in a mixture (${mean_events})
  --test_mean_events lambda of the test mixtures; several: each test set once per lambda (default: --mean_events)
  --background_classes comma-separated classes used as unlabelled background (${background_classes})
  --train_known      labels known in training: strong, or shares such as strong:0.1,frame:0.3,clip:0.6 (${train_known})
  --mixture_args     more options for making the mixtures (${mixture_args})
  --test_mixture_args more options for making the test mixtures (${test_mixture_args})
  --mixtures_seed    seed of the tables; validation and test use the next two (${mixtures_seed})
Model
  --weak_config      YAML of the model and its training; alias: --config (${weak_config})
  --weak_tag         name of the experiments (from the YAML's name)
  --label_types      separators to train: any of strong, frame, clip, mixed (${label_types})
  --strategy         of the classifier: joint, finetune, fixed (as the YAML says)
  --trials           number of seeds to try (0, 1, ...) for each classifier and separator; the lowest validation loss
                     is kept (${trials})
  --trainer          espnet, or asteroid: Asteroid's System with Lightning (${trainer})
  --weak_args        more options for both trainings, as ESPnet takes them (${weak_args})
  --classifier_args  more options for the classifiers' training (${classifier_args})
  --separator_args   more options for the separators' training (${separator_args})
  --inference_tag    suffix of the folders of outputs and scores (${inference_tag})
  --scoring_args     more options for scoring (${scoring_args})"
}

config_option=weak_config
parse_options "$@"
# shellcheck source=egs2/TEMPLATE/common/path.sh
. ./path.sh
# shellcheck source=egs2/TEMPLATE/common/cmd.sh
. ./cmd.sh
: "${cuda_cmd:?is not set in cmd.sh}"
export python

[ -f "${weak_config}" ] || die "--config (--weak_config): there is no file ${weak_config}"
for label in ${label_types}; do
    case ${label} in
        strong | frame | clip | mixed) ;;
        *) die "--label_types: ${label} is none of strong frame clip mixed" ;;
    esac
done
[ -n "${label_types// /}" ] || die "--label_types: name at least one of strong frame clip mixed"
case ${trainer} in espnet | asteroid) ;; *) die "--trainer takes espnet or asteroid, not '${trainer}'" ;; esac
case ${trials}/${inference_model} in
    [!1-9]* | *[!0-9]*/*) die "--trials takes a whole number from 1, not '${trials}'" ;;
    1/* | */latest.pth | */valid.loss.best.pth | */[0-9]*epoch.pth) ;;
    *) die "--trials ${trials}: the validation loss of --inference_model ${inference_model} is not known; trials are" \
        "told apart by that of latest.pth, valid.loss.best.pth or Nepoch.pth" ;;
esac
[[ ${trials} = 1 || " ${weak_args} ${classifier_args} ${separator_args}" != *" --seed"[\ =]* ]] ||
    die "--trials ${trials} trains with seeds 0, 1, ...: leave out --seed, or add --trials 1"
case ${mixtures_from} in
    drawn | songs | recordings) ;;
    *) die "--mixtures_from takes drawn, songs or recordings, not '${mixtures_from}'" ;;
esac
fs=${fs/%k/000}
[ -n "${strategy}" ] || strategy=$(sed -n 's/^strategy: *\([a-z]*\).*/\1/p' "${weak_config}")

# tag OPTIONS...: what tells an experiment with these options from others of the same YAML
tag() { echo "$*" | sed -e 's/--/_/g' -e 's/[ |=/]//g'; }

kept=
[ "${trials}" = 1 ] || kept=_best
classifier_tag=${weak_tag:-$(basename "${weak_config}" .yaml)${kept}$(tag "${weak_args}${classifier_args}")}
if [ -z "${weak_tag}" ]; then
    weak_tag=${classifier_tag}$(tag "${separator_args}")
    [ "${trainer}" = espnet ] || { weak_tag+=_asteroid classifier_tag+=_asteroid; }
    [ "${strategy:-fixed}" = fixed ] || weak_tag+=_${strategy}
fi
name_sets_and_jobs

table() { echo "${datadir}/$1/mixtures${2:+_lambda$2}"; } # of a set, and of a lambda where there are several

# Tests: lines of `name set lambda`; with several lambdas they are part of a test's name.
tests=
read -ra lambdas <<<"${test_mean_events:-${mean_events}}"
for set in ${test_sets}; do
    for lambda in "${lambdas[@]}"; do
        if [ ${#lambdas[@]} -gt 1 ]; then
            tests+="${set}_lambda${lambda} ${set} ${lambda}"$'\n'
        else
            tests+="${set} ${set} "$'\n'
        fi
    done
done
test_names=$(awk '{print $1}' <<<"${tests}")

# draw SET TABLE NUMBER LAMBDA SEED OPTIONS...
draw() {
    local set=$1 to=$2 number=$3 lambda=$4 seed=$5
    shift 5
    py draw_mixtures --bank "${dumpdir}/${set}" --out "${to}" --mixtures "${number}" --mean_events "${lambda}" \
        --seed "${seed}" --background_classes "${background_classes}" "${jobs[@]}" "$@"
}

# make_table SET TABLE KIND LAMBDA: the table of a set; KIND is train, valid or test
make_table() {
    local set=$1 to=$2 kind=$3 lambda=$4 options more=()
    read -ra options <<<"${mixture_args}"
    [ "${kind}" != test ] || read -ra more <<<"${test_mixture_args}"
    options+=(${more[@]+"${more[@]}"})
    need "${dumpdir}/${set}/bank.json" 3
    case ${mixtures_from}/${kind} in
        songs/*)
            [ "${kind}" != test ] || options+=(--whole)
            py prepare_musdb18 tables "${datadir}/${set}" --bank "${dumpdir}/${set}" --out "${to}" "${jobs[@]}" \
                ${options[@]+"${options[@]}"} ;;
        recordings/*)
            py prepare_own_weak tables "${datadir}/${set}" --bank "${dumpdir}/${set}" --out "${to}" \
                ${options[@]+"${options[@]}"} ;;
        */train) draw "${set}" "${to}" "${train_mixtures}" "${lambda}" "${mixtures_seed}" --known "${train_known}" \
            ${options[@]+"${options[@]}"} ;;
        */valid) draw "${set}" "${to}" "${valid_mixtures}" "${lambda}" $((mixtures_seed + 1)) --known "${train_known}" \
            ${options[@]+"${options[@]}"} ;;
        */test) draw "${set}" "${to}" "${test_mixtures}" "${lambda}" $((mixtures_seed + 2)) ${options[@]+"${options[@]}"} ;;
    esac
}

# Tables are drawn from a bank once and written; those of the tests are rendered as well.
stage_4() {
    local -x OMP_NUM_THREADS=1
    local name set lambda
    make_table "${train_set}" "$(table "${train_set}")" train "${mean_events}"
    [ "${valid_set}" = "${train_set}" ] || make_table "${valid_set}" "$(table "${valid_set}")" valid "${mean_events}"
    while read -r name set lambda; do
        [ -n "${name}" ] || continue
        make_table "${set}" "$(table "${set}" "${lambda}")" test "${lambda:-${lambdas[0]}}"
        py render_mixtures --table "$(table "${set}" "${lambda}")" --bank "${dumpdir}/${set}" \
            --out "${dumpdir}/${name}_mix" "${jobs[@]}"
    done <<<"${tests}"
}

experiment() { echo "${expdir}/weak_${weak_tag}_$1"; }                  # the separator of a label type
classifier() { echo "${expdir}/weak_${classifier_tag}_classifier_$1"; } # the classifier of a label type

# training_id ARGS...: all that a training is made of, in short
training_id() {
    {
        cat "${weak_config}"
        echo "$*"
        given_files "$*"
        of "$(table "${train_set}")/table.json" table_hash
        of "$(table "${valid_set}")/table.json" table_hash
    } | cksum | tr ' ' '-'
}

# train EXP ID ARGS...: train with these options in EXP, unless that was done (ID tells)
train() {
    local exp=$1 id=$2 options
    shift 2
    read -ra options <<<"${weak_args}"
    options=(--config "${weak_config}" --output_dir "${exp}" --resume true
        --train_table "$(table "${train_set}")" --train_bank "${dumpdir}/${train_set}"
        --valid_table "$(table "${valid_set}")" --valid_bank "${dumpdir}/${valid_set}"
        ${options[@]+"${options[@]}"} "$@")
    train_once "${exp}" "${id}" "$(begun_with "mixtures in $(table "${train_set}")" \
        "$(of "$(table "${train_set}")/table.json" table_hash)" "${weak_config}" "${weak_args} $*")" \
        train_with_"${trainer}" "${exp}" "${options[@]}"
}

# train_trials EXP ID ARGS...: train, as often as --trials says, and have in EXP the best
train_trials() {
    local exp=$1 id=$2 seed folders=()
    shift 2
    if [ "${trials}" = 1 ]; then
        [ ! -L "${exp}" ] || die "${exp} was chosen from several --trials: give another --weak_tag"
        train "${exp}" "${id}" "$@"
        return
    fi
    for ((seed = 0; seed < trials; seed++)); do
        folders+=("${exp}_seed${seed}")
        train "${exp}_seed${seed}" "${id}-seed${seed}" "$@" --seed "${seed}"
    done
    py keep_best "${folders[@]}" --exp_dir "${exp}" --model_file "${inference_model}"
}

# its curves are not drawn at each epoch: stage 9 draws them
train_with_espnet() { train_espnet "$1" weak_train --use_matplotlib false "${@:2}"; }

train_with_asteroid() {
    local exp=$1 gpu options=("${@:2}")
    [ -z "${host}" ] && [ "${num_nodes}" -le 1 ] || die "--trainer asteroid trains on one machine"
    gpu=$(gpus)
    if [ "${gpu}" -gt 0 ]; then options+=(--devices "${gpu}"); else options+=(--accelerator cpu); fi
    log "all it says: ${exp}/train.log; curves: ${exp}/lightning/metrics.csv"
    run_logged "${exp}/train.log" 'epoch results|best checkpoint|WARNING|ERROR|^error:|Traceback' \
        "${python}" -m espnet2_ext.bin.weak_train_asteroid "${options[@]}"
}

need_tables() {
    need "$(table "${train_set}")/table.json" 4
    need "$(table "${valid_set}")/table.json" 4
}

# The classifiers that separators of weak labels are judged by, one for each kind of label.
stage_5() {
    local label options
    need_tables
    if [ "${strategy}" = joint ]; then
        log "strategy joint: classifiers are trained with the separators"
        return
    fi
    read -ra options <<<"${classifier_args}"
    for label in ${label_types}; do
        [ "${label}" != strong ] || continue
        train_trials "$(classifier "${label}")" "$(training_id "${weak_args}" "${classifier_args}")" \
            --part classifier --label_type "${label}" ${options[@]+"${options[@]}"}
    done
}

stage_6() {
    local label options judge id
    need_tables
    for label in ${label_types}; do
        read -ra options <<<"${separator_args}"
        id=$(training_id "${weak_args}" "${strategy}" "${separator_args}")
        if [ "${label}" != strong ] && [ "${strategy}" != joint ]; then
            judge=$(classifier "${label}")
            need "${judge}/.done" 5
            id+=-$(cat "${judge}/.done")
            options+=(--classifier_file "${judge}/${inference_model}")
        fi
        train_trials "$(experiment "${label}")" "${id}" --part separator --label_type "${label}" \
            ${strategy:+--strategy "${strategy}"} ${options[@]+"${options[@]}"}
    done
}

check_tests() { # the test mixtures are rendered, and from the tables of this run
    local name set lambda
    while read -r name set lambda; do
        [ -z "${name}" ] || rendered "${dumpdir}/${name}_mix" "$(table "${set}" "${lambda}")/table.json" table_hash
    done <<<"${tests}"
}

outputs() { echo "$(experiment "$1")/inference_${inference_tag:+${inference_tag}_}$2"; } # LABEL TEST

stage_7() {
    local label name exp options models
    inference_options
    check_tests
    for name in ${test_names}; do
        models=()
        for label in ${label_types}; do
            exp=$(experiment "${label}")
            need "${exp}/${inference_model}" 6
            models+=(--output_dir "$(outputs "${label}" "${name}")")
            models+=(--train_config "${exp}/config.yaml" --model_file "${exp}/${inference_model}")
        done
        py weak_inference --data_dir "${dumpdir}/${name}_mix" "${models[@]}" \
            ${options[@]+"${options[@]}"}
    done
}

stage_8() {
    local label name options folders
    read -ra options <<<"${scoring_args}"
    check_tests
    for name in ${test_names}; do
        folders=()
        for label in ${label_types}; do
            need "$(outputs "${label}" "${name}")/about.json" 7
            folders+=(--inference_dir "$(outputs "${label}" "${name}")")
        done
        OMP_NUM_THREADS=1 py weak_scoring --data_dir "${dumpdir}/${name}_mix" "${folders[@]}" "${jobs[@]}" \
            ${options[@]+"${options[@]}"}
    done
}

stage_9() {
    local label name options=() tests=() models=()
    for label in ${label_types}; do
        options+=(--experiment "${label}=$(experiment "${label}")")
        models+=("$(experiment "${label}")")
        for name in ${test_names}; do need "$(outputs "${label}" "${name}")/scores/summary.json" 8; done
    done
    for name in ${test_names}; do tests+=(--test_set "${inference_tag:+${inference_tag}_}${name}"); done
    OMP_NUM_THREADS=1 py weak_report --output_dir "$(experiment report)" "${options[@]}" "${tests[@]}"
    py weak_pack "${models[@]}" --model_file "${inference_model}" "${tests[@]}"
}

titles=("" "the corpus's lists" "decode every clip, manifest" "archive at ${fs} Hz" "tables of mixtures"
    "classifiers" "separators" "inference" "scoring" "report and bundles")
kinds=("" data data data data train train eval eval eval)
run_stages "${dumpdir}" "$(experiment report)"; exit 0 # on one line: nothing more is read, were this file changed meanwhile
