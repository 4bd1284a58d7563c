"""README and docs: links and commands exist, the README is short, its code runs as it stands."""

import re
from pathlib import Path

import pytest

from espnet2_ext.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("egs2/*/README.md")])
NAMES = {name for commands in COMMANDS.values() for name in commands}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_modules_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"espnet2-ext ([a-z][\w-]*)", text):
        assert name in NAMES, name
    for module in re.findall(r"python -m espnet2_ext\.([\w.]*\w)", text):
        assert (ROOT / "espnet2_ext" / f"{module.replace('.', '/')}.py").is_file(), module
    for config in re.findall(r"(?<![\w/.])(?:\.\./\.\./)?(conf/[\w/]+\.yaml)", text):
        assert (ROOT / config).is_file() or f"\n# {config}\n" in text, config  # CONTRIBUTING makes its own


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1200


def test_readme_code_runs_as_it_stands():
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    for code in snippets:
        names: dict = {}
        exec(code, names)
        assert names["masks"].grad.abs().sum() > 0
