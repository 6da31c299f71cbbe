"""A Slurm cluster on this machine: munge, slurmctld and nodes, each with a libvirt of its own.

The programs are Debian's packages, unpacked into a directory. Client and nodes are namespaces
with a network that reaches nothing else; each node has its own libvirt and processes. The client's
files are the nodes' too, as with a shared file system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.remote.host import namespaces
from tests.support import ARMVM, ROOT, Result, armvm, environment

_NODE = Path(__file__).with_name("node.sh")
_PACKAGES = (
    "libhwloc15 liblua5.1-0 libmunge2 munge slurm-wlm-basic-plugins slurm-client slurmctld slurmd"
)
#: The nodes and their addresses. CPUs and memory (MiB) are those of the configuration.
NODES = {"n1": "10.213.88.2", "n2": "10.213.88.3"}
CPUS, MEMORY = 2, 3000
#: Addresses on the cluster's network, which reaches nothing else.
ADDRESS = "10.213.88.1"
_CLIENT = f"""\
hostname client
ip link set lo up
ip link add farm0 type bridge
ip address add {ADDRESS}/24 dev farm0
ip link set farm0 up
exec sleep infinity
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster: its files in *work*, the process that holds its network, and its nodes."""

    work: Path
    pid: int
    stack: contextlib.ExitStack
    nodes: dict[str, int] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """What the environment of its programs has besides ours."""
        libraries = _libraries(self.work)
        return {
            "SLURM_CONF": str(self.work / "slurm.conf"),
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm",
            "PATH": f"{self.work}/bin:{self.work}/root/usr/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(self.work / "config"),
            "XDG_DATA_HOME": str(self.work / "data"),
        }

    def at_client(self, *words: str | Path) -> list[str]:
        """Return a command that runs *words* at the client."""
        return ["nsenter", "-t", str(self.pid), "-n", "-u", "--", *map(str, words)]

    def at_node(self, node: str, *words: str | Path) -> list[str]:
        """Return a command that runs *words* on a node."""
        kinds = "-m -n -p -u -i".split()
        return ["nsenter", "-t", str(self.nodes[node]), *kinds, "--", *map(str, words)]

    def armvm(self, *words: str | Path, **options: Any) -> Result:
        """Run armvm at the client."""
        env = {**self.env, **options.pop("env", {})}
        return armvm(*words, prefix=self.at_client(*ARMVM), env=env, **options)

    def armvm_at(self, node: str, *words: str | Path, **options: Any) -> Result:
        """Run armvm on a node."""
        return armvm(*words, prefix=self.at_node(node, *ARMVM), env=self.env, **options)

    def spawn(self, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start armvm at the client; the caller ends it. nsenter becomes armvm."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            self.at_client(*ARMVM, *words), env=environment(**self.env), **{**pipes, **options}
        )

    def run(self, *words: str | Path) -> str:
        """Run one of Slurm's programs at the client and return its output."""
        return _output(self.at_client(*words), self.env)

    def jobs(self) -> list[str]:
        """Return the jobs that wait, run or end, with their states."""
        return self.run("squeue", "--noheader", "--format=%i %T").splitlines()

    def left(self, node: str) -> list[str]:
        """Return the domains and the volumes of temporary machines on a node."""
        virsh = ["virsh", "-c", "qemu:///system"]
        there = _output(self.at_node(node, *virsh, "list", "--all", "--name"), {})
        there += _output(self.at_node(node, *virsh, "vol-list", "armvm"), {})
        return [line.split()[0] for line in there.splitlines() if line.strip().startswith("run-")]

    def kill_jobs(self, node: str) -> None:
        """Kill all processes of jobs on a node with SIGKILL."""
        namespace = Path(f"/proc/{self.nodes[node]}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                same = (process / "ns/pid").readlink() == namespace
                if same and b"\0SLURM_JOB_ID=" in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    def start_node(self, name: str, *, like: str | None = None) -> None:
        """Start a node, with a copy of the files of the node *like*, and wait for it."""
        place = self.work / name
        if like is not None:
            subprocess.run(["cp", "-a", "--sparse=auto", self.work / like, place], check=True)
            shutil.rmtree(place / "log")
            (place / "linked").unlink(missing_ok=True)
        for folder in ("lib/images", "cache", "log", "spool"):
            (place / folder).mkdir(parents=True, exist_ok=True)
        for entered in (place, place / "lib", place / "lib/images"):
            entered.chmod(0o711)
        if like is None:
            shutil.copytree("/etc", place / "etc", symlinks=True)
            for one in (place / "etc/libvirt").iterdir():
                if one.is_dir():
                    shutil.rmtree(one)
        programs = self.work / "root/usr/sbin"
        slurmd = [programs / "slurmd-wlm", "-D", "-N", name, "-d", programs / "slurmstepd-wlm"]
        self.nodes[name] = self.stack.enter_context(
            namespaces(
                *"-m -p -n -u -i".split(),
                words=["bash", _NODE, name, place, *slurmd],
                env=self.env,
            )
        )
        link = f"link add {name} type veth peer name farm0 netns {self.nodes[name]}"
        self.run("ip", *link.split())
        self.run("ip", *f"link set {name} master farm0 up".split())
        inside = ["nsenter", "-t", str(self.nodes[name]), "-n", "ip"]
        _output([*inside, *f"address add {NODES[name]}/24 dev farm0".split()], {})
        _output([*inside, *"link set farm0 up".split()], {})
        (place / "linked").touch()
        until(
            lambda: self.run("sinfo", "-h", "-n", name, "-o", "%t").strip() == "idle",
            f"{name} is not idle",
        )
        until(lambda: self.armvm_at(name, "list").code == 0, f"libvirt of {name} does not answer")


@contextmanager
def cluster(work: Path) -> Iterator[Cluster]:
    """Start the controller; end it with the nodes and all that runs there."""
    _unpack(work)
    _configure(work)
    with contextlib.ExitStack() as stack:
        pid = stack.enter_context(namespaces("-n", "-u", words=["bash", "-c", _CLIENT]))
        found = Cluster(work=work, pid=pid, stack=stack)
        until(
            lambda: ADDRESS in _output(found.at_client("ip", "address"), {}, False),
            "no network",
        )
        programs = work / "root/usr/sbin"
        munge = ["--force", f"--key-file={work}/munge.key", f"--socket={work}/munge.sock"]
        munge += [f"--log-file={work}/munge.log", f"--pid-file={work}/munge.pid"]
        munge += [f"--seed-file={work}/munge.seed", "--foreground"]
        _daemon(found, stack, "munged", [programs / "munged", *munge])
        _daemon(found, stack, "slurmctld", [programs / "slurmctld-wlm", "-D"])
        until(
            lambda: "is UP" in _output(found.at_client("scontrol", "ping"), found.env, False),
            "slurmctld does not answer",
        )
        yield found


def until(what: Callable[[], Any], why: str, timeout: float = 60) -> Any:
    """Return the first true value of *what*; fail with *why* after *timeout* seconds."""
    end = time.monotonic() + timeout
    while not (value := what()):
        assert time.monotonic() < end, why
        time.sleep(0.1)
    return value


def _libraries(work: Path) -> Path:
    [found] = (work / "root/usr/lib").glob("*/slurm-wlm")
    return found.parent


def _unpack(work: Path) -> None:
    """Unpack the packages, without installing them."""
    packages = work / "packages"
    packages.mkdir()
    packages.chmod(0o777)  # apt downloads as another user
    words = ["apt-get", "download", "-q", *_PACKAGES.split()]
    subprocess.run(words, cwd=packages, check=True, capture_output=True, timeout=300)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, work / "root"], check=True, timeout=60)
    (work / "bin").mkdir()
    program = work / "bin/armvm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m armvm "$@"\n')
    program.chmod(0o755)


