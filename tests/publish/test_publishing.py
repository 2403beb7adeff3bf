"""Publishing is repeatable: what a Hub can do to it, and what a second try makes of it."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset.hub import sources_of
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.hub import client as publishing
from promptcblue_metric.hub.client import DEFAULT_TAG
from promptcblue_metric.tasks import REGISTRY

from ..hub import Blob, Hub, Repo
from .conftest import Client, Done

REPO = "org/promptcblue"
KEY = ("dataset", REPO)


@pytest.fixture
def folder(sample_folder: Path, tmp_path: Path) -> Path:
    """An imported folder of a test's own, of three tasks."""
    copied = tmp_path / "promptcblue"
    copied.mkdir()
    for name in ("CMeEE-V2", "CHIP-STS", "MedDG", "README.md"):
        source = sample_folder / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copied / name)
    return copied


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publish(client: Client, folder: Path, *words: object, repo: str = REPO, hurry: bool = True) -> Done:
    return client.run("promptcblue-dataset", "publish", folder, "--repo", repo, *words, hurry=hurry)


def published(client: Client, hub: Hub, folder: Path, *words: object) -> Repo:
    done = publish(client, folder, *words)
    assert done.code == 0, done.err
    return hub.repos[KEY]


def test_a_dry_run_writes_what_the_hub_then_gets(client: Client, hub: Hub, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "look"
    client.log_in(None)
    done = publish(client, folder, "--dry-run", target)
    assert done.code == 0, done.err
    assert not hub.requests
    client.log_in()
    repo = published(client, hub, folder)
    assert tree(target) == repo.files
    assert len(repo.commits) == 2  # the Hub's own, and ours
    assert repo.tags == {DEFAULT_TAG: repo.head.oid}
    assert all(blob.lfs == path.endswith(".parquet") for path, blob in repo.head.files.items())


def test_a_dry_run_replaces_only_an_earlier_one(client: Client, hub: Hub, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "look"
    target.mkdir()
    assert publish(client, folder, "--dry-run", target).code == 0
    shutil.rmtree(folder / "MedDG")
    assert publish(client, folder, "--dry-run", target).code == 0
    assert {path.partition("/")[0] for path in tree(target)} == {"README.md", "CMeEE-V2", "CHIP-STS"}
    (target / "README.md").write_text("mine now")
    refused = publish(client, folder, "--dry-run", target)
    assert refused.code == 1
    assert str(target) in refused.err
    assert (target / "README.md").read_text() == "mine now"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    assert publish(client, folder, "--dry-run", other).code == 1
    assert tree(other) == {"thesis.txt": b"precious"}


def test_nothing_changed_makes_no_commit(client: Client, hub: Hub, folder: Path) -> None:
    before = published(client, hub, folder).commits[:]
    hub.requests.clear()
    done = publish(client, folder)
    assert done.code == 0
    assert hub.repos[KEY].commits == before
    assert not [request for request in hub.requests if request.method == "PUT" or "/commit/" in request.path]
    assert before[-1].oid[:8] in done.out


def test_a_change_is_one_commit_that_keeps_what_others_put_there(client: Client, hub: Hub, folder: Path) -> None:
    repo = published(client, hub, folder)
    repo.add_commit("a licence", {**repo.head.files, "LICENSE": Blob(b"ours")})
    shutil.rmtree(folder / "MedDG")
    assert publish(client, folder).code == 1  # the tag marks other files
    assert len(repo.commits) == 3
    done = publish(client, folder, "--tag", "v9")
    assert done.code == 0, done.err
    assert len(repo.commits) == 4
    assert {path.partition("/")[0] for path in repo.files} == {"README.md", "CMeEE-V2", "CHIP-STS", "LICENSE"}
    assert repo.tags == {DEFAULT_TAG: repo.commits[1].oid, "v9": repo.head.oid}


def test_a_tag_on_other_files_is_told_apart_from_the_same_ones(client: Client, hub: Hub, folder: Path) -> None:
    repo = published(client, hub, folder)
    first = repo.head
    repo.add_commit("spoilt", {**first.files, "README.md": Blob(b"spoilt")})
    # The tag has the very files, so they go back to the branch.
    assert publish(client, folder).code == 0
    assert repo.files["README.md"] == first.files["README.md"].data
    assert repo.tags == {DEFAULT_TAG: first.oid}
    repo.tags[DEFAULT_TAG] = repo.commits[2].oid
    refused = publish(client, folder)
    assert refused.code == 1
    assert DEFAULT_TAG in refused.err
    assert "--tag" in refused.err
    assert repo.commits[2].oid[:8] in refused.err


# Method, path, status, headers, and what has to be said.
FAULTS: list[tuple[str, str, int | None, dict[str, str], str]] = [
    ("POST", "/api/repos/create", 401, {}, "hf auth login"),
    ("POST", "/api/repos/create", 403, {}, "hf auth login"),
    ("POST", "/api/repos/create", 429, {"Retry-After": "77"}, "77 seconds"),
    ("POST", "/api/repos/create", 503, {}, "repeat the command"),
    ("POST", "/api/repos/create", None, {}, "repeat the command"),
    ("GET", "/refs", 500, {}, "repeat the command"),
    ("GET", "/tree/", 404, {}, "--repo"),
    ("POST", "/preupload/", 403, {}, "hf auth login"),
    ("POST", "/objects/batch", 502, {}, "repeat the command"),
    ("PUT", "/_lfs/upload/", None, {}, "repeat the command"),
    ("PUT", "/_lfs/upload/", 500, {}, "repeat the command"),
    ("POST", "/commit/", 401, {}, "hf auth login"),
    ("POST", "/commit/", 409, {}, "repeat the command"),
    ("POST", "/commit/", 412, {}, "repeat the command"),
    ("POST", "/commit/", 429, {"Retry-After": "33"}, "33 seconds"),
    ("POST", "/commit/", None, {}, "repeat the command"),
    ("POST", "/tag/", 409, {}, "repeat the command"),
    ("POST", "/tag/", 504, {}, "repeat the command"),
]


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "said"), FAULTS, ids=[f"{path}-{status}" for _, path, status, *_ in FAULTS]
)
def test_a_fault_is_one_line_and_a_second_try_completes(
    method: str, path: str, status: int | None, headers: dict[str, str], said: str,
    client: Client, hub: Hub, folder: Path,
) -> None:  # fmt: skip
    hub.fail(method, path, status, times=math.inf, headers=headers, message=f"no, Bearer {hub.token}")
    failed = publish(client, folder)
    assert failed.code == 1
    assert failed.err.startswith(f"error: {REPO}")
    assert failed.err.count("\n") == 1
    assert said in failed.err
    assert "Bearer ***" in failed.err or status is None
    assert (hub.url in failed.err) == (status is None)
    hub.faults.clear()
    done = publish(client, folder)
    assert done.code == 0, done.err
    repo = hub.repos[KEY]
    assert len(repo.commits) == 2
    assert repo.tags == {DEFAULT_TAG: repo.head.oid}
    assert repo.files.keys() == {"README.md", *(path for path in tree(folder) if path.endswith(".parquet"))}


