#!/usr/bin/env bash
# Tagging on ESC-50 by cross-validation: for each fold that is there, a tagger trained on the others.
#   ./five_folds.sh --esc50 /path/to/ESC-50 [--config YAML] [options of ./run.sh --task tagging]
# Resumes where it was stopped. The means are printed and written to EXPDIR/tag_TAG_folds/scores.json (with
# --inference_tag T: T_scores.json).
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

esc50=${ESC50}
split_options "esc50" "$@"
if wants_help; then exec ./run.sh --task tagging --help; fi
case " ${rest[*]} " in
    *_folds\ * | *-folds\ *) die "the folds are taken in turn: no --train_folds and its like" ;;
esac
[ -n "${esc50}" ] || die "where is ESC-50? ./five_folds.sh --esc50 /path/to/ESC-50 (or write it into db.sh)"
esc50=$(find_path "ESC-50 (--esc50 or db.sh)" "${esc50}")
folds=$(column "${esc50}/meta/esc50.csv" fold)
drive folds --task tagging --folds "${folds}" --esc50 "${esc50}" "${rest[@]}"
