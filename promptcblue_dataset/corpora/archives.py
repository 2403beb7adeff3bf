"""Finding the raw files in a folder, or in the zip or tar archives as they were downloaded.

An archive is hostile until shown otherwise. Members are written under names of our own making, so no path can leave
the folder they go to; archives with paths that would, with links, or that unpack to too much are refused all the same.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, cast

from promptcblue_metric.data.samples import other_encoding
from promptcblue_metric.data.writing import scratch_folder
from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from _typeshed import SupportsRead

#: Bounds on what archives may unpack to, all together.
MAX_BYTES = 8 << 30
MAX_MEMBERS = 20_000
#: How many times their size an archive and each member may unpack to, and a megabyte. The corpora shrink 3 to 30 times.
MAX_RATIO = 200

_DATA = (".json", ".jsonl", ".tsv", ".txt", ".csv", ".xlsx")
_ARCHIVE = r"\.(zip|tar|tar\.(gz|bz2|xz)|tgz)"
_PACKED = re.compile(rf".*({_ARCHIVE}|\.(jsonl?|tsv|txt|csv)\.gz)", re.IGNORECASE | re.DOTALL)
#: What is named, not read.
_UNREAD = (".rar", ".7z", ".xls", ".parquet", ".arrow")
#: How a tar archive is opened, by what it begins with.
_OPENED: Mapping[bytes, Callable[[Path, Literal["rb"]], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"": open,
}
#: What reading a damaged archive raises, besides OSError.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError)
#: Folders that hold what was predicted, not data.
_RESULTS = re.compile(r"results?|outputs?|pred(iction)?s?|submit|submissions?|examples?|提交.*|结果.*", re.IGNORECASE)
_POINTER = b"version https://git-lfs"
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1
_TOO_MUCH = f"unpacks to more than {MAX_RATIO} times its size"


class RawError(PromptCBLUEError):
    """A raw file or record that is not what its corpus should hold."""


def encodable(text: str) -> bool:
    """Whether a text can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class RawFile(NamedTuple):
    """A raw file: where it can be read, and as the user knows it, which for a member of an archive is another path."""

    path: Path
    name: Path

    def head(self, size: int = -1) -> bytes:
        """What it begins with, or all of it."""
        try:
            with self.path.open("rb") as stream:
                return stream.read(size)
        except OSError as error:
            raise RawError(f"{self.name}: cannot be read: {error.strerror or error}") from error

    def check(self) -> None:
        """Raise `RawError` for a pointer that a clone without git-lfs holds in place of a file."""
        if self.is_pointer():
            raise RawError(f"{self.name}: is a git-lfs pointer, not the data; run `git lfs pull` in its repository")

    def is_pointer(self) -> bool:
        """Whether it stands in for data that were not fetched."""
        return self.head(len(_POINTER)) == _POINTER

    def check_text(self) -> None:
        """Raise `RawError` also for a file that begins in another encoding than UTF-8 (or UTF-16 with its mark)."""
        self.check()
        start = self.head(1 << 16)
        marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if not marked and (problem := other_encoding(start)):
            raise RawError(f"{self.name}: {problem}")

    def read(self) -> bytes:
        """What it holds, without a byte order mark; `RawError` where that is not the data."""
        self.check_text()
        return self.head().removeprefix(codecs.BOM_UTF8)


