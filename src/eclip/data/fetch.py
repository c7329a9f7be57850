"""Ukiyo-eVG: a Zenodo record enters; annotations, the prints they name and a report leave."""

import fcntl
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from eclip.data.client import Client, FetchError, NoNetworkError
from eclip.data.download import RemoteFile, disk_errors, download, write_json
from eclip.data.fetch_report import ANNOTATIONS, Report
from eclip.data.members import Span, extract, extract_spans, is_good, match, open_local, open_remote, plan

RECORD_URL = "https://zenodo.org/api/records/13120879"
IMAGE_ARCHIVE = "images_ukiyo-e.zip"
SMALL_ARCHIVE = 1 << 25  # bytes up to which an archive is had whole, under its md5, rather than by ranges
LONGEST_NAME = 230  # bytes; file systems take 255, and a partial file's name is longer
REPORT, MANIFEST = "fetch_report.json", "images.crc.json"


def fetch_ukiyoe_vg(
    root: Path,
    *,
    client: Client,
    record_url: str = RECORD_URL,
    image_archive: str = IMAGE_ARCHIVE,
    workers: int = 4,
    max_requests: int = 1500,
    whole_archive: bool = False,
    console: Console | None = None,
    report: Report | None = None,
) -> Report:
    """Have Ukiyo-eVG under `root`, fetching only what is not there yet.

    The prints come out of `image_archive` by about `max_requests` range requests, or, with `whole_archive`,
    out of the archive itself, kept under `root/archives`. `report` (also `root/fetch_report.json`) is filled
    in even when a FetchError ends the fetch. Bars and remarks go to `console`; None is silent.
    """
    report = report if report is not None else Report()
    with locked(root), _progress(console) as progress:
        task = _Fetch(root, client, progress, report, whole_archive)
        try:
            _reach(client, record_url, task)
            files = parse_record(client.json(record_url), record_url)
            task.annotations([file for file in files if file.key != image_archive])
            names = task.named_prints()
            archive = next((file for file in files if file.key == image_archive), None)
            if archive is None:
                keys = ", ".join(file.key for file in files)
                raise FetchError(
                    f"{record_url} has no {image_archive}, only {keys}: name it with --image-archive"
                )
            task.prints(archive, names, workers, max_requests)
        finally:
            report.requests, report.received_bytes = client.requests, client.received
            write_json(root / REPORT, asdict(report) | {"complete": report.complete})
    return report


def parse_record(record: Any, url: str) -> list[RemoteFile]:
    """The files of a Zenodo record as its REST API describes them; FetchError with what is wrong at `url`."""
    entries = record.get("files") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise FetchError(
            f"{url} lists no files: is it a Zenodo record (…/api/records/<id>) with open access?"
        )
    files = []
    for entry in entries:
        try:
            kind, md5 = entry["checksum"].split(":")
            address = entry["links"].get("content") or entry["links"]["self"]
            if kind != "md5" or not address.startswith(("http://", "https://")):
                raise ValueError("an md5 checksum and an http address are needed")
            files.append(RemoteFile(str(entry["key"]), int(entry["size"]), md5.lower(), address))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FetchError(f"{url}: a file entry cannot be used ({error!r}): {str(entry)[:200]}") from error
    return files


def is_safe(name: str) -> bool:
    """Whether a file of that name stays inside the folder it is written to, on any system."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or set(name) & set("\\:"):
        return False
    return name.isprintable() and all(len(part.encode()) <= LONGEST_NAME for part in path.parts)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold `root` for this process; FetchError where another one is fetching into it."""
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".fetch.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchError(f"{root}: another process is fetching into it; wait for it or end it") from error
        yield


def _reach(client: Client, url: str, task: "_Fetch") -> None:
    try:
        client.reach(url)
    except NoNetworkError:
        task.survey()
        raise


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console or Console(quiet=True))


