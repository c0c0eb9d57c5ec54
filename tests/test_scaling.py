"""docs/scaling.md: its arithmetic from the shapes and from the price file, and its commands from our own facts."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from replicate_deployment.chat_format import DEFAULT_LABELS
from scripts.kept_adapter import LARGEST_RANK

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
HIDDEN, KEYS, INNER, BLOCKS, RANK = 4096, 1024, 14336, 32, 16  # Mistral-7B-v0.3 and the recipe of record
ADAPTER = BLOCKS * RANK * (2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEYS) + 3 * (HIDDEN + INNER))
TOKEN = 2 * BLOCKS * KEYS * 2  # bytes of keys and values
PRICES = {gpu["gpu"]: gpu for gpu in yaml.safe_load((ROOT / "config" / "gpu_prices.yaml").read_text())["gpus"]}


def test_the_adapter_and_the_conversation() -> None:
    assert TEXT.count(f"{ADAPTER:,}") == 2
    assert f"{ADAPTER * 2 / 1e6:.1f} MB" in TEXT
    assert f"{ADAPTER * 4 / 1e6:.0f} MB in float32" in TEXT
    assert f"{200 * ADAPTER * 2 / 1e9:.1f} GB of the machine's memory" in TEXT
    assert f"{TOKEN:,} bytes" in TEXT
    assert f"{TOKEN * 1120 / 1e6:.0f} MB" in TEXT


@pytest.mark.parametrize("gpu", ["RTX 4090", "L40S", "H100"])
def test_a_row_of_the_table(gpu: str) -> None:
    number = r"([\d.]+)"
    cells = [gpu, f"{number} GB", number, rf"{number}: {number}", number, f"{number} GB", number]
    row = re.search(r"^\| " + r" \| ".join(cells) + r" \|$", TEXT, re.M)
    assert row
    usable, base, slots, held, space, left, talking = map(float, row.groups())
    exact = PRICES[gpu]["memory"] * 2**30 * 0.9
    assert usable == round(exact / 1e9, 1)
    assert held == round(slots * ADAPTER * 2 / 1e9, 1)
    remaining = exact - base * 1e9 - slots * ADAPTER * 2 - space * 1e9
    assert left == round(remaining / 1e9, 1)
    assert talking == remaining // (TOKEN * 1120)


def test_the_money() -> None:
    shared, alone = PRICES["L40S"]["price"] * 720, PRICES["RTX 4090"]["price"] * 720
    assert f"at ${PRICES['L40S']['price']:.2f} an hour is ${shared:.2f}" in TEXT
    assert f"${shared / 100:.2f} a month each" in TEXT
    assert f"1,000 ${shared / 1000:.2f}" in TEXT
    assert f"at ${PRICES['RTX 4090']['price']:.2f}, one ghost is ${alone:.2f}" in TEXT


def test_the_request_and_the_deployment_are_well_formed() -> None:
    body = re.search(r"-d '(\{.*?\})'", TEXT, re.S)
    assert body
    request = json.loads(body[1])
    assert request["stop"] == DEFAULT_LABELS.stop_sequences
    deployment = yaml.safe_load(re.search(r"```yaml\n(.*?)```", TEXT, re.S)[1])  # type: ignore[index]
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    command = re.search(r"^vllm serve (.*?)\n```", TEXT, re.S | re.M)
    assert command
    flags = shlex.split(command[1].replace("\\\n", ""))
    assert {word.split("=")[0] for word in args} < {word for word in flags if word.startswith("--")}
    compile(re.search(r"```python\n(.*?)```", TEXT, re.S)[1], "scaling.md", "exec")  # type: ignore[index]
    assert f"a rank above {LARGEST_RANK}" in TEXT
