"""Show every setting with its origin, and check a configuration file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from armvm.base.errors import NotFound
from armvm.base.result import Doc
from armvm.host import connection
from armvm.host.storage import pools
from armvm.images.trust import keyring
from armvm.provision.image.local import MIRROR_VARIABLE
from armvm.settings import clouds, hosts, queues, verify, warm
from armvm.settings.catalogs import DISTROS, image_config, mirror_variable
from armvm.settings.config_file import ConfigFile, file_layer, read_config
from armvm.settings.layers import environment_layer, resolve
from armvm.settings.names import shown
from armvm.settings.presets import preset_layer
from armvm.settings.table import SETTINGS, Setting
from armvm.settings.urls import without_login

BUILT_IN = "built-in"
PRESET_VARIABLE, POOL_VARIABLE = "ARMVM_PRESET", "ARMVM_POOL"

#: Text for a value of None.
MEANING: Mapping[str, str] = {
    **{key: one.default_text for key, one in SETTINGS.items() if one.default is None},
    "verify": "the strongest that the image's source offers",
    "archive.debian": "mmdebstrap's default",
}


@dataclass(frozen=True, kw_only=True)
class Value:
    """A setting as commands use it without flags."""

    key: Annotated[
        str, Doc("Its name: cpus, warm, hosts.NAME, queues.NAME, mirrors.debian, images.NAME.")
    ]
    value: Annotated[
        Any,
        Doc(
            "Its value; null: armvm chooses. Sizes: mem in MiB, disk in bytes.",
            type=["string", "integer", "boolean", "null", "array"],
            items={"type": "string"},
        ),
    ]
    origin: Annotated[
        str,
        Doc("Origin: a variable, a file, preset NAME, the command line, or built-in."),
    ]
    file: Annotated[str | None, Doc("The file that sets it.")] = None


def values(environ: Mapping[str, str], paths: Sequence[Path], preset: str | None) -> list[Value]:
    """Return every setting as commands use it without flags, in a fixed order.

    *preset* is a preset given by a flag. Raises ConfigError, NotFound and PermissionDenied, like a
    command that uses the settings.
    """
    files = [file for path in paths if (file := read_config(path)) is not None]
    return [
        *_host(environ, paths, preset),
        *_machine(environ, paths, files, preset or environ.get(PRESET_VARIABLE) or "default"),
        *_hosts(paths, files),
        *_clouds(paths, files),
        *_images(environ, paths, files),
    ]


def check(path: Path) -> None:
    """Raise ConfigError if a configuration file is invalid for any command, NotFound if missing.

    Checks every value, including overridden ones.
    """
    if read_config(path) is None:
        raise NotFound(f"file {shown(str(path))} not found")
    resolve([file_layer(path)])
    warm.policy({}, [path])
    verify.policy(None, {}, [path])
    keyring.KeyStore.default({}, [path])
    image_config({}, [path])
    queues.queues_in([path])
    clouds.clouds_in([path])


def example() -> str:
    """Return an example configuration file with every setting commented out."""
    lines = ["# armvm settings. 'armvm config show' prints each value in use and its origin.", ""]
    lines += ['# warm = "use"          # auto, use or never: when to make and use goldens']
    lines += ['# verify = "signature"  # or digest, none: minimum verification of images', ""]
    lines += ["[machine]"]
    lines += [f"# {key} = {_toml(setting)}" for key, setting in SETTINGS.items()]
    lines += ["", "[hosts]", '# lab1 = "qemu+ssh://root@lab1/system"']
    lines += ["", "[queues]", '# farm = { slurm = "partition", options = ["--time=30"] }']
    lines += ["", "[mirrors]", '# debian = "https://mirror.example.org/debian-cloud/"', ""]
    return "\n".join(lines)


def _toml(setting: Setting) -> str:
    if setting.default is None:
        return f'"{setting.example}"  # default: {setting.default_text}'
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    text = setting.write(setting.default)
    return text if text.isdigit() else f'"{text}"'


def _host(environ: Mapping[str, str], paths: Sequence[Path], preset: str | None) -> Iterator[Value]:
    named = environ.get(hosts.VARIABLE, "").strip()
    if named and clouds.find_cloud(named, paths) is not None:
        yield Value(key="connect", value=f"cloud {named}", origin=hosts.VARIABLE)
    else:
        uri, why = connection.effective_uri(environ)
        by_variable = why.isupper()
        yield Value(key="connect", value=uri, origin=why if by_variable else f"{BUILT_IN}: {why}")
    yield _variable("pool", POOL_VARIABLE, environ, pools.DEFAULT_POOL)
    if preset:
        yield Value(key="preset", value=preset, origin="the command line")
    else:
        yield _variable("preset", PRESET_VARIABLE, environ, "default")


def _machine(
    environ: Mapping[str, str], paths: Sequence[Path], files: Sequence[ConfigFile], preset: str
) -> Iterator[Value]:
    layers = [file_layer(path) for path in paths]
    settings = resolve([environment_layer(environ), *layers, preset_layer(preset)])
    for key, setting in settings.items():
        yield _placed(key, setting.value, setting.origin, files)


def _hosts(paths: Sequence[Path], files: Sequence[ConfigFile]) -> Iterator[Value]:
    for one in hosts.hosts_in(paths).values():
        yield _placed(f"hosts.{one.name}", one.uri, one.place, files)
    for queue in queues.queues_in(paths).values():
        yield _placed(f"queues.{queue.name}", f"slurm {queue.partition}", queue.place, files)


def _clouds(paths: Sequence[Path], files: Sequence[ConfigFile]) -> Iterator[Value]:
    for one in clouds.clouds_in(paths).values():
        for key in ("openstack", "network", "flavor"):
            yield _placed(f"clouds.{one.name}.{key}", getattr(one, key), one.place, files)


def _images(
    environ: Mapping[str, str], paths: Sequence[Path], files: Sequence[ConfigFile]
) -> Iterator[Value]:
    config = image_config(environ, paths)
    vouch = verify.policy(None, environ, paths)
    yield _from("warm", warm.policy(environ, paths).value, warm.VARIABLE, environ, files)
    yield _from("verify", vouch and vouch.value, verify.VARIABLE, environ, files)
    servers = [without_login(one) for one in keyring.KeyStore.default(environ, paths).servers]
    yield _from(keyring.SETTING, servers, keyring.VARIABLE, environ, files)
    yield _variable("archive.debian", MIRROR_VARIABLE, environ, None)
    for distro in DISTROS:
        if distro in config.mirrors:
            key, variable = f"mirrors.{distro}", mirror_variable(distro)
            yield _from(key, without_login(config.mirrors[distro]), variable, environ, files)
    for own in config.own:
        yield _from(f"images.{own.name}", without_login(own.url), "", environ, files)


def _variable(key: str, variable: str, environ: Mapping[str, str], built_in: Any) -> Value:
    if environ.get(variable):
        return Value(key=key, value=environ[variable], origin=variable)
    return Value(key=key, value=built_in, origin=BUILT_IN)


def _from(
    key: str, value: Any, variable: str, environ: Mapping[str, str], files: Sequence[ConfigFile]
) -> Value:
    """Return a value with its origin: the variable, the first file with the key, or built-in."""
    if environ.get(variable):
        return Value(key=key, value=value, origin=variable)
    for file in files:
        if file.has(*key.split(".")):
            return _placed(key, value, file.place, [file])
    return Value(key=key, value=value, origin=BUILT_IN)


def _placed(key: str, value: Any, origin: str, files: Sequence[ConfigFile]) -> Value:
    path = next((str(file.path) for file in files if origin == file.place), None)
    return Value(key=key, value=value, origin=origin, file=path)
