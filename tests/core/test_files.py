"""Atomic writing: at every moment, whatever happens to the process, a complete file or folder has the name."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from weightdecay.core import files
from weightdecay.core.checks import ArgumentError


def write_folder(path, content):
    with files.atomic(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "file").write_text(content)


def write_file(path, content):
    with files.atomic(path) as unfinished:
        unfinished.write_text(content)


def content_of(path):
    return (path / "inner" / "file" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_atomic_writes_and_replaces(write, tmp_path):
    path = tmp_path / "deep" / "target"
    write(path, "first")
    assert content_of(path) == "first"
    write(path, "second")
    assert content_of(path) == "second"
    assert os.listdir(path.parent) == ["target"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_atomic_leaves_what_was_there_when_the_block_raises(write, tmp_path):
    write(tmp_path / "target", "first")
    with pytest.raises(ConnectionAbortedError), files.atomic(tmp_path / "target") as unfinished:  # noqa: PT012
        unfinished.mkdir()
        raise ConnectionAbortedError
    assert content_of(tmp_path / "target") == "first"
    assert os.listdir(tmp_path) == ["target"]


def test_atomic_replaces_the_target_of_a_symbolic_link(tmp_path):
    write_folder(tmp_path / "target", "first")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_folder(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink()
    assert content_of(tmp_path / "target") == "second"


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_atomic_gives_the_permissions_of_new_files(umask, folder, file, tmp_path):
    before = os.umask(umask)
    try:
        with files.atomic(tmp_path / "target") as unfinished:
            unfinished.mkdir(mode=0o700)
            os.close(os.open(unfinished / "file", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == folder
    assert stat.S_IMODE((tmp_path / "target" / "file").stat().st_mode) == file


def run_and_kill(body, *arguments):
    """Run code in a process that ends by SIGKILL: ``kill()`` within the code does it."""
    script = f"""
import os, signal, sys
from pathlib import Path
from weightdecay.core import files
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
{textwrap.dedent(body)}
"""
    ended = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_the_next_write_removes_what_a_killed_process_left(tmp_path):
    write_folder(tmp_path / "target", "first")
    run_and_kill(
        """
        with files.atomic(Path(sys.argv[1])) as unfinished:
            unfinished.mkdir()
            kill()
        """,
        tmp_path / "target",
    )
    assert len(os.listdir(tmp_path)) == 2
    assert content_of(tmp_path / "target") == "first"
    write_folder(tmp_path / "target", "second")
    assert os.listdir(tmp_path) == ["target"]


def test_a_write_leaves_alone_what_a_living_process_writes(tmp_path):
    with files.atomic(tmp_path / "target") as unfinished:
        write_file(tmp_path / "target", "other")
        unfinished.write_text("ours")
    assert content_of(tmp_path / "target") == "ours"
    (tmp_path / ".target-backup").mkdir()  # somebody else's
    write_file(tmp_path / "target", "again")
    assert sorted(os.listdir(tmp_path)) == [".target-backup", "target"]


REPLACE = """
    with files.atomic(Path(sys.argv[1])) as unfinished:
        unfinished.mkdir()
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "file").write_text("second")
"""


def test_a_folder_is_replaced_in_one_step_where_the_system_can(tmp_path):
    """Killed at the first change of a name, right before or right after it: a complete folder has the name."""
    for number, moment in enumerate(["before", "after"]):
        path = tmp_path / moment / "target"
        write_folder(path, "first")
        run_and_kill(
            f"""
            exchanged = files._exchanged
            def patched(one, other):
                if sys.argv[2] == "before":
                    kill()
                assert exchanged(one, other)
                kill()
            files._exchanged = patched
            {textwrap.dedent(REPLACE).strip().replace(chr(10), chr(10) + " " * 12)}
            """,
            path,
            moment,
        )
        assert content_of(path) == ["first", "second"][number]


def test_a_replacement_killed_between_its_renames_is_finished_later(tmp_path):
    write_folder(tmp_path / "target", "first")
    run_and_kill(
        f"""
        files._exchanged = lambda one, other: False  # as on a file system of a network
        rename, calls = os.rename, []
        def patched(*names):
            calls.append(names)
            kill() if len(calls) == 2 else rename(*names)
        os.rename = patched
        {textwrap.dedent(REPLACE).strip().replace(chr(10), chr(10) + " " * 8)}
        """,
        tmp_path / "target",
    )
    assert not (tmp_path / "target").exists()
    files.recover(tmp_path / "target")
    assert content_of(tmp_path / "target") == "second"
    write_folder(tmp_path / "target", "third")
    assert os.listdir(tmp_path) == ["target"]


def test_recover_leaves_an_unfinished_first_write_alone(tmp_path):
    run_and_kill(
        """
        with files.atomic(Path(sys.argv[1])) as unfinished:
            unfinished.mkdir()
            kill()
        """,
        tmp_path / "target",
    )
    files.recover(tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_atomic_takes_long_names(tmp_path):
    write_file(tmp_path / ("ä" * 127), "long")
    assert os.listdir(tmp_path) == ["ä" * 127]


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff"), "nul\0"])
def test_check_path_refuses_what_files_cannot_be_named(name, tmp_path):
    with pytest.raises(ArgumentError, match=r"folder is .* not valid UTF-8; give another path") as refused:
        files.check_path(tmp_path / name, "folder")
    assert refused.value.argument == "folder"
    assert files.check_path(tmp_path / "ä", "folder") == Path(tmp_path / "ä")
