"""The table of settings: what is derived from it agrees with it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import typer

from armvm.cli import create
from armvm.cli.options import with_on
from armvm.settings.layers import environment_layer, resolve
from armvm.settings.machine import Machine, Settings
from armvm.settings.table import SETTINGS, InShape, Setting


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_a_field_and_an_option(key: str) -> None:
    setting = SETTINGS[key]
    assert {one.name: one.default for one in fields(Machine)}[setting.field] == setting.default
    app = typer.Typer()
    create.register(app)
    (command,) = app.registered_commands
    assert command.callback is not None
    command.callback = with_on(command.callback, "create")  # as the real program does
    options: Any = {one.name: one for one in typer.main.get_command(app).params}
    assert {*options[key].opts, *options[key].secondary_opts} >= set(setting.flags.split("/"))
    assert options[key].help == setting.option_help


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda one: one.key)
def test_what_is_written_is_read_the_same(setting: Setting) -> None:
    if setting.default is None:
        assert setting.example is not None
        return
    assert setting.read(setting.write(setting.default)) == setting.default
    resolved = resolve([environment_layer({setting.variable: setting.write(setting.default)})])
    assert (resolved[setting.key].value, resolved[setting.key].origin) == (
        setting.default,
        setting.variable,
    )


def test_the_shape_has_what_is_always_in_it_and_what_is_not_the_default() -> None:
    always = {"cpus": 2, "memory_mib": 2048, "disk": 10 << 30, "headless": False, "autologin": True}
    assert Machine(name="m").shape() == always
    assert Machine(name="m", motd=False, fast=True, tuned=True).shape() == {
        **always,
        "motd": False,
        "fast": True,
    }
    assert {one.shape for one in SETTINGS.values()} == {None, *InShape}


def test_the_summary_has_what_is_kept_in_the_metadata() -> None:
    assert set(Settings.__annotations__) == set(Machine(name="m").summary())
    assert list(Machine(name="m").summary()) == [
        "cpus",
        "memory_mib",
        "disk",
        "network",
        "ip",
        "cpu_model",
        "headless",
        "autologin",
        "motd",
        "fast",
        "tuned",
        "preset",
        "address",
    ]
