"""Package metadata; tools/setup.sh reads this file's digest to know when to install again."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "espnet2_ext/__init__.py").read_text())[1]

# ESPnet needs Python 3.12. Python 3.11 gets what is left without it: losses, networks, and the use of bundles.
# ESPnet bounds torch, torchaudio and numpy itself. Its `enh` extra is not used: that pulls ci-sdr,
# whose metadata names a direct URL, which pip refuses; the scoring packages are named one by one.
FULL = ["espnet>=202611,<202612", "torchaudio", "asteroid>=0.7", "pytorch-lightning>=2.6", "torch_complex"]
FULL = [f'{name}; python_version >= "3.12"' for name in FULL]
REQUIRES = FULL + [
    "torch",
    "setuptools<82",  # pkg_resources and distutils, which the packages above still import
    "numpy",
    "scipy",
    "pyyaml",
    "tqdm",
    "jinja2",
    "soundfile>=0.13",
    "soxr",
    "librosa",
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
    "hub": ["huggingface_hub"],  # models by their name on huggingface.co
    "onnx": ["onnx", "onnxscript", "onnxruntime"],  # `espnet2-ext export`
}
EXTRAS["all"] = [name for names in EXTRAS.values() for name in names]
EXTRAS["test"] = EXTRAS["all"] + ["pytest", "pytest-xdist", "ruff", "pyright", "nbclient", "ipykernel"]
EXTRAS["test"] += ["stempeg", "playwright"]  # carries a stem file; drives the Chromium that is installed

CARRIED = {"conf": {".yaml"}, "egs2": {".sh", ".pl", ".py", ".md"}}  # folder beside the package: suffixes
MADE = {"data", "dump", "exp", "downloads", "__pycache__"}  # by recipes


class BuildWithRecipes(build_py):
    """Puts the folders conf and egs2 into the package, where `util.names.shipped` finds them without a checkout.

    Links are left out: `espnet2-ext recipe` copies what they point to. An editable installation needs no copy.
    """

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        for source in [] if self.editable_mode else self.carried():
            target = Path(self.build_lib, "espnet2_ext", source.relative_to(ROOT))
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def carried(self) -> list[Path]:
        """The files that are copied."""
        files = [path for name in CARRIED for path in (ROOT / name).rglob("*") if path.suffix in CARRIED[name]]
        return [p for p in files if not p.is_symlink() and not MADE.intersection(p.relative_to(ROOT).parts)]


setup(
    name="espnet2_ext",
    version=VERSION,
    description="Separation of any sound by example or from weak labels, on ESPnet2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["espnet2_ext", "espnet2_ext.*"]),
    package_data={
        "espnet2_ext": [
            "py.typed",
            "**/*.tsv",
            "**/*.csv",
            "**/*.json",
            "**/*.html",
            "**/*.css",
            "**/*.js",
            "**/*.yaml",
            "models/*.zip",
            "models/*.md",
        ]
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["espnet2-ext = espnet2_ext.__main__:main"]},
    cmdclass={"build_py": BuildWithRecipes},
)
