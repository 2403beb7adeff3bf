"""Finding the raw files in a folder, or in the zip or tar archives as they were downloaded.

An archive is hostile until shown otherwise. Members are written under names of our own making, so no path can leave
the folder they go to; archives with paths that would, with links, or that unpack to too much are refused all the same.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple, NoReturn

from promptcblue_metric.errors import PromptCBLUEError

#: Bounds on what archives may unpack to, all together.
MAX_BYTES = 8 << 30
MAX_MEMBERS = 20_000
#: The most that a member above a megabyte may shrink. The corpora shrink 3 to 30 times.
MAX_RATIO = 200

_DATA = (".json", ".jsonl", ".tsv", ".txt", ".xlsx")
_TAR = (".tar", ".tar.gz", ".tgz")
_ARCHIVE = r"\.(zip|tar|tar\.gz|tgz)"
#: Folders that hold what was predicted, not data.
_RESULTS = re.compile(r"results?|outputs?|pred(iction)?s?|submit|submissions?|examples?|提交.*|结果.*", re.IGNORECASE)
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1


class RawFile(NamedTuple):
    """A raw file: where it can be read, and as the user knows it, which for a member of an archive is another path."""

    path: Path
    name: Path


@dataclass
class RawFiles:
    """The data files of a raw folder, in the order of their names, and which of them are used.

    Attributes:
        root: what the user named.
        files: every data file.
        use: files or folders that the user chose where several hold one corpus.
    """

    root: Path
    files: Sequence[RawFile]
    use: Sequence[Path] = ()
    _used: set[RawFile] = field(default_factory=set)
    _reasons: dict[RawFile, str] = field(default_factory=dict)
    _digests: dict[RawFile, bytes] = field(default_factory=dict)

    def find(self, pattern: str, folders: Sequence[str] = (), *, nowhere_else: bool = False) -> RawFile | None:
        """The file whose whole name matches ``pattern``, whatever the case.

        Copies count once. Of files that differ, one in a folder that matches the earliest pattern of ``folders`` is
        taken, whatever lies elsewhere.

        Args:
            nowhere_else: find only what stands in such a folder.

        Raises:
            PromptCBLUEError: several files differ, and neither their folders nor the user chose one.
        """
        found = self._matching(pattern)
        return self._chosen(found, folders, nowhere_else=nowhere_else) if found else None

    def find_each(self, pattern: str, folder: str) -> list[RawFile]:
        """The files with each name that matches ``pattern`` in a folder that matches ``folder``."""
        by_name: dict[str, list[RawFile]] = {}
        for file in self._matching(pattern):
            by_name.setdefault(file.name.name.casefold(), []).append(file)
        chosen = [self._chosen(found, [folder], nowhere_else=True) for found in by_name.values()]
        return [file for file in chosen if file]

    def have(self, pattern: str) -> bool:
        """Whether there is a file whose whole name matches ``pattern``."""
        return bool(self._matching(pattern))

    def leave(self, pattern: str, reason: str) -> None:
        """Note why the files whose names match are not used."""
        for file in self._matching(pattern):
            self._reasons.setdefault(file, reason)

    def passed_over(self) -> list[tuple[Path, str]]:
        """The files that are not used, each with the reason."""
        return [
            (file.name, self._reasons.get(file, "the name of no corpus's file"))
            for file in self.files
            if file not in self._used
        ]

    def _matching(self, pattern: str) -> list[RawFile]:
        matches = re.compile(pattern, re.IGNORECASE).fullmatch
        return [file for file in self.files if matches(file.name.name)]

    def _chosen(self, found: Sequence[RawFile], folders: Sequence[str], *, nowhere_else: bool) -> RawFile | None:
        ranks: dict[bytes, int] = {}
        first: dict[bytes, RawFile] = {}
        for file in found:
            rank = self._rank(file, folders)
            if rank >= len(folders) and (nowhere_else or rank > len(folders)):
                self._reasons.setdefault(file, "in a folder of results" if rank > len(folders) else "in another folder")
                continue
            content = self._digest(file) if len(found) > 1 else b""
            ranks[content] = min(rank, ranks.get(content, rank))
            if first.setdefault(content, file) != file:
                self._reasons.setdefault(file, f"identical to {first[content].name}")
        best = [first[content] for content, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) > 1:
            names = "\n".join(f"  {file.name}" for file in best)
            raise PromptCBLUEError(
                f"{self.root}: {len(best)} files differ where one is expected; choose one with --use FILE\n{names}"
            )
        for file in set(first.values()).difference(best):
            self._reasons.setdefault(file, f"{best[0].name} is taken in its place")
        self._used.update(best)
        return best[0] if best else None

    def _rank(self, file: RawFile, folders: Sequence[str]) -> int:
        """How far a file is from where it should be: -1 if the user chose it, len(folders) if its folder says nothing.

        One more than that is for folders that hold no data.
        """
        if any(chosen == file.name or chosen in file.name.parents for chosen in self.use):
            return -1
        within = file.name.relative_to(self.root).parent.parts if file.name != self.root else ()
        if any(_RESULTS.fullmatch(part) for part in within):
            return len(folders) + 1
        parent = file.name.parent.name
        fits = (re.fullmatch(rf"({folder})({_ARCHIVE})?", parent, re.IGNORECASE) for folder in folders)
        return next((number for number, found in enumerate(fits) if found), len(folders))

    def _digest(self, file: RawFile) -> bytes:
        if file not in self._digests:
            try:
                digest = hashlib.sha256()
                with file.path.open("rb") as stream:
                    for block in iter(lambda: stream.read(1 << 20), b""):
                        digest.update(block)
                self._digests[file] = digest.digest()
            except OSError as error:
                raise PromptCBLUEError(f"{file.name}: cannot be read: {error.strerror or error}") from error
        return self._digests[file]


@contextmanager
def raw_files(root: Path, use: Sequence[Path] = ()) -> Iterator[RawFiles]:
    """The data files of ``root``: a folder, an archive, or a folder that holds archives (zip ones also in archives).

    Files from archives are there until the block ends.

    Args:
        use: files or folders in ``root`` to take where several hold one corpus.

    Raises:
        PromptCBLUEError: there is no such folder, or an archive cannot be unpacked safely.
    """
    if not root.exists():
        raise PromptCBLUEError(f"{root}: no such folder or archive; expected the raw corpora")
    with TemporaryDirectory(prefix="promptcblue-raw-") as scratch:
        files = [RawFile(path, path) for path in _files(root)]
        unpacker = _Unpacker(Path(scratch))
        for archive in [file for file in files if file.name.name.lower().endswith((".zip", *_TAR))]:
            is_zip = archive.path.suffix.lower() == ".zip"
            files += unpacker.unpack(archive) if is_zip else unpacker.unpack_tar(archive)
        yield RawFiles(root, [file for file in files if file.path.suffix.lower() in _DATA], use)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*")):
        if path.is_file() and _wanted(path.relative_to(root).parts):
            yield path


def _wanted(parts: Sequence[str]) -> bool:
    """Whether a path is no hidden file and none of those that macOS adds to archives."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


