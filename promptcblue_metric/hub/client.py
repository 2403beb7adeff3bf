"""Publishing files as a repository on the Hugging Face Hub, in a way that can be repeated at any time.

What goes there is compared with what is there already, by the hashes that the Hub keeps, and put into one commit, or
none where nothing has changed. Uploading, log-in and trying again on a bad line are huggingface_hub's.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.filesize import decimal

from ..data.writing import read_json_object, replacing, write_json
from ..errors import PromptCBLUEError
from ..version import VERSION

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

Content = Path | bytes

RepoOption = Annotated[str, typer.Option(metavar="ORG/NAME", help="The repository on the Hub; it is made if need be.")]
PrivateOption = Annotated[bool, typer.Option("--private", help="Only you and your organisation can see it.")]
DryRunOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Upload nothing: write what would be uploaded to this folder.")
]
TagOption = Annotated[str, typer.Option(help="The tag that marks this state of the repository.")]
DEFAULT_TAG = f"v{VERSION}"

_TAG = re.compile(r"[A-Za-z0-9][\w.+-]*")
#: What to say of an answer of the Hub, by its status.
_REASONS: Mapping[int, str] = {
    401: "the Hub does not know you: log in with `hf auth login`, with a token that may write",
    402: "the Hub asks for a paid account for this",
    403: "you may not write to it: log in with `hf auth login` as one who may, with a token that may write",
    404: "the Hub has no such repository or shows it not to you: check --repo, and who you are by `hf auth whoami`",
    409: "the Hub reports a conflict with another change of the repository: repeat the command",
    412: "the repository was changed in the meantime: repeat the command",
    413: "the Hub finds a file too large",
    429: "the Hub has had too many requests from you: repeat the command {when}",
}
_FAULT = "the Hub has a fault (status {status}): repeat the command {when}; what has been uploaded is kept"
_REFUSED = "the Hub refuses this (status {status})"
_BROKEN_OFF = "the connection to {endpoint} failed: repeat the command; what has been uploaded is kept"
_GARBLED = "the Hub gives an answer that cannot be read: repeat the command later; what has been uploaded is kept"
_OFFLINE = "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it"
_NOT_LOGGED_IN = "you are not logged in: log in with `hf auth login`, with a token that may write"


@dataclass(frozen=True)
class Publication:
    """What is to stand in a repository.

    Attributes:
        kind: of repository.
        files: by their path in the repository: files here, or bytes.
        owned: patterns (`fnmatch`) of paths that are ours to delete where ``files`` no longer has them; whatever else
            people put into the repository stays.
        then: the command that a user will want next.
        notes: what it lacks.
        space_sdk: what runs a Space.
    """

    kind: Literal["dataset", "model", "space"]
    files: Mapping[str, Content]
    owned: Sequence[str]
    then: str
    notes: Sequence[str] = ()
    space_sdk: str | None = None

    def operations(self) -> dict[str, CommitOperationAdd]:
        """The files as the client uploads them, with their sizes and hashes."""
        from huggingface_hub import CommitOperationAdd

        return {
            path: CommitOperationAdd(path, file if isinstance(file, bytes) else str(file))
            for path, file in self.files.items()
        }


@dataclass(frozen=True)
class Published:
    """What publishing did.

    Attributes:
        url: the repository.
        commit: its newest one.
        written: paths that were new or changed; without any, and nothing deleted, there was no commit.
        deleted: paths of ours that had gone.
    """

    url: str
    commit: str
    written: Sequence[str]
    deleted: Sequence[str]


def publish_or_write(publication: Publication, repo: str, *, private: bool, tag: str, dry_run: Path | None) -> None:
    """Publish, or write the same files to the folder ``dry_run``, and say what was done.

    Raises:
        PromptCBLUEError: as `publish` and `write_dry_run`.
    """
    for note in publication.notes:
        print(f"note: {note}")
    if dry_run is not None:
        check_names(repo, tag)
        record = write_dry_run(publication, dry_run)
        size = sum(file.upload_info.size for file in publication.operations().values())
        print(
            f"wrote {dry_run}: the {len(publication.files)} files ({decimal(size)}) that would be "
            f"uploaded to the {publication.kind} {repo}, and {record.name} beside it, their SHA-256"
        )
        return
    done = publish(publication, repo, private=private, tag=tag)
    if done.written or done.deleted:
        deleted = f", {len(done.deleted)} deleted" if done.deleted else ""
        print(f"commit {done.commit[:8]}: {len(done.written)} files written{deleted}, tag {tag}")
    else:
        print(f"nothing has changed since commit {done.commit[:8]}: no new commit, tag {tag}")
    print(f"{done.url}\nnext: {publication.then}")


def publish(publication: Publication, repo: str, *, private: bool = False, tag: str = DEFAULT_TAG) -> Published:
    """Make a repository hold a publication, in one commit at most, and tag that.

    Repeating it after a fault finishes the work: files that were uploaded are not uploaded again.

    Args:
        repo: ``ORG/NAME``; made if it is not there.
        private: make it so; a repository that is public already is refused.
        tag: marks the commit. It is left alone where it marks the very same files already.

    Raises:
        PromptCBLUEError: a name that no repository can have, no log-in, a tag that marks other files, or whatever the
            Hub or the connection had against it.
    """
    check_names(repo, tag)
    from huggingface_hub import CommitOperationDelete, HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    with _explained(repo):
        if get_token() is None:
            raise PromptCBLUEError(f"{repo}: {_NOT_LOGGED_IN}")
        api, kind = HfApi(library_name="promptcblue", library_version=VERSION), publication.kind
        # None, and not False, leaves it to the organisation whether new repositories are private.
        url = api.create_repo(
            repo, repo_type=kind, private=private or None, space_sdk=publication.space_sdk, exist_ok=True
        )
        info = api.repo_info(repo, repo_type=kind)
        if private and not info.private:
            raise PromptCBLUEError(
                f"{repo} is there and public: make it private in its settings on the Hub, or leave --private out"
            )
        added = publication.operations()
        tagged = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo, repo_type=kind).tags}
        if tag in tagged and any(_changes(api, repo, publication, added, tagged[tag])):
            raise PromptCBLUEError(
                f"{repo}: the tag {tag} marks other files (commit {tagged[tag][:8]}), and a tag stays what it is; "
                "give this state another --tag"
            )
        written, deleted = _changes(api, repo, publication, added, info.sha)
        commit = info.sha
        if written or deleted:
            # Not `upload_folder`, which makes several commits of a large folder.
            done = api.create_commit(
                repo,
                [*(added[path] for path in written), *map(CommitOperationDelete, deleted)],
                commit_message=f"Publish {tag} with promptcblue {VERSION}",
                repo_type=kind,
                parent_commit=info.sha,
            )
            commit = str(done.oid)
        if tag not in tagged:
            api.create_tag(repo, tag=tag, revision=commit, repo_type=kind)
        return Published(str(url), commit, written, deleted)


def _changes(
    api: HfApi, repo: str, publication: Publication, added: Mapping[str, CommitOperationAdd], revision: str
) -> tuple[list[str], list[str]]:
    """Paths to write, and to delete, to come from a revision to the publication."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo, recursive=True, revision=revision, repo_type=publication.kind)
    there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    written = [path for path in added if path not in there or not _same(added[path], there[path])]
    ours = (path for path in there if any(fnmatchcase(path, pattern) for pattern in publication.owned))
    return written, [path for path in ours if path not in added]


