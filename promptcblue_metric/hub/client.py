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
#: What to say of another one.
_FAULT = "the Hub has a fault (status {status}): repeat the command {when}; what has been uploaded is kept"
_REFUSED = "the Hub refuses this (status {status})"


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


def publish_or_write(publication: Publication, repo: str, *, private: bool, tag: str, dry_run: Path | None) -> None:
    """Publish, or write the same files to the folder ``dry_run``, and say what was done.

    Raises:
        PromptCBLUEError: as `publish`, or the folder holds something that no dry run wrote, or it cannot be written.
    """
    for note in publication.notes:
        print(f"note: {note}")
    if dry_run is None:
        publish(publication, repo, private=private, tag=tag)
        return
    check_names(repo, tag)
    files, record = publication.operations(), dry_run.absolute().with_name(f"{dry_run.absolute().name}-dry-run.json")
    _write_dry_run(files, dry_run, record)
    size = decimal(sum(file.upload_info.size for file in files.values()))
    print(
        f"wrote {dry_run}: the {len(files)} files ({size}) that would be uploaded to the {publication.kind} {repo}, "
        f"and {record.name} beside it, their SHA-256"
    )


def publish(publication: Publication, repo: str, *, private: bool = False, tag: str = DEFAULT_TAG) -> None:
    """Make a repository hold a publication, in one commit at most, tag that, and say what was done.

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
            raise PromptCBLUEError(
                f"{repo}: you are not logged in: log in with `hf auth login`, with a token that may write"
            )
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
        commit, (written, deleted) = info.sha, _changes(api, repo, publication, added, info.sha)
        said = f"nothing has changed since commit {commit[:8]}: no new commit, tag {tag}"
        if written or deleted:
            # Not `upload_folder`, which makes several commits of a large folder.
            done = api.create_commit(
                repo,
                [*(added[path] for path in written), *map(CommitOperationDelete, deleted)],
                commit_message=f"Publish {tag} with promptcblue {VERSION}",
                repo_type=kind,
                parent_commit=info.sha,
            )
            commit, gone = str(done.oid), f", {len(deleted)} deleted" if deleted else ""
            said = f"commit {commit[:8]}: {len(written)} files written{gone}, tag {tag}"
        if tag not in tagged:
            api.create_tag(repo, tag=tag, revision=commit, repo_type=kind)
    print(f"{said}\n{url}\nnext: {publication.then}")


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


def _write_dry_run(files: Mapping[str, CommitOperationAdd], folder: Path, record: Path) -> None:
    """Write files to a folder, whole or not at all, and a list of them, by which the next dry run knows the folder."""
    if folder.exists() and _digests(folder) != (read_json_object(record).get("files") if record.is_file() else {}):
        raise PromptCBLUEError(f"--dry-run {folder}: holds files that no dry run wrote; name another folder")
    with replacing(folder) as temporary:
        for path, file in files.items():
            target = temporary / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.as_file() as content, target.open("wb") as copy:
                shutil.copyfileobj(content, copy)
        write_json(record, {"files": _digests(temporary)})


def _digests(folder: Path) -> dict[str, str]:
    from huggingface_hub.lfs import UploadInfo

    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): UploadInfo.from_path(str(path)).sha256.hex() for path in paths}


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
        return "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it"
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
        return "the Hub gives an answer that cannot be read: repeat the command later; what has been uploaded is kept"
    # Which library the client speaks HTTP with depends on its version; its own error is derived from that library's.
    if type(error).__module__.partition(".")[0] == HfHubHTTPError.__bases__[0].__module__.partition(".")[0]:
        return f"the connection to {constants.ENDPOINT} failed: repeat the command; what has been uploaded is kept"
    return None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
