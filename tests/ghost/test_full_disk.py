"""A disk that is full is one line, whichever library meets it."""

import argparse

import pytest

from ghost import cli, installed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "models/x"), "ghost init: models/x: No space left on device"),
        (OSError(28, "No space left on device"), "ghost init: the disk: No space left on device"),
        # As tokenizers and safetensors put it.
        (Exception("No space left on device (os error 28)"), "ghost init: the disk: No space left on device"),
        (
            RuntimeError("Error while serializing: I/O error: x (os error 30)"),
            "ghost init: the disk: Read-only file system",
        ),
    ],
)
def test_it_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(installed, "run", run)
    assert cli.main(["init"]) == 1
    assert capsys.readouterr().err == f"{said}\n"


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: argparse.Namespace) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(installed, "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["init"])
