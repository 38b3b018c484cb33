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
BADGE = re.compile(r"https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/notebooks/([^)\s\"\\]+)")
# Where a text names this repository without a badge: to clone it, and to cite it.
NAMED = re.compile(r"(?:git clone [^\n]*|repository-code: \")https://github\.com/([\w.-]+/[\w.-]+?)(?=\.git|[\s\"])")


def repository() -> str:
    """OWNER/REPO as pyproject.toml has it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def pages() -> list[Path]:
    """The files in which addresses stand."""
    texts = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff")]
    return texts + sorted((PROJECT / "notebooks").glob("*.ipynb"))


def written_names(text: str) -> set[str]:
    """The OWNER/REPO that badges, clone and citation lines give: what this repository was called when written."""
    return {name for name, _ in BADGE.findall(text)} | set(NAMED.findall(text))


def with_address(text: str, old_names: set[str], name: str) -> str:
    """The text with each address of this repository under an old name put under `name`; other addresses stay."""
    for old in old_names - {name}:
        text = re.sub(
            rf"(?<=github\.com/){re.escape(old)}(?![\w-])|(?<=/github/){re.escape(old)}(?=/blob/)", name, text
        )
    return text


def wrong_badges(path: Path) -> list[str]:
    """Badges of a notebook that lead to another notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = "".join(cells[0]["source"]) if cells else ""
    targets = [target for _, target in BADGE.findall(first)]
    return [target for target in targets if target != path.name] if targets else ["nothing: it has none"]


def main(arguments: list[str]) -> int:
    check, name, faults = "--check" in arguments, repository(), []
    old_names = set().union(*(written_names(page.read_text(encoding="utf-8")) for page in pages()))
    for page in pages():
        text = page.read_text(encoding="utf-8")
        mended = with_address(text, old_names, name)
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
