"""``armvm run`` in a queue: Slurm finds a node, and armvm runs there with the same options.

Slurm's own programs do the work: srun for one command, sbatch for many, squeue and scancel. armvm
must be installed on the nodes; this host needs no libvirt.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from armvm.base import process
from armvm.base.errors import (
    CommandFailed,
    ConfigError,
    Conflict,
    NotFound,
    StorageError,
    UsageError,
)
from armvm.base.paths import config_files, write_atomic
from armvm.base.programs import find
from armvm.base.progress import Progress, size_text
from armvm.base.result import Doc
from armvm.base.signals import shielded
from armvm.images.reference import CATALOGS, FileReference, parse
from armvm.provision.launch.run_mount import Mount
from armvm.settings.catalogs import image_config
from armvm.settings.config_file import file_layer
from armvm.settings.layers import Layer, environment_layer, resolve
from armvm.settings.names import shown
from armvm.settings.presets import preset_layer
from armvm.settings.queues import Queue

#: Memory of a machine's QEMU beyond the guest's, and of armvm itself, in MiB.
OVERHEAD_MIB = 320
#: The variable that tells a task's command which one it is.
ITEM = "ARMVM_ITEM"
#: Variables that choose a libvirt: here, not on the node.
_HERE = ("ARMVM_ON", "ARMVM_CONNECT", "LIBVIRT_DEFAULT_URI")
#: Seconds that armvm on the node has to remove its machine after a signal here.
_CLEANUP = 120.0
#: Seconds for sbatch, which signals cannot interrupt.
_SUBMIT = 120.0
#: Maximum number of tasks, and of bytes in the file of --each. (Slurm's own limits are lower:
#: MaxArraySize is 1001 by default, and max_script_size 4 MiB.)
MAX_TASKS, MAX_EACH = 100_000, 16 << 20
#: Seconds between two looks at the exit codes of tasks, and between two questions to Slurm.
_LOOK, _ASK = 0.5, 10.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a job asks for: its machine's vCPUs and memory."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """``armvm run`` on a node of *queue*: its options *words*, and the guest's *command*."""

    queue: Queue
    size: Size
    words: tuple[str, ...]
    command: tuple[str, ...]

    @property
    def start(self) -> list[str]:
        """The words that start armvm on the node, with its options.

        srun looks for a bare name on this host; env looks for it on the node.
        """
        return ["/usr/bin/env", self.queue.armvm, "run", *self.words]

    @property
    def end(self) -> list[str]:
        """The words after the options."""
        return ["--", *self.command] if self.command else []


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """One of the commands of ``--count`` or ``--each``, and how it ended."""

    task: Annotated[int, Doc("Its number, from 1: Slurm's SLURM_ARRAY_TASK_ID.", minimum=1)]
    item: Annotated[str, Doc("ARMVM_ITEM: its line of the file, or its number.")]
    exit_code: Annotated[
        int | None,
        Doc("Exit code; null: cancelled, killed, or its node failed.", minimum=0, maximum=255),
    ]
    stdout: Annotated[Path, Doc("The file with its standard output.")]
    stderr: Annotated[Path, Doc("The file with its standard error.")]


def size_of(
    queue: Queue,
    given: Mapping[str, Any],
    preset: str | None,
    golden: str | None,
    progress: Progress,
) -> tuple[Size, str]:
    """Return the size of the machine and its image, from the settings of this host.

    A golden decides on the size, but is on the nodes. So the queue's ``cpus`` and ``mem`` count
    then, unless the command line gives others. Raises what reading settings raises.
    """
    flags = Layer(origin="the command line", values=given, check=True)
    files = [file_layer(path) for path in config_files()]
    layers = [flags, environment_layer(os.environ), *files, preset_layer(preset or "default")]
    found = resolve(layers)
    size = Size(cpus=found["cpus"].value, memory_mib=found["mem"].value)
    if golden is not None:
        if given.get("cpus") is None and queue.cpus is not None:
            size = replace(size, cpus=queue.cpus)
        if given.get("mem") is None and queue.memory_mib is not None:
            size = replace(size, memory_mib=queue.memory_mib)
        known = (given.get("cpus") or queue.cpus) and (given.get("mem") or queue.memory_mib)
        if not known:
            progress.say(
                f"golden {golden} is on the nodes: requesting {size.cpus} CPUs and "
                f"{size.memory_mib} MiB for it (set cpus and mem in [queues.{queue.name}])"
            )
    return size, str(found["image"].value)


