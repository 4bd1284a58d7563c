"""What the package carries: folders of recipes and configurations, and a trained model."""

import os
from pathlib import Path

STARTER = "starter"  # what the model in the package is called
PACKAGE = Path(__file__).resolve().parents[1]
MODELS = PACKAGE / "models"


def shipped(name: str) -> Path:
    """The project's folder `egs2` or `conf`: in the installed package, or at the top of a checkout.

    Raises:
        FileNotFoundError: it is in neither.
    """
    for top in (PACKAGE, PACKAGE.parent):
        if (top / name).is_dir():
            return top / name
    raise FileNotFoundError(f"{PACKAGE}: the package was installed without its folder {name}")


def bundle_file(name: str | os.PathLike) -> str:
    """The file of a bundle: `name`, or for `starter` that in the package, which an installation may lack."""
    ours = str(name) == STARTER and not os.path.exists(name)
    return str(MODELS / f"{STARTER}.zip") if ours else str(name)
