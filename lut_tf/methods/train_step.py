"""The TensorFlow training step: micro-batches, gradients, one optimizer update, one teacher update.

A mixin for `lut_tf.methods.base.MaskedImageModel`, the only TensorFlow in `methods`.
"""

from __future__ import annotations

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
        step = self.optimizer.iterations
        rate, momentum = self.optimizer.learning_rate, self.momentum_at(step)
        parts, gradients = [], None
        for i in range(self.accumulate):
            # A micro-batch starts when the one before has its gradients, else all are in memory at once.
            with tf.control_dependencies(gradients or []):
                micro = {name: tf.identity(x) for name, x in _part(batch, i, self.accumulate).items()}
            losses, fresh = self._gradients(micro)
            gradients = fresh if gradients is None else [g + f for g, f in zip(gradients, fresh, strict=True)]
            parts.append(losses)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.update_teacher(momentum)
        losses = {name: tf.add_n([part[name] for part in parts]) / self.accumulate for name in parts[0]}
        return self.report(losses, learning_rate=rate, teacher_momentum=momentum)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Measure the losses of one batch, with nothing learned."""
        return self.report(self.compute_losses(batch, training=False, gather=gather_replicas))

    def _gradients(self, batch: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch, training=True, gather=gather_replicas)
            scaled = self.optimizer.scale_loss(losses["total"] / (replicas * self.accumulate))
        gradients = tape.gradient(scaled, [v.value for v in self.trainable_variables])
        return losses, [tf.convert_to_tensor(g) for g in gradients]

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
