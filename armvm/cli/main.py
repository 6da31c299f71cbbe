"""Run the command line: turn errors into messages and exit codes, clean up on signals."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from armvm.base.errors import ArmvmError, OutputFailed, UsageError
from armvm.base.signals import ENDING
from armvm.cli import streams
from armvm.cli.error_text import report

#: How many more objects there are before Python looks for garbage.
_OBJECTS = 100_000


class Interrupted(BaseException):
    """A signal that ends the program; unfinished work is undone while it propagates."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    # Cleanup starts now; a second Ctrl-C must not interrupt it.
    for other in ENDING:
        signal.signal(other, _patience)
    raise Interrupted(number)


def _patience(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"armvm: already interrupted; cleaning up\n")


def _caught(lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again if Python dropped its exception, as it does in a destructor."""
    if isinstance(lost.exc_value, Interrupted):
        signal.signal(lost.exc_value.number, _interrupt)
        os.kill(os.getpid(), lost.exc_value.number)
    else:
        sys.__unraisablehook__(lost)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``armvm`` with *argv* (default: the process's own) and exit."""
    # About a tenth of a short command's time: modules make many objects, and hardly any garbage.
    gc.set_threshold(_OBJECTS)
    streams.prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    sys.unraisablehook = _caught
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, _interrupt)
    code = _run(words)
    try:
        sys.stdout.flush()
    except (BrokenPipeError, OutputFailed):  # already reported, or a worse error exists
        streams.discard()
    gc.freeze()  # the end of the process frees them quicker than Python's last collection
    sys.exit(code)


def _run(words: list[str]) -> int:
    own, command = _split(words)
    own = _translated(own)
    debug = "--debug" in own or bool(os.environ.get("ARMVM_DEBUG"))
    as_json = "--json" in own
    try:
        code = _quick(own, command)
        if code is not None:
            return code
        from armvm.cli.app import app
        from armvm.cli.bash_words import colons

        try:
            with colons():
                code = app(args=own, prog_name="armvm", obj=command, standalone_mode=not as_json)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0  # that of typer.Exit
        except SystemExit as end:
            # Click handles a closed pipe itself and exits with 1; armvm exits with 128 + SIGPIPE.
            if isinstance(end.__context__, BrokenPipeError):
                raise end.__context__ from None
            sys.stdout.flush()
            # The parser has already printed its error.
            said = str(getattr(end.__context__, "message", ""))
            if hint := _usage_hint(said, own, command):
                print(f"hint: {hint}", file=sys.stderr)
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Interrupted as signalled:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # cleanup is done; only Python has to exit
        print("armvm: interrupted", file=sys.stderr)
        return 128 + signalled.number
    except BrokenPipeError:
        # The reader closed the pipe (armvm list | head), so nothing more can be printed.
        streams.discard()
        return 128 + signal.SIGPIPE
    except ArmvmError as error:
        if debug:
            raise
        report(error, as_json=as_json)
        return error.exit_code
    except Exception as error:
        if (wrong := _usage_error(error, own, command)) is not None:
            report(wrong, as_json=True)
            return wrong.exit_code
        from typer import Abort

        if isinstance(error, Abort):  # Ctrl-D at a question
            print("Aborted!", file=sys.stderr)
            return 1
        if debug:
            raise
        if isinstance(error, FileNotFoundError) and not _has_directory():
            from armvm.settings.user_path import lost_directory

            lost = lost_directory()
            report(lost, as_json=as_json)
            return lost.exit_code
        bug = ArmvmError(
            f"a bug in armvm: {type(error).__name__}: {error}",
            hint="run armvm --debug COMMAND … and report its output",
        )
        report(bug, as_json=as_json)
        return bug.exit_code


def _usage_error(error: Exception, words: list[str], command: list[str]) -> UsageError | None:
    """Return the parser's error as armvm's, which it does not print with ``--json``.

    None if *error* is not the parser's.
    """
    # Recognized by its method: its module is click's or typer's, depending on the version.
    if not hasattr(error, "format_message"):
        return None
    path = getattr(getattr(error, "ctx", None), "command_path", "armvm")
    hint = _usage_hint(str(getattr(error, "message", "")), words, command)
    return UsageError(error.format_message(), hint=hint or f"see {path} --help")


def _has_directory() -> bool:
    """Return whether the current directory exists: somebody may have removed it."""
    try:
        return bool(os.getcwd())  # noqa: PTH109 - the system call that fails
    except FileNotFoundError:
        return False


def _quick(words: list[str], command: list[str]) -> int | None:
    """Run ``armvm ssh NAME`` without options over its shared connection; None if that needs more.

    The rest of the command line would take as long as the command in the guest.
    """
    if len(words) != 2 or words[0] not in ("ssh", "shell") or words[1].startswith("-"):
        return None
    from armvm.provision.access.quick_login import quick_login

    done = quick_login(words[1], command)
    if done is None:
        return None
    code, advice = done
    if advice is not None:
        print(f"hint: {advice}", file=sys.stderr)
    return code


def _usage_hint(said: str, words: list[str], command: list[str]) -> str | None:
    """Return a hint for the parser's error *said* about *words*, or None."""
    extra, unknown = "unexpected extra argument" in said, "No such option" in said
    verb = next((word for word in words if not word.startswith("-")), None)
    if unknown and _is_of_ssh(said, verb, words):
        return (
            "for options of ssh: armvm ssh-config --install, then ssh NAME; to forward a port: "
            "armvm forward add"
        )
    if verb in ("ssh", "shell", "exec", "run") and not command and (extra or unknown):
        return f"put the guest's command after --: armvm {verb} … -- CMD"
    if verb == "create" and extra:
        return "give the machine's name as an option: armvm create --name NAME"
    if "golden" in words and said.startswith(("No such option: --name", "No such option: -n")):
        return "give the golden's name as an argument: armvm golden create NAME"
    if unknown and words[0].startswith("-") and verb is not None:
        return f"put options after the command: armvm {verb} {words[0]} …"
    return None


def _translated(words: list[str]) -> list[str]:
    """Return *words* with the help and version commands of other tools as armvm's options."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return ["--version"] if words == ["version"] else words


def _is_of_ssh(said: str, verb: str | None, words: list[str]) -> bool:
    """Return whether an unknown option is one of ssh's: it is not part of a guest's command."""
    option = said.removeprefix("No such option: ")[:2]
    at = next((at for at, word in enumerate(words) if word.startswith(option)), 0)
    plain = [word for word in words[:at] if not word.startswith("-")]
    # ssh's options have one letter: armvm ssh [NAME] -L … but not: armvm ssh NAME uname -m
    return verb in ("ssh", "shell") and option[1:].isalpha() and len(plain) <= 2


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split *words* at ``--`` in ``armvm ssh|shell|run|exec … -- CMD…`` and ``rootfs enter``.

    Returns armvm's own words and the command's, which armvm does not parse.
    """
    verbs = [word for word in words if not word.startswith("-")]
    ends = verbs[:1] in (["ssh"], ["shell"], ["run"], ["exec"]) or verbs[:2] == ["rootfs", "enter"]
    if not ends or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]
