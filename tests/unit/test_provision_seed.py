"""Writing a seed to a file."""

from __future__ import annotations

import gzip
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from armvm.base.errors import ArmvmError, Conflict, NotFound, StorageError
from armvm.guest.cloudinit.seed import read_seed
from armvm.provision.machine.seed import write_seed
from armvm.settings.machine import Machine
from tests.support import ARMVM, armvm, environment

MACHINE = Machine(name="pi", image="local:debian-12")


def test_a_seed_is_written_for_its_owner_only(tmp_path: Path) -> None:
    output = tmp_path / "seed.iso"
    facts = write_seed(MACHINE, output, force=False)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert facts.user == "debian"
    assert facts.size == output.stat().st_size
    files = read_seed(output.read_bytes())
    meta = yaml.safe_load(files["meta-data"])
    assert meta == {
        "instance-id": facts.instance_id,
        "local-hostname": "pi",
        "dsmode": "local",
    }
    assert facts.host_key_public in files["user-data"].decode()


@pytest.mark.parametrize(
    ("image", "user"), [("ubuntu:24.04", "ubuntu"), ("/no/such/file.qcow2", "armvm")]
)
def test_the_image_names_the_user_and_is_not_looked_for(
    tmp_path: Path, image: str, user: str
) -> None:
    facts = write_seed(Machine(name="m", image=image), tmp_path / "s", force=False)
    assert facts.user == user


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    output = tmp_path / "seed.iso"
    output.write_text("mine")
    with pytest.raises(Conflict) as caught:
        write_seed(MACHINE, output, force=False)
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint
    assert output.read_text() == "mine"
    write_seed(MACHINE, output, force=True)
    assert read_seed(output.read_bytes())


def test_places_that_cannot_hold_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"directory .* not found"):
        write_seed(MACHINE, tmp_path / "none" / "s.iso", force=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArmvmError):
        write_seed(MACHINE, tmp_path / "file" / "s.iso", force=False)
    with pytest.raises(StorageError):
        write_seed(MACHINE, tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dash_is_standard_input_and_output(tmp_path: Path) -> None:
    more = tmp_path / "more.gz"
    more.write_bytes(gzip.compress(b"#cloud-config\npackages: [vim]\n"))
    options = ("--image=local:debian-12", "--user-data=-", f"--user-data={more}", "--output=-")
    done = subprocess.run(
        [*ARMVM, "seed", *options],
        input=b"#cloud-config\npackages: [git]\n",
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=tmp_path,
        check=True,
    )
    told = yaml.safe_load(read_seed(done.stdout)["user-data"])
    assert told["packages"] == ["git", "vim"]
    assert list(tmp_path.iterdir()) == [more]


@pytest.mark.parametrize(
    "options",
    [
        ("seed", "--output=-", "--json"),
        ("seed", "--output=x", "--user-data=-", "--user-data=-"),
        ("seed", "--output=x", "--user-data=-", "--password"),
        ("image", "export", "ubuntu:24.04", "-"),
        ("image", "build", "debian:99", "--output=-"),
        ("rootfs", "to-image", ".", "--output=-"),
        ("screenshot", "m", "-"),
        ("boot-report", "m", "--svg=-"),
    ],
    ids=" ".join,
)
def test_a_dash_is_no_files_name(options: tuple[str, ...], tmp_path: Path) -> None:
    done = armvm(*options, cwd=tmp_path, stdin="")
    assert (done.code, done.out) == (2, "")
    assert "standard" in done.err or "--json" in done.err
    assert not list(tmp_path.iterdir())
