"""Finding the raw files in a folder, or in the zip or tar archives as they were downloaded.

An archive is hostile until shown otherwise. Members are written under names of our own making, so no path can leave
the folder they go to; archives with paths that would, with links, or that unpack to too much are refused all the same.
"""

from __future__ import annotations

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
from typing import IO, NoReturn

from promptcblue_metric.errors import PromptCBLUEError

#: Bounds on what archives may unpack to, all together.
MAX_BYTES = 8 << 30
MAX_MEMBERS = 20_000
#: The most that a member above a megabyte may shrink. The corpora shrink 3 to 30 times.
MAX_RATIO = 200

_DATA = (".json", ".jsonl", ".tsv", ".txt", ".xlsx")
_TAR = (".tar", ".tar.gz", ".tgz")
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1


@dataclass(frozen=True)
class RawFiles:
    """The data files of a raw folder, in the order of their names.

    Attributes:
        root: what the user named.
        paths: every data file.
    """

    root: Path
    paths: Sequence[Path]

    def find(self, pattern: str) -> Path | None:
        """The file whose whole name matches ``pattern``, whatever the case.

        Raises:
            PromptCBLUEError: several files match.
        """
        found = [path for path in self.paths if re.fullmatch(pattern, path.name, re.IGNORECASE)]
        if len(found) > 1:
            names = ", ".join(str(path) for path in found)
            raise PromptCBLUEError(f"{self.root}: several files of one corpus ({names}); keep one of them")
        return found[0] if found else None

    def within(self, folder: str, pattern: str) -> list[Path]:
        """The files of a folder of that name, whatever the case, wherever it stands, whose names match ``pattern``."""
        return [
            path
            for path in self.paths
            if path.parent.name.casefold() == folder.casefold() and re.fullmatch(pattern, path.name, re.IGNORECASE)
        ]


@contextmanager
def raw_files(root: Path) -> Iterator[RawFiles]:
    """The data files of ``root``: a folder, an archive, or a folder that holds archives (zip ones also in archives).

    Files from archives are there until the block ends.

    Raises:
        PromptCBLUEError: there is no such folder, or an archive cannot be unpacked safely.
    """
    if not root.exists():
        raise PromptCBLUEError(f"{root}: no such folder or archive; expected the raw corpora")
    with TemporaryDirectory(prefix="promptcblue-raw-") as scratch:
        files = list(_files(root))
        unpacker = _Unpacker(Path(scratch))
        for archive in [path for path in files if path.name.lower().endswith((".zip", *_TAR))]:
            files += unpacker.unpack(archive) if archive.suffix.lower() == ".zip" else unpacker.unpack_tar(archive)
        yield RawFiles(root, [path for path in files if path.suffix.lower() in _DATA])


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

    def unpack(self, path: Path, depth: int = 0) -> list[Path]:
        """Unpack the data files and archives in ``path``; their paths."""
        target = self.folder / str(len(self.archives))
        self.archives.append(path)
        try:
            with zipfile.ZipFile(path) as archive:
                files = [self._member(archive, info, target, path) for info in archive.infolist()]
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error}; download it again") from error
        except OSError as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
        unpacked = [file for file in files if file]
        for inner in [file for file in unpacked if file.suffix.lower() == ".zip"]:
            if depth == 2:
                raise PromptCBLUEError(f"{path}: holds archives in archives in archives; refused as a zip bomb")
            unpacked += self.unpack(inner, depth + 1)
        return unpacked

    def unpack_tar(self, path: Path) -> list[Path]:
        """Unpack the data files in a tar archive; their paths."""
        target = self.folder / str(len(self.archives))
        self.archives.append(path)
        try:
            with tarfile.open(path) as archive:
                # One by one, so that an archive is refused before it is read to its end.
                files = [self._tar_member(archive, member, target, path) for member in archive]
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error}; download it again") from error
        except OSError as error:
            raise PromptCBLUEError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
        return [file for file in files if file]

    def _tar_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, path: Path) -> Path | None:
        self._check_path(member.name, path)
        if member.islnk() or member.issym():
            self._refuse(path, member.name, "is a link")
        self._count(member.name, member.size, path)
        wanted = member.isfile() and _wanted(PurePosixPath(member.name).parts)
        source = archive.extractfile(member) if wanted and member.name.lower().endswith(_DATA) else None
        return self._write(source, PurePosixPath(member.name).parts, target) if source else None

    def _write(self, source: IO[bytes], parts: Sequence[str], target: Path) -> Path:
        """Write a member; of its path only its name and that of its folder are used."""
        # A folder for each member keeps equal names apart.
        file = Path(target, str(self.members), *parts[-2:])
        file.parent.mkdir(parents=True)
        with source, file.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        return file

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, path: Path) -> Path | None:
        name = member_name(info)
        self._check(info, name, path)
        parts = PurePosixPath(name).parts
        if info.is_dir() or not _wanted(parts) or not name.lower().endswith((*_DATA, ".zip")):
            return None
        return self._write(archive.open(info), parts, target)

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
