"""One run over one file: read a batch, send it, write down how far it went.

The order of those steps makes it safe to stop anywhere. A crash after the send
and before the note sends the batch again, and its ids make every line of it a
duplicate. Progress is noted before the first send too, because it holds the
time that lines without one are given, and a line sent again with another time
would be a conflict instead of a duplicate.

A run answers for every line: counted, or named with what to do. With `stops`
it ends at the first line that can't be counted; the mended file goes on there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from unimeter.cli import progress
from unimeter.cli.fields import Fields
from unimeter.cli.output import say
from unimeter.cli.pipe import Pipe
from unimeter.cli.progress import Progress, ProgressFile
from unimeter.cli.rows import Format, Row, Source
from unimeter.errors import InvalidInputError
from unimeter.types import Event, IngestResult

BATCH_EVENTS = 4096
"""Events of one request: half of what a node accepts, sent in a few milliseconds."""

SAVE_SECONDS = 1.0
"""How often progress is written; what lies between is sent again after a crash."""

PIPE_WAIT_SECONDS = 0.5
"""The longest that a line read from a pipe waits for others to share its batch."""

STDIN = "-"


class Meter(Protocol):
    """What a run needs of a client."""

    def ingest(self, events: list[Event]) -> IngestResult:
        """Send a batch and wait until it is stored."""
        ...


@dataclass(frozen=True)
class Plan:
    """The options of a run that are the same for all its files."""

    fields: Fields
    form: Format | None = None
    delimiter: str | None = None
    target: str = ""  # which cluster: progress made with one says nothing of another
    stops: bool = True  # at the first line that can't be counted
    restarts: bool = False
    name: str = ""  # a pipe's identity; told apart from a file's content
    progress_path: Path | None = None  # None: beside the file
    keeps_progress: bool = True
    rejects: BinaryIO | None = None
    batch_events: int = BATCH_EVENTS


@dataclass
class Counts:
    """What became of the lines of one run."""

    lines: int = 0  # records read
    stored: int = 0
    duplicates: int = 0
    refused: int = 0  # by the node
    skipped: int = 0  # not events


class FileRun:
    """One file from where it was left to its end."""

    def __init__(self, plan: Plan, name: str, stream: BinaryIO | Pipe, meter: Meter | None) -> None:
        self.name, self.counts, self.stopped_at = name, Counts(), 0
        self.label = "stdin" if name == STDIN else name
        self._plan, self._stream, self._meter = plan, stream, meter
        self._saved = time.monotonic()
        self._file = ProgressFile(self._progress_path())
        self._key = f"{plan.fields.digest()} {plan.name} {plan.target}"
        self.progress = self._begin()
        self.source = self._open()
        self.resumed_at = self.progress.line + 1 if self.progress.offset else 0

    def run(self, advance: Callable[[], None]) -> None:
        """Until the end of the file, or until `stopped_at` names a line."""
        self._save()
        try:
            for batch in self._batches():
                self.counts.lines += len(batch)
                self._take(batch)
                advance()
                if self.stopped_at:
                    return
                if time.monotonic() - self._saved >= SAVE_SECONDS:
                    self._save()
        finally:
            self._save()

    def _progress_path(self) -> Path | None:
        if self._meter is None or not self._plan.keeps_progress:
            return None
        if isinstance(self._stream, Pipe):
            return self._plan.progress_path if self._plan.name else None
        return self._plan.progress_path or Path(self.name + progress.SUFFIX)

    def _begin(self) -> Progress:
        """The run to go on with, or a new one."""
        digest = self._plan.fields.digest()
        if isinstance(self._stream, Pipe):
            # A pipe has no content to be known by before it is read.
            identity = progress.named_identity(digest, self._plan.name or uuid.uuid4().hex)
        else:
            identity = progress.identity_of(self._stream, digest, self._plan.name)
        found = self._file.find(self._key)
        if found is None:
            return Progress(identity, time.time_ns())
        if found.identity == identity:
            # The same content keeps its time, so that lines without one stay duplicates.
            return Progress(identity, found.begun_ns) if self._plan.restarts else found
        if self._plan.restarts or not (found.offset or found.stored or found.duplicates):
            return Progress(identity, time.time_ns())
        return found

    def _open(self) -> Source:
        """The rows still to be read; refuses if those before are not as they were."""
        plan, found = self._plan, self.progress
        begun_ns = plan.fields.begun_ns or found.begun_ns
        if isinstance(self._stream, Pipe) and self._progress_path() is None:
            begun_ns = plan.fields.begun_ns  # 0: a live pipe's lines happen as they come
        form = plan.form or format_of(self.name, self._stream)
        delimiter = plan.delimiter or ("\t" if self.name.endswith(".tsv") else ",")
        fields = replace(plan.fields, begun_ns=begun_ns)
        source = Source(self._stream, form, fields, found.identity, delimiter)
        if found.offset:
            source.skip_to(found.offset, found.line)
            progress.check_same(Path(self.name), found, source.digest(), source.offset)
        return source

    def _batches(self) -> Iterator[list[Row]]:
        """Rows in batches; a slow pipe's rows do not wait for a batch to fill."""
        batch: list[Row] = []
        since = 0.0
        rows = self.source.rows()
        while True:
            if batch and isinstance(self._stream, Pipe):
                left = max(0.0, since + PIPE_WAIT_SECONDS - time.monotonic())
                if not left or not self._stream.ready(left):
                    yield batch
                    batch = []
            row = next(rows, None)
            if row is None:
                break
            since = since if batch else time.monotonic()
            batch.append(row)
            if len(batch) >= self._plan.batch_events:
                yield batch
                batch = []
        if batch:
            yield batch

    def _take(self, batch: list[Row]) -> None:
        """Answer for a batch, or for its rows before the one to stop at."""
        bad = next((row for row in batch if row.problem), None) if self._plan.stops else None
        rows = batch if bad is None else batch[: batch.index(bad)]
        faults = {row.line: (row, row.problem) for row in rows if row.problem}
        self.counts.skipped += len(faults)
        self.progress.skipped += len(faults)
        refused = self._send([row for row in rows if not row.problem], faults)
        for _, (row, what) in sorted(faults.items()):
            self._reject(row, what)
        if refused is not None and self._plan.stops:
            return self._stop(refused)
        if bad is not None:
            self.counts.skipped += 1
            say(f"{self.label}:{bad.line}: {bad.problem}")
            return self._stop(bad)
        last = batch[-1]
        if last.raw.endswith(b"\n"):
            self._mark(last.end, self.source.line)
        elif not isinstance(self._stream, Pipe):
            # A last line without an end may still grow; then it must be read again.
            self._mark(last.start, last.line - 1)

    def _send(self, rows: list[Row], faults: dict[int, tuple[Row, str]]) -> Row | None:
        """Send rows; add those the node refused to `faults` and return the first."""
        if not rows or self._meter is None:
            return None
        result = self._meter.ingest([row.event for row in rows if row.event is not None])
        for held in (self.counts, self.progress):
            held.stored += result.n_stored
            held.duplicates += result.n_duplicates
        self.counts.refused += result.n_refused
        if not self._plan.stops:
            self.progress.refused += result.n_refused
        for refusal in result.refusals:
            row = rows[refusal.index]
            faults[row.line] = (row, refusal.message)
        if result.n_refused > len(result.refusals):
            say(
                f"{self.label}:{rows[0].line}-{rows[-1].line}: {result.n_refused} events were "
                f"refused and {len(result.refusals)} of them named; run again to be told all"
            )
        if not result.n_refused:
            return None
        return rows[result.refusals[0].index] if result.refusals else rows[0]

    def _reject(self, row: Row, what: str) -> None:
        """Name a line that is not counted and keep it if asked."""
        say(f"{self.label}:{row.line}: {what}")
        if self._plan.rejects is not None and not self._plan.stops:
            self._plan.rejects.write(row.raw if row.raw.endswith(b"\n") else row.raw + b"\n")

    def _stop(self, row: Row) -> None:
        self.stopped_at = row.line
        self._mark(row.start, row.line - 1)

    def _mark(self, offset: int, line: int) -> None:
        """All rows before `offset` are answered for."""
        if offset == self.source.offset:
            digest = self.source.digest()
        elif isinstance(self._stream, Pipe):
            return  # it can't be read again; what is sent twice is recognised by its id
        else:
            digest = progress.prefix_digest(self._stream, offset)
        found = self.progress
        found.offset, found.line, found.digest = offset, line, digest

    def _save(self) -> None:
        self._file.save(self._key, self.progress)
        self._saved = time.monotonic()


def format_of(name: str, stream: BinaryIO | Pipe) -> Format:
    """CSV or NDJSON, by the name's ending or else by the first character."""
    if name.endswith((".csv", ".tsv")):
        return "csv"
    if name.endswith((".ndjson", ".jsonl", ".json")):
        return "ndjson"
    if isinstance(stream, Pipe):
        start = stream.peek()
    else:
        start = stream.read(64)
        stream.seek(0)
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        raise InvalidInputError(
            f"{name} is a JSON array; write one object per line, as `jq -c '.[]'` does"
        )
    return "ndjson" if start.startswith(b"{") else "csv"
