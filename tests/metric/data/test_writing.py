"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from promptcblue_metric.data.writing import replace_bytes, replacing, replacing_file, scratch_folder
from promptcblue_metric.errors import PromptCBLUEError


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "old").touch()

    def fail(writing: AbstractContextManager[Path], name: str) -> None:
        with writing as temporary:
            (temporary / name).write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(replacing_file(file), "")
    with pytest.raises(RuntimeError):
        fail(replacing(folder), "new")
    assert file.read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "old"]


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "folder"
    for name in ("one", "two"):
        with replacing(folder) as new:
            (new / name).touch()
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["folder", "two"]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.symlink_to(tmp_path / "there" / "file")
    folder.symlink_to(tmp_path / "there" / "folder")
    replace_bytes(file, b"new")
    with replacing(folder) as new:
        (new / "new").touch()
    assert file.is_symlink()
    assert folder.is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"
    assert (tmp_path / "there" / "folder" / "new").exists()


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_bytes(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    replace_bytes(Path(os.devnull), b"content")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    full = Path("/dev/full")
    if full.is_char_device():
        with pytest.raises(PromptCBLUEError, match="/dev/full: cannot be written: No space left"):
            replace_bytes(full, b"content")


def test_what_a_killed_run_left_is_taken_away_and_a_running_ones_is_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from promptcblue_metric.data.writing import replacing, replacing_file\n"
        "with replacing(Path(sys.argv[1])) as new, replacing_file(Path(sys.argv[2])) as file:\n"
        "    (new / 'part').touch(); file.touch(); print('written', flush=True); input(); os._exit(9)"
    )
    folder, file = tmp_path / "folder", tmp_path / "file.json"
    running = subprocess.Popen(
        [sys.executable, "-c", code, folder, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdin
    assert running.stdout
    assert running.stdout.readline() == "written\n"
    replace_bytes(file, b"{}")
    assert len(list(tmp_path.iterdir())) == 3, "the other run still works on its own"
    running.stdin.write("\n")
    running.stdin.close()
    assert running.wait() == 9
    running.stdout.close()
    replace_bytes(file, b"{}")
    with replacing(folder):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.json", "folder"]


def test_scratch_folders_of_killed_runs_are_taken_away_and_others_are_not(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from promptcblue_metric.data.writing import scratch_folder\n"
        "with scratch_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'part').touch(); print(folder, flush=True); input(); os._exit(9)"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdin
    assert running.stdout
    theirs = Path(running.stdout.readline().strip())
    # As after a container was killed, whose processes had the same numbers.
    left = theirs.with_name(theirs.name.replace(f".{running.pid}-", f".{os.getpid()}-"))
    left.mkdir()
    with scratch_folder(str(tmp_path)) as one, scratch_folder(str(tmp_path)) as two:
        assert sorted(tmp_path.iterdir()) == sorted([theirs, one, two])
    running.communicate("\n")
    assert (theirs / "part").exists()
    with scratch_folder(str(tmp_path)) as one:
        assert list(tmp_path.iterdir()) == [one]
    assert not list(tmp_path.iterdir())


def test_what_another_machine_works_on_is_left_alone_for_a_day(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "file") as temporary:
        temporary.touch()
    name = temporary.name
    ours = name.split("-")[1].partition(".")[0]
    theirs = tmp_path / name.replace(f"-{ours}.", "-00000000." if ours != "00000000" else "-00000001.")
    for age, there in ((0, True), (90_000, False)):
        theirs.touch()
        os.utime(theirs, (time.time() - age,) * 2)
        replace_bytes(tmp_path / "file", b"")
        assert theirs.exists() == there


def test_what_a_process_of_our_own_number_left_is_no_hindrance(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder") as new:
        name = new.parent.name
    (tmp_path / name / "new").mkdir(parents=True)
    with replacing(tmp_path / "folder") as new:
        (new / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "file"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PromptCBLUEError, match=r"file/new\.json: cannot be written: "):
        replace_bytes(tmp_path / "file" / "new.json", b"")
