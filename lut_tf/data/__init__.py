"""Where batches come from: reading, views, batches; and preparing data sets before any run."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "ArraySource": "lut_tf.data.reading.sources",
    "ExampleSource": "lut_tf.data.reading.examples",
    "ImageFolder": "lut_tf.data.reading.sources",
    "Listing": "lut_tf.data.reading.listing",
    "digits": "lut_tf.data.reading.sources",
    "list_data": "lut_tf.data.reading.listing",
    "open_sources": "lut_tf.data.reading.sources",
    "open_tfrecord": "lut_tf.data.reading.examples",
    "FinetuneViews": "lut_tf.config",
    "finetuning_dataset": "lut_tf.data.batches.finetuning",
    "batches_for": "lut_tf.data.batches.pretraining",
    "evaluation_dataset": "lut_tf.data.batches.evaluation",
    "pretraining_dataset": "lut_tf.data.batches.pretraining",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
