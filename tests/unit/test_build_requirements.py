"""Requirements for image builds: all missing ones are reported before the build starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.errors import MissingCapability, NotFound
from armvm.usermode.rootfs import build, build_log, requirements
from armvm.usermode.rootfs.distros import DEBIAN, UBUNTU, sources

NEWUIDMAP = "newuidmap: write to uid_map failed: Operation not permitted\nE: failed"


def text_of(error: MissingCapability) -> str:
    return f"{error.message}\n{error.detail}\n{error.hint}"


# ---- the command line ----------------------------------------------------------------------


def words(mode: build.Mode, **options: str) -> list[str]:
    return [
        *map(
            str,
            build.command(
                Path("/w/root"),
                distro=DEBIAN,
                suite="trixie",
                mode=mode,
                mirror=options.get("mirror"),
            ),
        )
    ]


def test_root_builds_in_a_mount_namespace_others_in_a_user_namespace() -> None:
    root, user = words(build.Mode.ROOT), words(build.Mode.UNSHARE)
    assert root[:4] == ["unshare", "--mount", "--propagation", "private"]
    assert "--mode=root" in root
    assert user[0] == "mmdebstrap"
    assert "--mode=unshare" in user
    for argv in (root, user):
        assert argv[-2:] == ["trixie", "/w/root"], "mmdebstrap chooses Debian's archives"
        assert {"--arch=arm64", "--variant=extract", "--format=directory"} <= set(argv)
    assert words(build.Mode.ROOT, mirror="http://m/debian")[-1] == "http://m/debian"


def test_ubuntus_arm64_is_on_its_ports_archive() -> None:
    keyring = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    assert sources(UBUNTU, "noble", None) == [
        f"deb [arch=arm64 signed-by={keyring}] http://ports.ubuntu.com/ubuntu-ports {suite} "
        "main universe"
        for suite in ("noble", "noble-updates", "noble-security")
    ]
    (line, *_) = sources(UBUNTU, "noble", "http://m/ports", Path("/k.gpg"))
    assert line == "deb [arch=arm64 signed-by=/k.gpg] http://m/ports noble main universe"


# ---- programs and keys ---------------------------------------------------------------------


def test_all_missing_programs_are_named_at_once_with_their_packages() -> None:
    with pytest.raises(MissingCapability) as caught:
        requirements.check_programs(["sh", "no-such-program", "no-such-other"])
    assert "no-such-program, no-such-other" in caught.value.message
    assert "apt-get install no-such-program no-such-other" in (caught.value.hint or "")
    requirements.check_programs(["sh"])


def test_a_package_with_two_missing_programs_is_named_once() -> None:
    with pytest.raises(MissingCapability) as caught:
        requirements.check_programs(["mcopy", "mmd", "newuidmap", "newgidmap"], "/nowhere")
    assert "apt-get install mtools uidmap " in (caught.value.hint or "")


def test_an_archive_without_keys_is_refused(tmp_path: Path) -> None:
    keyless = replace(UBUNTU, keyring=tmp_path / "no.gpg")
    with pytest.raises(MissingCapability, match="Ubuntu's archive") as caught:
        requirements.check(build.Mode.here(), keyless, tmp_path, keyring=None)
    assert "apt-get install ubuntu-keyring, or use --keyring" in (caught.value.hint or "")
    with pytest.raises(NotFound, match=r"mine\.gpg"):
        requirements.check(build.Mode.here(), UBUNTU, tmp_path, keyring=tmp_path / "mine.gpg")


# ---- user namespaces -----------------------------------------------------------------------


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "subuid").write_text("root:100000:65536\nann:165536:65536\nbob:400000:1000\n")
    (tmp_path / "subgid").write_text("# a comment\n\nann:165536:65536\nbroken:x:y\n")
    return tmp_path


def test_ids_that_are_lent(etc: Path) -> None:
    assert requirements.lent(etc / "subuid", "ann") == 65536
    assert requirements.lent(etc / "subuid", "bob") == 1000
    assert requirements.lent(etc / "subgid", "bob") == 0
    assert requirements.lent(etc / "missing", "ann") == 0


def test_who_has_no_ids_is_told_the_command_that_gives_some(etc: Path) -> None:
    with pytest.raises(MissingCapability) as caught:
        requirements.check_namespace("bob", etc=etc)
    assert "subuid" in caught.value.message
    hint = caught.value.hint or ""
    # Ranges that nobody has: one's ids are another's files.
    assert "usermod --add-subuids 401000-466535 --add-subgids 231072-296607 bob" in hint


def test_only_what_is_missing_is_asked_for(etc: Path) -> None:
    (etc / "subgid").unlink()
    with pytest.raises(MissingCapability) as caught:
        requirements.check_namespace("ann", etc=etc)
    assert "usermod --add-subgids 100000-165535 ann" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ],
)
def test_a_closed_kernel_is_told_with_the_sysctl_that_opens_it(
    tmp_path: Path, name: str, bad: str, good: str
) -> None:
    file = tmp_path / "sys" / name.replace(".", "/")
    file.parent.mkdir(parents=True)
    file.write_text(f"{good}\n")
    assert requirements.closed_by(tmp_path) == []
    file.write_text(f"{bad}\n")
    error = requirements.explained("E: unshare", requirements.closed_by(tmp_path))
    assert f"{name} is {bad}" in error.message
    assert f"sudo sysctl -w {name}={good}" in (error.hint or "")
    assert error.detail == "E: unshare"


def test_other_reasons_are_told_apart() -> None:
    assert "setuid" in text_of(requirements.explained(NEWUIDMAP, []))
    assert "container" in text_of(requirements.explained("E: unshare() failed", []))


def test_this_machines_own_files_can_be_read() -> None:
    """The real /proc, /etc: whatever they say, no error of ours."""
    assert all(
        command.startswith("sudo sysctl") for _, command in requirements.closed_by(Path("/proc"))
    )
    assert requirements.lent(Path("/etc/subuid"), "nobody-of-that-name") == 0


# ---- what apt says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("After this operation, 420 MB of additional disk space will be used.", 420 * 10**6),
        ("After this operation, 1,234 MB of additional disk space will be used.", 1234 * 10**6),
        ("After this operation, 9.8 GB of additional disk space will be used.", 9_800_000_000),
        ("After this operation, 0 B of additional disk space will be used.", 0),
        ("After this operation, 12 kB disk space will be freed.", None),
        ("Need to get 146 MB of archives.", None),
    ],
)
def test_how_much_space_apt_asks_for(line: str, size: int | None) -> None:
    assert build_log.unpacked_size(line) == size


def test_packages_that_apt_does_not_find() -> None:
    log = [
        "Reading package lists...",
        "E: Unable to locate package treee",
        "E: Couldn't find any package by glob 'docker.oi'",
        "E: Couldn't find any package by regex 'docker.oi'",
        "E: Package 'mail-transport-agent' has no installation candidate",
        "E: Unable to correct problems, you have held broken packages.",
    ]
    assert build_log.unknown_packages(log) == ["treee", "docker.oi", "mail-transport-agent"]
