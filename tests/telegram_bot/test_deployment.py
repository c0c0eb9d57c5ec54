"""What the service and the image promise, as far as it can be held without either."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ghost import cli

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "telegram_bot" / "deployment"


def test_the_service_starts_our_verb_and_may_write_its_data_only() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FOLDER / "ghost-bot.service")
    program, verb, flag, path = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "ghost"
    assert verb in cli.VERBS
    assert (flag, path) == ("--config", "config/bot.yaml")
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert unit["Service"]["ReadWritePaths"] == "/opt/ghost/data"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_reads_the_service(tmp_path: Path) -> None:
    unit = tmp_path / "ghost-bot.service"
    text = (FOLDER / "ghost-bot.service").read_text().replace("/opt/ghost/.venv/bin/ghost", "/bin/true")
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert unit.name not in done.stderr, done.stderr


def test_the_image_holds_code_and_nothing_of_anybody() -> None:
    rules = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert rules[1] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    assert not let_in & {"data", "models", "config", "demo"}
    assert rules.index("replicate_deployment/weights") > rules.index("!replicate_deployment")
    image = (FOLDER / "Dockerfile").read_text()
    assert re.search(r'^ENTRYPOINT \["ghost", "bot", "--config", "/bot/config/bot.yaml"\]$', image, re.MULTILINE)
    assert "TOKEN=" not in image
    assert {"-e TELEGRAM_BOT_TOKEN", "-e REPLICATE_API_TOKEN"} <= set(re.findall(r"-e [A-Z_]+TOKEN", image))
