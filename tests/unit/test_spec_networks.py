"""Values of --network and --ip, and which of them can be together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.host.connection import connect
from armvm.host.network.networks import network_names
from armvm.provision.manage.networks import create
from armvm.settings.layers import Layer, environment_layer, resolve
from armvm.settings.machine import Machine, check_address
from armvm.settings.networks import Attachment, Kind, attachments
from tests.unit.host_tools import KVM_HOST, facts_of


def test_each_value_has_a_kind_and_is_written_as_it_was_given() -> None:
    found = attachments("armvm,user,bridge=br0,macvtap=eth0.5")
    assert [one.kind for one in found] == [Kind.NETWORK, Kind.USER, Kind.BRIDGE, Kind.MACVTAP]
    assert [one.source for one in found] == ["armvm", "", "br0", "eth0.5"]
    assert ",".join(map(str, found)) == "armvm,user,bridge=br0,macvtap=eth0.5"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid network name"),
        ("a,", "invalid network name"),
        ("a/b", "invalid network name"),
        ("bridge=", "invalid device"),
        ("bridge=../x", "invalid device"),
        ("bridge=0123456789abcdef", "invalid device"),
        ("macvlan=eth0", "invalid network 'macvlan=eth0'"),
        ("armvm,armvm", "network armvm is there twice"),
        ("macvtap=eth0", "cannot be a machine's first network"),
        ("a,b,c,d,e", "5 networks is out of range"),
        ("bridge=\x1b", "invalid device"),
    ],
)
def test_what_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        attachments(text)
    assert caught.value.message.isprintable()


@given(st.text(max_size=40))
def test_any_text_is_refused_or_comes_back(text: str) -> None:
    try:
        found = attachments(text)
    except ConfigError as error:
        assert error.message.isprintable()
        return
    assert attachments(",".join(map(str, found))) == found


def test_several_come_from_options_files_and_variables() -> None:
    for values in (["lab", "user"], "lab,user"):
        resolved = resolve([Layer(origin="x", values={"network": values})])
        assert resolved["network"].value == "lab,user"
    variable = environment_layer({"ARMVM_NETWORK": "lab,user"})
    assert resolve([variable])["network"].value == "lab,user"
    odd: Any
    for odd in ([], [1], 7, {}):
        with pytest.raises(ConfigError, match="invalid network"):
            resolve([Layer(origin="x", values={"network": odd})])


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.2.3", "1.2.3.4/24", "01.2.3.4", "0.0.0.0", "127.0.0.1", "224.0.0.1",
     "255.255.255.255", "169.254.1.1", "fe80::1", "1.2.3.4\n", "١.2.3.4"],
)  # fmt: skip
def test_an_impossible_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(name="m", ip=text)
    assert caught.value.message.isprintable()
    assert caught.value.hint


def test_an_address_is_an_address() -> None:
    assert str(check_address("192.168.128.50")) == "192.168.128.50"
    assert Machine(name="m", ip="10.0.0.9").summary()["ip"] == "10.0.0.9"
    assert Attachment(Kind.USER) == attachments("user")[0]


@pytest.mark.parametrize("name", ["lab ", " lab", "user", "bridge=br0", "macvtap=eth0"])
def test_a_network_that_no_option_can_name_is_not_created(name: str) -> None:
    connection = connect("test:///default")
    with pytest.raises(ConfigError, match="cannot be used as a network's name"):
        create(connection, facts_of(KVM_HOST), name, None, isolated=False)
    assert network_names(connection) == ["default"]
