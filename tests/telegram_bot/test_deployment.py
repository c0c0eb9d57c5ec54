"""What the services, the image and compose.yaml promise, as far as it can be held without any of them."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ghost import cli
from tests.loopback_server import LoopbackServer, QuietHandler

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "telegram_bot" / "deployment"
UNITS = sorted(FOLDER.glob("*.service"))


def started(arguments: list[str]) -> Any:
    """The flags of a verb, as its parser reads them."""
    return cli.build_parser(arguments[0]).parse_args(arguments)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_service_starts_our_verb_and_may_write_its_data_only(path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "ghost"
    args = started(arguments)
    assert unit["Service"]["ProtectSystem"] == "strict"
    if args.verb == "bot":
        assert args.config == Path("config/bot.yaml")
        assert unit["Service"]["ReadWritePaths"] == "/opt/ghost/data"
    else:
        assert (args.verb, args.host, args.port) == ("serve", "127.0.0.1", 5050)  # where bot.example.yaml looks
        assert args.model.endswith(".gguf")
        assert "ReadWritePaths" not in unit["Service"]
        assert (unit["Service"]["IPAddressDeny"], unit["Service"]["IPAddressAllow"]) == ("any", "localhost")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_reads_the_service(path: Path, tmp_path: Path) -> None:
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/ghost/.venv/bin/ghost", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert unit.name not in done.stderr, done.stderr


@pytest.fixture
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8")))


def test_compose_runs_our_verbs_and_opens_no_port_but_to_this_machine(compose: dict[str, Any]) -> None:
    stages = re.split(r"^FROM ", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    entry = {
        stage.split("\n")[0].split()[-1]: json.loads(found[1])
        for stage in stages
        if (found := re.search(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE))
    }
    args = {}
    for name, service in compose["services"].items():
        assert service["build"]["target"] == name
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        program, *arguments = [*entry[name], *service.get("command", [])]
        assert program == "ghost"
        args[name] = started(arguments)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in (one for one in service["volumes"] if isinstance(one, dict)):
            assert volume["read_only"]
            assert volume["bind"] == {"create_host_path": False}
    assert (args["bot"].verb, args["model"].verb) == ("bot", "serve")
    model = compose["services"]["model"]
    assert [volume["target"] for volume in model["volumes"]] == [args["model"].model]
    assert model["ports"] == [f"127.0.0.1:5050:{args['model'].port}"]
    (config,) = (one["target"] for one in compose["services"]["bot"]["volumes"] if isinstance(one, dict))
    assert str(args["bot"].config) == config


def test_no_token_is_in_compose_yaml(compose: dict[str, Any]) -> None:
    assert compose["services"]["bot"]["env_file"] == ".env"
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert not any("environment" in service for service in compose["services"].values())


class Health(QuietHandler):
    status = ""

    def do_GET(self) -> None:
        body = json.dumps({"status": self.status}).encode()
        self.send_response(200)  # Cog's server answers so in every state
        self.send_header("Content-Length", f"{len(body)}")
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(
    ("status", "healthy"), [("READY", True), ("BUSY", True), ("STARTING", False), ("SETUP_FAILED", False)]
)
def test_the_health_check_knows_a_model_that_is_loaded(compose: dict[str, Any], status: str, healthy: bool) -> None:
    kind, program, *arguments = compose["services"]["model"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    with LoopbackServer(type("_", (Health,), {"status": status})) as server:
        server.start()
        asked = [argument.replace("http://127.0.0.1:5050", server.url) for argument in arguments]
        assert any(server.url in argument for argument in asked)
        done = subprocess.run([sys.executable, *asked], capture_output=True, check=False, timeout=60)
        server.shutdown()
    assert (done.returncode == 0) == healthy


def test_the_image_holds_code_and_nothing_of_anybody() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()  # beside the Dockerfile only BuildKit would read it
    assert rules[1] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    assert not let_in & {"data", "models", "config", "demo"}
    assert rules.index("replicate_deployment/weights") > rules.index("!replicate_deployment")
    image = (FOLDER / "Dockerfile").read_text()
    assert re.findall(r"^FROM .* AS (\w+)$", image, re.MULTILINE)[-1] == "bot"  # what `docker build` makes
    assert "TOKEN=" not in image
    assert {"-e TELEGRAM_BOT_TOKEN", "-e REPLICATE_API_TOKEN"} <= set(re.findall(r"-e [A-Z_]+TOKEN", image))
