#!/usr/bin/env bash
# Separation from weak labels on UrbanSound8K; without it (see db.sh), on the small embedded corpus.
#   ./run.sh                                  everything, on the embedded corpus
#   ./run.sh --urbansound8k /path/to/UrbanSound8K
#   ./run.sh --urbansound8k ... --config conf/train_weak_crnn.yaml --train_mixtures 20000 --valid_mixtures 5000 \
#       --test_mixtures 5000 --ngpu 1         the paper's training
#   ./run.sh --task query                     a separator that answers examples, from the same labels
#   ./run.sh --quick true                     smoke test: every stage in a minute or two
#   ./run.sh --help                           all options
set -euo pipefail
. "$(dirname "$0")/utils.sh"
. ./db.sh

urbansound8k=${URBANSOUND8K}
quick=false task=class # query: a separator that answers examples, as CaRE-SEP does
train_folds=            # empty: the paper's 1-6, 7-8 and 9-10; README.md says what else a fold list may be
valid_folds='' test_folds=''
background_classes=     # such as children_playing,street_music: sound of no labelled class behind the events
split_options "urbansound8k quick task train_folds valid_folds test_folds background_classes" "$@"

kind=weak size=few more=()
[ "${task}" != query ] || { kind=qweak size=small && more=(--classifier_args "--max_epoch 12"); }
options=(--weak_config "conf/train_${kind}_${size}.yaml" --mean_events 5
    --train_mixtures 5000 --valid_mixtures 200 --test_mixtures 500 --scoring_args "--espnet_keys 100")
folds=(1-6 7-8 9-10)
if [ "${quick}" = true ]; then
    corpus=quick
    options=(--weak_config "conf/debug/train_${kind}.yaml" --mean_events 2 --label_types "strong frame"
        --train_mixtures 16 --valid_mixtures 8 --test_mixtures 6 --scoring_args "--espnet_keys 0")
elif [ -z "${urbansound8k}" ]; then
    corpus=embedded
    options=(--weak_config "conf/train_${kind}_mini.yaml" --mean_events 2
        --train_mixtures 2000 --valid_mixtures 100 --test_mixtures 200 --scoring_args "--espnet_keys 50")
else
    URBANSOUND8K=$(find_path "UrbanSound8K (--urbansound8k or db.sh)" "${urbansound8k}")
    export URBANSOUND8K
    corpus=urbansound8k
    audio=${URBANSOUND8K}/audio
    if [ ! -d "${audio}/fold10" ]; then # a part: fold 2, its recordings shared out, validates and tests
        others=$(printf '%s\n' "${audio}"/fold* | sed -n '/fold2$/d; s/.*fold\([0-9]\)/\1/p' | sort -n | paste -sd, -)
        [ -d "${audio}/fold2" ] && [ -n "${others}" ] || [ -n "${train_folds}" ] || die "in ${audio} there must be" \
            "fold10, or fold2 and another; or say --train_folds, --valid_folds, --test_folds"
        folds=("${others}" 2/1of2 2/2of2)
        [[ " ${rest[*]-}" =~ --(weak[_-])?config ]] || # few recordings
            options+=(--mean_events 2 --test_mean_events 5 --inference_model latest.pth --trials 2)
    fi
fi
folds=("${train_folds:-${folds[0]}}" "${valid_folds:-${folds[1]}}" "${test_folds:-${folds[2]}}")
sets=() data_options=(--corpus "${corpus}" ${background_classes:+--background "${background_classes}"})
for list in "${folds[@]}"; do
    sets+=("folds$(tr ',/' '_.' <<<"${list}")") # so they stand in the results
    [[ " ${data_options[*]} " = *":${list} "* ]] || data_options+=("${sets[${#sets[@]}-1]}:${list}")
done

# Slices shorter than half a second are left out, as in the paper; there are many among the shots and barks.
exec ./weak.sh --max_bad_share 0.3 --task "${task}" \
    --train_set "${sets[0]}" --valid_set "${sets[1]}" --test_sets "${sets[2]}" \
    --audio_format pcm16 --datadir "data/${corpus}" --dumpdir "dump/${corpus}" --expdir "exp/${corpus}" \
    --background_classes "${background_classes}" --local_data_opts "${data_options[*]}" \
    "${options[@]}" "${more[@]}" "${rest[@]}"
