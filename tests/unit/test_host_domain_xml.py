"""The domain XML: all values are filled in and escaped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from armvm.host import connection as connecting
from armvm.host.domain.domain_xml import (
    HEADLESS_ROOT_PORTS,
    PCIE_ROOT_PORTS,
    DirectKernel,
    DomainSpec,
    build,
    portable,
)
from armvm.host.domain.metadata import Record, from_domain
from armvm.host.facts import Accelerator
from armvm.host.network.card import Card, cards_in, plan_cards
from armvm.host.xml import at, parse, select, to_text
from armvm.settings.networks import Attachment, Kind, attachments
from tests.unit.host_tools import RECORD, SPEC

USER = Card(to=Attachment(Kind.USER), mac="52:54:00:12:34:56")
HOSTILE = "<a b=\"'&amp;]]>é"


def built(spec: DomainSpec = SPEC, record: Record = RECORD) -> etree._Element:
    """Return the domain as libvirt reads it: written out and parsed again."""
    return parse(to_text(build(spec, record)))


def value(document: etree._Element, path: str, attribute: str | None = None) -> str | None:
    element = at(document, path)
    return element.text if attribute is None else element.get(attribute)


def test_the_machine_asked_for_is_the_machine_described() -> None:
    document = built()
    assert document.get("type") == "qemu"
    assert value(document, "name") == "arm64-01"
    assert value(document, "uuid") == SPEC.uuid
    assert (value(document, "memory"), value(document, "memory", "unit")) == ("2048", "MiB")
    assert value(document, "vcpu") == "2"
    assert value(document, "cpu/model") == "cortex-a57"
    assert value(document, "devices/disk[1]/source", "file") == SPEC.overlay
    assert value(document, "devices/disk[2]/source", "file") == SPEC.seed
    assert document.find("devices/disk[2]/readonly") is not None
    assert value(document, "devices/serial/log", "file") == SPEC.serial_log
    assert value(document, "devices/interface/mac", "address") == SPEC.mac


def test_what_experience_taught_is_in_every_machine() -> None:
    """FIELD-NOTES, "The domain": each of these was a machine that did not work."""
    document = built()
    assert value(document, "os", "firmware") == "efi"
    features = {one.get("name"): one.get("enabled") for one in document.iter("feature")}
    assert features == {"secure-boot": "no", "enrolled-keys": "no"}
    assert value(document, "os/bootmenu", "timeout") == "0"
    assert value(document, "features/gic", "version") == "3"
    assert value(document, "sysinfo/system/entry", "name") == "serial"
    assert value(document, "sysinfo/system/entry") == "ds=nocloud"
    assert value(document, "os/smbios", "mode") == "sysinfo"
    assert value(document, "devices/controller[@type='usb']", "model") == "qemu-xhci"
    ports = select(document, "devices/controller[@model='pcie-root-port']")
    assert len(ports) == PCIE_ROOT_PORTS == 14
    assert value(document, "devices/interface/rom", "enabled") == "no"
    assert value(document, "devices/channel/target", "name") == "org.qemu.guest_agent.0"
    assert value(document, "devices/serial/target/model", "name") == "pl011"
    assert select(document, "devices/disk[1]/boot") and not select(document, "devices/disk[2]/boot")
    assert document.find("devices/emulator") is None, "libvirt chooses it"
    assert document.find("os/loader") is None


def test_the_screen_is_for_this_host_alone() -> None:
    document = built()
    assert {one.get("bus") for one in document.iterfind("devices/input")} == {"usb"}
    assert value(document, "devices/video/model", "type") == "virtio"
    addresses = [one.get("address") or one.get("listen") for one in document.iter("listen")]
    assert addresses == ["127.0.0.1"]


def test_a_headless_machine_has_no_screen_and_no_input() -> None:
    document = built(replace(SPEC, headless=True))
    screen = "devices/input | devices/graphics | devices/video"
    assert select(document, f"{screen} | devices/controller[@type='usb']") == []
    ports = select(document, "devices/controller[@model='pcie-root-port']")
    assert len(ports) == HEADLESS_ROOT_PORTS
    assert document.find("devices/serial") is not None


@pytest.mark.parametrize(
    ("model", "mode"), [("host-passthrough", "host-passthrough"), ("maximum", "maximum")]
)
def test_a_mode_of_libvirts_takes_the_place_of_a_model(model: str, mode: str) -> None:
    cpu = at(built(replace(SPEC, cpu_model=model)), "cpu")
    assert dict(cpu.items()) == {"mode": mode, "check": "none"}
    assert len(cpu) == 0


def test_a_named_cpu_is_exact() -> None:
    cpu = at(built(replace(SPEC, cpu_model="cortex-a72")), "cpu")
    assert dict(cpu.items()) == {"mode": "custom", "match": "exact", "check": "none"}
    assert value(cpu, "model") == "cortex-a72"


def test_kvm() -> None:
    assert built(replace(SPEC, accelerator=Accelerator.KVM)).get("type") == "kvm"


def test_networks() -> None:
    assert value(built(), "devices/interface", "type") == "network"
    assert value(built(), "devices/interface/source", "network") == "default"
    user = built(replace(SPEC, cards=(USER,)))
    assert value(user, "devices/interface", "type") == "user"
    assert user.find("devices/interface/source") is None


def test_several_networks_are_cards_in_their_order() -> None:
    wanted = attachments("armvm,lab,bridge=br0,macvtap=eth0")
    cards = plan_cards(wanted, "52:54:00:ff:ff:fe")
    document = built(replace(SPEC, cards=cards, headless=True))
    assert cards_in(document) == cards
    assert [card.mac[9:] for card in cards] == ["ff:ff:fe", "ff:ff:ff", "00:00:00", "00:00:01"]
    assert value(document, "devices/interface[4]", "type") == "direct"
    assert value(document, "devices/interface[4]/source", "mode") == "bridge"
    assert value(document, "devices/interface[3]/source", "bridge") == "br0"
    ports = select(document, "devices/controller[@model='pcie-root-port']")
    assert len(ports) == HEADLESS_ROOT_PORTS + 3


def test_an_unknown_system_has_no_osinfo() -> None:
    assert "libosinfo" in to_text(built())
    assert "libosinfo" not in to_text(built(replace(SPEC, libosinfo_id=None)))


def test_values_stay_values() -> None:
    """No text becomes markup, wherever it stands."""
    plain = len(list(built().iter()))
    spec = replace(
        SPEC,
        name=HOSTILE,
        cards=(Card(to=Attachment(Kind.NETWORK, HOSTILE), mac=HOSTILE),),
        overlay=HOSTILE,
        seed=HOSTILE,
        serial_log=HOSTILE,
        cpu_model=HOSTILE,
        libosinfo_id=HOSTILE,
    )
    record = replace(RECORD, user=HOSTILE, pool=HOSTILE, image={"reference": HOSTILE})
    document = built(spec, record)
    assert len(list(document.iter())) == plain
    assert value(document, "name") == HOSTILE
    assert value(document, "devices/interface/source", "network") == HOSTILE
    assert value(document, "devices/disk[1]/source", "file") == HOSTILE
    assert from_domain(document) == record


FAST = replace(
    SPEC,
    cache="unsafe",
    kernel=DirectKernel(
        kernel="/pool/m.kernel", initrd="/pool/m.initrd", command_line="root=LABEL=x ro"
    ),
)


def test_translated_code_is_limited_only_where_that_is_possible() -> None:
    limited = built(replace(SPEC, tb_cache=True))
    assert value(limited, "features/tcg/tb-cache", "unit") == "MiB"
    assert value(limited, "features/tcg/tb-cache") == "64"
    assert value(built(replace(SPEC, tb_cache=True, cpus=32)), "features/tcg/tb-cache") == "256"
    assert value(built(replace(FAST, tb_cache=True)), "features/tcg/tb-cache") == "256"
    assert select(built(SPEC), "features/tcg") == []


def test_a_kernel_from_outside_takes_the_firmwares_place() -> None:
    document = built(FAST)
    assert value(document, "os/kernel") == "/pool/m.kernel"
    assert value(document, "os/initrd") == "/pool/m.initrd"
    assert value(document, "os/cmdline") == "root=LABEL=x ro ds=nocloud"
    assert document.find("os").attrib == {}  # type: ignore[union-attr]
    left = "os/firmware | os/bootmenu | os/smbios | sysinfo | features/acpi | devices/disk/boot"
    assert select(document, left) == []
    assert value(document, "devices/disk[1]/driver", "cache") == "unsafe"
    assert value(document, "features/gic", "version") == "3"


def test_only_a_fast_machine_trades_anything() -> None:
    document = built()
    assert select(document, "os/kernel | devices/disk/driver[@cache]") == []
    cache_alone = built(replace(FAST, kernel=None))
    assert value(cache_alone, "os", "firmware") == "efi"
    assert value(cache_alone, "devices/disk[1]/driver", "cache") == "unsafe"
    assert cache_alone.find("devices/disk[2]/driver[@cache]") is None


def test_what_was_traded_is_in_the_record() -> None:
    record = replace(RECORD, fast={"cache": "unsafe", "kernel": "vmlinuz-6.1"})
    assert from_domain(built(FAST, record)) == record


def test_the_record_goes_with_the_machine() -> None:
    assert from_domain(built()) == RECORD


def test_building_twice_gives_the_same() -> None:
    """Nothing of one machine is left in the template for the next."""
    first = to_text(build(SPEC, RECORD))
    build(replace(SPEC, headless=True, cards=(USER,), cpu_model="maximum"), RECORD)
    assert to_text(build(SPEC, RECORD)) == first
    assert "<!--" not in first


def test_entities_are_not_resolved() -> None:
    text = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
    assert "root:" not in to_text(parse(text))


LIVE = """<domain type='qemu' id='3'>
  <name>m</name>
  <os firmware='efi'>
    <type arch='aarch64' machine='virt-7.2'>hvm</type>
    <firmware><feature enabled='no' name='secure-boot'/></firmware>
    <loader readonly='yes' type='pflash'>/usr/share/AAVMF/AAVMF_CODE.fd</loader>
    <nvram template='/usr/share/AAVMF/AAVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/m.fd</nvram>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <channel type='unix'>
      <source mode='bind' path='/var/lib/libvirt/qemu/channel/x'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <disk><source file='/pool/m.qcow2'/></disk>
  </devices>
</domain>"""


def test_portable_xml_leaves_out_what_is_this_hosts() -> None:
    document = parse(portable(LIVE))
    assert value(document, "os/type", "machine") == "virt"
    assert (
        select(document, "os/loader | os/nvram | devices/emulator | devices/channel/source") == []
    )
    assert document.find("os/firmware/feature") is not None
    assert value(document, "devices/disk/source", "file") == "/pool/m.qcow2"


def test_an_explicit_firmware_is_the_users_own_and_stays() -> None:
    document = parse(portable(LIVE.replace(" firmware='efi'", "")))
    assert document.find("os/loader") is not None
    assert document.find("os/nvram") is not None


def test_portable_is_stable() -> None:
    once = portable(LIVE)
    assert portable(once) == once


def test_libvirts_test_driver_takes_it_and_gives_the_record_back() -> None:
    connection = connecting.connect("test:///default")
    domain = connection.defineXML(to_text(build(SPEC, RECORD)))
    assert from_domain(parse(domain.XMLDesc(0))) == RECORD
    domain.undefine()
    connection.close()
