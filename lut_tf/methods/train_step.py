"""The TensorFlow training step: micro-batches, gradients, one optimizer update, one teacher update.

The base of `lut_tf.methods.base.MaskedImageModel`, and the only TensorFlow in `methods`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class Agreed(NamedTuple):
    """What all replicas of all hosts know after a step.

    Attributes:
        bad_steps: steps so far whose loss or gradient was not finite.
        stop: whether some host was asked to stop.
        losses: the last bad step's losses by name.
    """

    bad_steps: int
    stop: bool
    losses: dict[str, float]


def gather_replicas(x: tf.Tensor) -> tf.Tensor:
    """Concatenate (B, ...) over all replicas to the global batch, in the replicas' order."""
    context = tf.distribute.get_replica_context()
    return x if context.num_replicas_in_sync == 1 else context.all_gather(x, axis=0)


def _part(batch: dict[str, tf.Tensor], index: int, parts: int) -> dict[str, tf.Tensor]:
    """Return every `parts`-th example: a part then holds the same images for any number of replicas."""
    return {name: x[index::parts] for name, x in batch.items()}


def _all_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(x)) for x in tensors]))


class TensorFlowStep(keras.Model):
    """`train_step` and `test_step` for Keras' `fit` and `evaluate`, on one device or per replica of a strategy."""

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Learn from one batch (this replica's share) and return the metrics so far.

        Keras' optimizer *sums* gradients over replicas, so the loss is divided by their number for the gradient only;
        the metrics are of the undivided loss.
        """
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)  # `fit` on arrays puts the dict into a tuple
        rate, momentum = self.optimizer.learning_rate, self.momentum_at(self.optimizer.iterations)
        updates = tf.identity(self.optimizer.iterations.value)
        statistics = [tf.identity(v.value) for v in self._statistics()] if self.max_bad_steps else []
        parts: list[dict[str, tf.Tensor]] = []
        gradients: list[tf.Tensor] = []
        for i in range(self.accumulate):
            # A micro-batch starts when the one before has its gradients, else all are in memory at once.
            with tf.control_dependencies(gradients):
                micro = {name: tf.identity(x) for name, x in _part(batch, i, self.accumulate).items()}
            losses, fresh = self._gradients(micro)
            gradients = [g + f for g, f in zip(gradients, fresh, strict=True)] if gradients else fresh
            parts.append(losses)
        losses = {name: tf.add_n([part[name] for part in parts]) / self.accumulate for name in parts[0]}
        losses, bad, overflow = self._agree(losses, gradients)
        self._update(self._whole(gradients, overflow), bad, statistics)
        if momentum is not None:  # the teacher waits with an optimizer that has skipped the step
            self.update_teacher(tf.where(self.optimizer.iterations.value > updates, momentum, 1.0))
        counts = tf.logical_not(bad) if self.max_bad_steps else True
        return self._logs(self.report(losses, counts, learning_rate=rate, teacher_momentum=momentum))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measure the losses of one batch, with nothing learned."""
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        losses = self.compute_losses(batch, training=False, gather=gather_replicas)
        return self._logs(self.report(dict(zip(losses, self._mean(list(losses.values())), strict=True))))

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Compile, and build the optimizer at once: see `_maybe_symbolic_build`."""
        super().compile(optimizer=optimizer, **kwargs)
        numbers = 2 + len(self.metric_names)  # see `agreed`
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)
            self.agreement = tf.Variable(
                tf.zeros(numbers),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            self.stop_request = tf.Variable(0.0, trainable=False)  # each host's own

    @property
    def agreed(self) -> Agreed:
        """What the last step has established; reading it needs no word with other hosts."""
        bad, stop, *losses = self.agreement.numpy().tolist()
        return Agreed(int(bad), bool(stop), dict(zip(self.metric_names, losses, strict=True)))

    def ask_to_stop(self) -> None:
        """Have the next step tell every host, in `agreed`, that this one was asked to stop."""
        self.stop_request.assign(1.0)

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

    def _mean(self, numbers: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return the means of scalars over all replicas."""
        context, row = tf.distribute.get_replica_context(), tf.stack([tf.cast(x, tf.float32) for x in numbers])
        replicas = context.num_replicas_in_sync
        return tf.unstack(row if replicas == 1 else context.all_reduce(tf.distribute.ReduceOp.SUM, row) / replicas)

    def _agree(
        self, losses: dict[str, tf.Tensor], gradients: list[tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Return the losses of the global batch, whether the step is bad, and whether a scaled gradient overflowed.

        The replicas share one small sum, so that all of them decide alike. A gradient that is not finite makes a step
        bad, except where the loss is scaled: there it says that the scale is too large, and the optimizer halves it.
        """
        infinite = tf.logical_not(_all_finite(gradients))
        *means, infinite, stop = self._mean([*losses.values(), infinite, tf.convert_to_tensor(self.stop_request)])
        overflow = infinite > 0
        bad = tf.logical_not(_all_finite(means))
        if not self._scaled:
            bad |= overflow
        losses = dict(zip(losses, means, strict=True))
        shown = tf.stack([losses["total"], *(losses[name] for name in self.metric_names[1:])])
        agreement = tf.convert_to_tensor(self.agreement)
        count, before = agreement[0] + tf.cast(bad, tf.float32), agreement[2:]
        self.agreement.assign(tf.concat([[count, stop], tf.where(bad, shown, before)], axis=0))
        return losses, bad, overflow

    @property
    def _scaled(self) -> bool:
        """Whether the optimizer scales the loss, as float16 needs."""
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def _whole(self, gradients: list[tf.Tensor], overflow: tf.Tensor) -> list[tf.Tensor]:
        """Return gradients that Keras' optimizer treats alike on all replicas.

        It clips each replica's share, so clipping reduces first; it sums once more, hence the division. Its loss
        scaling asks the first replica only, so every replica shows it that one has overflowed.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        if self.clip_norm:
            if replicas > 1:
                gradients = [g / replicas for g in context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)]
            # `gradients` is now a replicas-th of the whole, and as many times too large as the loss was scaled.
            limit = self.optimizer.scale_loss(tf.constant(self.clip_norm)) / replicas
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        if self._scaled and replicas > 1:
            gradients = [tf.where(overflow, float("nan"), gradients[0]), *gradients[1:]]
        return gradients

    def _statistics(self) -> list[Any]:
        """Return the variables that a forward pass moves: BatchNorm's, the teacher's excepted."""
        teachers = {id(teacher) for teacher, _ in self.teacher_pairs}
        return [v for v in self.non_trainable_variables if id(v) not in teachers]

    def _update(self, gradients: list[tf.Tensor], bad: tf.Tensor, statistics: list[tf.Tensor]) -> None:
        """Let the optimizer update the weights; in a bad step, where those are forgiven, put the statistics back."""
        if not self.max_bad_steps:
            self.optimizer.apply(gradients, self.trainable_variables)
            return
        variables, moved = self.trainable_variables, self._statistics()

        # The choice is made across replicas: a branch of one replica's own must not wait for another replica.
        def choose(strategy: tf.distribute.Strategy, gradients: Any, bad: Any, statistics: Any) -> None:
            def update() -> tf.Tensor:
                strategy.extended.call_for_each_replica(lambda g: self.optimizer.apply(g, variables), args=(gradients,))
                return tf.constant(True)

            def put_back() -> tf.Tensor:
                for variable, value in zip(moved, statistics, strict=True):
                    strategy.extended.update(variable.value, lambda v, x: v.assign(x), args=(value,), group=False)
                return tf.constant(False)

            tf.cond(strategy.experimental_local_results(bad)[0], put_back, update)

        tf.distribute.get_replica_context().merge_call(choose, args=(gradients, bad, statistics))

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