@dataclass
class RawFiles:
    """The data files of a raw folder, which of them are used, and those that the user chose where several would do."""

    root: Path
    files: Sequence[RawFile]
    use: Sequence[Path] = ()
    _reasons: dict[RawFile, str] = field(default_factory=dict)
    _used: set[RawFile] = field(default_factory=set)
    _digests: dict[RawFile, bytes] = field(default_factory=dict)

    def find(self, pattern: str, folders: Sequence[str] = (), *, nowhere_else: bool = False) -> RawFile | None:
        """The file whose whole name matches ``pattern``, whatever the case; copies count once.

        Of files that differ, one in a folder that matches the earliest pattern of ``folders`` is taken, whatever lies
        elsewhere; with ``nowhere_else`` only what stands in such a folder.

        Raises:
            PromptCBLUEError: several files differ, and neither their folders nor the user chose one.
        """
        return self._chosen(self.matching(pattern), folders, nowhere_else=nowhere_else)

    def find_each(self, pattern: str, folder: str) -> list[RawFile]:
        """The files with each name that matches ``pattern`` in a folder that matches ``folder``."""
        by_name: dict[str, list[RawFile]] = {}
        for file in self.matching(pattern):
            by_name.setdefault(file.name.name.casefold(), []).append(file)
        chosen = [self._chosen(found, [folder], nowhere_else=True) for found in by_name.values()]
        return [file for file in chosen if file]

    def leave(self, pattern: str, reason: str) -> None:
        """Note why the files whose names match are not used."""
        for file in self.matching(pattern):
            self._reasons.setdefault(file, reason)

    def passed_over(self) -> list[tuple[Path, str]]:
        """The files that are not used, as they stand in the folder, each with the reason."""
        unused = (file for file in self.files if file not in self._used)
        return [(self._within(file), self._reasons.get(file, "the name of no corpus's file")) for file in unused]

    def _within(self, file: RawFile) -> Path:
        return file.name.relative_to(self.root) if file.name != self.root else file.name

    def matching(self, pattern: str) -> list[RawFile]:
        """The files whose whole names match ``pattern``, those in fewer folders first."""
        matches = re.compile(pattern, re.IGNORECASE).fullmatch
        found = [file for file in self.files if matches(file.name.name)]
        return sorted(found, key=lambda file: len(file.name.parts))

    def _chosen(self, found: Sequence[RawFile], folders: Sequence[str], *, nowhere_else: bool) -> RawFile | None:
        ranks: dict[bytes, int] = {}
        first: dict[bytes, RawFile] = {}
        if len(found) > 1 and (pointers := [file for file in found if file.is_pointer()]) != found:
            self._reasons.update(dict.fromkeys(pointers, "a git-lfs pointer"))
            found = [file for file in found if file not in pointers]
        for file in found:
            rank = self._rank(file, folders)
            if rank >= len(folders) and (nowhere_else or rank > len(folders)):
                self._reasons.setdefault(file, "in a folder of results" if rank > len(folders) else "in another folder")
                continue
            content = self._digest(file) if len(found) > 1 else b""
            ranks[content] = min(rank, ranks.get(content, rank))
            if first.setdefault(content, file) != file:
                self._reasons.setdefault(file, f"identical to {self._within(first[content])}")
        best = [first[content] for content, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) > 1:
            names = "\n".join(f"  {file.name}" for file in best)
            raise PromptCBLUEError(
                f"{self.root}: {len(best)} files differ where one is expected; choose one with --use FILE\n{names}"
            )
        for file in set(first.values()).difference(best):
            self._reasons.setdefault(file, f"{self._within(best[0])} is taken in its place")
        self._used.update(best)
        return best[0] if best else None

    def _rank(self, file: RawFile, folders: Sequence[str]) -> int:
        """Its place among the folders; -1 if the user chose it, len(folders) elsewhere, one more among results."""
        if any(_holds(chosen, file) for chosen in self.use):
            return -1
        if any(_RESULTS.fullmatch(part) for part in self._within(file).parts[:-1]):
            return len(folders) + 1
        parent = file.name.parent.name
        fits = (re.fullmatch(rf"({folder})({_ARCHIVE})?", parent, re.IGNORECASE) for folder in folders)
        return next((number for number, found in enumerate(fits) if found), len(folders))

    def _digest(self, file: RawFile) -> bytes:
        if file not in self._digests:
            self._digests[file] = hashlib.sha256(file.head()).digest()
        return self._digests[file]


