#!/usr/bin/env bash
# The model in the box: query-based separation, trained on sounds with clear open licences (README.md).
#   ./run.sh --esc50 /path/to/ESC-50
#   ./run.sh --sources "timgm6mb formula"     only these; no Debian package is needed for them
#   ./run.sh --unheard MODEL.zip              score a trained model on real sounds of classes that it never heard
#   ./run.sh --quick true                     smoke test: every stage in a few minutes
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

esc50=${ESC50}
packages=${PACKAGES}
sources="esc10 formula timgm6mb fluidr3 sonic-pi audiophob rumpf ktuberling 0ad widelands supertuxkart wesnoth"
sources+=" megaglest unknown-horizons ufoai scorched3d lincity searchandrescue warmux fillets-cs fillets-nl"
quick=false unheard=    # a bundle, or an experiment's folder (its --inference_model)
split_options "esc50 packages sources unheard quick" "$@"

name=starter more="" tests=valid
options=(--qsep_config conf/train_qsep_care_sep_starter.yaml --audio_format pcm16 --valid_pairs 400 --test_pairs 0
    --test_seconds 0 --inference_model valid.loss.ave_3best.pth)
if [ "${quick}" = true ]; then
    name=quick sources="formula timgm6mb"
    more="--clips 6 --formula_clips 6 --valid_clips 3 --clip_seconds 2 --classes piano kick_drum snare_drum engine bell birds"
    options=(--qsep_config conf/debug/train_qsep_care_sep.yaml --valid_pairs 8 --test_pairs 8 --presence_mixtures 8
        --scoring_args "--espnet_keys 4")
elif [ -n "${unheard}" ]; then
    name=unheard sources="minetest scratch tuxpaint"
fi
case " ${sources} " in *" esc10 "*) tests=test ;; *" minetest "*) tests=unheard ;; esac # others have no test set
if ! wants_help; then
    if [ "${tests}" = test ]; then
        [ -n "${esc50}" ] || die "where is ESC-50? ./run.sh --esc50 FOLDER (or db.sh), or --sources without esc10"
        ESC50=$(find_path "ESC-50 (--esc50 or db.sh)" "${esc50}")
    fi
    PACKAGES=$(find_path "the packages (--packages or db.sh)" "${packages}")
    export ESC50 PACKAGES
    [ -z "${unheard}" ] || options+=(--bundle "$(find_path "the model (--unheard)" "${unheard}")")
fi

exec ./qsep.sh \
    --train_set train --valid_set valid --test_sets "${tests}" \
    --datadir "data/${name}" --dumpdir "dump/${name}" --expdir "exp/${name}" \
    --local_data_opts "--sources ${sources} --sounds downloads/${name} ${more}" \
    "${options[@]}" "${rest[@]}"