def image_word(queue: Queue, image: str) -> str:
    """Return an image reference that means the same on a node. Raises UsageError, ConfigError."""
    own = [one.name for one in image_config(os.environ, config_files()).own]
    reference = parse(image, catalogs=[*CATALOGS, *own])
    if not isinstance(reference, FileReference):
        return image
    path = _on_nodes(queue, reference.path, "image")
    return image if image.startswith("file:") else path


def file_word(queue: Queue, path: Path, option: str) -> str:
    """Return the path of a file as a node knows it; ``-`` is standard input. Raises UsageError."""
    return "-" if str(path) == "-" else _on_nodes(queue, path, option)


def mount_word(queue: Queue, mount: Mount) -> str:
    """Return the ``--mount`` for the node. Raises UsageError, and ConfigError for a colon."""
    directory = _on_nodes(queue, mount.directory, "mount")
    if ":" in directory:
        raise ConfigError(
            f"cannot mount {shown(directory)}: its path has a colon", hint="rename the directory"
        )
    return f"{directory}:{mount.guest}" + (":ro" if mount.read_only else "")


def _on_nodes(queue: Queue, path: Path, option: str) -> str:
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolves "..", but no links
    shared = (form for one in queue.shared for form in (one, one.resolve()))
    if any(path.is_relative_to(one) for one in shared):
        return str(path)
    data = "; small files can go through standard input: tar c DIR | armvm run … -- tar x"
    raise UsageError(
        f"--{option} {shown(str(path))}: the nodes of {queue.name} may not have it",
        hint=f"if all nodes have it at this path, name its file system in [queues.{queue.name}] "
        f'of config.toml: shared = ["{path.parent}"]' + (data if option == "mount" else ""),
    )


def resource_words(job: Job) -> list[str]:
    """Return the options of srun and sbatch that ask for the job's machine.

    The queue's own options come last, so they win.
    """
    return [
        f"--partition={job.queue.partition}",
        "--job-name=armvm",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={job.size.cpus}",
        f"--mem={job.size.memory_mib + OVERHEAD_MIB}M",
        "--chdir=/",
        *job.queue.options,
    ]


def srun_words(job: Job, *, terminal: bool) -> list[str]:
    """Return the command that runs the job and waits. srun passes the first Ctrl-C on."""
    pty = ["--pty"] if terminal else []
    return ["srun", "--disable-status", *pty, *resource_words(job), *job.start, *job.end]


def run_job(job: Job, *, terminal: bool) -> int:
    """Run the job with the caller's streams and return its exit code.

    SIGTERM and SIGHUP reach armvm on the node as SIGINT: srun's own answer to them is SIGKILL.
    """
    words = srun_words(job, terminal=terminal)
    return process.passthrough(_without_libvirt(words), interrupt=_CLEANUP)


def read_items(text: bytes) -> list[str]:
    """Return the lines of an ``--each`` file that are not empty. Raises ConfigError."""
    if len(text) > MAX_EACH:
        raise ConfigError(f"invalid file for --each: it is larger than {size_text(MAX_EACH)}")
    lines = [os.fsdecode(one.removesuffix(b"\r")) for one in text.split(b"\n")]
    items = [one for one in lines if one]
    if not items:
        raise ConfigError("invalid file for --each: it has no lines")
    if len(items) > MAX_TASKS:
        raise ConfigError(f"invalid file for --each: it has more than {MAX_TASKS} lines")
    if any("\0" in one for one in items):
        raise ConfigError("invalid file for --each: a line has a zero byte")
    return items


