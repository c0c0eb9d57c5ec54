"""The GPU benchmark, rehearsed on a CPU with a tiny shape, and the kit for machines without a network."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import prepare, run, serving, training
from benchmarks.gpu.models import DENSE, EACH, FLASH, FLOOR_GPU, REAL, TRIAL, attending, random_base
from benchmarks.gpu.training import NESTED, Way
from replicate_deployment import acceleration
from replicate_deployment.tokenization import load_tokenizer
from training.config import TrainingConfig
from training.finetuning import hardware
from training.finetuning.base import read_shapes, resolve_base
from training.finetuning.data import Example
from training.finetuning.loss import SegmentLoss
from training.finetuning.model import adapted, trainable
from training.finetuning.packing import Segment, collapse, flatten, segment

BASE = "a base"
LIGER = next(f"training: {name}" for name, way in training.ROWS.items() if way.liger)
TRAINED, SERVED = f"training: {Way().name}", "serving: eager generate"


dynamo_warns = pytest.mark.filterwarnings("ignore")  # of what it looks at while it traces, as an error within it


@pytest.fixture
def small() -> TrainingConfig:
    return dataclasses.replace(TRIAL.recipe(), bf16=False, lora_dropout=0.0)


def lines(path: Path) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_the_program_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"

    def call(*rows: str, minutes: float = 9) -> dict[str, dict[str, Any]]:
        monkeypatch.setattr(run, "ROWS", [*rows])
        where = ["--results", str(path), "--scratch", str(tmp_path / "scratch")]
        assert run.main(["--trial", "--minutes", str(minutes), *where]) == 0
        return lines(path) if path.exists() else {}

    monkeypatch.setattr(run, "LEAST", 0)
    assert call(TRAINED, minutes=0.002) == {}  # cut off by the end of the call, so not a result
    first = call(LIGER, TRAINED)  # a row that fails, whatever the reason, costs no other
    assert "failed" in first[LIGER]
    assert first[TRAINED]["tokens"] > 0
    second = call(LIGER, TRAINED, SERVED)
    assert {row: second[row] for row in first} == first
    assert len(second[SERVED]["rates"]) == TRIAL.replies
    monkeypatch.setattr(serving, "LIMIT", 0.1)
    stopped = "serving: served in 4 bits"
    assert call(LIGER, TRAINED, SERVED, stopped)[stopped]["failed"] == "not done within 0 s"
    page = path.with_suffix(".md").read_text()
    assert "no figure here means anything" in page
    assert f"| {Way().name} | " in page


def test_results_of_a_trial_and_of_a_gpu_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({"row": TRAINED, "trial": True}) + "\n")
    with pytest.raises(SystemExit, match=r"results\.jsonl holds rows of a trial; name another file: --results"):
        run.main(["--results", str(path)])
    for content in ("{", "3\n", '{"row": "training: x"}\n'):
        path.write_text(content)
        with pytest.raises(SystemExit, match=r"results\.jsonl: not results of this program"):
            run.main(["--results", str(path)])
    with pytest.raises(SystemExit, match="not results of this program"):
        run.main(["--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no row holds unheard"):
        run.main(["--results", str(tmp_path / "other.jsonl"), "--only", "unheard"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_is_measured_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no torch here that sees a GPU"):
        run.main(["--results", str(tmp_path / "results.jsonl")])
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def trained(scratch: Path) -> dict[str, dict[str, Any]]:
    return {name: training.measure(name, TRIAL, scratch) for name, way in training.ROWS.items() if not way.liger}


@dynamo_warns
def test_every_training_row_is_measured_by_the_training_loop(trained: dict[str, dict[str, Any]]) -> None:
    assert all(row["tokens"] > 0 and row["seconds"] > 0 for row in trained.values())
    text = "\n".join(training.page(trained, TRIAL, None))
    cells = {row[0]: row for row in (line.strip("| ").split(" | ") for line in text.splitlines()) if len(row) == 10}
    rate, of_windows = (
        {name: float(row[column].replace(",", "")) for name, row in cells.items() if name in trained}
        for column in (4, 5)
    )
    apart = Way(training.APART, 1).name
    assert of_windows[apart] / rate[apart] == pytest.approx(1, abs=0.03)  # end tokens are not computed
    assert of_windows[Way().name] / rate[Way().name] > 1.2


@dynamo_warns
def test_compiled_blocks_are_compiled_once_for_all_lengths() -> None:
    """A list of lengths that reached compiled code would be compiled anew for every number of segments."""
    torch._dynamo.reset()
    config = TRIAL.recipe()
    model = adapted(random_base(TRIAL.facts, config, "cpu"), config, BASE).train()
    loss, done = SegmentLoss(model), []
    with training.compiled(model.get_base_model(), "eager"):
        for seed in range(4):
            with torch.autocast("cpu", torch.bfloat16):
                loss(**flatten(_segments(TRIAL.facts["vocab_size"], seed), "cpu"))
            done.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert done[0] > 0
    assert done == [done[0]] * 4


@pytest.mark.parametrize("name", [name for name in serving.ROWS if name not in serving.STARTS])
def test_every_way_to_serve_is_measured(name: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "compiled_layer", acceleration.compiled_layer)  # rows replace it
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(scratch / "inductor"))
    assert min(serving.measure(name, TRIAL, scratch)["rates"]) > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", serving.STARTS)
def test_every_start_is_measured(name: str, scratch: Path) -> None:
    assert min(serving.measure(name, TRIAL, scratch).values()) > 0


@pytest.mark.parametrize("name", [row for row in run.ROWS if row.startswith("correctness: ") and "marked" not in row])
def test_what_is_correct_on_a_cpu_is_found_to_be(name: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(scratch / "inductor"))
    row = run.measure(name, TRIAL, scratch)
    assert row["ok"], row


def test_a_gradient_of_other_windows_is_found_to_be_wrong(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flattened = flatten

    def wrong(batch: Any, device: Any) -> dict[str, Any]:
        row = flattened(batch, device)
        if len(batch) > 1:
            row["lengths"] = [sum(row["lengths"])]  # segments see each other
        return row

    monkeypatch.setattr("training.finetuning.packing.flatten", wrong)
    name = next(row for row in run.ROWS if "gradients" in row)
    assert not run.measure(name, TRIAL, scratch)["ok"]


def test_memory_that_runs_out_is_a_result(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SegmentLoss, **batch: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(SegmentLoss, "forward", full)
    assert run.measure(TRAINED, TRIAL, scratch)["failed"] == "out of memory"


def test_without_a_gpu_the_page_reads_not_measured() -> None:
    text = "\n".join(run.page({}, REAL))
    rows = [line for line in text.splitlines() if line.startswith(f"| {NESTED}")]
    assert len(rows) == sum(way.segments == NESTED for way in training.ROWS.values())
    assert all(" not measured " in row for row in rows)
    assert all("met" not in line for line in text.splitlines() if line.startswith("- on an"))


@pytest.mark.parametrize("off", [0.0, 0.05])
def test_the_ranges_for_estimate_hold_every_row(monkeypatch: pytest.MonkeyPatch, off: float) -> None:
    """Rows take what estimate's formula says with other constants, some more, some less by `off`."""
    gpu = next(gpu for gpu in hardware.load_prices().gpus if gpu.gpu == FLOOR_GPU)
    shapes = read_shapes(REAL.facts, BASE)
    jobs = {name: training.prepared(way, REAL) for name, way in training.ROWS.items() if way.standard}

    def expected(name: str) -> hardware.Range:
        job = jobs[name]
        return hardware.on_gpu(gpu, job.work, shapes, job.config, checkpointing=job.way.checkpointing)

    true = {"GPU_SHARE": 0.5, "BYTES_MOVED": 20.0, "LAUNCHES": 0.1}
    for constant, value in true.items():
        monkeypatch.setattr(hardware, constant, hardware.Range(value, value))
    taken = {name: expected(name).low * (1 + off * (-1) ** number) for number, name in enumerate(jobs)}
    found = {
        name: {"seconds": seconds, "steps": 1, "tokens": jobs[name].work.tokens, "peak": None}
        for name, seconds in taken.items()
    }
    text = "\n".join(training.page(found, REAL, gpu))
    for constant, value in true.items():
        match = re.search(rf"{constant} = Range\(([\d.]+), ([\d.]+)\)", text)
        assert match
        fitted = hardware.Range(*map(float, match.groups()))
        assert off or fitted == pytest.approx((value, value), rel=0.01)
        monkeypatch.setattr(hardware, constant, fitted)
    for name, seconds in taken.items():
        assert 0.99 * expected(name).low < seconds < 1.01 * expected(name).high


