"""Administration on disk: recovered, verified, and explained without a secret in sight."""

from __future__ import annotations

from tests.storage.meter import PATH, Meter

from unimeter.control import Actor, WebhookRecord
from unimeter.control_json import key_json, webhook_json
from unimeter.engine import entries
from unimeter.engine.catalog import put_body
from unimeter.keys import KeyRecord, Scope
from unimeter.storage.inspect import inspect
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.verify import verify
from unimeter.types import AggType, Event, MetricSchema

OPS = Actor("aaaaaaaaaaaa", "ops", "http", "10.0.0.9")
KEY = KeyRecord("a" * 12, "the first", (Scope.ADMIN,), b"v" * 32, b"p" * 32)
SECRET = "whsec_" + "S" * 44
HOOK = WebhookRecord("wh_" + "a" * 12, "https://example.com/hook", SECRET)


def written() -> Meter:
    """A directory with a snapshot in the middle of administration, and more after it."""
    meter = Meter(MemoryDisk())
    put = put_body(MetricSchema("m", AggType.SUM))
    meter._commit(entries.ON_BEHALF, entries.on_behalf_body(OPS, entries.METRIC_PUT, put))
    key = key_json(KEY, with_hashes=True)
    meter._commit(entries.ADMIN, entries.admin_body("key.put", OPS, key=key))
    meter.ingest([Event(1, "m", 5)])
    meter.snapshot()
    hook = webhook_json(HOOK, with_secret=True)
    meter._commit(entries.ADMIN, entries.admin_body("webhook.put", OPS, webhook=hook))
    meter._commit(entries.ADMIN, entries.admin_body("key.revoke", OPS, id="b" * 12))
    meter._commit(entries.ADMIN, b"no change at all")
    meter._commit(entries.ON_BEHALF, entries.on_behalf_body(OPS, entries.METRIC_DELETE, b"m"))
    return meter


def test_a_start_finds_all_of_it_in_the_snapshot_and_the_log() -> None:
    meter = written()
    meter.close()
    again = Meter(meter.opened.disk)
    assert again.machine.administration.encode() == meter.machine.administration.encode()
    assert list(again.machine.administration.keys) == [KEY.id]
    assert again.machine.administration.webhooks[HOOK.id].secret == SECRET
    assert [record.action for record in again.machine.administration.audit] == [
        "metric.put",
        "key.put",
        "webhook.put",
        "key.revoke",
        "invalid",
        "metric.delete",
    ]


def test_verify_replays_it() -> None:
    meter = written()
    meter.close()
    report = verify(PATH, disk=meter.opened.disk)
    assert report.ok, report
    assert report.state_hash == meter.machine.state_hash()


def test_inspect_explains_each_change_and_shows_no_secret() -> None:
    meter = written()
    details = [row.detail for row in inspect(PATH, disk=meter.opened.disk) if row.what == "entry"]
    ops = "key aaaaaaaaaaaa (ops) by http from 10.0.0.9"
    for words in (
        f"{ops}: put metric 'm', SUM",
        f"{ops}: delete metric 'm'",
        f"{ops}: key.put {{",
        f'{ops}: key.revoke {{"id":"bbbbbbbbbbbb"}}',
        '"url":"https://example.com/hook"',
        "admin that can't be read: the body is not JSON",
    ):
        assert any(words in detail for detail in details), words
    shown = "".join(details)
    assert not any(secret in shown for secret in (SECRET, "whsec", "76" * 32, "70" * 32))
