import os
import re
import stat
from pathlib import Path

import pytest

from ghost.errors import ConfigError
from training.finetuning import curve
from training.finetuning.curve import EventFile


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve, as TensorBoard itself shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    parent = tmp_path / "models" / "adapter.tensorboard"
    events = EventFile(parent, start=0)
    events.add(0, {"loss/held out": 4.5})
    events.add(1, {"loss/training": 2.5, "training/gradient norm": 0.25})
    events.add(2, {"loss/training": 2.0})
    assert read(events.path.parent) == {
        "loss/held out": [(0, 4.5)],
        "loss/training": [(1, 2.5), (2, 2.0)],
        "training/gradient norm": [(1, 0.25)],
    }
    assert [path.parent for path in parent.rglob("*tfevents*")] == [events.path.parent]
    assert stat.S_IMODE(parent.stat().st_mode) == stat.S_IMODE(events.path.parent.stat().st_mode) == 0o700
    assert os.uname().nodename not in events.path.name


def test_a_resumed_training_continues_the_curves_of_the_interrupted_one(tmp_path: Path) -> None:
    first = EventFile(tmp_path, start=0)
    for step in range(1, 6):
        first.add(step, {"loss": float(step)})
    with first.path.open("ab") as stream:
        stream.write(b"\x18\x00\x00")  # killed in the middle of a record
    second = EventFile(tmp_path, start=3)  # its checkpoint was taken after step 3
    for step in range(4, 7):
        second.add(step, {"loss": 10.0 + step})
    assert second.path.parent == first.path.parent
    assert read(second.path.parent) == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 14.0), (5, 15.0), (6, 16.0)]}


def test_a_second_training_has_curves_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "2020-01-01_00-00-00").mkdir()
    second = EventFile(tmp_path, start=0)
    assert re.fullmatch(r"20[2-9]\d(-\d\d){2}_\d\d(-\d\d){2}", second.path.parent.name)
    assert second.path.parent.name > "2020-01-01_00-00-00"
    assert EventFile(tmp_path, start=5).path.parent == second.path.parent


def test_a_lost_folder_is_no_reason_to_stop(tmp_path: Path) -> None:
    resumed = EventFile(tmp_path / "curves", start=7)
    resumed.add(8, {"loss": 1.0})
    assert read(resumed.path.parent) == {"loss": [(8, 1.0)]}


def test_a_missing_package_is_known_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    curve.require_tensorboard(wanted=True)
    monkeypatch.setattr(curve, "find_spec", lambda name: None)
    curve.require_tensorboard(wanted=False)
    with pytest.raises(ConfigError, match=r"not installed; set it to false, or type: pip install -e '\.\[train\]'"):
        curve.require_tensorboard(wanted=True)