@contextmanager
def raw_files(root: Path, use: Sequence[Path] = (), max_bytes: int = MAX_BYTES) -> Iterator[RawFiles]:
    """The data files of ``root``: a folder, an archive, or a folder that holds archives, which may hold others.

    Files from archives are there until the block ends. What is in ``use`` (in ``root`` or as it stands) is taken where
    several files hold one corpus. All archives together may unpack to ``max_bytes``.

    Raises:
        PromptCBLUEError: there is no such folder, or an archive cannot be unpacked safely.
    """
    if not root.exists():
        raise PromptCBLUEError(f"{root}: no such folder or archive; expected the raw corpora")
    with scratch_folder() as scratch:
        files = [RawFile(path, path) for path in _files(root)]
        unpacker = _Unpacker(scratch, max_bytes)
        for archive in [file for file in files if _PACKED.fullmatch(file.name.name)]:
            files += unpacker.unpack(archive)
        data = [file for file in files if file.path.suffix.lower() in _DATA]
        for path in use:
            if not any(_holds(place, file) for file in data for place in (path, root / path)):
                raise PromptCBLUEError(f"--use {path}: no raw file is there, nor in {root}")
        unread = [file for file in files if file.path.suffix.lower() in _UNREAD]
        reasons = dict.fromkeys(unread, "of a kind that is not read; unpack or convert it")
        yield RawFiles(root, [*data, *unread], [*use, *(root / path for path in use)], reasons)


def _holds(place: Path, file: RawFile) -> bool:
    name, place = file.name.absolute(), place.absolute()
    return place == name or place in name.parents


def _files(root: Path) -> list[Path]:
    """The files in a folder, also in those that it links to."""
    if root.is_file():
        return [root]
    found: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = [name for name in folders if os.path.realpath(Path(folder, name)) not in seen]
        found += [path for path in (Path(folder, name) for name in names) if path.is_file()]
    return sorted(path for path in found if _wanted(path.relative_to(root).parts))


def _wanted(parts: Sequence[str]) -> bool:
    """Whether a path is no hidden file, none that macOS adds to archives, and no lock of Office's."""
    return not any(part.startswith((".", "~$")) or part == "__MACOSX" for part in parts)


def _is_data(name: str) -> bool:
    return name.lower().endswith((*_DATA, *_UNREAD)) or bool(_PACKED.fullmatch(name))


def _refuse(archive: RawFile, reason: str, member: str = "") -> NoReturn:
    of = f"member {member!r} " if member else ""
    raise PromptCBLUEError(f"{archive.name}: {of}{reason}; the archive is refused")


class _Bounded:
    """A stream of an archive that is refused once more was read of it than it may hold."""

    def __init__(self, archive: RawFile, stream: IO[bytes], limit: int) -> None:
        self._archive, self._read, self._left = archive, stream.read, limit

    def read(self, size: int = -1, /) -> bytes:
        data = self._read(size)
        self._left -= len(data)
        if self._left < 0:
            _refuse(self._archive, _TOO_MUCH)
        return data


class _Member(NamedTuple):
    """Something in an archive: its path, the size that it says it has, what is wrong with it, how a file is opened."""

    name: str
    size: int
    flaw: str
    opens: Callable[[], Any] | None


def _in_zip(file: RawFile, limit: int) -> Iterator[_Member]:
    with zipfile.ZipFile(file.path) as archive:
        if sum(info.file_size for info in archive.infolist()) > limit:
            _refuse(file, _TOO_MUCH)
        for info in archive.infolist():
            flaws = {
                "is a link": stat.S_ISLNK(info.external_attr >> 16),
                "is encrypted": info.flag_bits & _ENCRYPTED,
                _TOO_MUCH: info.file_size > _limit(info.compress_size),
            }
            flaw = next((flaw for flaw, there in flaws.items() if there), "")
            opens = None if info.is_dir() else partial(archive.open, info)
            yield _Member(member_name(info), info.file_size, flaw, opens)


