"""No secret in what a node writes: its lines, its log, its snapshots, its answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from unimeter import AggType, Client, Event, MetricSchema, Scope
from unimeter.demo.process import NodeProcess
from unimeter.errors import UnauthenticatedError, UnimeterError
from unimeter.keys import new_key

EXIT_CONFIG = 2


def secret_of(key: str) -> str:
    """What nobody but its owner may have."""
    return key.split("_", 2)[2]


@pytest.fixture
def static(tmp_path: Path) -> tuple[str, Path]:
    """A key of scope admin in a file."""
    key, path = new_key(os.urandom), tmp_path / "admin.key"
    path.write_text(key + "\n")
    return key, path


@pytest.fixture
def locked(tmp_path: Path, static: tuple[str, Path]) -> Iterator[NodeProcess]:
    """A node with a key in a file, that says as much as it can."""
    options = ("--admin-key-file", str(static[1]), "--access-log", "yes", "--log-format", "json")
    started = NodeProcess(tmp_path / "node", *options)
    started.start()
    try:
        yield started
    finally:
        started.kill()


def test_no_secret_gets_into_output_files_or_answers(
    locked: NodeProcess, static: tuple[str, Path]
) -> None:
    key, path = static
    url = f"http://127.0.0.1:{locked.http_port}"
    secrets, answers = [secret_of(key)], []
    with Client([locked.address], key=key) as client:
        assert key not in repr(client) and key not in repr(vars(client))
        secrets.append(secret_of(client.keys.create("root", [Scope.ADMIN]).key))
        made = client.keys.create("reader", [Scope.READ])
        gone = client.keys.create("gone", [Scope.READ])
        client.keys.revoke(gone.record.id)
        client.metrics.create(MetricSchema("calls", AggType.COUNT))
        client.ingest([Event("acme", "calls")])
        answers += [repr(client.keys.list()), repr(client.audit()), repr(made.record)]
    with Client([locked.address], key=made.key) as reader:
        portal = reader.portal_token("acme", ["calls"], timedelta(minutes=5))
    secrets += [secret_of(made.key), secret_of(gone.key), portal.rpartition(".")[2]]
    for wrong in (gone.key, made.key[:-3] + "aaa", "um_nonsense_butlongenough", portal):
        secrets.append(wrong.rpartition("." if "." in wrong else "_")[2])
        with pytest.raises(UnimeterError) as found:
            Client([locked.address], key=wrong).connect()
        answers.append(str(found.value) + repr(found.value))
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url) as http:
        by_http = http.post("/v1/keys", json={"name": "h", "scopes": ["read"]}, headers=headers)
        secrets.append(secret_of(by_http.json()["key"]))
        session = http.post("/v1/session", json={"key": key}).headers["set-cookie"]
        secrets.append(session.split(";")[0].rpartition(".")[2])
        for token in (portal, made.key, gone.key):
            asked = {"account": "acme", "metric": "calls", "token": token}
            answers.append(http.get("/v1/totals", params=asked).text)
            answers.append(http.get(f"/v1/keys/{token}", headers=headers).text)
            answers.append(http.delete(f"/v1/keys/{token}", headers=headers).text)
        answers.append(http.get("/v1/keys", headers=headers).text)
        answers.append(http.get("/v1/audit", headers=headers).text)
        answers.append(http.get("/metrics", headers=headers).text)
    asked_by_command = subprocess.run(
        [sys.executable, "-m", "unimeter", "query", "acme", "calls", "--server", locked.address,
         "--key-file", str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    answers.append(asked_by_command.stdout + asked_by_command.stderr)
    assert locked.terminate() == 0  # writes a last snapshot
    written = {
        place: place.read_bytes() for place in locked.directory.rglob("*") if place.is_file()
    }
    assert len(written) > 2
    written[locked.output] = locked.output.read_bytes()
    assert len(written[locked.output].splitlines()) > 10, "it did say something"
    for secret in secrets:
        assert len(secret) > 7
        for place, data in written.items():
            assert secret.encode() not in data, place
        for answer in answers:
            assert secret not in answer, answer
    assert b"Traceback" not in written[locked.output]


def test_a_node_for_other_hosts_does_not_start_without_a_key(
    tmp_path: Path, static: tuple[str, Path]
) -> None:
    node = NodeProcess(tmp_path / "node", "--bind", "0.0.0.0")
    ended = subprocess.run(node.command(), capture_output=True, text=True, timeout=60)
    assert ended.returncode == EXIT_CONFIG
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    for way in ("unimeter keys create", "--admin-key-file", "--insecure"):
        assert way in ended.stderr
    for options in (["--insecure"], ["--admin-key-file", str(static[1])]):
        node = NodeProcess(tmp_path / "node", "--bind", "0.0.0.0", *options)
        node.output.unlink(missing_ok=True)
        node.start()
        said = node.output.read_text()
        assert ("anybody who reaches it" in said) == (options == ["--insecure"]), said
        assert node.terminate() == 0


def test_a_new_key_in_the_file_replaces_the_old_one_at_a_signal(
    locked: NodeProcess, static: tuple[str, Path]
) -> None:
    key, path = static
    newer = new_key(os.urandom)
    client = Client([locked.address], key=key)
    client.metrics.list()
    path.write_text(newer)
    assert locked.process is not None
    locked.process.send_signal(signal.SIGHUP)
    while "holds another key" not in locked.output.read_text():
        assert locked.is_running
    with Client([locked.address], key=newer) as other:
        other.metrics.list()
    with pytest.raises(UnauthenticatedError):
        client.metrics.list()
    client.close()
