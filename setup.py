"""Package metadata; tools/setup.sh reads this file's digest to know when to install again."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "espnet2_ext/__init__.py").read_text())[1]

# ESPnet bounds torch, torchaudio and numpy itself. Its `enh` extra is not used: that pulls ci-sdr,
# whose metadata names a direct URL, which pip refuses; the scoring packages are named one by one.
REQUIRES = [
    "espnet>=202611,<202612",
    "torch",
    "torchaudio",
    "asteroid>=0.7",
    "pytorch-lightning>=2.6",
    "setuptools<82",  # pkg_resources and distutils, which the packages above still import
    "numpy",
    "scipy",
    "pyyaml",
    "tqdm",
    "soundfile>=0.13",
    "soxr",
    "pyloudnorm>=0.2",
    "av",  # reads .stem.mp4 without an ffmpeg program
    "fast-bss-eval==0.1.3",
    "mir_eval",
    "pystoi",
    "scikit-learn",
    "matplotlib",
    "tensorboard",
    "pretty_midi>=0.2.11",  # carries the sound font of the embedded corpus
    "midirenderer>=0.1.3",
]
EXTRAS = {
    "hdf5": ["h5py"],  # AudioSet packed as HDF5
    "dask": ["dask[distributed]", "dask-jobqueue"],  # data preparation and scoring on a cluster
}
EXTRAS["all"] = EXTRAS["hdf5"] + EXTRAS["dask"]
EXTRAS["test"] = EXTRAS["all"] + ["pytest", "ruff", "stempeg"]  # stempeg carries a real stem file

setup(
    name="espnet2_ext",
    version=VERSION,
    description="Separation of any sound by example or from weak labels, on ESPnet2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.12,<3.14",
    packages=find_packages(include=["espnet2_ext", "espnet2_ext.*"]),
    package_data={"espnet2_ext": ["**/*.tsv", "**/*.csv", "**/*.json", "**/*.html", "**/*.yaml"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["espnet2-ext = espnet2_ext.cli.main:main"]},
)
