#!/usr/bin/env bash
# Build the wheel, install it in two new environments and use it there without this checkout:
#   light   with torch, numpy, soundfile, soxr, pyyaml and tqdm alone: core, the README's loss, `espnet2-ext info`,
#           `separate` and `embed` with each BUNDLE
#   full    with all packages: a recipe's quick form up to the training, `pack`, and `separate` with that bundle
# Both borrow their packages from the project's environment, so nothing is downloaded.
#   tools/check_wheel.sh [--light] BUNDLE.zip ...        --light: only that; PYTHON: the Python, default the project's
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
light=false
[ "${1:-}" != --light ] || { light=true; shift; }
bundles=()
for bundle in "$@"; do bundles+=("$(realpath "${bundle}")"); done
python=${PYTHON:-$("${root}/tools/setup.sh")}
tmp=$(mktemp -d)
trap 'rm -rf "${tmp}"' EXIT
unset PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# Link the installed packages $3 ... and what they require into folder $2, for Python $1.
link_packages() {
    mkdir "$2"
    "$1" - "${@:2}" <<'END'
import importlib.metadata as metadata
import sys
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

folder, names, seen = Path(sys.argv[1]), sys.argv[2:], set()
while names:
    if (name := names.pop().lower()) in seen:
        continue
    seen.add(name)
    package = metadata.distribution(name)
    needed = [Requirement(text) for text in package.requires or []]
    names += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(package.locate_file(top))
END
}

# new_env NAME PACKAGES: an environment with the wheel and the folder PACKAGES on its path
new_env() {
    "${python}" -m venv --without-pip "${tmp}/$1"
    local site
    site=$(echo "${tmp}/$1"/lib/python*/site-packages)
    echo "$2" >"${site}/borrowed.pth"
    [ ! -e "$2/distutils-precedence.pth" ] || cp "$2/distutils-precedence.pth" "${site}/"  # distutils by setuptools
    "${python}" -m pip --python "${tmp}/$1/bin/python" install -q --no-deps --no-index "${tmp}"/wheel/*.whl
}

mkdir "${tmp}/source" "${tmp}/work"
(cd "${root}" && git ls-files -z | xargs -0 cp -d --parents -t "${tmp}/source")
(cd "${tmp}/source" && "${python}" -m pip wheel -q --no-deps --no-build-isolation -w "${tmp}/wheel" .)
cd "${tmp}/work"

echo "=== light"
link_packages "${python}" "${tmp}/packages" torch numpy soundfile soxr pyyaml tqdm
new_env light "${tmp}/packages"
PATH=${tmp}/light/bin:${PATH}
espnet2-ext --version
python - "${root}/README.md" <<'END'
import importlib
import pkgutil
import re
import sys

import espnet2_ext.core as core

for module in pkgutil.walk_packages(core.__path__, "espnet2_ext.core."):
    importlib.import_module(module.name)
snippets = re.findall(r"```python\n(.*?)```", open(sys.argv[1], encoding="utf-8").read(), re.DOTALL)
exec(next(text for text in snippets if "WeakLabelLoss" in text))

import numpy as np
import soundfile

for name in ("mix", "query"):
    soundfile.write(f"{name}.wav", 0.1 * np.random.default_rng(0).standard_normal(64000), 32000)
assert not [name for name in ("espnet2", "asteroid", "scipy") if importlib.util.find_spec(name)]
END
for bundle in ${bundles[@]+"${bundles[@]}"}; do
    espnet2-ext info "${bundle}" >info.txt
    query=()
    if grep -q "task: qsep" info.txt; then
        espnet2-ext embed query.wav --bundle "${bundle}" -o query.npy
        query=(--query query.npy)
    fi
    espnet2-ext separate mix.wav ${query[@]+"${query[@]}"} --bundle "${bundle}" -o "separated/$(basename "${bundle}")/"
    ls "separated/$(basename "${bundle}")/"*.wav >/dev/null
done
! "${light}" || exit 0

echo "=== full"
new_env full "$("${python}" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
PATH=${tmp}/full/bin:${PATH}
espnet2-ext recipe audioset_qsep quick
(cd quick && ./run.sh --quick true --stop_stage 6)
exp=$(echo quick/exp/quick/qsep_*)
espnet2-ext pack --train_config "${exp}/config.yaml" --model_file "${exp}/valid.loss.best.pth" \
    --labels "${exp}/labels.tsv" -o quick.zip
espnet2-ext separate mix.wav --query query.wav --bundle quick.zip -o quick.wav
ls quick.wav
