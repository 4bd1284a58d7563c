#!/usr/bin/env bash
# Put a model that ./run.sh trained into the package: ./pack.sh exp/starter/qsep_TAG/TAG.zip
set -euo pipefail
. ./path.sh
bundle=$1 out=../../espnet2_ext/models/starter.zip

cat local/card.md data/starter/sources.md >data/card.md
espnet2-ext pack --bundle "${bundle}" --name starter --half --card data/card.md --info local/facts.yaml -o "${out}"
espnet2-ext calibrate "${out}" --bank dump/starter/train --held_out dump/starter/valid --most 40
espnet2-ext info "${out}"
