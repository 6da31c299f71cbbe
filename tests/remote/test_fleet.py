"""Two libvirts by name: this machine's, and another host's over ssh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote.host import URI, OtherHost
from tests.support import Result, fresh_name


@pytest.fixture
def names(lab: OtherHost) -> Iterator[dict[str, str]]:
    """Hosts of the client: here, far, and gone, where sshd does not listen."""
    uris = {
        "here": "qemu:///system",
        "far": URI,
        "gone": URI.replace("lab", "lab:2223"),
    }
    file = Path(lab.env["XDG_CONFIG_HOME"]) / "armvm" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[hosts]\n" + "".join(f'{name} = "{uri}"\n' for name, uri in uris.items()))
    yield uris
    file.unlink()


def rows(done: Result) -> dict[str, Any]:
    return {one["name"]: one for one in done.json}


def test_both_answer_and_a_name_means_its_uri(lab: OtherHost, names: dict[str, str]) -> None:
    done = lab.armvm("hosts", "--timeout", "30", "--json").failed(6)
    found = rows(done)
    assert [name for name, one in found.items() if one["reachable"]] == ["here", "far"]
    assert found["far"]["libvirt"] == found["here"]["libvirt"]
    assert found["far"]["accelerator"] == "tcg"
    assert "refused" in found["gone"]["reason"]
    assert "ssh: connect to host lab port 2223" in found["gone"]["reason"]
    assert lab.armvm("golden", "list", "--on", "far", "--json").ok().json == lab.armvm(
        "golden", "list", "--connect", URI, "--json"
    ).ok().json  # fmt: skip


def test_a_fleet_on_both(
    lab: OtherHost, names: dict[str, str], blank_image: Path, tmp_path: Path
) -> None:
    name, file = fresh_name("armvm-fl"), tmp_path / "fleet.toml"
    table = f'[machines.{name}]\nimage = "{blank_image}"\nnetwork = "user"\n'
    file.write_text(f'fleet = "{name}"\n{table}each = ["here", "far"]\n')

    def listed() -> dict[str, str]:
        found = rows(lab.armvm("list", "--on", "here,far", "--json").ok())
        return {one: row["on"] for one, row in found.items() if one.startswith(name)}

    try:
        made = rows(lab.armvm("apply", file, "--no-start", "--json", timeout=300).ok())
        assert all(one["done"] for one in made.values())
        assert listed() == {f"{name}-here": "here", f"{name}-far": "far"}
        again = rows(lab.armvm("apply", file, "--no-start", "--json").ok())
        assert {one["action"] for one in again.values()} == {"same"}
        # The host of a machine that left the file is not in the file any more. It is the default
        # connection too, which is always asked.
        file.write_text(f'fleet = "{name}"\n{table}each = ["here"]\n')
        told = rows(lab.armvm("apply", file, "--no-start", "--json").ok())[f"{name}-far"]
        assert (told["action"], told["on"]) == ("surplus", None)
        done = lab.armvm("apply", file, "--no-start", "--prune", "--yes").failed(6)
        assert f"{name}-far on far deleted" in done.out
        assert "gone did not answer" in done.err
        assert listed() == {f"{name}-here": "here"}
    finally:
        for on in names:
            lab.armvm("delete", "--on", on, "--yes", f"{name}-{on}")
