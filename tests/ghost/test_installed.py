from pathlib import Path

import pytest

from ghost import cli, installed
from training import config
from training.finetuning import hardware


def test_a_config_of_the_current_folder_is_used_in_place_of_ghosts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, rented = config.load(), hardware.load_prices()
    Path("config").mkdir()
    Path("config/training_config.yaml").write_text(
        config.dump(own).replace("num_epochs: 8", "num_epochs: 3"), encoding="utf-8"
    )
    shipped = installed.SHIPPED / "gpu_prices.yaml"
    Path("config/gpu_prices.yaml").write_bytes(shipped.read_bytes().split(b"  - {gpu: RTX 3090")[0])
    assert (own.num_epochs, config.load().num_epochs) == (8, 3)
    assert len(rented.gpus) > len(hardware.load_prices().gpus) == 1


def test_a_broken_one_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/training_config.yaml").write_text("num_epochs: 3\n", encoding="utf-8")
    assert cli.main(["estimate"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ghost estimate: config/training_config.yaml: missing key base_model")
    assert str(installed.SHIPPED / "training_config.yaml") in told  # where they all are


def test_init_writes_what_is_not_there_and_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/bot.yaml").write_text("owner: 12345\n", encoding="utf-8")
    assert cli.main(["init"]) == 0
    told = capsys.readouterr().out
    assert "kept     config/bot.yaml" in told
    assert Path("config/bot.yaml").read_text(encoding="utf-8") == "owner: 12345\n"
    for name, source in installed.EDITED.items():
        if name != "bot.yaml":
            assert f"written  config/{name}" in told
            assert Path("config", name).read_bytes() == (installed.SHIPPED / source).read_bytes()
    assert {path.relative_to("config").as_posix() for path in Path("config").rglob("*.*")} == {*installed.EDITED}


@pytest.mark.parametrize(("clone", "what"), [(None, "'ghost-in-the-shell[train]'"), ("here", "-e '.[train]'")])
def test_the_command_fits_how_ghost_is_installed(
    clone: str | None, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installed, "CLONE", clone and Path.cwd())
    assert installed.install_command("train") == f"pip install {what}"
