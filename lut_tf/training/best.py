"""The network of the best epoch, the same whether a run was stopped or not."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import keras

from lut_tf.training.plan import Plan
from lut_tf.training.run_directory import RunFiles, steps_in
from lut_tf.writing import replacing

logger = logging.getLogger(__name__)


class KeepBest(keras.callbacks.Callback):
    """Keep the network of the epoch with the highest figure; of equal ones the first.

    While the run goes on there is a file for each step at which an epoch was the best so far, as long as a run that
    starts again from one of its checkpoints could need it: what came after that checkpoint is not to count. When the
    run is through, `settle` and `clear` leave one.

    Args:
        figure: its name in the logs.
        files: of the run; their metrics are those up to `start_step` or beyond.
        plan: of the run.
        start_step: optimizer steps that the run has behind it.
        save: writes the network as it is to the path that it is given.
        patient: when the disk is full, go on without the file instead of raising `OSError`.
    """

    def __init__(
        self,
        figure: str,
        files: RunFiles,
        plan: Plan,
        start_step: int,
        save: Callable[[Path], None],
        patient: bool = False,
    ) -> None:
        super().__init__()
        self._figure, self._files, self._plan, self._save, self._patient = figure, files, plan, save, patient
        for step in self._steps():
            if step > start_step:
                self._path(step).unlink()
        kept = self._steps()
        self._highest = _figure_at(files.metrics, kept[-1], figure) if kept else None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the network, if it is better than all before."""
        value = (logs or {}).get(self._figure)
        if value is None or self._highest is not None and value <= self._highest:
            return
        path = self._path((epoch + 1) * self._plan.steps_per_epoch)
        try:
            with replacing(path) as written:
                self._save(written)
        except OSError as error:
            if not self._patient:
                raise
            logger.warning("%s cannot be written (%s): going on without it", path, error.strerror)
            return
        self._highest = float(value)
        self._forget()

    def settle(self) -> int | None:
        """Put the best into its place and return its epoch, from 1; None where there is none."""
        if not (steps := self._steps()):
            return None
        with replacing(self._files.best) as written:
            shutil.copyfile(self._path(steps[-1]), written)
        return steps[-1] // self._plan.steps_per_epoch

    def clear(self) -> None:
        """Remove the candidates, once it is written down which was the best.

        A run that is through needs them no more; one that a callback has stopped may go on.
        """
        if steps_in(self._files.checkpoints)[-1:] == [self._plan.total_steps]:
            shutil.rmtree(self._files.candidates, ignore_errors=True)

    def _forget(self) -> None:
        """Remove what no checkpoint would go back to: of each, the newest that is not newer is needed."""
        steps = self._steps()
        needed = {max((step for step in steps if step <= at), default=0) for at in steps_in(self._files.checkpoints)}
        for step in steps[:-1]:
            if step not in needed:
                self._path(step).unlink()

    def _steps(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("step_")) for path in self._files.candidates.glob("step_*.keras"))

    def _path(self, step: int) -> Path:
        return self._files.candidates / f"step_{step:08d}.keras"


def _figure_at(metrics: Path, step: int, figure: str) -> float | None:
    """Return a figure of a step's line of `metrics.jsonl`; None where there is none."""
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else ():
        try:
            values = json.loads(line)
            if values["step"] == step:
                return float(values[figure])
        except (ValueError, KeyError, TypeError):  # what is damaged is set aside when the run begins
            continue
    return None