def outputs_directory(queue: Queue, given: Path | None, name: str) -> Path:
    """Return the absolute path of the directory for the outputs, which may not exist yet.

    *given* is the user's, *name* its name otherwise. Raises UsageError if the nodes may not have
    it, Conflict if it is not empty, ConfigError, StorageError.
    """
    path = Path(_on_nodes(queue, given or Path(name), "outputs"))
    if "\\" in str(path) or not str(path).isprintable():
        raise ConfigError(
            f"invalid directory {shown(str(path))} for --outputs: Slurm would change its name",
            hint="use a path without backslashes and control characters",
        )
    try:
        used = path.exists() and any(path.iterdir())
    except OSError as error:
        raise StorageError(f"cannot use {shown(str(path))}: {error.strerror}") from error
    if used:
        raise Conflict(f"{shown(str(path))} is not empty", hint="choose another for --outputs")
    return path


def sbatch_words(job: Job, count: int, outputs: Path) -> list[str]:
    """Return the command that submits the script in *outputs* as an array of *count* tasks."""
    pattern = str(outputs).replace("%", "%%")
    return [
        "sbatch",
        "--parsable",
        f"--array=1-{count}",
        f"--output={pattern}/%a.out",
        f"--error={pattern}/%a.err",
        *resource_words(job),
        str(outputs / "job.sh"),
    ]


def script(job: Job, items: Sequence[str], outputs: Path) -> bytes:
    """Return the shell script of an array's tasks. Each writes its exit code to a file.

    On a signal the shell waits for armvm, which Slurm signals too.
    """
    directory = _quoted(str(outputs))
    run = [*map(_quoted, job.start), f'--env={ITEM}="$item"', *map(_quoted, job.end)]
    lines = [
        "#!/bin/sh",
        f"# armvm run --on {job.queue.name}: Slurm runs this once for each task.",
        "cr=$(printf '\\r')",  # sbatch refuses a script that has DOS line ends
        "case $SLURM_ARRAY_TASK_ID in",
        *(f"{number}) item={_quoted(item)} ;;" for number, item in enumerate(items, 1)),
        "esac",
        f"code={directory}/$SLURM_ARRAY_TASK_ID.code",
        "trap : HUP INT TERM",
        " ".join(run),
        "status=$?",
        'echo $status >"$code.part" && mv "$code.part" "$code"',
        "exit $status",
    ]
    return os.fsencode("\n".join(lines) + "\n")


def _quoted(word: str) -> str:
    return '"$cr"'.join(map(shlex.quote, word.split("\r"))) if "\r" in word else shlex.quote(word)


def run_array(
    job: Job, items: Sequence[str], outputs: Path, progress: Progress
) -> list[QueuedTask]:
    """Run the job once for each item, at the same time as far as Slurm has nodes for them.

    Returns all tasks when they have ended. If the call is interrupted, cancels them, and waits
    until armvm on the nodes has removed its machines. Raises CommandFailed if sbatch fails, and
    StorageError if the directory cannot be written; it then leaves nothing there.
    """
    number = None
    try:
        with shielded(), _written(script(job, items, outputs), outputs):
            number = _submit(sbatch_words(job, len(items), outputs))
        progress.say(f"job {number}: {len(items)} tasks, outputs in {outputs}")
        with progress.task(f"job {number}") as task:
            _wait(number, len(items), outputs, task)
    except BaseException:
        if number is not None:
            process.run(["scancel", number], check=False)
            _until_gone(number)
        raise
    return [_task(outputs, number, item) for number, item in enumerate(items, 1)]


