"""One pre-training run as a tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field

from lut_tf.config.data import DataConfig, ViewsConfig
from lut_tf.config.methods import MethodConfig
from lut_tf.config.networks import DecoderConfig, EncoderConfig
from lut_tf.config.run import RunConfig
from lut_tf.config.training import CheckpointConfig, ComputeConfig, LoggingConfig, OptimizerConfig, ProbeConfig
from lut_tf.config.tree import differences
from lut_tf.errors import told_together


@dataclass(frozen=True)
class Config(RunConfig):
    """One pre-training run; what any run has is in `RunConfig`.

    Args:
        seed: decides the initial weights, the order of the images, crops, colours and masks.
        init_from: weights that a new run starts from: a run directory, an encoder's .keras file, or weights that
            `lut-tf convert` reads; null starts from chance. A run that goes on does not read it again.
        data: where the images come from.
        views: crops and colours.
        encoder: the Vision Transformer.
        decoder: the reconstruction decoder.
        method: losses, masking and teacher.
        optimizer: batch, rate and decay.
        probe: measuring the encoder.
        logging: pictures and TensorBoard.
        checkpoint: saving and going on.
        compute: precision, XLA, determinism.
    """

    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def check(self, name: str) -> None:
        """Refuse groups that contradict each other; see `validate`."""
        told_together(
            lambda: self.method.places(self.encoder.image_size, self.encoder.size().patch_size, "method"),
            lambda: self.method.teacher_visible(self.encoder.patches, "method"),
            self._check_decoder,
            self._check_weights,
            lambda: self.views.check_size(self.encoder.image_size, "views"),
            lambda: super(Config, self).check(name),
            self._check_single_images,
        )

    def _check_decoder(self) -> None:
        if self.method.name == "simmim" and (unread := differences(DecoderConfig(), self.decoder)):
            raise ValueError(
                f"decoder.{unread[0]}={getattr(self.decoder, unread[0])} is not read by method.name=simmim, whose "
                "decoder is one linear layer: leave it out, or give --method.name lut or mae"
            )

    def _check_weights(self) -> None:
        masking = self.method.masking
        if masking.name == "attention" and masking.guide == "table":
            remedy = "give --method.masking.guide teacher" if self.method.name == "lut" else "use --method.name lut"
            raise ValueError(
                "method.masking.guide=table takes weights from the batch, and a run makes no table of them: "
                f"{remedy}, or --method.masking.name random (in Python, batches with `weights` train any method)"
            )

    def _check_single_images(self) -> None:
        if self.method.name != "lut" or self.optimizer.batch_size // self.optimizer.accumulate != 1:
            return
        named, remedy = (
            f"optimizer.batch_size={self.optimizer.batch_size}",
            "give two images or more to each micro-batch",
        )
        head = self.method.head
        if self.method.context_distance == "infonce":
            raise ValueError(f"{named} leaves method.context_distance=infonce no other image to tell apart: {remedy}")
        if head.norm == "batch" and max(head.projector_depth, head.predictor_depth) > 1:
            raise ValueError(
                f"{named} gives BatchNorm in the heads one image at a time, and it makes zeros of one: {remedy}, "
                "or --method.head.norm layer"
            )
