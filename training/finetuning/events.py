"""TensorBoard's event files, for curves to look at while it trains: `tensorboard --logdir FOLDER`.

torch's SummaryWriter would do, but it writes from a thread, which ends in a traceback when the disk is full, and puts
the machine's name into the file's. Here a record is written where `add` is called, and nobody's chat is in it.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.installed import install_command


def require(*, wanted: bool) -> None:
    """Raises ConfigError when curves are wanted and cannot be written: to be known before hours of training."""
    if wanted and find_spec("tensorboard") is None:
        raise ConfigError(
            f"use_tensorboard: true, but tensorboard is not installed; set false, or type: {install_command('train')}"
        )


class EventFile:
    """One file of scalars in a run's folder below `parent`.

    A training that starts at step 0 gets a folder of its own, called by its time, so that two can be compared. One
    that resumes goes on in the newest, and what the interrupted one wrote after `start` steps is hidden.
    """

    def __init__(self, parent: Path, start: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._records = Event, Summary, RecordWriter
        runs = sorted(path for path in parent.glob("*") if path.is_dir()) if start else []
        folder = runs[-1] if runs else parent / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        # TensorBoard wants "tfevents" in the name, and reads a folder's files in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._write(file_version="brain.Event:2")
        # Curves end at the step before this one, as far as earlier files of the folder are concerned.
        self._write(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One point on each curve, named as in `values`. Raises OSError, as on a full disk."""
        points = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=points))

    def _write(self, **fields: Any) -> None:
        # Opened for each record: what was seen is in the file, and nothing is left open, however the training ends.
        with self.path.open("ab") as stream:
            self._records(stream).write(self._event(wall_time=time.time(), **fields).SerializeToString())
