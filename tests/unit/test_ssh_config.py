"""The files for the user's ssh: one machine for each name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from armvm.base.errors import Conflict
from armvm.base.progress import Quiet
from armvm.host.connection import Connection, connect
from armvm.host.domain.handle import find_machine
from armvm.host.domain.metadata import to_element
from armvm.host.xml import at, to_text
from armvm.provision.access import ssh_config
from armvm.provision.machine.known_hosts import ssh_config_file
from tests.unit.host_tools import RECORD

pytestmark = pytest.mark.unit

HERE = "test:///default"
ONE, TWO = (f"{number}1111111-2222-4333-8444-555555555555" for number in (1, 2))


def definition(name: str, uuid: str) -> str:
    document = etree.fromstring(
        f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><metadata/>"
        "<memory unit='MiB'>8</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )
    at(document, "metadata").append(to_element(replace(RECORD, forward=2222)))
    return to_text(document)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A libvirt with a machine called web."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    connection: Any = connect(HERE)
    connection.defineXML(definition("web", ONE))
    yield connection
    for domain in connection.listAllDomains():
        if domain.UUIDString() in (ONE, TWO):
            domain.undefine()
    connection.close()


def there(tmp_path: Path, name: str) -> str:
    """Return the URI of another libvirt, with one machine."""
    path = tmp_path / "there.xml"
    path.write_text(f"<node>{definition(name, TWO)}</node>")
    return f"test://{path}"


def install(connection: Connection, tmp_path: Path, *names: str) -> None:
    ssh_config.install(connection, names, tmp_path)


def test_machines_of_one_name_on_two_hosts_are_a_conflict(here: Any, tmp_path: Path) -> None:
    install(here, tmp_path, "web")
    other = connect(there(tmp_path, "web"))
    for names in (("web",), ()):
        with pytest.raises(Conflict, match=f"configured for web of {HERE}") as caught:
            install(other, tmp_path, *names)
    assert f"--remove web --connect {HERE}" in str(caught.value.hint)
    assert not ssh_config_file(TWO).exists()
    ssh_config.remove(here, ["web"], tmp_path)
    install(other, tmp_path, "web")
    assert ssh_config_file(TWO).exists()


def test_a_host_that_does_not_answer_keeps_its_name(here: Any, tmp_path: Path) -> None:
    install(connect(there(tmp_path, "web")), tmp_path, "web")
    (tmp_path / "there.xml").unlink()
    with pytest.raises(Conflict, match=r"there\.xml"):
        install(here, tmp_path, "web")


def test_the_file_of_a_machine_with_another_name_by_now_is_replaced(
    here: Any, tmp_path: Path
) -> None:
    install(connect(there(tmp_path, "web")), tmp_path, "web")
    there(tmp_path, "db")
    install(here, tmp_path, "web")
    assert ssh_config_file(ONE).exists()
    assert not ssh_config_file(TWO).exists()


def test_a_renamed_machine_keeps_its_file(here: Any, tmp_path: Path) -> None:
    machine = find_machine(here, "web")
    ssh_config.renamed(here, machine.instance, Quiet())
    assert not ssh_config_file(ONE).exists()
    install(here, tmp_path, "web")
    machine.domain.rename("db", 0)
    now = find_machine(here, "db")
    ssh_config.renamed(here, now.instance, Quiet())
    assert "Host db" in ssh_config_file(ONE).read_text().splitlines()
    here.defineXML(definition("web", TWO))
    install(here, tmp_path, "web")
    machine.domain.rename("other", 0)
    ssh_config_file(ONE).write_text(ssh_config_file(ONE).read_text().replace("Host db", "Host x"))
    # Another machine's file has the new name, so this one's is removed.
    ssh_config_file(TWO).write_text(
        ssh_config_file(TWO).read_text().replace("Host web", "Host web\nHost other")
    )
    here.lookupByUUIDString(TWO).undefine()
    ssh_config.renamed(here, find_machine(here, "other").instance, Quiet())
    assert "Host other" in ssh_config_file(ONE).read_text().splitlines()
    assert not ssh_config_file(TWO).exists()


def test_a_renamed_machine_whose_name_another_has_loses_its_file(here: Any, tmp_path: Path) -> None:
    install(here, tmp_path, "web")
    install(connect(there(tmp_path, "db")), tmp_path, "db")
    machine = find_machine(here, "web")
    machine.domain.rename("db", 0)
    ssh_config.renamed(here, find_machine(here, "db").instance, Quiet())
    assert not ssh_config_file(ONE).exists()
    assert ssh_config_file(TWO).exists()
