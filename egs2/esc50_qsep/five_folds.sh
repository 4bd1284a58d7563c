#!/usr/bin/env bash
# Tagging on ESC-50 by cross-validation: for each fold that is there, a tagger trained on the others.
#   ./five_folds.sh --esc50 /path/to/ESC-50 [--config YAML] [options of ./run.sh --task tagging]
# Goes on where it was stopped. The means are printed and written to EXPDIR/tag_TAG_folds/scores.json (with
# --inference_tag T: T_scores.json).
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

esc50=${ESC50}
tag_config=
config=
tag_tag=
tag_args=
inference_tag=
expdir=
python=python
split_options "esc50 tag_config config tag_tag tag_args inference_tag expdir python" "$@"

if wants_help; then exec ./run.sh --task tagging --help; fi
case " ${rest[*]-} " in
    *_folds\ * | *-folds\ *) die "the folds are taken in turn: no --train_folds and its like" ;;
esac
[ -n "${esc50}" ] || die "where is ESC-50? ./five_folds.sh --esc50 /path/to/ESC-50 (or write it into db.sh)"
esc50=$(find_path "ESC-50 (--esc50 or db.sh)" "${esc50}")
tag_config=$(from_caller "${tag_config:-${config}}")
tag_config=${tag_config:-conf/mini/tag_care_cls.yaml}
expdir=$(from_caller "${expdir}")
expdir=${expdir:-exp}
if [ -z "${tag_tag}" ]; then
    tag_tag=$(basename "${tag_config}" .yaml)$(sed -e 's/--/_/g' -e 's/[ |=/]//g' <<<"${tag_args}")
    tag_tag=${tag_tag#tag_}
fi

tag=${inference_tag:+${inference_tag}_}
folds=$(column "${esc50}/meta/esc50.csv" fold)
[ "${folds}" != "${folds% *}" ] || die "${esc50} has one fold alone; there is none to train on"
scored=()
for fold in ${folds}; do
    others=$(echo " ${folds} " | sed "s/ ${fold} / /" | xargs)
    log "Fold ${fold}: trained on ${others}"
    run ./run.sh --task tagging --esc50 "${esc50}" --train_folds "${others}" --test_folds "${fold}" \
        --tag_config "${tag_config}" --tag_tag "${tag_tag}_fold${fold}" --tag_args "${tag_args}" \
        --inference_tag "${inference_tag}" --expdir "${expdir}" --python "${python}" --stop_stage 9 \
        ${rest[@]+"${rest[@]}"}
    scored+=("${expdir}/tag_${tag_tag}_fold${fold}/tagging_${tag}folds${fold}")
done
for folder in "${scored[@]}"; do
    [ -e "${folder}/scores.json" ] || { log "${folder} is not scored yet, so there is no mean"; exit 0; }
done
. ./path.sh
py tag_scoring --folds "${scored[@]}" --out "${expdir}/tag_${tag_tag}_folds/${tag}scores.json"
