"""The table of all planted bugs in docs/internals/planted.md, made from catalogue and found.toml.

`python -m tests.planted --keep` writes it again; a test says when it has fallen behind. Seeds are
not in it: they change with every change of the product, checkers hardly.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.planted.bug import Bug
from tests.planted.catalogue import BUGS
from tests.planted.finding import ROOT
from tests.planted.kept import kept_seeds

PATH = ROOT / "docs" / "internals" / "planted.md"
BEGIN, END = "<!-- table: written by --keep -->\n", "<!-- end of the table -->\n"
_HEADINGS = {
    "raft": "Raft",
    "storage": "Storage",
    "engine": "Engine",
    "sessions": "Sessions",
    "server": "Server",
    "client": "SDK",
}


def table() -> str:
    """Every bug by what it is of: its name, what goes wrong, who finds it."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    kept = kept_seeds()
    for kind, heading in _HEADINGS.items():
        bugs = [bug for bug in BUGS if bug.kind == kind]
        yield f"\n### {heading}\n\n| bug | what goes wrong | found by |\n|---|---|---|"
        for bug in bugs:
            seed = kept.get(bug.name)
            finder = f"seeds: `{seed.checker}`" if seed else _test_of(bug)
            yield f"| `{bug.name}` | {bug.story} | {finder} |"


def _test_of(bug: Bug) -> str:
    assert bug.test is not None
    path, _, name = bug.test.node_id.partition("::")
    link = f"../../{path}"
    if name:
        return f"[`{name}`]({link})"
    return f"[`{path.rpartition('/')[2]}`]({link})"


def page_with(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + "\n" + END + after


def write_page() -> None:
    """Write the table again."""
    text = PATH.read_text(encoding="utf-8")
    PATH.write_text(page_with(text), encoding="utf-8")
