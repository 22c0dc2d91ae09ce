"""What a training step must know of a model: its objective, micro-batches, clipping, tolerance, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from lut_tf.step.means import StepMean

Gather = Callable[[Any], Any]
"""Concatenates (B, ...) over all replicas; the identity on one."""


REMEMBERED = 10
"""Bad steps of which number and losses are kept for whoever looks; looking at least as often misses none."""


class BadStep(NamedTuple):
    """A step whose loss or gradient was not finite.

    Attributes:
        number: which one, counted from 1 where `count_from` was given 0.
        losses: by name.
    """

    number: int
    losses: dict[str, float]


class Agreed(NamedTuple):
    """What all replicas of all hosts know after a step.

    Attributes:
        bad_steps: steps so far whose loss or gradient was not finite, those of earlier processes of the run included.
        stop: whether some host was asked to stop.
        losses: the last bad step's losses by name.
    """

    bad_steps: int
    stop: bool
    losses: dict[str, float]


class Trainable(keras.Model):
    """A model with an objective, as a step of any backend sees it, and as the run engine sees both.

    An objective defines `compute_losses` and `loss_parts`; one that keeps an average of its weights, `teacher_pairs`
    and `momentum_at`. Everything else that a step reads is set here, by `compile`. A step defines `train_step`,
    `test_step`, and what the engine asks about it: `agreement`, `agreed`, `bad_steps_after`, `count_from` and
    `ask_to_stop`.

    Attributes:
        loss_parts: names of the losses beside `total` that `compute_losses` returns, in the order of the metrics.
        undecayed_names: names of the variables that AdamW leaves undecayed whatever their shape; None: its own choice.
        micro_batches: parts that a batch is computed in, one after the other, before its single update.
        clip_norm: largest global norm of the gradient, after its reduction over micro-batches and replicas; 0: none.
        max_bad_steps: above 0, a step whose loss or gradient is not finite changes nothing.
        xla: let XLA compile what goes through `network`.
        means: running means of the losses, by name; what `compute_losses` calls `total`, Keras' logs call `loss`.
        agreement: float32 variable (2 + losses,), the same on every replica and saved with a run: bad steps so far,
            whether a host was asked to stop, losses of the last bad step.
    """

    loss_parts: tuple[str, ...] = ()
    undecayed_names: tuple[str, ...] | None = None
    agreement: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.micro_batches, self.clip_norm, self.max_bad_steps, self.xla = 1, 0.0, 0, False
        self.means = {name: StepMean(name) for name in self.metric_names}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the losses in the logs."""
        return ("loss", *self.loss_parts)

    def compute_losses(self, batch: Any, training: bool = True, gather: Gather = lambda x: x) -> dict[str, Any]:
        """Return the scalars `total`, which is minimised, and its `loss_parts`, float32.

        Args:
            batch: a structure of tensors (B, ...), as the run's batches are: a dict, or images and targets.
            training: let BatchNorm use, and move, the batch's statistics.
            gather: concatenates (B, ...) over all replicas; the identity on one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define compute_losses")

    def without_gradient(self, batch: Any) -> Any:
        """Return what `compute_losses` takes of a batch; the step computes it before it begins to follow gradients."""
        return batch

    def check_batch(self, batch: Any) -> None:
        """Refuse what is no batch of this model, in a sentence.

        Raises:
            ValueError: it is none.
        """

    @property
    def replicas(self) -> int:
        """Over how many replicas a batch is spread while a step computes its losses; 1 elsewhere."""
        return 1

    @property
    def teacher_pairs(self) -> list[tuple[Any, Any]]:
        """(average, source) of every variable that follows another after an update; empty where there is none."""
        return []

    def momentum_at(self, step: Any) -> Any:
        """Return how much of itself an average keeps at optimizer step `step`, float32; None where there is none."""
        return None

    def network(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a network, compiled by XLA if `compile` asked for it; it must hold no collective."""
        return function(*arguments)

    def compile(
        self,
        optimizer: Any,
        accumulate: int = 1,
        clip_norm: float = 0.0,
        jit_compile: bool = False,
        max_bad_steps: int = 0,
        **kwargs: Any,
    ) -> None:
        """Make the model ready for `fit`.

        Args:
            optimizer: a Keras optimizer; `lut_tf.training.optimizer.adamw` builds the paper's.
            accumulate: micro-batches that a batch is computed in, one after the other, before its single update.
            clip_norm: largest global norm of the gradient, after its reduction over micro-batches and replicas; 0: no
                limit.
            jit_compile: let XLA compile colour, encoder, decoder and teacher. The rest of the step holds the
                collectives of several replicas, which XLA cannot compile.
            max_bad_steps: above 0, a step whose loss or gradient is not finite leaves weights, optimizer, teacher,
                statistics and metrics as they were (`agreed` counts them). Whoever calls `fit` decides when it is
                enough, as `lut_tf.training.guards.StopOnNonFinite` does.
            **kwargs: passed to `keras.Model.compile`.

        Raises:
            ValueError: the optimizer accumulates or clips gradients itself, which Keras cannot do under a strategy.
        """
        for name, instead in (
            ("gradient_accumulation_steps", "accumulate"),
            ("global_clipnorm", "clip_norm"),
            ("clipnorm", "clip_norm"),
            ("clipvalue", "clip_norm"),
        ):
            if getattr(optimizer, name, None):
                raise ValueError(
                    f"{name}={getattr(optimizer, name)} of the optimizer does not work under a strategy: "
                    f"use model.compile(optimizer, {instead}=…) instead"
                )
        self.micro_batches, self.clip_norm, self.xla = accumulate, clip_norm, jit_compile
        self.max_bad_steps = max_bad_steps
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return what `compile` was given, for `.keras` files; None before that."""
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "accumulate": self.micro_batches,
            "clip_norm": self.clip_norm,
            "jit_compile": self.xla,
            "max_bad_steps": self.max_bad_steps,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a `.keras` file says; Keras then gives the optimizer its state."""
        self.compile(**{**config, "optimizer": keras.saving.deserialize_keras_object(config["optimizer"])})

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets each epoch."""
        return list(self.means.values())

    def report(self, losses: dict[str, Any], counts: Any = True, **values: Any) -> dict[str, Any]:
        """Add a batch's losses to the running means, if they count; return these, and the given values as they are."""
        for name, loss in zip(self.metric_names, self.in_order(losses), strict=True):
            self.means[name].update_state(loss, counts)
        means = {name: mean.result() for name, mean in self.means.items()}
        return {**means, **{name: value for name, value in values.items() if value is not None}}

    def in_order(self, losses: dict[str, Any]) -> list[Any]:
        """Return `compute_losses`' values in the order of `metric_names`."""
        return [losses["total"], *(losses[name] for name in self.loss_parts)]

    @property
    def agreed(self) -> Agreed:
        """What the last step has established; to read it waits for the step, but needs no word with other hosts."""
        raise NotImplementedError("a step must define agreed")

    def bad_steps_after(self, number: int) -> list[BadStep]:
        """Return the bad steps from the `number`-th on (from 0), oldest first; at most the last `REMEMBERED`."""
        raise NotImplementedError("a step must define bad_steps_after")

    def count_from(self, step: int) -> None:
        """Say how many steps of the run are done, so that bad steps get their numbers (exact up to 2^24)."""
        raise NotImplementedError("a step must define count_from")

    def ask_to_stop(self) -> None:
        """Have the next step tell every host, in `agreed`, that this one was asked to stop."""
        raise NotImplementedError("a step must define ask_to_stop")

    def moved_by_forward(self) -> list[Any]:
        """Return the variables that a forward pass moves: BatchNorm's, those of averages excepted."""
        averages = {id(average) for average, _ in self.teacher_pairs}
        return [v for v in self.non_trainable_variables if id(v) not in averages]


class Untrained(Trainable):
    """Stands for the step of a Keras backend that has none yet: networks and losses run, training does not."""

    def compile(self, optimizer: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"KERAS_BACKEND={keras.backend.backend()} does not train: set KERAS_BACKEND=tensorflow")
