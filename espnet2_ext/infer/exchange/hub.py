"""Bundles by name from huggingface.co, and as such a repository."""

import logging
import re
from pathlib import Path

from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.util.documents import dump_yaml, mapping, parse_yaml
from espnet2_ext.util.files import write_text
from espnet2_ext.util.names import bundle_file

BUNDLE, PAGE = "model.zip", "README.md"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?<!\.zip)")
HEAD = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
TAGS = ["audio", "sound-separation", "source-separation", "espnet", "espnet2_ext"]
USE = {
    "qsep": """```python
from espnet2_ext.infer.query_separator import Separator

separator = Separator.from_pretrained("OWNER/{name}")
result = separator("mix.wav", query="example.wav")  # result.target, result.residual, result.fs
```""",
    "weak": """```python
from espnet2_ext.infer.class_separator import WeakSeparator

separator = WeakSeparator.from_pretrained("OWNER/{name}")
separator.separate(mix, fs)  # an output for each of separator.outputs
```""",
}
LIMITS = {
    "qsep": "A sound unlike those of the training may be separated poorly. Sounds of one kind are not told apart.",
    "weak": "Only the classes of the training are separated: {classes}.",
}


def located(name: str | Path, revision: str | None = None) -> str:
    """The file of a bundle: `name` itself, `starter`, the bundle in the folder `name`, or that of a repository
    `OWNER/NAME` of huggingface.co (its `model.zip`, kept in the hub's own cache).

    Raises:
        BundleError: a folder with no bundle, or several; no network, package or repository.
    """
    path = Path(bundle_file(name))
    if path.is_dir():
        found = [path / BUNDLE] if (path / BUNDLE).is_file() else sorted(path.glob("*.zip"))
        if len(found) != 1:
            raise BundleError(f"{path}: holds {len(found)} bundles (.zip); name the file")
        return str(found[0])
    if path.exists() or not REPOSITORY.fullmatch(str(name)) or path.parent.is_dir():
        return str(path)
    lacks = f"{name}: no such file or folder; as a name of huggingface.co,"
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as e:
        raise BundleError(f"{lacks} it needs a package: pip install huggingface_hub") from e
    logging.info("%s: no such file or folder; it is looked for on huggingface.co", name)
    log = logging.getLogger("huggingface_hub")
    told = log.level
    log.setLevel(logging.ERROR)  # it warns of each try
    try:
        return hf_hub_download(str(name), BUNDLE, revision=revision)
    except Exception as e:  # of the network, the hub or the cache: many types
        raise BundleError(f"{lacks} it gave no {BUNDLE} ({type(e).__name__}: {str(e).strip().splitlines()[0]})") from e
    finally:
        log.setLevel(told)


def write_page(folder: str | Path) -> None:
    """Write the model card `folder/README.md` of the bundle `folder/model.zip`, unless there is one.

    Its head comes from the bundle's card, and from `license` and `tags` in bundle.yaml; sections on use, training data,
    scores and limits are added where the card has none.

    Raises:
        DataError: nothing says what the licence is.
    """
    folder = Path(folder)
    if (folder / PAGE).exists():
        logging.info("%s: is kept; without it, a new one is written", folder / PAGE)
        return
    with open_bundle(folder / BUNDLE) as bundle:
        info, card, labels = bundle.info, bundle.card(), bundle.labels
    write_text(folder / PAGE, page(info, card, [label.name for label in labels], str(folder / BUNDLE)))


def page(info: dict, card: str, classes: list[str], where: str) -> str:
    """The model card as the hub wants it: YAML between `---`, then Markdown."""
    own = HEAD.match(card)
    head = mapping(parse_yaml(own[1], f"{where}: card.md"), f"{where}: card.md") if own else {}
    task, name = info["task"], str(info.get("name"))
    head = {"tags": TAGS, "library_name": "espnet", "pipeline_tag": "audio-to-audio"} | head
    head = {"license": info.get("license"), **head}
    if not head["license"]:
        raise DataError(f"{where}: under what licence are the weights? --info FACTS.yaml with `license: cc-by-4.0`")
    text = card[own.end() :] if own else card
    text = text.strip() or f"# {name}\n\nA model of espnet2_ext at {info.get('fs')} Hz."
    headings = [line.removeprefix("## ").strip().lower() for line in text.splitlines() if line.startswith("## ")]
    listed = ", ".join(classes[:50]) + ", ..." * (len(classes) > 50)
    sections = {
        "Use": USE[task].format(name=name),
        "Training data": _shown(info.get("trained_on")),
        "Scores": _shown(info.get("results")),
        "Limits": LIMITS[task].format(classes=listed) + f" What lies above {info.get('fs', 0) // 2} Hz is not touched.",
    }
    added = "".join(f"\n\n## {title}\n\n{s}" for title, s in sections.items() if title.lower() not in headings)
    return f"---\n{dump_yaml(head)}---\n{text}{added}\n"


def _shown(facts: object) -> str:
    """What bundle.yaml says of something."""
    return "Not stated." if not facts else facts if isinstance(facts, str) else f"```yaml\n{dump_yaml(facts)}```"
