"""The TensorFlow training step: micro-batches, gradients, one optimizer update, one teacher update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from lut_tf.step.trainable import REMEMBERED, Agreed, BadStep, Trainable


def gather_replicas(x: tf.Tensor) -> tf.Tensor:
    """Concatenate (B, ...) over all replicas to the global batch, in the replicas' order."""
    context = tf.distribute.get_replica_context()
    return x if context.num_replicas_in_sync == 1 else context.all_gather(x, axis=0)


def _batch_of(data: Any) -> Any:
    """Return what a model's losses take: Keras puts a dict into a tuple, with None beside it; a pair stays a pair."""
    if not isinstance(data, tuple):
        return data
    parts = tuple(part for part in data if part is not None)
    return parts[0] if len(parts) == 1 else parts


def _micro_batch(batch: Any, index: int, count: int) -> tuple[Any, Any]:
    """Return every `count`-th example, and how many such micro-batches the batch makes, by their sizes.

    A micro-batch then holds the same images for any number of replicas. The number is `count`, except in a last batch
    that is smaller and does not divide evenly: there it gives each image the weight that it has in the whole.
    """
    micro = tf.nest.map_structure(lambda x: tf.identity(x[index::count]), batch)
    whole, part = (tf.nest.flatten(x)[0] for x in (batch, micro))
    images = whole.shape[0]
    if images is None:
        return micro, tf.shape(whole)[0] / tf.shape(part)[0]
    return micro, count if images % count == 0 else images / part.shape[0]


def _check_micro_batches(batch: Any, count: int) -> list[tf.Operation]:
    """Refuse a batch of fewer images than micro-batches, of which one would be empty and its losses not a number.

    Raises:
        ValueError: it is; where its size is known only as the step runs, `tf.errors.InvalidArgumentError`.
    """
    first = tf.nest.flatten(batch)[0]
    sentence = f"a batch of fewer images than its accumulate={count} micro-batches: give batches of one size"
    if first.shape[0] is None:
        return [tf.debugging.assert_greater_equal(tf.shape(first)[0], count, sentence)]
    if first.shape[0] < count:
        raise ValueError(sentence)
    return []


def _all_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(x)) for x in tensors]))


