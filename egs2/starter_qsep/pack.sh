#!/usr/bin/env bash
# Put a model that ./run.sh trained into the package: ./pack.sh exp/starter/qsep_TAG/TAG.zip
set -euo pipefail
. ./path.sh
bundle=$1 out=../../espnet2_ext/models/starter.zip

heard="ESC-10, speech, music and outdoor sounds of games, two sound fonts, samples, drum kits and formulas; 188 classes, 11.4 hours"
printf 'license: apache-2.0\ntrained_on: "%s"\n' "${heard}" >data/facts.yaml
cat local/card.md data/starter/sources.md >data/card.md
pack() { espnet2-ext pack --bundle "${bundle}" --name starter --half --card data/card.md --info data/facts.yaml -o "${out}"; }
pack
python local/check.py "${out}" >>data/facts.yaml        # tests/recipe/test_model_in_the_package.py compares with it
pack
espnet2-ext calibrate "${out}" --bank dump/starter/train --held_out dump/starter/valid --most 40
espnet2-ext info "${out}"