@pytest.mark.parametrize(("status", "headers"), [(None, {}), (503, {}), (429, {"Retry-After": "9"})])
def test_the_client_itself_gets_over_a_short_fault(
    status: int | None, headers: dict[str, str], client: Client, hub: Hub, folder: Path
) -> None:
    hub.fail("PUT", "/_lfs/upload/", status, times=2, headers=headers)
    done = publish(client, folder)
    assert done.code == 0, done.err
    assert len(hub.repos[KEY].commits) == 2
    assert done.slept
    assert not headers or min(done.slept) >= 9


def test_what_was_uploaded_before_a_fault_is_not_uploaded_again(client: Client, hub: Hub, folder: Path) -> None:
    hub.fail("POST", "/commit/", None, times=math.inf)
    assert publish(client, folder).code == 1
    hub.faults.clear()
    hub.requests.clear()
    assert publish(client, folder).code == 0
    assert not [request for request in hub.requests if request.method == "PUT"]


def test_a_proxy_that_answers_for_the_hub(client: Client, hub: Hub, folder: Path) -> None:
    hub.fail("POST", "/api/validate-yaml", 502, message="<html>Bad gateway</html>")
    failed = publish(client, folder)
    assert failed.code == 1
    assert failed.err.startswith(f"error: {REPO}")
    assert "repeat the command" in failed.err
    assert publish(client, folder).code == 0


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    with pytest.raises(PromptCBLUEError, match="HF_HUB_OFFLINE"):
        publishing.publish(publishing.Publication("model", {"README.md": b"text"}, (), "next"), "org/name")


