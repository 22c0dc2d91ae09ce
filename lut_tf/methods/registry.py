"""The methods by what the setting `method.name` calls them."""

from __future__ import annotations

from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.lut import LUT
from lut_tf.methods.mae import MAE
from lut_tf.methods.simmim import SimMIM

METHODS: dict[str, type[MaskedImageModel]] = {kind.method: kind for kind in (LUT, MAE, SimMIM)}
