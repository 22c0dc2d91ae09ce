"""What a linear probe tells and leaves: the rate that was chosen, the figures of that one, its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lut_tf.config import LinearProbeConfig
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import Parts, Source
from lut_tf.evaluate.classification import Tally, tally
from lut_tf.evaluate.frozen import data_facts
from lut_tf.evaluate.linear_heads import head_guesses, known_labels
from lut_tf.evaluate.results import Result, accuracy, read_result, results_path, save_result, table
from lut_tf.interop.sources import OpenedEncoder
from lut_tf.methods.linear_probe import LinearProbe
from lut_tf.tasks.classes import Classes
from lut_tf.tasks.judges import Judges
from lut_tf.tasks.result import announced, protocol_settings, schedule_facts
from lut_tf.training.plan import Plan
from lut_tf.training.run_directory import RunFiles


@dataclass(frozen=True)
class ProbeResult:
    """What a probe leaves in Python.

    Attributes:
        files: where everything was written; None of the solver `logistic`, which leaves its result alone.
        result: `cls/top1`, `mean/top1` and, of more than five classes, top-5, with their intervals.
        path: the result's file.
        model: the linear layers on the frozen encoder; None of `logistic`.
        worker: this process among those of a run on several hosts; 0, the chief, measures and writes.
    """

    files: RunFiles | None
    result: Result | None = None
    path: Path | None = None
    model: LinearProbe | None = None
    worker: int = 0

    def summary(self) -> str:
        """Return the closing table, what was chosen, and the paths worth opening, for people."""
        if self.result is None:
            return f"worker {self.worker} is done; worker 0 has written {self.files and self.files.root}"
        lines = ["", table([self.result]), "", *self.result.details["in_words"], ""]
        return "\n".join([*lines, f"result:  {self.path}", *([f"metrics: {self.files.metrics}"] if self.files else [])])


@dataclass(frozen=True)
class Heads:
    """The linear layers of a run: all are measured by those who choose, the chosen ones by those who score.

    Attributes:
        config: of the run.
        model: its linear layers.
        opened: the encoder.
        judges: on which images.
        classes: of these.
    """

    config: LinearProbeConfig
    model: LinearProbe
    opened: OpenedEncoder
    judges: Judges
    classes: Classes

    def while_training(self) -> dict[str, float]:
        """Return the accuracy of the best linear layer of each pooling on the choosing images."""
        shares = self._shares()
        return {f"{pooling}_top1": shares[head] for pooling, head in self._best(shares).items()}

    def closed(self, files: RunFiles, listing: Listing, parts: Parts, again: bool) -> tuple[Result, Path]:
        """Choose, score once, and write the result.

        Args:
            files: of the run.
            listing: of its images.
            parts: these.
            again: the run was through when it was started: the result that it has written is read.
        """
        model = {**self.opened.facts, "pooling": ", ".join(self.model.frozen.poolings)}
        data = {**data_facts(self.config.data, listing, parts), **self.judges.facts}
        settings = protocol_settings(self.config)
        path = results_path(files.root, Result("linear_probe", {}, model, data, settings).name)
        if again and (known := _written(path)) is not None:
            return known, path
        shares = self._shares() if self.judges.choosing is not None else {}
        best = self._best(shares)
        found = zip(best, self._tallies(self.judges.scoring, list(best.values()), "scoring"), strict=True)
        figures = {
            f"{pooling}/{name}": accuracy(right, each.images)
            for pooling, each in found
            for name, right in each.right.items()
        }
        details = {
            "base_learning_rate": {pooling: self.model.heads[head][1] for pooling, head in best.items()},
            "choosing_images": shares,
            "in_words": self._in_words(best, shares),
        }
        result = Result("linear_probe", figures, model, data, settings, details)
        return result, save_result(result, files.root)

    def _tallies(self, source: Source, heads: list[str], what: str = "") -> list[Tally]:
        guesses, (_, labels) = head_guesses(self.model, source, heads, what), known_labels(source)
        return [tally(guesses[head], labels, self.classes.count) for head in heads]

    def _shares(self) -> dict[str, float]:
        """Return the top-1 accuracy of every linear layer on the choosing images."""
        assert self.judges.choosing is not None
        heads = list(self.model.heads)
        found = self._tallies(self.judges.choosing, heads)
        return {head: each.shares["top1"] for head, each in zip(heads, found, strict=True)}

    def _best(self, shares: dict[str, float]) -> dict[str, str]:
        """Return the best linear layer of each pooling, of equal ones the first; the only one without any `shares`."""
        of_pooling = {
            pooling: [head for head, (own, _) in self.model.heads.items() if own == pooling]
            for pooling in self.model.frozen.poolings
        }
        return {pooling: max(heads, key=lambda head: shares.get(head, 0.0)) for pooling, heads in of_pooling.items()}

    def _in_words(self, best: dict[str, str], shares: dict[str, float]) -> list[str]:
        rates = self.config.optimizer.base_learning_rates
        lines = []
        for pooling, head in best.items():
            rate = self.model.heads[head][1]
            said = f"{pooling}: base learning rate {rate:g}"
            if head in shares:
                said += f", {100 * shares[head]:.1f} % of the choosing images"
            if len(rates) > 1 and rate in (min(rates), max(rates)):
                said += "; it is at the end of the range: try others beyond it"
            lines.append(said)
        return lines


def _written(path: Path) -> Result | None:
    """Return the result that a file holds; None where it holds none."""
    try:
        return read_result(path)
    except (FileNotFoundError, ValueError):
        return None


def resolved(
    config: LinearProbeConfig, model: LinearProbe, classes: Classes, plan: Plan, replicas: int
) -> dict[str, Any]:
    """Return what the settings come to, by name."""
    return {
        "task": "probe",
        "source": config.data.source,
        "images": plan.images,
        "classes": classes.count,
        "encoder_checksum": model.frozen.checksum,
        "encoder_parameters": model.frozen.encoder.count_params(),
        "image_size": list(model.frozen.encoder.image_size),
        "linear_layers": len(model.heads),
        "peak_learning_rates": list(config.optimizer.peaks),
        **schedule_facts(config, plan, replicas),
    }


def announcement(facts: dict[str, Any], config: LinearProbeConfig, *notes: str) -> str:
    """Return a few lines for people of what `resolved` found, and the notes that are not empty."""
    rates = ", ".join(f"{base:g}" for base in config.optimizer.base_learning_rates)
    return announced(
        f"linear probe on {facts['images']} images of {facts['source']}, {facts['classes']} classes "
        f"-> {config.run_dir}",
        f"frozen encoder {facts['encoder_parameters'] / 1e6:.2f} M parameters; {facts['linear_layers']} linear layers, "
        f"base learning rates {rates}",
        facts,
        *notes,
    )
