"""The script that grows a root file system, run with programs that stand in for the guest's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from armvm.guest.agents.grow_script import grow_command, read_growth


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1 2\n", (1, 2)),
        ("1", None),
        ("", None),
        ("1 x", None),
        ("1 2 3", None),
        ("-1 2", None),
        ("1 \u00b2", None),
    ],
)
def test_only_two_sizes_are_an_answer(text: str, sizes: tuple[int, int] | None) -> None:
    assert read_growth(text) == sizes


def run(
    tmp_path: Path, *, kind: str = "ext4", growpart: str = "echo CHANGED"
) -> subprocess.CompletedProcess[str]:
    """Run the script where / is /dev/vda1, with its tools replaced; each notes what it is told."""
    bin, sys = tmp_path / "bin", tmp_path / "sys/devices/vda/vda1"
    bin.mkdir()
    sys.mkdir(parents=True)
    (sys / "partition").write_text("1\n")
    (tmp_path / "class").mkdir()
    (tmp_path / "class/vda1").symlink_to(sys)
    tools = {
        "findmnt": f"case $* in *SOURCE*) echo /dev/vda1;; *) echo {kind};; esac",
        "growpart": growpart,
        "df": f"echo x; cat {tmp_path}/calls 2>/dev/null | wc -l | sed 's/^/y /'",
        **dict.fromkeys(("resize2fs", "xfs_growfs", "btrfs"), "echo talk"),
    }
    for name, body in tools.items():
        note = "" if name in ("findmnt", "df") else f'echo "{name} $*" >>{tmp_path}/calls\n'
        (bin / name).write_text(f"#!/bin/sh\n{note}{body}\n")
        (bin / name).chmod(0o755)
    *shell, script = grow_command()
    script = script.replace("PATH=", f"PATH={bin}:").replace(
        "/sys/class/block", f"{tmp_path}/class"
    )
    return subprocess.run([*shell, script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("ext4", "resize2fs /dev/vda1"),
        ("xfs", "xfs_growfs /"),
        ("btrfs", "btrfs filesystem resize max /"),
    ],
)
@pytest.mark.parametrize("growpart", ["echo CHANGED", "echo NOCHANGE: full; exit 1"])
def test_partition_then_file_system(tmp_path: Path, kind: str, call: str, growpart: str) -> None:
    done = run(tmp_path, kind=kind, growpart=growpart)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["growpart /dev/vda 1", call]
    assert read_growth(done.stdout) == (0, 2)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": "zfs"}, "zfs"),
        ({"growpart": "echo no room; exit 2"}, "no room"),
        ({"growpart": "echo FAILED: odd; exit 1"}, "odd"),
    ],
)
def test_what_cannot_be_grown_says_why(tmp_path: Path, options: dict[str, str], word: str) -> None:
    done = run(tmp_path, **options)
    assert done.returncode == 1
    assert word in done.stderr
    assert done.stdout == ""
