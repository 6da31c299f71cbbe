"""The program: runs the command line, and ends with the exit code the error stands for."""

from __future__ import annotations

from armvm.cli.main import main

if __name__ == "__main__":
    main()