def _configure(work: Path) -> None:
    (work / "munge.key").write_bytes(os.urandom(128))
    (work / "munge.key").chmod(0o400)
    (work / "state").mkdir()
    lines = [
        "ClusterName=test",
        f"SlurmctldHost=client({ADDRESS})",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={work}/munge.sock",
        f"PluginDir={_libraries(work)}/slurm-wlm",
        f"StateSaveLocation={work}/state",
        f"SlurmctldPidFile={work}/slurmctld.pid",
        f"SlurmdPidFile={work}/%n/slurmd.pid",
        f"SlurmdSpoolDir={work}/%n/spool",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "SlurmdParameters=config_overrides",
        "ReturnToService=2",
        "KillWait=30",
        *(
            f"NodeName={name} NodeAddr={address} CPUs={CPUS} RealMemory={MEMORY}"
            for name, address in NODES.items()
        ),
        "PartitionName=arm Nodes=ALL Default=YES MaxTime=60 State=UP",
        "PartitionName=one Nodes=n1 MaxTime=60 State=UP",
    ]
    (work / "slurm.conf").write_text("\n".join(lines) + "\n")
    # The nodes have no cgroups; Slurm looks for them if it may choose.
    (work / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def _daemon(
    cluster: Cluster, stack: contextlib.ExitStack, name: str, words: Sequence[str | Path]
) -> None:
    log = stack.enter_context((cluster.work / f"{name}.out").open("wb"))
    started = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *cluster.at_client(*words)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **cluster.env},
    )

    def end() -> None:
        started.kill()
        started.wait()

    stack.callback(end)


def _output(words: Sequence[str], env: dict[str, str], check: bool = True) -> str:
    done = subprocess.run(
        words,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
