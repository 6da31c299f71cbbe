"""Sizes as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.settings.size import GIB, KIB, MIB, TIB, parse_disk, parse_memory, parse_size, size_label


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("4096", 4096),
        ("4G", 4096),
        ("4g", 4096),
        ("4GB", 4096),
        ("4GiB", 4096),
        ("4Gi", 4096),
        ("4 GiB", 4096),
        (" 512M ", 512),
        ("1.5G", 1536),
        ("1048576K", 1024),
        ("1T", 1 << 20),
        ("0", 0),
        ("0.5", 0),
    ],
)
def test_memory_counts_mib(text: str, mib: int) -> None:
    assert parse_memory(text) == mib


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10 * GIB), ("10G", 10 * GIB), ("512M", 512 * MIB), ("2T", 2 * TIB), ("0.5", GIB // 2)],
)
def test_a_disk_counts_gib(text: str, size: int) -> None:
    assert parse_disk(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "G",
        "-1",
        "-1G",
        "+1G",
        "1,5G",
        "1.G",
        ".5G",
        "1e9",
        "0x10",
        "4X",
        "4GG",
        "4Gib4",
        "4 G B",
        "four",
        "nan",
        "inf",
        "1_000",
        "9" * 13,
        "1" * 4000,
        "4G\n4G",
        "\x1b[0m",
    ],
)
def test_nonsense_is_refused_and_the_option_is_named(text: str) -> None:
    for parse, option in ((parse_memory, "--mem"), (parse_disk, "--disk")):
        with pytest.raises(ConfigError, match=option) as caught:
            parse(text)
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 120
        assert caught.value.hint


def test_examples_are_in_the_unit_of_a_plain_number() -> None:
    for parse, example in ((parse_memory, "4096 (MiB)"), (parse_disk, "20 (GiB)")):
        with pytest.raises(ConfigError) as caught:
            parse("2X")
        assert (caught.value.hint or "").startswith(f"examples: {example}, ")


@pytest.mark.parametrize(
    ("count", "label"),
    [
        (0, "0"),
        (1, "1"),
        (KIB, "1K"),
        (10 * GIB, "10G"),
        (1536 * MIB, "1536M"),
        (TIB, "1T"),
        (GIB + 1, str(GIB + 1)),
    ],
)
def test_a_label_is_the_largest_unit_that_divides(count: int, label: str) -> None:
    assert size_label(count) == label


@given(st.integers(min_value=0, max_value=999_999), st.sampled_from([1, KIB, MIB, GIB, TIB]))
def test_labels_are_read_back(number: int, unit: int) -> None:
    size = number * unit
    label = size_label(size)
    if len(label.rstrip("KMGT")) <= 12:
        assert parse_size(label, what="--disk", plain_unit=1) == size


@given(st.text())
def test_any_text_is_a_size_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_memory(text) >= 0