def test_without_a_log_in_nothing_is_asked_of_the_hub(client: Client, hub: Hub, folder: Path) -> None:
    client.log_in(None)
    done = publish(client, folder)
    assert done.code == 1
    assert "hf auth login" in done.err
    assert not hub.requests


def test_a_wrong_log_in_and_another_namespace(client: Client, hub: Hub, folder: Path) -> None:
    client.log_in("hf_wrong")
    assert "hf auth login" in publish(client, folder).err
    client.log_in()
    refused = publish(client, folder, repo="strangers/promptcblue")
    assert refused.code == 1
    assert "strangers" in refused.err
    assert not hub.repos


def test_a_private_repository(client: Client, hub: Hub, folder: Path) -> None:
    assert published(client, hub, folder, "--private").private
    assert publish(client, folder, "--private").code == 0
    hub.reset()
    assert not published(client, hub, folder).private
    before = hub.repos[KEY].commits[:]
    refused = publish(client, folder, "--private", "--tag", "v9")
    assert refused.code == 1
    assert "public" in refused.err
    assert hub.repos[KEY].commits == before


@pytest.mark.parametrize("words", [("--repo", "promptcblue"), ("--repo", "a/b/c"), ("--repo", "org/na me"),
                                   ("--repo", "org/name", "--tag", "two words")])  # fmt: skip
def test_impossible_names_are_refused_at_once(client: Client, hub: Hub, words: tuple[str, ...]) -> None:
    done = client.run("promptcblue-metric", "publish", *words)
    assert done.code == 1
    assert words[-2] in done.err
    assert not hub.requests


def write_samples(folder: Path, rows: list[dict[str, Any]], split: str) -> None:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{split}.json").write_text(lines, encoding="utf-8")


@pytest.mark.parametrize("with_targets", [True, False])
def test_text_of_others_needs_a_word(
    with_targets: bool, client: Client, hub: Hub, sample_rows: Any, tmp_path: Path
) -> None:
    rows = sample_rows("test")[:6]
    if not with_targets:
        rows = [{**row, "target": ""} for row in rows]
    write_samples(tmp_path / "official", rows, "test")
    folder = tmp_path / "promptcblue"
    done = client.run("promptcblue-dataset", "import", tmp_path / "official", "--output", folder, "--no-cache")
    assert done.code == 0, done.err
    for words in ((), ("--private",), ("--dry-run", tmp_path / "look")):
        refused = publish(client, folder, *words)
        assert refused.code == 1
        assert "--i-have-the-rights" in refused.err
        assert ("6 of its test samples" in refused.err) == with_targets
    assert not hub.requests
    assert not (tmp_path / "look").exists()
    assert publish(client, folder, "--i-have-the-rights").code == 0
    assert KEY in hub.repos


def test_what_is_no_dataset_is_not_published(client: Client, hub: Hub, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "import" in publish(client, empty).err
    (folder / "patients.csv").write_text("name")
    refused = publish(client, folder)
    assert refused.code == 1
    assert str(folder) in refused.err
    assert not hub.requests


def test_every_config_has_a_source_and_a_citation() -> None:
    sources = sources_of(REGISTRY)
    assert {task for source in sources for task in source.tasks} == set(REGISTRY)
    keys = [re.match(r"@\w+\{(\w+),\n", source.citation) for source in sources]
    assert len({key[1] for key in keys if key}) == len(sources)
    assert all(source.citation.count("{") == source.citation.count("}") for source in sources)
    (only,) = [source.name for source in sources_of(["CHIP-CTC"]) if source.tasks == ("CHIP-CTC",)]
    assert only == "CHIP-CTC"


@pytest.mark.parametrize("command", ["promptcblue-dataset", "promptcblue-metric", "promptcblue-train"])
def test_help_has_an_example(command: str, client: Client) -> None:
    done = client.run(command, "publish", "--help")
    assert done.code == 0
    assert f"{command} publish" in done.out.partition("Example:")[2]