class TensorFlowStep(Trainable):
    """`train_step` and `test_step` for Keras' `fit` and `evaluate`, on one device or per replica of a strategy."""

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Learn from one batch (this replica's share) and return the metrics so far.

        Keras' optimizer *sums* gradients over replicas, so the loss is divided by their number for the gradient only;
        the metrics are of the undivided loss.
        """
        batch = _batch_of(data)
        self.check_batch(batch)
        rate, momentum = self.optimizer.learning_rate, self.momentum_at(self.optimizer.iterations)
        updates = tf.identity(self.optimizer.iterations.value)
        statistics = [tf.identity(v.value) for v in self.moved_by_forward()] if self.max_bad_steps else []
        found: list[dict[str, tf.Tensor]] = []
        gradients: list[tf.Tensor] = []
        before: list[Any] = _check_micro_batches(batch, self.micro_batches)
        for i in range(self.micro_batches):
            # A micro-batch starts when the one before has its gradients, else all are in memory at once.
            with tf.control_dependencies(before):
                micro, parts = _micro_batch(batch, i, self.micro_batches)
            losses, fresh = self._gradients(micro, parts)
            before = gradients = [g + f for g, f in zip(gradients, fresh, strict=True)] if gradients else fresh
            found.append({name: loss / tf.cast(parts, loss.dtype) for name, loss in losses.items()})
        losses = {name: tf.add_n([one[name] for one in found]) for name in found[0]}
        losses, bad, overflow = self._agree(losses, gradients)
        self._update(self._whole(gradients, overflow), bad, statistics)
        if momentum is not None:  # the teacher waits with an optimizer that has skipped the step
            self.update_teacher(tf.where(self.optimizer.iterations.value > updates, momentum, 1.0))
        counts = tf.logical_not(bad) if self.max_bad_steps else True
        return self._logs(self.report(losses, counts, learning_rate=rate, teacher_momentum=momentum))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measure the losses of one batch, with nothing learned."""
        batch = _batch_of(data)
        self.check_batch(batch)
        losses = self.compute_losses(self.without_gradient(batch), training=False, gather=gather_replicas)
        return self._logs(self.report(dict(zip(losses, self._mean(list(losses.values())), strict=True))))

    def compile(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Compile, and build the optimizer at once: see `_maybe_symbolic_build`."""
        super().compile(optimizer, *args, **kwargs)
        losses = len(self.metric_names)

        def shared(*shape: int) -> tf.Variable:  # the same on every replica
            return tf.Variable(
                tf.zeros(shape),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)
            self.agreement = shared(2 + losses)
            self.steps_done, self.bad_log = shared(), shared(REMEMBERED, 1 + losses)  # number and losses, in turn
            self.stop_request = tf.Variable(0.0, trainable=False)  # each host's own

    @property
    def replicas(self) -> int:
        """See `Trainable`."""
        context = tf.distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync

    @property
    def agreed(self) -> Agreed:
        """See `Trainable`."""
        bad, stop, *losses = self.agreement.numpy().tolist()
        return Agreed(int(bad), bool(stop), dict(zip(self.metric_names, losses, strict=True)))

    def bad_steps_after(self, number: int) -> list[BadStep]:
        """See `Trainable`."""
        last, rows = self.agreed.bad_steps, self.bad_log.numpy().tolist()
        chosen = (rows[i % REMEMBERED] for i in range(max(number, last - REMEMBERED), last))
        return [BadStep(int(step), dict(zip(self.metric_names, losses, strict=True))) for step, *losses in chosen]

    def count_from(self, step: int) -> None:
        """See `Trainable`."""
        self.steps_done.assign(float(step))

    def ask_to_stop(self) -> None:
        """See `Trainable`."""
        self.stop_request.assign(1.0)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Do nothing: all is built. Keras would reduce a first batch over the hosts, and fail (keras#20585)."""

    def _logs(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the logs in the form that Keras reduces over several hosts: along axis 0, which scalars lack."""
        several = isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
        return {name: tf.reshape(tf.cast(x, tf.float32), (1,)) for name, x in logs.items()} if several else logs

    def network(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a network, in a step compiled by XLA if `compile` asked for it; it must hold no collective."""
        if not self.xla or tf.executing_eagerly():  # a single call, as for a picture, would compile anew each time
            return function(*arguments)
        return tf.function(function, jit_compile=True, autograph=False)(*arguments)

    def _gradients(self, batch: Any, parts: Any) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Return the losses of a micro-batch, and its gradients' share; see `_micro_batch` for `parts`."""
        batch = self.without_gradient(batch)
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch, training=True, gather=gather_replicas)
            divisor = tf.cast(self.replicas * parts, losses["total"].dtype)
            scaled = self.optimizer.scale_loss(losses["total"] / divisor)
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
        At a scale of 1 or less it is the gradient itself that is not finite.
        """
        infinite = tf.logical_not(_all_finite(gradients))
        *means, infinite, stop = self._mean([*losses.values(), infinite, tf.convert_to_tensor(self.stop_request)])
        overflow = infinite > 0
        bad = tf.logical_not(_all_finite(means))
        bad |= overflow & (self.optimizer.dynamic_scale.value <= 1.0) if self._scaled else overflow
        losses = dict(zip(losses, means, strict=True))
        self._note(bad, stop, tf.stack(self.in_order(losses)))
        return losses, bad, overflow

    def _note(self, bad: tf.Tensor, stop: tf.Tensor, losses: tf.Tensor) -> None:
        """Count the step, and write down a bad one, for a host that looks later."""
        agreement, log = tf.convert_to_tensor(self.agreement), tf.convert_to_tensor(self.bad_log)
        count, before = agreement[0], agreement[2:]
        self.agreement.assign(
            tf.concat([[count + tf.cast(bad, tf.float32), stop], tf.where(bad, losses, before)], axis=0)
        )
        done, place = tf.convert_to_tensor(self.steps_done) + 1.0, tf.cast(count, tf.int32) % REMEMBERED
        row = tf.where(bad, tf.concat([[done], losses], axis=0), log[place])
        self.bad_log.assign(tf.tensor_scatter_nd_update(log, [[place]], [row]))
        self.steps_done.assign(done)

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

    def _update(self, gradients: list[tf.Tensor], bad: tf.Tensor, statistics: list[tf.Tensor]) -> None:
        """Let the optimizer update the weights; in a bad step, where those are forgiven, put the statistics back."""
        if not self.max_bad_steps:
            self.optimizer.apply(gradients, self.trainable_variables)
            return
        variables, moved = self.trainable_variables, self.moved_by_forward()

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
