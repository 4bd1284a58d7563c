#!/usr/bin/env bash
# Separation from weak labels by cross-validation: each fold of UrbanSound8K that is there is scored with separators
# trained on the others, of which one validates (of two alone, other mixtures of their clips).
#   ./all_folds.sh --urbansound8k /path/to/UrbanSound8K [--label_types "strong clip"] [options of ./run.sh]
# Resumes where it was stopped. The means are printed and written to EXPDIR/weak_TAG_folds/LABELS_scores.json.
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

urbansound8k=${URBANSOUND8K}
split_options "urbansound8k" "$@"
if wants_help; then exec ./run.sh --help; fi
case " ${rest[*]} " in
    *_folds\ * | *-folds\ *) die "the folds are taken in turn: no --train_folds and its like" ;;
esac
[ -n "${urbansound8k}" ] || die "where is UrbanSound8K? ./all_folds.sh --urbansound8k PATH (or write it into db.sh)"
urbansound8k=$(find_path "UrbanSound8K (--urbansound8k or db.sh)" "${urbansound8k}")
folds=$(printf '%s\n' "${urbansound8k}"/audio/fold* | sed -n 's/.*fold\([0-9][0-9]*\)$/\1/p' | sort -n | xargs)
[ -n "${folds}" ] || die "in ${urbansound8k}/audio there is no fold"
drive folds --task class --folds "${folds}" --urbansound8k "${urbansound8k}" --expdir exp/urbansound8k "${rest[@]}"
