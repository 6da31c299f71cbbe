"""Download packages for a root file system with the host's apt, outside of it.

Under emulation, apt would take minutes to read the package lists. The host's apt only sees copies
of what it needs: the list of installed packages, the sources and the keys of the root file system.
So it checks the same signatures, and its own settings and hooks do not apply.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, BuildFailed, NotFound
from armvm.settings.names import shown
from armvm.usermode.rootfs import apt_sources, build_log, tree

#: Maximum size to read of dpkg's package list, in bytes.
MAX_STATUS = 64 << 20

#: Preferences that choose versions, and keys for sources without Signed-By: a file, a directory.
_PREFERENCES = ("etc/apt/preferences", "etc/apt/preferences.d")
_KEYS = ("etc/apt/trusted.gpg", "etc/apt/trusted.gpg.d")

_ARMOR = b"-----BEGIN PGP"

_CONFIG = """\
Dir "{home}";
Dir::State "{home}/state";
Dir::State::status "{home}/status";
Dir::Cache "{home}/cache";
Dir::Etc "{home}/etc";
Dir::Etc::main "none";
Dir::Etc::parts "none.d";
Dir::Etc::netrc "none";
Dir::Etc::netrcparts "none.d";
Dir::Etc::sourcelist "sources.list";
Dir::Etc::sourceparts "none.d";
Dir::Etc::preferences "preferences";
Dir::Etc::preferencesparts "none.d";
Dir::Etc::trusted "none";
Dir::Etc::trustedparts "trusted.gpg.d";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
"""


def download(
    root: Path,
    packages: Sequence[str],
    home: Path,
    *,
    title: str,
    on_phase: Callable[[str], None],
    on_size: Callable[[int], None],
) -> list[Path]:
    """Download *packages*, and what they depend on, that *root* lacks; return the files.

    Recommended packages are included, as in `apt-get install`. *home* is a new directory, *title*
    names the root file system in messages. *on_size* is called with the number of bytes that the
    packages will take, before the download; an exception from it ends it. Raises NotFound for an
    unknown package, BuildFailed with the end of apt's log.
    """
    config = _prepare(root, home, title)
    log: deque[str] = deque(maxlen=build_log.MOST_LINES)

    def on_line(text: str) -> None:
        if text.strip():
            log.append(text)
            if (size := build_log.unpacked_size(text)) is not None:
                on_size(size)

    def apt(*words: str) -> None:
        environment = {"APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
        argv = ["apt-get", "-q", "-y", *words]
        if process.run(argv, env=environment, check=False, on_line=on_line).returncode != 0:
            raise _failure(list(log), title)

    on_phase("fetching package lists")
    apt("update")
    on_phase("fetching packages")
    apt("--download-only", "install", *packages)
    return sorted((home / "cache/archives").glob("*.deb"))


def _failure(log: list[str], title: str) -> ArmvmError:
    errors = "\n".join(build_log.extract(log))
    if unknown := build_log.unknown_packages(log):
        names = ", ".join(shown(name) for name in unknown)
        lines = [line for line in log if line.startswith("E: ")]
        return NotFound(
            f"package {names} not found in the package sources of {title}",
            detail="\n".join(lines),
            hint="check the spelling; only packages for arm64 in these sources can be installed",
        )
    return BuildFailed(
        f"cannot download packages for {title}",
        detail=errors,
        hint="check the network, and the package sources and keys in the image (/etc/apt)",
    )


def _prepare(root: Path, home: Path, title: str) -> Path:
    """Write apt's directories and its configuration in *home*; return the configuration."""
    for name in ("state/lists/partial", "cache/archives/partial", "etc/trusted.gpg.d", "keys"):
        (home / name).mkdir(parents=True)
    (home / "status").write_bytes(tree.read(root, "var/lib/dpkg/status", MAX_STATUS) or b"")
    preferences = [data for _, data in _files(root, _PREFERENCES)]
    (home / "etc/preferences").write_bytes(b"\n\n".join(preferences))
    for name, data in _files(root, _KEYS):
        _keyring(home / "etc/trusted.gpg.d", data, name)
    sources = apt_sources.read(root, "arm64")
    if not sources:
        raise BuildFailed(
            f"no package sources on HTTP or HTTPS found in {title}",
            hint="install the packages in a machine: armvm golden create --from MACHINE",
        )
    lines = [
        apt_sources.line(one, "arm64", lambda keys: _keys_of(root, home, keys)) for one in sources
    ]
    (home / "etc/sources.list").write_text("".join(f"{one}\n" for one in lines))
    config = home / "apt.conf"
    config.write_text(_CONFIG.format(home=home))
    for path in (home, *home.rglob("*")):  # for the user _apt, also with another umask
        path.chmod(0o755 if path.is_dir() else 0o644)
    return config


def _keys_of(root: Path, home: Path, keys: str) -> Path:
    """Return a copy of the keys that Signed-By names or contains."""
    if keys.startswith("-----"):
        lines = (one.strip() for one in keys.splitlines())
        data = "".join(f"{'' if one == '.' else one}\n" for one in lines).encode()
    else:
        names = keys.split(",")
        data = b"".join(tree.read(root, name) or b"" for name in names)
    # A file without keys lets apt trust none.
    return _keyring(home / "keys", data, keys)


def _keyring(directory: Path, data: bytes, name: str) -> Path:
    """Write keys to a file in *directory*. apt distinguishes the two formats by the name."""
    stem = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]
    file = directory / f"{stem}.{'asc' if data.lstrip().startswith(_ARMOR) else 'gpg'}"
    file.write_bytes(data)
    return file


def _files(root: Path, places: tuple[str, str]) -> list[tuple[str, bytes]]:
    """Return names and contents of a file of *root* and of the files in a directory, if any."""
    names = [places[0]]
    directory = tree.find(root, places[1])
    if directory is not None and directory.is_dir():
        names += sorted(f"{places[1]}/{one.name}" for one in directory.iterdir())
    read = ((name, tree.read(root, name)) for name in names)
    return [(name, data) for name, data in read if data]
