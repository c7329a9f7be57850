"""Members of a zip archive, remote or local: names enter; verified files leave, by a set number of requests.

Zenodo lets a guest make 60 requests a minute and 2,000 an hour, so one request for each of 11,000 prints
would take more than five hours. Neighbours are therefore fetched together, with the bytes between them: for
a given number of requests, joining across the smallest gaps costs the fewest bytes.
"""

import shutil
import zipfile
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise, takewhile
from pathlib import Path, PurePosixPath

from remotezip import PartialBuffer, RemoteZip

from eclip.data.client import CHUNK, Client, FetchError, RangesRefusedError
from eclip.data.download import RemoteFile, disk_errors

SMALLEST_GAP = 1 << 16  # bytes that cost less than another request
LONGEST_SPAN = 1 << 24  # bytes held in memory by one worker
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


@dataclass
class Matches:
    """Which member each wanted name is; the names that several different members have; those of none."""

    found: dict[str, zipfile.ZipInfo] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` (exclusive) of the archive, and the wanted names in them."""

    start: int
    end: int
    names: tuple[str, ...]


class SpanFetcher:
    """What RemoteZip reads through: the span held here, else one range request."""

    def __init__(self, client: Client, file: RemoteFile) -> None:
        self.held: tuple[int, bytes] = (0, b"")
        self._client, self._file = client, file

    def bytes_of(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of the archive, over the network; thread-safe."""
        return b"".join(self._client.stream(self._file.url, start, end))

    def hold(self, archive: RemoteZip, start: int, body: bytes) -> None:
        """Read `archive` from these bytes, which begin at `start`, wherever they suffice."""
        self.held = (start, body)
        archive.fp.buffer = PartialBuffer(BytesIO(b""), 0, 0, False)  # or it would go on in what it read last

    def fetch(self, data_range: tuple[int, int | None], stream: bool = False) -> PartialBuffer:
        """Bytes first to last (inclusive), or the last -first: the record knows the size, so no HEAD."""
        first, last = data_range
        first = first if first >= 0 else max(0, self._file.size + first)
        end = self._file.size if last is None else last + 1
        offset, held = self.held
        inside = offset <= first and end <= offset + len(held)
        body = held[first - offset : end - offset] if inside else self.bytes_of(first, end)
        return PartialBuffer(BytesIO(body), first, len(body), False)


def open_remote(client: Client, file: RemoteFile) -> tuple[RemoteZip, SpanFetcher]:
    """The archive's directory, by range requests (two or so), and the fetcher behind it."""
    fetcher = SpanFetcher(client, file)
    try:
        return RemoteZip(file.url, fetcher=lambda *_, **__: fetcher), fetcher
    except RangesRefusedError as error:
        raise FetchError(f"{error}. Take it whole ({file.size / 1e9:,.1f} GB): --whole-archive") from error
    except zipfile.BadZipFile as error:
        raise FetchError(f"{file.key}: not a zip archive: {error}") from error


def open_local(path: Path) -> zipfile.ZipFile:
    """The archive at `path`; FetchError if it is none."""
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{path}: not a zip archive: {error}") from error


def match(archive: zipfile.ZipFile, names: Iterable[str]) -> Matches:
    """Find each name's member by its last part.

    Where several members share it, those count whose path ends in most of the name's own parts, and copies
    of the same content (size and CRC) are one.
    """
    by_last: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
    for info in archive.infolist():
        if not info.is_dir():
            by_last[PurePosixPath(info.filename).name].append(info)
    matches = Matches()
    for name in names:
        candidates = by_last.get(PurePosixPath(name).name, [])
        if len(candidates) > 1:
            alike = [_common_ending(info.filename, name) for info in candidates]
            candidates = [c for c, parts in zip(candidates, alike, strict=True) if parts == max(alike)]
        if not candidates:
            matches.missing.append(name)
        elif len({(c.file_size, c.CRC) for c in candidates}) > 1:
            matches.ambiguous[name] = sorted(c.filename for c in candidates)
        else:
            matches.found[name] = candidates[0]
    return matches


def _common_ending(path: str, name: str) -> int:
    """How many parts, from the last one on, the two have in common."""
    pairs = zip(reversed(PurePosixPath(path).parts), reversed(PurePosixPath(name).parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def is_good(path: Path, size: int, crc: int) -> bool:
    """Whether the file is there with that size in bytes and that CRC-32."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    actual = 0
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            actual = zlib.crc32(chunk, actual)
    return actual == crc


def extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> str | None:
    """Write the member to `target`, CRC-verified, all or nothing; return what is wrong with its bytes."""
    partial = target.with_name(f"{target.name}.part")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(info) as source, partial.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            partial.replace(target)
        except FetchError:
            raise
        except DAMAGE as error:
            return f"{info.filename}: {error}"
        finally:
            partial.unlink(missing_ok=True)
    return None


def plan(archive: zipfile.ZipFile, wanted: dict[str, zipfile.ZipInfo], max_requests: int) -> list[Span]:
    """Cut the archive into `max_requests` spans that hold all wanted members and the fewest other bytes.

    More only where a span would pass LONGEST_SPAN.
    """
    starts = sorted(info.header_offset for info in archive.infolist())
    ends = dict(zip(starts, [*starts[1:], archive.start_dir], strict=True))
    order = sorted(wanted, key=lambda name: wanted[name].header_offset)
    places = [(wanted[name].header_offset, ends[wanted[name].header_offset]) for name in order]
    gaps = {after: b[0] - a[1] for after, (a, b) in enumerate(pairwise(places), start=1)}
    largest = sorted(gaps, key=lambda after: gaps[after], reverse=True)[: max_requests - 1]
    cuts = {after for after in largest if gaps[after] > SMALLEST_GAP}
    spans: list[Span] = []
    for number, (name, (start, end)) in enumerate(zip(order, places, strict=True)):
        last = spans[-1] if spans else None
        if last and number not in cuts and end - last.start <= LONGEST_SPAN:
            spans[-1] = Span(last.start, max(end, last.end), (*last.names, name))
        else:
            spans.append(Span(start, end, (name,)))
    return spans


def fetched_spans(
    fetcher: SpanFetcher, spans: list[Span], workers: int
) -> Generator[tuple[Span, bytes], None, None]:
    """Yield every span's bytes in order, `workers` of them under way at once and as many waiting."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fetch")
    queue: deque[tuple[Span, Future[bytes]]] = deque()
    try:
        for span in spans:
            queue.append((span, pool.submit(fetcher.bytes_of, span.start, span.end)))
            if len(queue) >= 2 * workers:
                first, future = queue.popleft()
                yield first, future.result()
        while queue:
            first, future = queue.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def extract_spans(
    archive: RemoteZip,
    fetcher: SpanFetcher,
    spans: list[Span],
    wanted: dict[str, zipfile.ZipInfo],
    target_of: Callable[[str], Path],
    workers: int,
    advance: Callable[[int], object],
) -> Iterator[tuple[str, str | None]]:
    """Fetch the spans, write the wanted members, and yield each name with what is wrong with it, if so.

    A member whose bytes are bad is asked for once more, alone, before it counts as damaged. `advance` is
    told the bytes as they come.
    """
    with closing(fetched_spans(fetcher, spans, workers)) as bodies:
        for span, body in bodies:
            advance(len(body))
            for name in span.names:
                fetcher.hold(archive, span.start, body)
                damage = extract(archive, wanted[name], target_of(name))
                if damage:
                    fetcher.hold(archive, 0, b"")
                    damage = extract(archive, wanted[name], target_of(name))
                yield name, damage
