#!/usr/bin/env bash
# Query-based separation on ESC-50: folds 1 to 3 train, mixtures of fold 4 are scored.
#   ./run.sh --esc50 /path/to/ESC-50
#   ./run.sh --help                           the options of all recipes
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

esc50=${ESC50}
train_folds="1 2 3"
valid_folds=            # empty: the validation mixtures are made of the training folds' clips
test_folds=4
split_options "esc50 train_folds valid_folds test_folds" "$@"

case " ${rest[*]-} " in *" --help "* | *" -h "*) exec ./qsep.sh --help ;; esac
[ -n "${esc50}" ] || die "where is ESC-50? ./run.sh --esc50 /path/to/ESC-50 (or write it into db.sh)"
ESC50=$(find_path "ESC-50 (--esc50 or db.sh)" "${esc50}")
export ESC50

# The sets are named after their folds, which so stand in the results.
name() { echo "folds${1// /}"; }
valid_folds=${valid_folds:-${train_folds}}

exec ./qsep.sh \
    --train_set "$(name "${train_folds}")" --valid_set "$(name "${valid_folds}")" \
    --test_sets "$(name "${test_folds}")" --local_data_opts "${train_folds}/${valid_folds}/${test_folds}" \
    --qsep_config conf/train_qsep_care_sep_small.yaml --valid_pairs 64 --test_pairs 0 --test_seconds 0 \
    ${rest[@]+"${rest[@]}"}
