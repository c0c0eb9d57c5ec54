from datetime import date
from pathlib import Path

import pytest

from ghost.errors import ConfigError
from ghost.installed import SHIPPED
from training.finetuning import hardware
from training.finetuning.hardware import gpu_of, load_prices

ENTRY = "{gpu: X, device: NVIDIA X, sold: 24, memory: 23, tflops: 100, bandwidth: 1.0, price: 0.5, provider: P, "
ENTRY += "read: 2026-01-02}"


def test_the_file_in_the_clone() -> None:
    found = load_prices()
    assert len({gpu.device for gpu in found.gpus}) == len({gpu.gpu for gpu in found.gpus}) == len(found.gpus) > 10
    for gpu in found.gpus:
        assert gpu.device.startswith("NVIDIA ")
        assert date(2026, 1, 1) < gpu.read <= found.as_of
        assert 8 < gpu.memory < 300
        assert 0.9 < gpu.memory / gpu.sold < 1
        assert 50 < gpu.tflops < 5000  # dense: with sparsity it would be twice as much
        assert 0.1 < gpu.price < 20


def test_every_provider_has_a_source() -> None:
    text = (SHIPPED / hardware.NAME).read_text(encoding="utf-8")
    for provider in {gpu.provider for gpu in load_prices().gpus}:
        assert f"  {provider}: https://" in text


@pytest.mark.parametrize("device", ["NVIDIA H100 80GB HBM3", "nvidia h100 80gb hbm3"])
def test_a_device_is_known_by_the_name_that_torch_gives_it(device: str) -> None:
    gpu = gpu_of(device)
    assert gpu is not None
    assert gpu.gpu == "H100"


@pytest.mark.parametrize("device", ["CPU, 2 threads", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100", ""])
def test_others_are_not_known(device: str) -> None:
    assert gpu_of(device) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("as_of: 2026-01-02\ngpus: [", "not YAML"),
        ("as_of: 2026-01-02\ngpus: []", "gpus: expected a list of length >= 1"),
        ("- 1", "expected keys, found a list"),
        (f"as_of: soon\ngpus:\n  - {ENTRY}", "as_of: expected a date such as 2024-02-29, found 'soon'"),
        ("as_of: 2026-01-02\ngpus: [H100]", r"gpus\[0\]: expected keys, found 'H100'"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('price', 'prize')}", r"prize; did you mean gpus\[0\].price"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('}', ', watts: 3}')}", r"unknown key gpus\[0\].watts"),
        (
            f"as_of: 2026-01-02\ngpus:\n  - {ENTRY}\n  - {ENTRY.replace('0.5', '0')}",
            r"gpus\[1\].price: expected a number > 0.0, found 0",
        ),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('0.5', 'cheap')}", "price: expected a number, found 'cheap'"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('2026-01-02', 'today')}", "read: expected a date"),
        (f"as_of: 2026-01-02\ngpus:\n  - {ENTRY.replace('gpu: X', 'gpu: 5')}", "gpu: expected text, found 5"),
    ],
)
def test_a_slip_in_the_file_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=why):
        load_prices(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_prices(tmp_path / "none.yaml")


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(f"as_of: 2026-01-02\ngpus:\n  - {ENTRY}", encoding="utf-8")
    gpu = gpu_of("NVIDIA X", path)
    assert gpu is not None
    assert (gpu.bytes, gpu.tflops) == (23 * 2**30, 100.0)