@pytest.mark.parametrize("bf16", [False, True])
def test_the_random_base_is_built_as_a_real_one_is_loaded(tiny_base: Path, small: TrainingConfig, bf16: bool) -> None:
    config = dataclasses.replace(small, bf16=bf16)
    facts = json.loads((tiny_base / "config.json").read_text())
    models = (
        adapted(random_base(facts, config, "cpu"), config, "tiny"),
        trainable(resolve_base(str(tiny_base), None), config, load_tokenizer(tiny_base)),
    )
    made, loaded = (
        {
            **{name: (item.dtype, item.shape, item.requires_grad) for name, item in model.named_parameters()},
            **{name: (item.dtype, item.shape) for name, item in model.named_buffers()},
            **{name: type(module) for name, module in model.named_modules()},
        }
        for model in models
    )
    assert made == loaded


def test_all_kinds_of_attention_compute_the_same_loss(small: TrainingConfig) -> None:
    model = adapted(random_base(TRIAL.facts, small, "cpu"), small, BASE)
    row, losses = flatten(_segments(TRIAL.facts["vocab_size"]), "cpu"), []
    for backend in (FLASH, EACH, DENSE):
        with attending(model, backend):
            losses.append(float(SegmentLoss(model)(**row).detach()))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def _segments(vocabulary: int, seed: int = 0) -> list[Segment]:
    rng = np.random.default_rng(seed)
    examples = [
        Example(rng.integers(3, vocabulary, length).astype(np.int32), np.arange(length) > 0, np.arange(length) > 0)
        for length in (5 + seed, 30, *range(17, 19 + seed))
    ]
    return [segment(group) for group in collapse(examples)]