@dataclass
class _Fetch:
    """One fetch under way: the steps share where things go and what has been seen."""

    root: Path
    client: Client
    progress: Progress
    report: Report
    whole_archives: bool

    def annotations(self, files: list[RemoteFile]) -> None:
        """Fetch the annotation files that are among `files` or inside the zip archives among them."""
        missing = self.report.missing_annotations
        for file in files:
            name = PurePosixPath(file.key).name
            if name in missing:
                self._whole(file, self.root / ANNOTATIONS[name])
                self._found(name, file.key)
        for file in files:
            if missing and file.key.endswith(".zip"):
                self._annotations_inside(file)
        if not self.report.annotations:
            seen = ", ".join(file.key for file in files) or "nothing else"
            raise FetchError(f"none of {', '.join(ANNOTATIONS)} is in the record or in its archives ({seen})")

    def _annotations_inside(self, file: RemoteFile) -> None:
        with ExitStack() as stack:
            archive: zipfile.ZipFile
            if file.size <= SMALL_ARCHIVE or self.whole_archives:
                archive = stack.enter_context(open_local(self._kept(file)))
            else:
                archive = stack.enter_context(open_remote(self.client, file)[0])
            matches = match(archive, [ANNOTATIONS[name] for name in self.report.missing_annotations])
            for path, info in matches.found.items():
                target = self.root / path
                damage = None
                if not is_good(target, info.file_size, info.CRC):
                    damage = extract(archive, info, target)
                if damage:
                    raise FetchError(f"{file.key}: damaged member {damage}")
                self._found(target.name, f"{file.key}: {info.filename}")
            self.report.ambiguous |= matches.ambiguous

    def _found(self, name: str, where: str) -> None:
        self.report.annotations[name] = where
        self.report.missing_annotations.remove(name)

    def named_prints(self) -> list[str]:
        """The file names in the annotation lines, each once, without those that would leave the folder."""
        names: dict[str, None] = {}
        for name in self.report.annotations:
            with (self.root / ANNOTATIONS[name]).open(encoding="utf-8", errors="replace") as lines:
                for line in filter(str.strip, lines):
                    filename = _filename(line)
                    self.report.unreadable_lines += filename is None
                    names |= {filename: None} if filename is not None else {}
        self.report.named = len(names)
        self.report.unsafe = [name for name in names if not is_safe(name)]
        return [name for name in names if is_safe(name)]

    def prints(self, file: RemoteFile, names: list[str], workers: int, max_requests: int) -> None:
        """Have the named prints under `images`, out of the archive `file`."""
        known = self._manifest(file.md5)
        unknown = self._unknown(names, known)
        if not unknown:
            return
        done: Iterator[tuple[str, str | None]]
        with ExitStack() as stack:
            if self.whole_archives:
                archive = stack.enter_context(open_local(self._kept(file)))
                wanted = self._wanted(archive, unknown, known)
                done = ((name, extract(archive, info, self._image(name))) for name, info in wanted.items())
            else:
                archive, fetcher = open_remote(self.client, file)
                wanted = self._wanted(stack.enter_context(archive), unknown, known)
                spans = plan(archive, wanted, max_requests)
                advance = self._announce(file, len(wanted), spans)
                done = extract_spans(archive, fetcher, spans, wanted, self._image, workers, advance)
            for name, damage in done:
                self.report.fetched += damage is None
                self.report.damaged |= {name: damage} if damage else {}
        write_json(self.root / MANIFEST, {"archive_md5": file.md5, "members": known})

    def _unknown(self, names: list[str], known: dict[str, list[int]]) -> list[str]:
        """The names whose print is not there as it is known to be; the others count as present."""
        unknown = [name for name in names if not (name in known and is_good(self._image(name), *known[name]))]
        self.report.present = len(names) - len(unknown)
        return unknown

    def _wanted(
        self, archive: zipfile.ZipFile, names: list[str], known: dict[str, list[int]]
    ) -> dict[str, zipfile.ZipInfo]:
        """The members to extract: those that match and are not there and good. Notes all in `known`."""
        matches = match(archive, names)
        self.report.missing = matches.missing
        self.report.ambiguous |= matches.ambiguous
        known |= {name: [info.file_size, info.CRC] for name, info in matches.found.items()}
        wanted = {
            name: info for name, info in matches.found.items() if not is_good(self._image(name), *known[name])
        }
        self.report.present += len(matches.found) - len(wanted)
        return wanted

    def _manifest(self, archive_md5: str | None) -> dict[str, list[int]]:
        """Size and CRC of the archive's prints (None: any archive's) as an earlier fetch noted them."""
        path = self.root / MANIFEST
        noted = json.loads(path.read_text()) if path.is_file() else {}
        return noted["members"] if noted and archive_md5 in (None, noted["archive_md5"]) else {}

    def survey(self) -> None:
        """Report what earlier fetches left under the root, without the network."""
        for name in [name for name in ANNOTATIONS if (self.root / ANNOTATIONS[name]).is_file()]:
            self._found(name, "on disk, not verified")
        self._unknown(self.named_prints(), self._manifest(None))

    def _image(self, name: str) -> Path:
        return self.root / "images" / name

    def _kept(self, file: RemoteFile) -> Path:
        """The whole archive, fetched into `archives` unless it is there."""
        target = self.root / "archives" / PurePosixPath(file.key).name
        self._whole(file, target)
        return target

    def _whole(self, file: RemoteFile, target: Path) -> None:
        download(self.client, file, target, self._bar(target.name, file.size))

    def _announce(self, file: RemoteFile, prints: int, spans: list[Span]) -> Callable[[int], None]:
        total = sum(span.end - span.start for span in spans)
        share = f"{total / 1e6:,.1f} of the archive's {file.size / 1e6:,.1f} MB"
        self.progress.console.print(f"{prints:,} prints in {len(spans):,} requests: {share}")
        return self._bar("prints", total)

    def _bar(self, description: str, total: int) -> Callable[[int], None]:
        task = self.progress.add_task(description, total=total)
        return lambda count: self.progress.advance(task, count)


def _filename(line: str) -> str | None:
    """The print that an ODVG line names; None if it names none (the reader says what is wrong)."""
    try:
        name = json.loads(line)["filename"]
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) and name else None
