"""What the method tests share: models from golden files, batches, and gradients by the reference's names."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lut_tf import LUT, CosineMomentum
from lut_tf.interop import load_reference, to_reference

NORMS = {"BN": "batch", "LN": "layer"}


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def golden_config(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the settings that a golden file was made with."""
    return ast.literal_eval(str(arrays["config"]))


def golden_model(arrays: dict[str, np.ndarray], **settings: Any) -> LUT:
    """Return the model of a golden file before its first step."""
    config = golden_config(arrays)
    settings = {"context_weight": config["w_bc"], **settings}
    return load_reference(
        group(arrays, "init/student/"),
        teacher=group(arrays, "init/teacher/"),
        num_heads=config["num_heads"],
        decoder_num_heads=config["decoder_num_heads"],
        head_norm=NORMS[config["head_norm"]],
        head_activation=config["head_act"].lower(),
        mask_ratio=config["mask_ratio"],
        norm_pix_loss=config["norm_pix_loss"],
        # The run that the file was cut from was twice as long.
        momentum=CosineMomentum(0.996, 2 * config["steps"]),
        **settings,
    )


def golden_batch(arrays: dict[str, np.ndarray], step: int) -> dict[str, tf.Tensor]:
    """Return a step's batch; the noise sorts into the file's shuffle."""
    noise = np.argsort(arrays[f"step{step}/shuffle"], axis=1).astype("float32")
    views = {name: tf.constant(arrays[f"step{step}/{name}"]) for name in ("view1", "view2")}
    return {**views, "noise": tf.constant(noise)}


def gradients(model: keras.Model, batch: dict[str, tf.Tensor]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the losses, and the gradient of `total` by the reference's names (zeros for what is not trained)."""
    with tf.GradientTape() as tape:
        losses = model.compute_losses(batch, training=True)
    variables = model.trainable_variables
    found = tape.gradient(losses["total"], [v.value for v in variables], unconnected_gradients="zero")
    named = renamed(model, {id(v): tf.convert_to_tensor(g) for v, g in zip(variables, found, strict=True)}.get)
    return {name: float(loss) for name, loss in losses.items()}, named


def renamed(model: keras.Model, value_of: Callable[[int], Any]) -> dict[str, np.ndarray]:
    """Return `value_of(id(variable))`, or zeros, for every variable of the student by the reference's names."""
    kept = [(variable, variable.numpy()) for variable in model.variables]
    for variable, value in kept:
        given = value_of(id(variable))
        variable.assign(np.zeros_like(value) if given is None else given)
    named = to_reference(model)
    for variable, value in kept:
        variable.assign(value)
    return named
