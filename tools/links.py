"""Write the repository's address, which only pyproject.toml knows, into every badge, clone and citation line.

python tools/links.py            write
python tools/links.py --check    only say what is not in step; exit status 1 if anything is
"""

import json
import re
import sys
import tomllib
from pathlib import Path

from skinlib.files import write_text

PROJECT = Path(__file__).resolve().parent.parent
NAME = r"[\w.-]+/[\w.-]+?"
# Each pattern marks a place where an address stands; its one group is OWNER/REPO.
PLACES = (
    re.compile(rf"https://colab\.research\.google\.com/github/({NAME})/blob/main/notebooks/"),
    re.compile(rf"https://github\.com/({NAME})(?=\.git\b|/actions/|[\s\"')\\]|$)", re.MULTILINE),
)
BADGE = re.compile(r"https://colab\.research\.google\.com/github/[^)\s\"]+/notebooks/([^)\s\"]+)")


def repository() -> str:
    """OWNER/REPO as pyproject.toml has it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def pages() -> list[Path]:
    """The files in which addresses stand."""
    texts = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff")]
    return texts + sorted((PROJECT / "notebooks").glob("*.ipynb"))


def with_address(text: str, name: str) -> str:
    """The text with every address of this repository replaced by `name`."""
    for place in PLACES:
        text = place.sub(lambda match: match.group(0).replace(match.group(1), name, 1), text)
    return text


def wrong_badges(path: Path) -> list[str]:
    """Badges of a notebook that lead to another notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = "".join(cells[0]["source"]) if cells else ""
    return [target for target in BADGE.findall(first) if target != path.name] or (
        [] if BADGE.search(first) else ["no badge"]
    )


def main(arguments: list[str]) -> int:
    check, name, faults = "--check" in arguments, repository(), []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        mended = with_address(text, name)
        if mended != text and check:
            faults.append(f"{page.name}: an address is not {name}; run `make links`")
        elif mended != text:
            write_text(page, mended)
            print(f"wrote {name} into {page.name}")
        if page.suffix == ".ipynb":
            faults += [f"{page.name}: its badge leads to {target}" for target in wrong_badges(page)]
    print("\n".join(faults) or f"all addresses are of {name}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
