"""The linear probe of small sets: logistic regression on features of images that are not changed."""

from __future__ import annotations

import numpy as np

from lut_tf.config import LinearProbeConfig
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import Source, open_sources
from lut_tf.evaluate.feature_cache import cached_features
from lut_tf.evaluate.frozen import data_facts, features_folder, images_of, stamp_of
from lut_tf.evaluate.linear_heads import known_labels
from lut_tf.evaluate.logistic import choose_strength, logistic_fit
from lut_tf.evaluate.results import Result, accuracy, save_result
from lut_tf.interop.sources import OpenedEncoder, open_encoder
from lut_tf.tasks.classes import classes_of
from lut_tf.tasks.judges import judges_of
from lut_tf.tasks.linear_probe_result import ProbeResult

Examples = tuple[np.ndarray, np.ndarray]
"""Features (N, D) float32 and classes (N,) of the images whose class is known."""


def logistic_probe(config: LinearProbeConfig, listing: Listing) -> ProbeResult:
    """Choose the regularisation, learn again from all images that do not score, and score once, for each pooling.

    Features are computed once, from the views that encoders are measured on, and kept beside the encoder.

    Args:
        config: its `init_from`, `image_size` and `data`.
        listing: of the images.

    Raises:
        ValueError: the images' labels are no classes, or too few images are held out to choose by.
        lut_tf.errors.Stopped: the features of an image are not finite, or too many images are damaged.
    """
    parts = open_sources(config.data, listing)
    classes_of(config.data, parts)
    judges = judges_of(config, parts)
    assert judges.choosing is not None
    opened = open_encoder(str(config.init_from), image_size=config.image_size, setting="init_from")
    print(f"{opened.origin}: logistic regression on {listing.images} images; {judges.said}")
    halved = judges.choosing is not parts.validation
    training, evaluation = images_of(listing)
    stamps = [
        (parts.train, {"part": "training", **training}),
        (judges.choosing, {"part": "first half" if halved else "choosing", **(evaluation if halved else training)}),
        (judges.scoring, {"part": "second half" if halved else parts.name(judges.scoring), **evaluation}),
    ]
    figures, chosen, by_strength, words = {}, {}, {}, []
    poolings = ("cls", "mean") if opened.encoder.has_class_token else ("mean",)
    for pooling in poolings:
        train, choosing, scoring = (_examples(config, opened, pooling, *stamp) for stamp in stamps)
        shares = choose_strength(*train, *choosing)
        best = max(shares, key=lambda strength: shares[strength])
        features, labels = (np.concatenate(pair) for pair in zip(train, choosing, strict=True))
        fit = logistic_fit(features, labels, best)
        figures[f"{pooling}/top1"] = accuracy(int(np.sum(fit.predict(scoring[0]) == scoring[1])), len(scoring[1]))
        chosen[pooling] = best
        by_strength[pooling] = {f"{strength:g}": share for strength, share in shares.items()}
        words.append(f"{pooling}: C = {best:g}, {100 * shares[best]:.1f} % of the choosing images")
    result = Result(
        "logistic_probe",
        figures,
        {**opened.facts, "pooling": ", ".join(poolings)},
        {**data_facts(config.data, listing, parts), **judges.facts},
        {"solver": config.solver},
        {"inverse_strength": chosen, "choosing_images": by_strength, "in_words": words},
    )
    return ProbeResult(None, result, save_result(result, str(config.init_from)))


def _examples(
    config: LinearProbeConfig, opened: OpenedEncoder, pooling: str, source: Source, stamp: dict[str, str]
) -> Examples:
    folder, known = features_folder(str(config.init_from)), known_labels(source)
    features = cached_features(folder, opened, pooling, source, {**stamp, **stamp_of(config.data)})
    return np.asarray(features[known[0]]), known[1]
