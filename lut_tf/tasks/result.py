"""What a pre-training run tells: what its settings came to, and what it leaves in Python."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from lut_tf.config import Config
from lut_tf.evaluate.probe import table
from lut_tf.methods.base import MaskedImageModel
from lut_tf.training.plan import Plan
from lut_tf.training.run_directory import RunFiles


@dataclass(frozen=True)
class RunResult:
    """What a run leaves in Python.

    Attributes:
        files: where everything was written.
        model: the trained method; `model.encoder` is what users keep.
        probes: accuracies by row (`raw pixels`, `random encoder`, `trained encoder`) and probe (`knn`, `linear`, and
            `1_shot` and `5_shot` where every class has so many labels); empty where the data have no labels or no
            evaluation part.
        probed_on: what the probes were scored on, in words.
        explanation: what they learned from, in words.
        worker: this process among those of a run on several hosts; 0, the chief, measures and writes.
    """

    files: RunFiles
    model: MaskedImageModel
    probes: dict[str, dict[str, float]] = field(default_factory=dict)
    probed_on: str = ""
    explanation: str = ""
    worker: int = 0

    def summary(self) -> str:
        """Return the closing table and the paths worth opening, for people."""
        if self.worker:
            return f"worker {self.worker} is done; worker 0 has written {self.files.root}"
        pictures = sorted(self.files.pictures.glob("epoch_*.png"))
        opens = {
            "encoder": self.files.encoder,
            "reconstructions": pictures[-1] if pictures else None,
            "curves": self.files.curves,
            "metrics": self.files.metrics,
            "TensorBoard": f"tensorboard --logdir {shlex.quote(str(self.files.root))}"
            if self.files.tensorboard.exists()
            else None,
        }
        lines = [table(self.probes, self.probed_on), self.explanation, ""] if self.probes else []
        return "\n".join(["", *lines, *(f"{name + ':':<17}{path}" for name, path in opens.items() if path)])


def resolved(config: Config, model: MaskedImageModel, plan: Plan, replicas: int) -> dict[str, Any]:
    """Return what the settings come to, by name."""
    wanted = config.optimizer
    return {
        "method": type(model).__name__,
        "source": config.data.source,
        "images": plan.images,
        "encoder_parameters": model.encoder.count_params(),
        "decoder_parameters": model.decoder.count_params(),
        "patches": model.encoder.patches,
        "visible_patches": model.visible,
        "epochs": config.epochs,
        "steps_per_epoch": plan.steps_per_epoch,
        "batch_size": wanted.batch_size,
        "devices": replicas,
        "micro_batches": wanted.accumulate,
        "images_per_device_and_micro_batch": wanted.batch_size // replicas // wanted.accumulate,
        "peak_learning_rate": wanted.peak_learning_rate,
    }


def announcement(facts: dict[str, Any], run_dir: str, *notes: str) -> str:
    """Return a few lines for people of what `resolved` found, and the notes that are not empty."""
    more = "".join(f"\n  {line}" for line in notes if line)
    return (
        f"{facts['method']} on {facts['images']} images of {facts['source']} -> {run_dir}\n"
        f"  encoder {facts['encoder_parameters'] / 1e6:.2f} M parameters, "
        f"decoder {facts['decoder_parameters'] / 1e6:.2f} M; "
        f"{facts['visible_patches']} of {facts['patches']} patches visible\n"
        f"  {facts['epochs']} epochs of {facts['steps_per_epoch']} steps; batch {facts['batch_size']} = "
        f"{facts['devices']} device(s) × {facts['micro_batches']} micro-batch(es) × "
        f"{facts['images_per_device_and_micro_batch']}; "
        f"peak learning rate {facts['peak_learning_rate']:.3g}{more}"
    )
