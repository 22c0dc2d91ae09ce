"""lut_tf: masked-image pre-training of Vision Transformers with LUT, MAE and SimMIM, in TensorFlow and Keras 3."""

import importlib
import sys

from lut_tf.lazy import lazy_names

__version__ = "0.1.0"

_NAMES = {
    "CosineMomentum": "lut_tf.methods.momentum",
    "LUT": "lut_tf.methods.lut",
    "MAE": "lut_tf.methods.mae",
    "MLPHead": "lut_tf.models.heads",
    "LinearDecoder": "lut_tf.models.decoder",
    "PixelDecoder": "lut_tf.models.decoder",
    "ViTClassifier": "lut_tf.models.classifier",
    "SimMIM": "lut_tf.methods.simmim",
    "ViTEncoder": "lut_tf.models.encoder",
    "finetune": "lut_tf.tasks.finetune",
    "linear_probe": "lut_tf.tasks.linear_probe",
    "pretrain": "lut_tf.tasks.pretrain",
}
_MODULES = {
    name: f"lut_tf.{name}" for name in ("analysis", "data", "evaluate", "export", "interop", "tasks", "training")
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, {**_NAMES, **_MODULES})

if "keras" in sys.modules:
    # `keras.saving.load_model` finds our classes once they are registered. Without Keras there is nothing to register
    # with, and `lut-tf --help` does not wait for it.
    for home in ("lut_tf.methods.registry", "lut_tf.models.classifier", "lut_tf.training.optimizer"):
        importlib.import_module(home)