def _in_tar(file: RawFile, limit: int) -> Iterator[_Member]:
    opened = next(opens for magic, opens in _OPENED.items() if file.head(6).startswith(magic))
    # As a stream, so that an archive is refused before it is read to its end, whatever its members say they hold.
    with opened(file.path, "rb") as stream, tarfile.open(fileobj=_Bounded(file, stream, limit), mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            flaw, opens = "is a link" * (member.islnk() or member.issym()), partial(archive.extractfile, member)
            yield _Member(member.name, member.size, flaw, opens if member.isfile() else None)


def _alone(file: RawFile, limit: int) -> Iterator[_Member]:
    """A file that is packed without an archive; its last bytes say its size."""
    with gzip.open(file.path) as stream:
        size = int.from_bytes(file.head()[-4:], "little")
        opens = partial(_Bounded, file, cast("IO[bytes]", stream), size)
        yield _Member(file.name.stem, size, _TOO_MUCH * (size > limit), opens)


@dataclass
class _Unpacker:
    folder: Path
    max_bytes: int
    size: int = 0
    members: int = 0
    archives: int = 0

    def unpack(self, file: RawFile, depth: int = 0) -> list[RawFile]:
        """Unpack the data files in an archive and in the archives in it, unless it is damaged or unlike data."""
        self.archives += 1
        target = self.folder / str(self.archives)
        is_tar = re.fullmatch(rf".*{_ARCHIVE}", file.path.name, re.IGNORECASE | re.DOTALL)
        members = _in_zip if file.path.suffix.lower() == ".zip" else _in_tar if is_tar else _alone
        unpacked = []
        try:
            for member in members(file, _limit(file.path.stat().st_size)):
                parts = self._checked(member, file)
                if member.opens and _wanted(parts) and _is_data(member.name):
                    unpacked.append(self._write(member.opens(), parts, target, file.name))
        except PromptCBLUEError:
            raise
        except OSError as error:
            raise PromptCBLUEError(f"{file.name}: cannot be unpacked: {error.strerror or error}") from error
        except (*_DAMAGED, ValueError) as error:
            raise PromptCBLUEError(
                f"{file.name}: cannot be unpacked: {error}; download it again or remove it"
            ) from error
        for inner in [found for found in unpacked if _PACKED.fullmatch(found.path.name)]:
            if depth == 2:
                _refuse(file, "holds archives in archives in archives")
            unpacked += self.unpack(inner, depth + 1)
        return unpacked

    def _write(self, source: SupportsRead[bytes], parts: Sequence[str], target: Path, archive: Path) -> RawFile:
        """Write a member; of its path only its name and that of its folder are used."""
        # A folder for each member keeps equal names apart.
        file = Path(target, str(self.members), *parts[-2:])
        file.parent.mkdir(parents=True)
        with file.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        # What is packed alone has the name of its archive without the suffix.
        return RawFile(file, archive.with_suffix("") if (archive.stem,) == tuple(parts) else archive.joinpath(*parts))

    def _checked(self, member: _Member, archive: RawFile) -> Sequence[str]:
        """The parts of the path of a member, which is counted."""
        name, size, flaw, _ = member
        if flaw:
            _refuse(archive, flaw, name)
        parts = PurePosixPath(name).parts
        if name.startswith("/") or PureWindowsPath(name).drive or ".." in parts or "\0" in name or not parts:
            _refuse(archive, "has a path that leads out of the archive", name)
        self.members += 1
        # No more than the declared size is ever read, so bounding that bounds what is written.
        self.size += size
        if self.size > self.max_bytes:
            bound = f"{self.max_bytes / (1 << 30):g} GiB"
            _refuse(archive, f"brings the archives above {bound}; --max-unpacked allows more", name)
        if self.members > MAX_MEMBERS:
            _refuse(archive, f"brings the archives above {MAX_MEMBERS} members", name)
        return parts


def _limit(size: int) -> int:
    """What an archive or member of a size may unpack to."""
    return MAX_RATIO * size + (1 << 20)


def member_name(info: zipfile.ZipInfo) -> str:
    """The path of a member with ``/`` between its parts.

    Archives made on Chinese Windows write names in GBK without saying so, and zipfile then reads them as CP437.
    """
    name = info.filename
    raw = name.encode() if info.flag_bits & _UTF8_NAME else name.encode("cp437", errors="replace")
    for encoding in ("utf-8", "gb18030"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding).replace("\\", "/")
    return name.replace("\\", "/")
