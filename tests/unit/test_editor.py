"""The user's editor: which program it is, and what becomes of the draft."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base import editor
from armvm.base.errors import (
    ArmvmError,
    CommandFailed,
    ConfigError,
    Conflict,
    MissingCapability,
)


@pytest.fixture
def draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "draft"
    path.write_bytes(b"old")
    monkeypatch.setenv("VISUAL", "sed -i s/old/new/")
    return path


def once(_error: ArmvmError) -> bool:
    return False


def test_an_accepted_draft_is_removed(draft: Path) -> None:
    assert editor.edit(draft, b"old", draft.read_bytes, once) == b"new"
    assert not draft.exists()


def test_the_editor_runs_again_until_the_text_is_accepted(draft: Path) -> None:
    told: list[str] = []

    def accept() -> None:
        if not told:
            raise ConfigError("wrong")

    def again(error: ArmvmError) -> bool:
        told.append(error.message)
        return True

    editor.edit(draft, b"old", accept, again)
    assert told == ["wrong"]
    assert not draft.exists()


def test_a_draft_that_is_refused_is_kept_and_named(draft: Path) -> None:
    def accept() -> None:
        raise ConfigError("wrong", hint="mend it")

    with pytest.raises(ConfigError) as caught:
        editor.edit(draft, b"old", accept, once, resume="try again")
    assert caught.value.hint == f"your text is in {draft}; try again; mend it"
    assert draft.read_bytes() == b"new"


def test_a_conflict_is_not_asked_about(draft: Path) -> None:
    def accept() -> None:
        raise Conflict("changed meanwhile")

    with pytest.raises(Conflict) as caught:
        editor.edit(draft, b"old", accept, lambda _: pytest.fail("asked"))
    assert str(draft) in (caught.value.hint or "")


def test_an_editor_that_fails_without_a_change_leaves_no_draft(
    draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(CommandFailed, match="exit code 1"):
        editor.edit(draft, b"old", draft.read_bytes, once)
    assert not draft.exists()


@pytest.mark.parametrize("visual", ["", "  "])
def test_which_editor_is_run(
    draft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visual: str
) -> None:
    monkeypatch.setenv("VISUAL", visual)
    monkeypatch.setenv("EDITOR", "true")
    if visual.strip() == visual:
        assert editor.edit(draft, b"", draft.read_bytes, once) == b"old"
    monkeypatch.delenv("EDITOR")
    monkeypatch.setenv("PATH", str(tmp_path))
    draft.write_bytes(b"old")
    monkeypatch.setattr(editor, "FALLBACKS", ("no-such-editor",))
    with pytest.raises(MissingCapability, match="no editor"):
        editor.edit(draft, b"", draft.read_bytes, once)


def test_an_editor_that_cannot_be_split_into_words(
    draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "vi 'x")
    with pytest.raises(ConfigError, match="invalid"):
        editor.edit(draft, b"old", draft.read_bytes, once)
