"""The dashboard's pages and files: headers, caching, and that nothing is built into a page."""

from __future__ import annotations

import gzip
import re

import pytest
from tests.server.web.running import Running

from unimeter.server.web.dashboard import pages
from unimeter.server.web.dashboard.pages import VIEWS, View

SHELL_VIEWS = [view for view in VIEWS if "{" not in view.path]


def names(folder: str = "") -> list[str]:
    return [name for name in pages.files() if name.startswith(folder)]


@pytest.mark.parametrize("view", SHELL_VIEWS, ids=lambda view: view.name)
def test_a_page_may_run_only_this_nodes_own_files(shared: Running, view: View) -> None:
    reply = shared.http.get(view.path)
    policy = dict(
        part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'" and policy["connect-src"] == "'self'"
    assert policy["base-uri"] == "'none'" and policy["form-action"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    is_framed = view.name == "embed"
    assert (policy["frame-ancestors"] == "*") == is_framed
    assert ("x-frame-options" in reply.headers) != is_framed


@pytest.mark.parametrize("view", SHELL_VIEWS, ids=lambda view: view.name)
def test_a_page_has_no_inline_script_or_style_and_names_no_other_host(
    shared: Running, view: View
) -> None:
    text = shared.http.get(view.path).text
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", text) == []
    assert re.findall(r"https?://", text) == []
    assert "$" not in text
    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', text):
        assert shared.http.get(path).status_code == 200


def test_every_view_has_its_module_and_every_file_is_what_it_is_called() -> None:
    assert {f"views/{view.name}.js" for view in VIEWS} == set(names("views/"))
    kinds = {name.rsplit(".", 1)[1]: pages.files()[name].kind for name in names()}
    assert kinds["js"].startswith("text/javascript") and kinds["css"].startswith("text/css")
    assert kinds["svg"].startswith("image/svg")


def test_no_module_makes_markup_of_text() -> None:
    for name in names():
        if name.endswith(".js") and not name.startswith("vendor/"):
            text = pages.files()[name].data.decode()
            for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(",
                         "new Function", 'setAttribute("style"'):  # fmt: skip
                assert word not in text, f"{name} has {word}"
            assert re.findall(r"https?://(?!www\.w3\.org|example\.com)", text) == [], name


def test_every_module_that_a_view_needs_is_announced() -> None:
    for view in VIEWS:
        text = pages.shell(view).data.decode()
        for name in pages.imported(f"views/{view.name}.js"):
            assert f"/{name}" in text
    assert "api.js" in pages.imported("views/account.js")
    assert "live.js" in pages.imported("views/account.js")  # of a module of its own


def test_a_file_is_kept_for_ever_under_its_hash_and_asked_about_under_another(
    shared: Running,
) -> None:
    now = shared.http.get(f"/static/{pages.version()}/app.css")
    assert "immutable" in now.headers["cache-control"]
    old = shared.http.get("/static/0123456789ab/app.css")
    assert old.content == now.content and old.headers["cache-control"] == "no-cache"
    again = shared.http.get("/", headers={"If-None-Match": shared.http.get("/").headers["etag"]})
    assert again.status_code == 304 and again.content == b""


def test_a_file_is_sent_by_gzip_to_whoever_takes_it(shared: Running) -> None:
    path = f"/static/{pages.version()}/app.css"
    packed = shared.http.get(path, headers={"Accept-Encoding": "gzip"})
    plain = shared.http.get(path, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip" and packed.headers["vary"]
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == pages.files()["app.css"].data
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert gzip.decompress(pages.files()["app.css"].packed) == plain.content


@pytest.mark.parametrize(
    "path", ["shell.html", "nothing.js", "../pages.py", "..%2fpages.py", "vendor/uplot/LICENSE"]
)
def test_what_is_not_for_browsers_is_not_served(shared: Running, path: str) -> None:
    assert shared.http.get(f"/static/x/{path}").status_code == 404


def test_a_vendored_library_says_its_version_and_keeps_its_licence() -> None:
    from importlib import resources

    folder = resources.files("unimeter.server.web.dashboard") / "static" / "vendor" / "uplot"
    said = (folder / "VENDORED.md").read_text()
    version = re.search(r"uPlot \(v([0-9.]+)\)", (folder / "uPlot.iife.min.js").read_text())
    assert version is not None and version[1] in said
    assert "MIT" in (folder / "LICENSE").read_text()


def test_the_first_page_is_light() -> None:
    view = pages.view_of("overview")
    needed = [f"views/{view.name}.js", *pages.imported(f"views/{view.name}.js")]
    needed += ["app.css", "theme.js", "icon.svg"]
    needed += ["vendor/uplot/uPlot.iife.min.js", "vendor/uplot/uPlot.min.css"]
    assert sum(len(pages.files()[name].data) for name in needed) < 150_000
