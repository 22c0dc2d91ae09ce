"""Where batches come from: sources, order, views, pipeline."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "ArraySource": "lut_tf.data.sources",
    "ExampleSource": "lut_tf.data.examples",
    "ImageFolder": "lut_tf.data.sources",
    "digits": "lut_tf.data.sources",
    "open_sources": "lut_tf.data.sources",
    "open_tfrecord": "lut_tf.data.examples",
    "FinetuneViews": "lut_tf.data.finetune",
    "finetuning_dataset": "lut_tf.data.finetune",
    "evaluation_dataset": "lut_tf.data.pipeline",
    "pretraining_dataset": "lut_tf.data.pipeline",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
