# Where the corpora are. To be sourced.
# shellcheck shell=bash disable=SC2034

# AudioSet: the folder with the published lists (balanced_train_segments.csv, eval_segments.csv, and
# if present, unbalanced_train_segments.csv), class_labels_indices.csv and, if present, ontology.json,
# and the sound as files, tar shards or HDF5 (README.md says how they may lie).
# Paths may be relative to the project's top folder. Empty: the embedded corpus is made and used.
AUDIOSET=${AUDIOSET:-}

# Only where the sound lies outside of that folder: folders, tar files, HDF5 files, with full paths.
AUDIOSET_AUDIO=()