def _same(file: CommitOperationAdd, there: RepoFile) -> bool:
    """Whether a file is what the Hub has, which knows large files by SHA-256 and others by git's hash."""
    from huggingface_hub.utils.sha import git_hash

    if file.upload_info.size != there.size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == file.upload_info.sha256.hex())
    with file.as_file() as stream:
        return bool(there.blob_id == git_hash(stream.read()))


def check_names(repo: str, tag: str) -> None:
    """Refuse names that no repository, or no tag, can have.

    Raises:
        PromptCBLUEError: says what is expected.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PromptCBLUEError(f"--repo {repo}: {_line(str(error))}") from error
    if repo.count("/") != 1:
        raise PromptCBLUEError(f"--repo {repo}: expected ORG/NAME, your name or your organisation's first")
    if not _TAG.fullmatch(tag):
        raise PromptCBLUEError(f"--tag {tag}: expected letters, digits and . _ + - such as {DEFAULT_TAG}")


def write_dry_run(publication: Publication, folder: Path) -> Path:
    """Write the files of a publication to a folder, whole or not at all, and a list of them beside it.

    Returns:
        the list, by which the next dry run knows the folder.

    Raises:
        PromptCBLUEError: the folder holds something that no dry run wrote, or it cannot be written.
    """
    record = folder.absolute().with_name(f"{folder.absolute().name}-dry-run.json")
    if not _is_dry_run(folder, record):
        raise PromptCBLUEError(f"--dry-run {folder}: holds files that no dry run wrote; name another folder")
    with replacing(folder) as temporary:
        for path, file in publication.operations().items():
            target = temporary / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.as_file() as content, target.open("wb") as copy:
                shutil.copyfileobj(content, copy)
        write_json(record, {"files": _digests(temporary)})
    return record


def _is_dry_run(folder: Path, record: Path) -> bool:
    """Whether a folder is absent or empty, or as a dry run left it."""
    if not folder.is_dir():
        return not folder.exists()
    listed = read_json_object(record).get("files") if record.is_file() else {}
    return bool(_digests(folder) == listed)


def _digests(folder: Path) -> dict[str, str]:
    from huggingface_hub.utils.sha import sha_fileobj

    found = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        with path.open("rb") as stream:
            found[path.relative_to(folder).as_posix()] = sha_fileobj(stream).hex()
    return found


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what the Hub and the connection have to say into one line with a remedy, without the log-in's token."""
    from huggingface_hub import get_token

    try:
        yield
    except PromptCBLUEError:
        raise
    except Exception as error:
        reason = next(filter(None, map(_reason, _causes(error))), None)
        if reason is None:
            raise
        message = f"{repo}: {reason}"
        if token := get_token():
            message = message.replace(token, "***")
        raise PromptCBLUEError(message) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from; the client wraps what goes wrong in its threads."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _reason(error: BaseException) -> str | None:
    """What went wrong and what to do, if it is the Hub's or the connection's doing."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return _OFFLINE
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        after = error.response.headers.get("Retry-After", "")
        fallback = _FAULT if status >= 500 else _REFUSED
        reason = _REASONS.get(status, fallback).format(
            status=status, when=f"in {after} seconds" if after.isdecimal() else "later"
        )
        said = _line(error.server_message or "")
        return f"{reason} ({said})" if said else reason
    if isinstance(error, json.JSONDecodeError):
        return _GARBLED
    # Which library the client speaks HTTP with depends on its version; its own error is derived from that library's.
    if type(error).__module__.partition(".")[0] == HfHubHTTPError.__bases__[0].__module__.partition(".")[0]:
        return _BROKEN_OFF.format(endpoint=constants.ENDPOINT)
    return None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
