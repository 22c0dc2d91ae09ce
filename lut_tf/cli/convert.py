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
        "source",
        metavar="IN",
        help="weights to read: .pth, .pt, .bin, .ckpt, .safetensors, .keras, a folder of save_pretrained, or a run",
    )
    parser.add_argument(
        "target", metavar="OUT", help="file to write: .keras, .safetensors or .pth; as huggingface also a new folder"
    )
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
        help="input size of OUT in pixels, one number or height and width; positions of another number are resized",
    )
    parser.add_argument(
        "--layer_norm_eps",
        metavar="X",
        type=float,
        help="what the norms of IN add to the variance, where it is not as usual",
    )
    parser.add_argument(
        "--preprocessing",
        choices=("imagenet", "half"),
        help="mean and deviation of IN's images: ImageNet's, or 0.5 and 0.5 (default: as it says, or as usual)",
    )
    parser.add_argument(
        "--classifier",
        action="store_true",
        help="keep the head of IN, other people's fine-tuned weights; a classifier's .keras file keeps it in any case",
    )
    parser.add_argument("--step", type=int, help="the checkpoint of a run (default: its finished model, or the newest)")


def run(arguments: Namespace) -> None:
    """Convert, and print the file that was written."""
    source, target = spelled_out(arguments.source), spelled_out(arguments.target)
    told_together(lambda: check_path("IN", source), lambda: check_path("OUT", target))
    if not Path(source).exists():
        raise FileNotFoundError(
            f"IN={source} is not a file: give the path of a file of weights, a folder of save_pretrained, or a run "
            "directory"
        )
    import_tensorflow()
    from lut_tf.interop import convert
    from lut_tf.interop.preprocessing import KNOWN

    size = arguments.image_size
    written = convert(
        source,
        target,
        layout=arguments.layout,
        num_heads=arguments.num_heads,
        image_size=size[0] if size and len(size) == 1 else size,
        layer_norm_eps=arguments.layer_norm_eps,
        preprocessing=KNOWN.get(arguments.preprocessing),
        classifier=arguments.classifier,
        say=print,
        step=arguments.step,
    )
    print(f"written: {written}")


VERB = Verb(
    "turn other people's weights into an encoder or a classifier, and back",
    add_arguments,
    run,
    "IN OUT [--layout timm|huggingface|reference] [--num_heads N] [--image_size N [N]] [--layer_norm_eps X] "
    "[--preprocessing imagenet|half] [--classifier] [--step N]",
    "convert mae_pretrain_vit_base.pth encoder.keras",
)