def test_a_slimmed_wheel_keeps_one_cuda_library_and_is_whole(tmp_path: Path) -> None:
    wheel = tmp_path / "bitsandbytes-1.0-py3-none-any.whl"
    info = "bitsandbytes-1.0.dist-info"
    files = {f"bitsandbytes/libbitsandbytes_{kind}.so": kind for kind in ("cpu", "cuda118", "cuda130", "xpu2025")}
    files |= {
        "bitsandbytes/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: bitsandbytes\nVersion: 1.0\n",
    }
    files |= {f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", f"{info}/RECORD": ""}
    with zipfile.ZipFile(wheel, "w") as full:
        for name, content in files.items():
            full.writestr(name, content)
    prepare.slim(wheel, "cuda130")
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert sorted(path.stem for path in site.rglob("*.so")) == ["libbitsandbytes_cpu", "libbitsandbytes_cuda130"]
    with pytest.raises(SystemExit, match=r"has no .*cuda999\.so: correct CUDA in prepare\.py"):
        prepare.slim(wheel, "cuda999")


def test_the_kit_takes_the_versions_of_the_lock() -> None:
    lock = (prepare.ROOT / "requirements" / "environment.lock").read_text()
    found = prepare.locked(lock)
    assert [requirement.split("==")[0] for requirement in found[:-1]] == sorted(prepare.LOCKED)
    assert all(f"\n{requirement} " in f"\n{lock}" for requirement in found[:-1])