@contextmanager
def _written(text: bytes, outputs: Path) -> Iterator[None]:
    """Write an array's script; if the block fails, remove it, and the directory if it is new."""
    there = outputs.exists()
    try:
        try:
            outputs.mkdir(parents=True, exist_ok=True)
            # The values of --env are in it, and may be secrets.
            write_atomic(outputs / "job.sh", text, mode=0o700)
        except OSError as error:
            raise StorageError(f"cannot write {shown(str(outputs))}: {error.strerror}") from error
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            (outputs / "job.sh").unlink(missing_ok=True)
            if not there:
                outputs.rmdir()
        raise


def _submit(words: Sequence[str]) -> str:
    """Submit a job and return its number. Raises CommandFailed."""
    try:
        done = process.run(_without_libvirt(words), check=False, timeout=_SUBMIT)
    except CommandFailed as error:
        raise CommandFailed(
            f"sbatch did not answer within {_SUBMIT:g} s",
            hint="look for a job that it submitted all the same: squeue --me",
        ) from error
    if done.returncode != 0:
        detail = done.stderr.decode(errors="replace").strip()
        raise CommandFailed("sbatch refused the job", detail=detail or None)
    number = done.text.strip().partition(";")[0]
    if not re.fullmatch(r"[0-9]+", number):
        raise CommandFailed("sbatch printed no job number", detail=done.text[:200] or None)
    return number


def _wait(number: str, count: int, outputs: Path, task: Any) -> None:
    """Wait until each task has written its exit code, or Slurm has none of them any more."""
    asked = time.monotonic()
    while True:
        there = sum(one.suffix == ".code" for one in outputs.iterdir())
        task.update(text=f"{there} of {count} tasks done")
        if there == count:
            return
        if time.monotonic() - asked >= _ASK:
            if not _exists(number):
                return
            asked = time.monotonic()
        time.sleep(_LOOK)


def _until_gone(number: str) -> None:
    end = time.monotonic() + _CLEANUP
    while _exists(number) and time.monotonic() < end:
        time.sleep(_LOOK)


def _exists(number: str) -> bool:
    """Return whether tasks of a job wait, run or end. Slurm forgets a job some time after it."""
    done = process.run(["squeue", "--noheader", f"--jobs={number}", "--format=%i"], check=False)
    if done.returncode == 0:
        return bool(done.stdout.strip())
    return b"Invalid job id" not in done.stderr


def _task(outputs: Path, number: int, item: str) -> QueuedTask:
    code = None
    with contextlib.suppress(FileNotFoundError, ValueError):
        code = int((outputs / f"{number}.code").read_text())
    return QueuedTask(
        task=number,
        item=item,
        exit_code=code,
        stdout=outputs / f"{number}.out",
        stderr=outputs / f"{number}.err",
    )


def check_ended(tasks: Sequence[QueuedTask]) -> int:
    """Return the highest exit code. Raises CommandFailed if a task has none."""
    lost = [str(one.task) for one in tasks if one.exit_code is None]
    if lost:
        raise CommandFailed(
            f"{len(lost)} of {len(tasks)} tasks ended without an exit code: {', '.join(lost)}",
            hint="they were cancelled or killed, or their node failed: see "
            f"{tasks[int(lost[0]) - 1].stderr}",
        )
    return max(one.exit_code or 0 for one in tasks)


def read_each(path: Path) -> list[str]:
    """Return the items of an ``--each`` file. Raises NotFound, StorageError, ConfigError."""
    try:
        with path.open("rb") as file:
            return read_items(file.read(MAX_EACH + 1))
    except FileNotFoundError as error:
        raise NotFound(f"file {shown(str(path))} not found") from error
    except OSError as error:
        raise StorageError(f"cannot read {shown(str(path))}: {error.strerror}") from error


def _without_libvirt(words: Sequence[str]) -> list[str]:
    """Return a command that runs *words* without the variables that choose this host's libvirt."""
    return ["env", *(f"--unset={one}" for one in _HERE), find(words[0]), *words[1:]]
