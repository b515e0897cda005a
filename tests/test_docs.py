"""The documentation, tested: links lead somewhere, commands exist, the README's example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unimeter.cli.main import VERBS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SKIPPED = {".git", ".venv", "build", "node_modules", "unimeter-data"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not SKIPPED & set(page.relative_to(ROOT).parts[:-1])
    and not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
DECISION_LINES_MAX = 60
DECISION_SECTIONS = ["Context", "Choice", "Price", "What would change it"]
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
# A path of somebody's machine has no place in a document or a source.
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|home|root|Users|opt)/\w")


def page_id(page: Path) -> str:
    """Name a page in test output."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings make, as GitHub makes them."""
    found = set()
    for line in FENCED.sub("", page.read_text(encoding="utf-8")).splitlines():
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(words.replace(" ", "-"))
    return found


def links(page: Path) -> list[str]:
    """Return what a page links to inside this repository."""
    found = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page_id(page)} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page_id(page)}: no heading for {link}"


def test_every_test_that_a_page_names_exists() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name, link in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", text):
            source = (page.parent / link).read_text(encoding="utf-8")
            assert f"def {name}(" in source, f"{page_id(page)}: no {name} in {link}"


def test_every_page_is_reached_from_the_front_page() -> None:
    todo, seen = [DOCS / "README.md"], set()
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
        pages = [target / "README.md" if target.is_dir() else target for target in targets]
        todo.extend(page for page in pages if page.exists())
    missed = [page_id(page) for page in PAGES if page.is_relative_to(DOCS) and page not in seen]
    assert not missed, f"docs/README.md does not lead to {missed}"


@pytest.mark.parametrize("folder", ["docs", "src", "examples", "tests", "scripts", ".ci"])
def test_no_path_of_a_machine_is_written_anywhere(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in {".md", ".py", ".pxd", ".txt", ".toml", ""} and path.is_file():
            found = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{page_id(path)} names {found and found[0]}"


@pytest.mark.parametrize("page", DECISIONS, ids=page_id)
def test_decision_has_its_four_parts_and_is_short(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == DECISION_SECTIONS
    assert len(text.splitlines()) < DECISION_LINES_MAX
    assert f"]({page.name})" in (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


def test_readme_names_only_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", text))
    assert named and named <= targets
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
    verbs = set(re.findall(r"^\$? ?unimeter ([a-z]+)", blocks, re.MULTILINE))
    assert verbs and verbs <= set(VERBS)


def test_readme_shows_a_command_and_its_output_in_the_first_twenty_lines() -> None:
    head = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20]
    assert any(line.startswith("$ ") for line in head)


FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUNNING_PAGES = [
    page
    for page in PAGES
    if page.is_relative_to(DOCS / "start") or page.is_relative_to(DOCS / "concepts")
]


def page_program(page: Path) -> tuple[str, str]:
    """Return a page's Python blocks as one program, and all that the page says they print."""
    fences = FENCE.findall(page.read_text(encoding="utf-8"))
    code = "".join(body for language, body in fences if language == "python")
    return code, "".join(body for language, body in fences if language == "text")


@pytest.mark.parametrize("page", RUNNING_PAGES, ids=page_id)
def test_examples_of_a_page_print_what_the_page_says(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    code, expected = page_program(page)
    if not code:
        return
    if "localhost:7001" in code:
        code = code.replace("localhost:7001", request.getfixturevalue("node").address)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (run.stdout, run.stderr) == (expected, "")


def readme_example() -> tuple[str, str]:
    """Return the README's first Python block and the output written under it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", text, re.DOTALL)
    assert found is not None, "the README has no python block followed by a text block"
    return found[1], found[2]


def test_readme_example_prints_what_the_readme_says(request: pytest.FixtureRequest) -> None:
    code, expected = readme_example()
    assert "localhost:7001" in code
    node = request.getfixturevalue("node")
    code = code.replace("localhost:7001", node.address)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (run.stdout, run.stderr) == (expected, "")


def test_readme_example_is_at_most_five_lines_after_the_import() -> None:
    code, _ = readme_example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
