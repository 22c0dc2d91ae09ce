"""The TensorFlow training step: micro-batches, gradients, one optimizer update, one teacher update.

The base of `lut_tf.methods.base.MaskedImageModel`, and the only TensorFlow in `methods`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def gather_replicas(x: tf.Tensor) -> tf.Tensor:
    """Concatenate (B, ...) over all replicas to the global batch, in the replicas' order."""
    context = tf.distribute.get_replica_context()
    return x if context.num_replicas_in_sync == 1 else context.all_gather(x, axis=0)


def _part(batch: dict[str, tf.Tensor], index: int, parts: int) -> dict[str, tf.Tensor]:
    """Return every `parts`-th example: a part then holds the same images for any number of replicas."""
    return {name: x[index::parts] for name, x in batch.items()}


class TensorFlowStep(keras.Model):
    """`train_step` and `test_step` for Keras' `fit` and `evaluate`, on one device or per replica of a strategy."""

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Learn from one batch (this replica's share) and return the metrics so far.

        Keras' optimizer *sums* gradients over replicas, so the loss is divided by their number for the gradient only;
        the metrics are of the undivided loss.
        """
        rate, momentum = self.optimizer.learning_rate, self.momentum_at(self.optimizer.iterations)
        parts: list[dict[str, tf.Tensor]] = []
        gradients: list[tf.Tensor] = []
        for i in range(self.accumulate):
            # A micro-batch starts when the one before has its gradients, else all are in memory at once.
            with tf.control_dependencies(gradients):
                micro = {name: tf.identity(x) for name, x in _part(batch, i, self.accumulate).items()}
            losses, fresh = self._gradients(micro)
            gradients = [g + f for g, f in zip(gradients, fresh, strict=True)] if gradients else fresh
            parts.append(losses)
        self.optimizer.apply(self._reduced(gradients), self.trainable_variables)
        self.update_teacher(momentum)
        losses = {name: tf.add_n([part[name] for part in parts]) / self.accumulate for name in parts[0]}
        return self._logs(self.report(losses, learning_rate=rate, teacher_momentum=momentum))

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Measure the losses of one batch, with nothing learned."""
        return self._logs(self.report(self.compute_losses(batch, training=False, gather=gather_replicas)))

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Compile, and build the optimizer at once: see `_maybe_symbolic_build`."""
        super().compile(optimizer=optimizer, **kwargs)
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Do nothing: all is built. Keras would reduce a first batch over the hosts, and fail (keras#20585)."""

    def _logs(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the logs in the form that Keras reduces over several hosts: along axis 0, which scalars lack."""
        several = isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
        return {name: tf.reshape(tf.cast(x, tf.float32), (1,)) for name, x in logs.items()} if several else logs

    def network(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a network, compiled by XLA if `compile` asked for it; it must hold no collective."""
        if not self.xla:
            return function(*arguments)
        return tf.function(function, jit_compile=True, autograph=False)(*arguments)

    def _gradients(self, batch: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch, training=True, gather=gather_replicas)
            scaled = self.optimizer.scale_loss(losses["total"] / (replicas * self.accumulate))
        gradients = tape.gradient(scaled, [v.value for v in self.trainable_variables])
        return losses, [tf.convert_to_tensor(g) for g in gradients]

    def _reduced(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Reduce over replicas *before* what must see the whole gradient: clipping, and the search for overflows.

        Keras' optimizer clips each replica's share, and its loss scaling asks the first replica only. It sums once
        more, hence the division.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        scaling = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        if replicas > 1 and (self.clip_norm or scaling):
            gradients = [g / replicas for g in context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)]
        if self.clip_norm:
            # `gradients` is now a replicas-th of the whole, and as many times too large as the loss was scaled.
            limit = self.optimizer.scale_loss(tf.constant(self.clip_norm)) / replicas
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        return gradients

    def update_teacher(self, momentum: tf.Tensor | None) -> None:
        """Move each teacher variable to momentum · teacher + (1 − momentum) · student, on every device in place."""
        pairs = [(teacher.value, student.value) for teacher, student in self.teacher_pairs]
        if not pairs:
            return

        def move(teacher: tf.Variable, student: tf.Tensor, momentum: tf.Tensor) -> tf.Operation:
            momentum = tf.cast(momentum, teacher.dtype)
            return teacher.assign(momentum * teacher + (1 - momentum) * tf.cast(student, teacher.dtype))

        def move_all(strategy: tf.distribute.Strategy, momentum: tf.Tensor) -> None:
            for teacher, student in pairs:
                strategy.extended.update(teacher, move, args=(student, momentum), group=False)

        tf.distribute.get_replica_context().merge_call(move_all, args=(momentum,))
