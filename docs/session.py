"""Write docs/session.svg: a terminal session with real commands and their output.

.venv/bin/python docs/session.py GOLDEN   # creates arm64-01 from the golden, then deletes it
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

OUTPUT = Path(__file__).resolve().parent / "session.svg"
NAME = "arm64-01"
WIDTH = 100


def commands(golden: str) -> list[list[str]]:
    """Return the commands to run, in order."""
    return [
        ["create", "--from", golden, "--name", NAME],
        ["ssh", NAME, "--", "uname", "-srm"],
        ["run", "--from", golden, "--", "sh", "-c", "nproc; exit 7"],
        ["explain", "cpu", NAME],
        ["delete", NAME, "--yes"],
    ]


def main(
    golden: Annotated[str, typer.Argument(help="A golden to make the machine from.")],
) -> None:
    """Run the session and write the picture."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        for words in commands(golden):
            console.print(Text.assemble(("$ ", "bold green"), (f"armvm {_quoted(words)}", "bold")))
            done = subprocess.run(
                [sys.executable, "-m", "armvm", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            lines = done.stdout.rstrip().splitlines()
            for line in lines[:12]:
                console.print(Text(line), soft_wrap=False)
            if len(lines) > 12:
                console.print(Text("…", style="dim"))
            if done.returncode:
                console.print(Text(f"(exit code {done.returncode})", style="dim"))
    picture = console.export_svg(title="armvm", unique_id="armvm-session")
    # Use the reader's monospaced font: the picture must not load anything from the network.
    OUTPUT.write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL))
    print(f"wrote {OUTPUT}")


def _quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" if " " in word else word for word in words)


if __name__ == "__main__":
    typer.run(main)
