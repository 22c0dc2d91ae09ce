"""Where batches come from: sources, order, views, pipeline."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "ArraySource": "lut_tf.data.reading.sources",
    "ExampleSource": "lut_tf.data.reading.examples",
    "ImageFolder": "lut_tf.data.reading.sources",
    "digits": "lut_tf.data.reading.sources",
    "open_sources": "lut_tf.data.reading.sources",
    "open_tfrecord": "lut_tf.data.reading.examples",
    "FinetuneViews": "lut_tf.data.views.mixing",
    "finetuning_dataset": "lut_tf.data.views.mixing",
    "evaluation_dataset": "lut_tf.data.batches.pipeline",
    "pretraining_dataset": "lut_tf.data.batches.pipeline",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