@dataclass
class _Unpacker:
    folder: Path
    size: int = 0
    members: int = 0
    archives: list[Path] = field(default_factory=list)

    def unpack(self, file: RawFile, depth: int = 0) -> list[RawFile]:
        """Unpack the data files and archives in a zip archive."""
        path = file.name
        target = self.folder / str(len(self.archives))
        self.archives.append(path)
        try:
            with zipfile.ZipFile(file.path) as archive:
                files = [self._member(archive, info, target, path) for info in archive.infolist()]
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error}; download it again") from error
        except OSError as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
        unpacked = [file for file in files if file]
        for inner in [file for file in unpacked if file.path.suffix.lower() == ".zip"]:
            if depth == 2:
                raise PromptCBLUEError(f"{path}: holds archives in archives in archives; refused as a zip bomb")
            unpacked += self.unpack(inner, depth + 1)
        return unpacked

    def unpack_tar(self, file: RawFile) -> list[RawFile]:
        """Unpack the data files in a tar archive."""
        path = file.name
        target = self.folder / str(len(self.archives))
        self.archives.append(path)
        try:
            with tarfile.open(file.path) as archive:
                # One by one, so that an archive is refused before it is read to its end.
                files = [self._tar_member(archive, member, target, path) for member in archive]
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error}; download it again") from error
        except OSError as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
        return [file for file in files if file]

    def _tar_member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, path: Path
    ) -> RawFile | None:
        self._check_path(member.name, path)
        if member.islnk() or member.issym():
            self._refuse(path, member.name, "is a link")
        self._count(member.name, member.size, path)
        wanted = member.isfile() and _wanted(PurePosixPath(member.name).parts)
        source = archive.extractfile(member) if wanted and member.name.lower().endswith(_DATA) else None
        return self._write(source, PurePosixPath(member.name).parts, target, path) if source else None

    def _write(self, source: IO[bytes], parts: Sequence[str], target: Path, path: Path) -> RawFile:
        """Write a member; of its path only its name and that of its folder are used."""
        # A folder for each member keeps equal names apart.
        file = Path(target, str(self.members), *parts[-2:])
        file.parent.mkdir(parents=True)
        with source, file.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        return RawFile(file, path.joinpath(*parts))

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, path: Path) -> RawFile | None:
        name = member_name(info)
        self._check(info, name, path)
        parts = PurePosixPath(name).parts
        if info.is_dir() or not _wanted(parts) or not name.lower().endswith((*_DATA, ".zip")):
            return None
        return self._write(archive.open(info), parts, target, path)

    def _check(self, info: zipfile.ZipInfo, name: str, path: Path) -> None:
        self._check_path(name, path)
        if stat.S_ISLNK(info.external_attr >> 16):
            self._refuse(path, name, "is a link")
        if info.flag_bits & _ENCRYPTED:
            self._refuse(path, name, "is encrypted")
        if info.file_size > 1 << 20 and info.file_size > MAX_RATIO * max(1, info.compress_size):
            self._refuse(path, name, f"unpacks to more than {MAX_RATIO} times its size")
        self._count(name, info.file_size, path)

    def _check_path(self, name: str, path: Path) -> None:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or PureWindowsPath(name).drive or ".." in parts or "\0" in name or not parts:
            self._refuse(path, name, "has a path that leads out of the archive")

    def _count(self, name: str, size: int, path: Path) -> None:
        self.members += 1
        # No more than the declared size is ever read, so bounding that bounds what is written.
        self.size += size
        if self.size > MAX_BYTES or self.members > MAX_MEMBERS:
            self._refuse(path, name, f"brings the archives above {MAX_BYTES >> 30} GiB or {MAX_MEMBERS} members")

    @staticmethod
    def _refuse(path: Path, name: str, reason: str) -> NoReturn:
        raise PromptCBLUEError(f"{path}: member {name!r} {reason}; the archive is refused")


def member_name(info: zipfile.ZipInfo) -> str:
    """The path of a member with ``/`` between its parts.

    Archives made on Chinese Windows write names in GBK without saying so, and zipfile then reads them as CP437.
    """
    name = info.filename
    if not info.flag_bits & _UTF8_NAME:
        raw = name.encode("cp437", errors="replace")
        for encoding in ("utf-8", "gb18030"):
            try:
                name = raw.decode(encoding)
                break
            except UnicodeDecodeError:
                continue
    return name.replace("\\", "/")
