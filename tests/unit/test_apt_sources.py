"""The package sources of an untrusted image: what apt outside of it is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.usermode.rootfs import apt_sources


def lines(root: Path, name: str, text: str) -> list[str]:
    """Return the lines of sources.list that armvm writes for a file of the image."""
    file = root / "etc/apt" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return [
        apt_sources.line(one, "arm64", lambda keys: Path("/copy") / keys.replace("/", "_"))
        for one in apt_sources.read(root, "arm64")
    ]


def test_lines(tmp_path: Path) -> None:
    assert lines(
        tmp_path,
        "sources.list",
        "# deb http://no.example main\n"
        "deb http://deb.example/debian bookworm main contrib # why\n"
        "deb-src http://deb.example/debian bookworm main\n"
        "deb [arch=amd64] http://deb.example/other bookworm main\n"
        "deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/x.gpg trusted=yes ] "
        "https://x.example/ flat/\n"
        "deb http://deb.example/debian bookworm main contrib\n",
    ) == [
        "deb [arch=arm64] http://deb.example/debian bookworm main contrib",
        "deb [arch=arm64 signed-by=/copy/_usr_share_keyrings_x.gpg] https://x.example/ flat/",
    ]


def test_stanzas_of_ubuntu_and_of_debians_cloud_images(tmp_path: Path) -> None:
    mirrors = tmp_path / "etc/apt/mirrors"
    mirrors.mkdir(parents=True)
    (mirrors / "debian.list").write_text("\n# main\nhttps://deb.example/debian\tpriority:1\n")
    assert lines(
        tmp_path,
        "sources.list.d/debian.sources",
        "Types: deb deb-src\nURIs: mirror+file:///etc/apt/mirrors/debian.list\n"
        "Suites: bookworm\n bookworm-updates\nComponents: main\n"
        "\n"
        "## Ubuntu's\nTypes: deb\nURIs: http://ports.example/ubuntu-ports/\nSuites: noble\n"
        "Components: main universe\nSigned-By: /usr/share/keyrings/ubuntu.gpg\n"
        "\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: x\n"
        "\n"
        "Types: deb\nURIs: http://pc.example\nSuites: x\nArchitectures: amd64\n",
    ) == [
        "deb [arch=arm64] https://deb.example/debian bookworm main",
        "deb [arch=arm64] https://deb.example/debian bookworm-updates main",
        "deb [arch=arm64 signed-by=/copy/_usr_share_keyrings_ubuntu.gpg] "
        "http://ports.example/ubuntu-ports/ noble main universe",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "deb file:/etc bookworm main",
        "deb copy:/etc bookworm main",
        "deb ssh://root@host/ bookworm main",
        "deb cdrom:[Debian]/ bookworm main",
        "deb [arch=arm64 http://x.example bookworm main",
        "deb http://x.example/[trusted=yes] bookworm main",
        "deb http://x.example ../../etc main",
        "deb http://x.example bookworm main$(id)",
        "deb mirror+file:/etc/passwd bookworm main",
        "deb",
    ],
)
def test_what_is_no_plain_archive_is_left_out(tmp_path: Path, source: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    assert lines(tmp_path, "sources.list", f"{source}\n") == []


def test_keys_are_the_images_own(tmp_path: Path) -> None:
    (one,) = lines(tmp_path, "sources.list", "deb [signed-by=../../x] http://x.example s main\n")
    assert "signed-by=/copy/.._.._x]" in one, "a name, read below the image's root"
    prints = "A" * 40 + ",B" + "0" * 39
    (one,) = lines(tmp_path, "sources.list", f"deb [signed-by={prints}] http://x.example s main\n")
    assert f"signed-by={prints}]" in one
    armored = (
        "Types: deb\nURIs: http://y.example\nSuites: s\nComponents: main\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    lines(tmp_path, "sources.list", "")
    lines(tmp_path, "sources.list.d/y.sources", armored)
    (source,) = apt_sources.read(tmp_path, "arm64")
    assert source.keys.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc")
