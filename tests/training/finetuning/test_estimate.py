import dataclasses
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ghost import cli
from ghost.errors import BaseModelError
from replicate_deployment.tokenization import load_tokenizer
from tests.models import TOKENIZERS, make_tokenizer
from tests.training.conftest import RECIPE_OF_RECORD
from tests.training.finetuning.conftest import write_prepared
from training import config as training_config
from training.config import TrainingConfig, load_bases
from training.finetuning import estimate, hardware, train
from training.finetuning.data import read_facts, read_split
from training.finetuning.hardware import HEADROOM, Device, gpu_of
from training.finetuning.packing import Plan

ROOT = Path(__file__).parents[3]
# What a core install lacks, as far as this verb could come near it.
HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers", "huggingface_hub")
HEAVY += ("filelock", "matplotlib", "sklearn", "scipy", "regex", "httpx2", "psutil", "cog", "gguf")
TURNS = ["B: hey tu fais quoi ce soir", "A: pas grand chose", "B: on se voit at the café then 😂", "A: ok"]
TURNS += ["B: did you see the match?", "A: c'était dingue\nmdr", "B: ok see you there <3", "A: something"]
NESTED = ["\n".join(TURNS[start:end]) + "</s>" for start in (0, 2, 4) for end in (4, 6, 8) if end > start]


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Windows of which some begin as others do."""
    return write_prepared(tmp_path / "nested", NESTED, NESTED[:3])


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["estimate", "--json", "--config", str(RECIPE_OF_RECORD), *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_core_install_estimates_the_recipe_of_record(nested: Path) -> None:
    """Without torch, without a tokenizer, without a network, and without the base."""
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); from ghost import cli; "
    code += "sys.exit(cli.main(['estimate', '--data', sys.argv[1]]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(nested)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "7.25 billion weights, 41.9 million trained" in done.stdout
    assert f"windows   {len(NESTED)} to train on, 3 held out" in done.stdout
    assert "an epoch, by estimate;" in done.stdout
    assert "14.5 GB for the base" in done.stdout
    assert "computed, not measured" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith(("H200 ", "RTX 4090 "))]
    assert len(rows) == 2
    assert all("$" in row and "RunPod" in row for row in rows)


@pytest.mark.parametrize("recipe_name", ["windows", "conversations"])
def test_of_much_data_a_sample_tells_about_as_much(
    tmp_path: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe_name: str,
) -> None:
    drawn, lines = random.Random(0), list[str]()
    for _ in range(600):
        talk = [turn if drawn.random() < 0.5 else f"{turn} {drawn.choice(TURNS[1:])}" for turn in TURNS]
        talk = [turn.replace("\n", " ") for turn in talk]
        if recipe_name == "windows":
            lines += ["\n".join(talk[:end]) + "</s>" for end in (2, 4, 6, 8)]
        else:
            lines.append("\n".join(f"{turn}</s>" if turn[0] == "A" else turn for turn in talk))
    folder = write_prepared(tmp_path / "much", lines, lines[-3:])
    facts = json.loads((folder / "ghost.json").read_text(encoding="utf-8"))
    facts["text"]["recipe"] = recipe_name
    (folder / "ghost.json").write_text(json.dumps(facts), encoding="utf-8")
    arguments = ["--data", str(folder), "--base", str(tiny_base)]
    whole = figures(capsys, *arguments)
    monkeypatch.setattr(estimate, "CHARACTERS", sum(map(len, lines)) // 5)
    part = figures(capsys, *arguments)
    assert whole["sampled"] == 1
    assert 0.1 < part["sampled"] < 0.3
    assert part["examples"] == pytest.approx(whole["examples"], rel=0.05)
    assert part["steps"] == pytest.approx(whole["steps"], rel=0.05)
    assert part["tokens_per_epoch"] == pytest.approx(whole["tokens_per_epoch"], rel=0.05)
    for some, every in zip(part["devices"][:-1], whole["devices"][:-1], strict=True):
        assert some["seconds"] == pytest.approx(every["seconds"], rel=0.15)
    assert cli.main(["estimate", "--config", str(RECIPE_OF_RECORD), *arguments]) == 0
    assert "from a sample" in capsys.readouterr().out


def test_what_to_take_is_said(
    nested: Path, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def taken(*arguments: str) -> tuple[dict[str, Any], str]:
        found = figures(capsys, *arguments)
        assert cli.main(["estimate", "--config", str(RECIPE_OF_RECORD), *arguments]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("take "))
        return found, line

    monkeypatch.setattr(hardware, "measure_core", lambda: 2e10)
    monkeypatch.setattr(hardware, "usable_cores", lambda: 4)
    much = write_prepared(tmp_path / "much", NESTED * 200, NESTED[:3])
    found, line = taken("--data", str(much))
    rented = [row for row in found["devices"] if row["dollars"] and row["device"] != "NVIDIA GH200 480GB"]
    quick = [row for row in rented if row["seconds"][1] <= 3 * 3600]
    cheapest = min(quick, key=lambda row: row["dollars"][1] + row["dollars_per_hour"] / 4)
    assert found["take"] == cheapest["device"]
    assert "the cheapest that finishes within 3 hours" in line

    found, line = taken("--data", str(nested), "--base", str(tiny_base))
    assert found["take"] == "this CPU"
    assert "on 4 idle cores" in line
    assert "nothing needs to be rented" in line

    monkeypatch.setattr(estimate, "MOST_HOURS", 1e-6)
    found, line = taken("--data", str(much))
    assert found["take"] == "NVIDIA B200"
    assert "the fastest, since none" in line


def test_a_card_is_shown_with_the_memory_it_is_sold_with(nested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate", "--config", str(RECIPE_OF_RECORD), "--data", str(nested)]) == 0
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines() if "$" in line}
    assert rows["RTX 4090"][2] == "24"
    assert rows["A100 80 GB"][3] == "80"


def test_the_plan_is_the_one_that_trains(
    nested: Path, tiny_base: Path, recipe: TrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(capsys, "--data", str(nested), "--base", str(tiny_base))
    ghost = read_facts(nested / "train.jsonl", nested / "val.jsonl")
    split = read_split(nested / "train.jsonl", load_tokenizer(tiny_base), ghost, recipe)
    plan = Plan(split, recipe)
    assert found["counted_by"] == "tokenizer"
    assert found["tokens_per_epoch"]["one_example_at_a_time"] == split.tokens
    assert found["tokens_per_epoch"]["computed"] * recipe.num_epochs == plan.tokens
    assert plan.tokens < 0.7 * plan.window_tokens
    assert (found["steps"], found["longest"]) == (len(plan), plan.longest)
    assert found["disk"]["base"] == 0  # it is here


def test_figures_agree_with_each_other(
    nested: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "measure_core", lambda: 2e10)  # a laptop's, whatever this machine is
    monkeypatch.setattr(hardware, "usable_cores", lambda: 4)
    found = figures(capsys, "--data", str(nested))
    *gpus, untested, cpu = found["devices"]
    assert found["counted_by"] == "estimate"
    assert [gpu["dollars"][0] for gpu in gpus] == sorted(gpu["dollars"][0] for gpu in gpus)
    assert untested["device"] == "NVIDIA GH200 480GB"  # its processor is an ARM
    for row in gpus:
        assert row["fits"]
        *parts, total = row["memory"].values()
        assert sum(parts) == total
        for seconds, dollars in zip(row["seconds"], row["dollars"], strict=True):
            assert dollars == pytest.approx(seconds * row["dollars_per_hour"] / 3600)
    assert cpu["dollars"] is None
    assert cpu["seconds"][0] > 100 * max(gpu["seconds"][0] for gpu in gpus)


def test_conversations_are_estimated_too(
    tmp_path: Path, tiny_base: Path, recipe: TrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_prepared(tmp_path / "talks", ["\n".join(f"{t}</s>" * (t[0] == "A") or t for t in TURNS)] * 3, [])
    facts = json.loads((folder / "ghost.json").read_text(encoding="utf-8"))
    facts["text"]["recipe"] = "conversations"
    (folder / "ghost.json").write_text(json.dumps(facts), encoding="utf-8")
    found = figures(capsys, "--data", str(folder), "--base", str(tiny_base))
    assert (found["recipe"], found["examples"]["train"]) == ("conversations", 3)
    assert found["longest"] == recipe.sequence_len  # pieces are cut elsewhere in each epoch


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"micro_batch_tokens": 9_000_000}, "B200, the largest GPU of gpu_prices.yaml: .* lower micro_batch_tokens"),
        ({"sequence_len": 40_000}, "sequence_len: 40000, but mistralai/Mistral-7B-v0.3 has 32768 positions"),
        ({"lora_target_modules": ("w1",)}, "no layer w1"),
        ({"base_model": "someone/else", "revision_of_model": None}, "hf download someone/else config.json"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(
    nested: Path,
    tmp_path: Path,
    recipe: TrainingConfig,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    why: str,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(training_config.dump(dataclasses.replace(recipe, **changes)), encoding="utf-8")
    assert cli.main(["estimate", "--config", str(path), "--data", str(nested)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert re.search(why, said.err)


def test_a_card_that_is_too_small_is_named_in_its_row(
    nested: Path, recipe: TrainingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(recipe, micro_batch_tokens=40_000)
    path = tmp_path / "config.yaml"
    path.write_text(training_config.dump(config), encoding="utf-8")
    assert cli.main(["estimate", "--config", str(path), "--data", str(nested), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["devices"]
    small = next(row for row in rows if row["device"] == "NVIDIA L4")
    large = next(row for row in rows if row["device"] == "NVIDIA H200")
    assert (small["fits"], small["memory"], small["dollars"]) == (False, None, None)
    assert "lower micro_batch_tokens to at most" in small["refusal"]
    assert large["gradient_checkpointing"] is True
    assert large["memory"]["total"] < HEADROOM * 150.2e9
    assert cli.main(["estimate", "--config", str(path), "--data", str(nested)]) == 0
    assert [line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("L4 ")] == [
        ["does", "not", "fit"]
    ]


def test_training_is_refused_before_the_weights_are_fetched(
    ghost_train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(train, "resolve_base", lambda name, revision: fetched.append(name))
    monkeypatch.setattr(hardware, "device_at_hand", lambda count: Device("NVIDIA H200", 300_000_000, True, None, count))
    assert ghost_train() == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("ghost train: does not fit: ")
    assert said[-1].endswith(", 0.3 GB are free; use a device with more memory, or a smaller base_model")
    assert fetched == []
    assert not (tmp_path / "adapter").exists()


def test_training_says_what_it_expects_before_the_weights_are_fetched(
    ghost_train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str, revision: str | None) -> None:
        raise BaseModelError("no more than that")

    h200 = gpu_of("NVIDIA H200")
    assert h200 is not None
    monkeypatch.setattr(train, "resolve_base", fetch)
    monkeypatch.setattr(hardware, "device_at_hand", lambda count: Device("NVIDIA H200", 140 * 10**9, True, h200, count))
    assert ghost_train() == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("expected  "))
    assert re.match(r"expected  [\d.]+ to [\d.]+ s, (less than \$0\.01|\$0\.\d\d to \$0\.\d\d) at \$", line)
    assert f" at ${h200.price:.2f} an hour ({h200.provider}, {h200.read});" in line
    assert "computed, not measured" in line


@pytest.mark.parametrize("recipe_name", ["windows", "conversations"])
@pytest.mark.parametrize("kind", [None, *TOKENIZERS])
def test_preparation_counts_the_same_tokens(
    kind: str | None,
    tmp_path: Path,
    recipe_name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = random.Random(3)
    words = ["so", "well", "maybe", "tonight?", "😂", "çà", "non", "ok.", "12", "of", "them"]
    rows = ["timestamp,sender,message"]
    for minute in range(0, 2400, 5):
        day, clock = divmod(minute, 120)
        said = " ".join(drawn.choices(words, k=drawn.randint(1, 9)))
        stamp = f"2024-05-{1 + day % 28:02}T{10 + clock // 60}:{clock % 60:02}:00"
        rows.append(f"{stamp},{drawn.choice(['Ada', 'Bob'])},{said}")
    rows = [rows[0], *sorted(rows[1:])]
    Path("data/cleaned/whatsapp").mkdir(parents=True)
    Path("data/cleaned/whatsapp/Bob.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    base = []
    if kind is not None:
        make_tokenizer(kind).save_pretrained("base")
        Path("base/config.json").write_text(json.dumps(load_bases()["qwen3-4b"].config), encoding="utf-8")
        base = ["--base", "base"]
    assert cli.main(["prepare", "--me", "Ada", "--recipe", recipe_name, "--force", *base]) == 0
    capsys.readouterr()
    report = json.loads(Path("data/processed/preparation_report.json").read_text(encoding="utf-8"))
    assert report["lengths"]["sampled"] == report["lengths"]["lines"] > 10
    counted = figures(capsys, *base)["tokens_per_epoch"]["one_example_at_a_time"]
    assert counted == report["lengths"]["tokens_per_epoch"]
