"""`lut-tf convert`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lut_tf.cli.verb import Verb
from lut_tf.errors import told_together
from lut_tf.paths import check_path, spelled_out
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser both files, and what the weights alone do not tell."""
    parser.add_argument(
        "source", metavar="IN", help="weights to read: .pth, .pt, .bin, .safetensors or .keras, or a run directory"
    )
    parser.add_argument("target", metavar="OUT", help="file to write: .keras, .safetensors or .pth")
    parser.add_argument(
        "--layout",
        choices=("timm", "huggingface", "reference"),
        help="names in OUT, where it is no .keras file (default: timm)",
    )
    parser.add_argument(
        "--num_heads", metavar="N", type=int, help="attention heads of IN, where 64 channels a head is wrong"
    )
    parser.add_argument(
        "--image_size",
        metavar="N",
        type=int,
        nargs="+",
        help="input size of IN in pixels, one number or height and width",
    )
    parser.add_argument("--step", type=int, help="the checkpoint of a run (default: its finished model, or the newest)")


def run(arguments: Namespace) -> None:
    """Convert, and print the file that was written."""
    source, target = spelled_out(arguments.source), spelled_out(arguments.target)
    told_together(lambda: check_path("IN", source), lambda: check_path("OUT", target))
    if not Path(source).exists():
        raise FileNotFoundError(f"IN={source} is not a file: give the path of a file of weights, or a run directory")
    import_tensorflow()
    from lut_tf.interop import convert

    size = arguments.image_size
    written = convert(
        source,
        target,
        layout=arguments.layout,
        num_heads=arguments.num_heads,
        image_size=size[0] if size and len(size) == 1 else size,
        step=arguments.step,
    )
    print(f"written: {written}")


VERB = Verb(
    "turn other people's weights into an encoder, and back",
    add_arguments,
    run,
    "IN OUT [--layout timm|huggingface|reference] [--num_heads N] [--image_size N [N]] [--step N]",
    "convert mae_pretrain_vit_base.pth encoder.keras",
)
