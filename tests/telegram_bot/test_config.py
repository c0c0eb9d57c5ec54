"""The bot's one file, and the verb."""

import subprocess
import sys
from pathlib import Path

import pytest

from ghost import cli
from ghost.errors import ConfigError
from telegram_bot import config

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "bot.example.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "bot.yaml"
    path.write_text(text)
    return path


def test_the_example_restates_no_default_wrongly() -> None:
    minimal = config.BotConfig(owner=0, backend="http://127.0.0.1:5050")
    assert config.load(EXAMPLE) == minimal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file: expected keys, found nothing"),
        ("owner: 1", "missing key backend; "),
        ("owner: me\nbackend: x", "owner: expected a whole number, found 'me'"),
        ("owner: 1\nbackend: x\nalow: [2]", "unknown key alow; did you mean allow?"),
        ("owner: 1\nbackend: x\nlimits: {predictions_a_day: 3}", "did you mean limits.predictions_per_day?"),
        (
            "owner: 1\nbackend: x\nlimits: {predictions_per_day: 0}",
            "limits.predictions_per_day: expected a whole number >= 1, found 0",
        ),
        ("owner: 1\nbackend: x\ntexts: {notice: ''}", "texts.notice: "),
        ("owner: 1\nbackend: x\ntexts: {notice: '             '}", "texts.notice: must not be blank"),
        (
            f"owner: 1\nbackend: x\ntexts: {{notice: {'long ' * 999}}}",
            "texts.notice: expected text of length <= 1000, found text of 4994 characters",
        ),
        ("owner: 1\nbackend: x\nlabels: {me: 'B:'}", "labels: both labels are 'B:'"),
        (
            "owner: 1\nbackend: x\ntelegram: api.telegram.org",
            "telegram: expected text matching regex '^https?://', found 'api",
        ),
        ("owner: [", "line 1: not YAML"),
        ("owner: 1\nbackend: x\nowner: 2", "line 3: not YAML (duplicate key owner)"),
        ("owner: 123:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nbackend: x", "found text of 39 characters"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(written(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "bot.yaml"))
    assert message in str(error.value)


def test_mistakes_are_named_by_an_optimised_python_too(tmp_path: Path) -> None:
    path = written(tmp_path, "owner: 1\nbackend: x\nlabels: {me: 'A:', other: 'A:'}")
    load = "import sys, pathlib; from telegram_bot import config; config.load(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-O", "-c", load, path], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("labels: both labels are 'A:'")


@pytest.mark.parametrize("found", ["", "not a token", "123:short"])
def test_a_token_that_is_none(
    tmp_path: Path, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", found)
    path = written(tmp_path, "owner: 1\nbackend: http://127.0.0.1:9")
    assert cli.main(["bot", "--config", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ghost bot: TELEGRAM_BOT_TOKEN")
    assert len(said.splitlines()) == 1
    assert not found or found not in said


def test_no_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bot", "--config", str(tmp_path / "bot.yaml")]) == 1
    assert "no such file; `ghost init` writes config/bot.yaml" in capsys.readouterr().err
