"""Encoders that the tests share; making one costs a moment, exporting it leaves it as it was."""

from __future__ import annotations

import pytest
from export_helpers import small_encoder

from lut_tf.models.encoder import ViTEncoder


@pytest.fixture(scope="session")
def encoder() -> ViTEncoder:
    return small_encoder()


@pytest.fixture(scope="session")
def rectangle(encoder: ViTEncoder) -> ViTEncoder:
    return encoder.resized((32, 48))
