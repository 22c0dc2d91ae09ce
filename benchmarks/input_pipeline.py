"""Time the input pipeline on a folder of images, pinned to one core: CPU milliseconds an image, and images a second.

    python benchmarks/input_pipeline.py FOLDER [--peer torchvision] [--scaling] [--memory 50000]

Rows: reading and decoding; resizing one view; resizing once and cutting two; the whole host part as a run has it;
colour on the CPU; both together. `--peer` times the reference's two-view transform, written with torchvision and
Pillow, in the same run; `--scaling` compares one core with two; `--memory` follows the memory over so many images.
The rows take turns and medians are printed, so that a slow moment of a shared machine meets all rows alike.
Prints tables, asserts nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

SIZE, BATCH, NOISE = 224, 16, 196
WARM_UP = 4  # batches; what was prepared ahead, untimed, is used up by then
HOST, BOTH, PEER = "host part, whole", "host, colour, normalised (XLA)", "torchvision, whole transform"
Row = tuple[str, Callable[[], Any], int]
"""A name, a step, and the images of a step."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images, flat or in class folders")
    parser.add_argument("--crop", choices=("simple", "random_resized"), default="simple", help="which views")
    parser.add_argument("--cores", default="0", help="cores to run on, with commas")
    parser.add_argument("--images", type=int, default=160, help="images of a turn")
    parser.add_argument("--repeats", type=int, default=9, help="turns")
    parser.add_argument("--peer", choices=("torchvision",), help="time this library's transform too")
    parser.add_argument("--scaling", action="store_true", help="images a second on one core and on two")
    parser.add_argument("--memory", type=int, default=0, help="follow the memory over so many images")
    parser.add_argument("--rate-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def turn(step: Callable[[], Any], images: int, each: int) -> tuple[float, float]:
    """Return CPU and wall milliseconds an image; a step is `each` images."""
    for _ in range(WARM_UP * BATCH // each):
        step()
    count = max(1, images // each)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        step()
    result = (time.process_time() - cpu) / count / each * 1e3, (time.perf_counter() - wall) / count / each * 1e3
    time.sleep(0.3)  # what is prepared ahead must not be counted in the next row's turn
    return result


def host(args: argparse.Namespace) -> Iterator[Any]:
    """Return the batches of a run, without end."""
    from lut_tf.config import ViewsConfig
    from lut_tf.data import ImageFolder, pretraining_dataset

    return iter(
        pretraining_dataset(
            ImageFolder(args.folder, apply_exif=False),  # as the ImageNet recipes, and as the peer
            batch_size=BATCH,
            image_size=SIZE,
            views=ViewsConfig(crop=args.crop),
            seed=0,
            steps=10**9,
            noise_length=NOISE,
            parallel_calls=len(args.cores.split(",")),
        )
    )


def stages(args: argparse.Namespace) -> Iterator[Row]:
    """Time the parts of reading and cutting one image, each alone, in tf.data."""
    import tensorflow as tf

    from lut_tf.config import ViewsConfig
    from lut_tf.data import ImageFolder
    from lut_tf.data.views.crops import evaluation_view, training_views
    from lut_tf.data.views.draws import draw

    source = ImageFolder(args.folder, apply_exif=False)
    count, views = min(len(source), 64), ViewsConfig(crop=args.crop)
    pictures = [source.image(tf.constant(i, tf.int64)) for i in range(count)]
    shapes = tf.stack([tf.shape(picture) for picture in pictures])
    ends = tf.cumsum(tf.reduce_prod(shapes, axis=1))
    pixels = tf.concat([tf.reshape(picture, [-1]) for picture in pictures], axis=0)

    def held(index: tf.Tensor) -> tf.Tensor:
        end = ends[index]
        return tf.reshape(pixels[end - tf.reduce_prod(shapes[index]) : end], shapes[index])

    def cut(index: tf.Tensor) -> list[tf.Tensor]:
        draws = draw(0, tf.constant(0, tf.int64), index, NOISE)
        return [view.image for view in training_views(held(index), draws, SIZE, views, 2)]

    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    for name, function in (
        ("read and decode", source.image),
        ("resize one view", lambda index: evaluation_view(held(index), SIZE)),
        ("resize and cut two views", cut),
    ):
        steps = iter(tf.data.Dataset.range(count).repeat().map(function).with_options(options))
        yield name, partial(next, steps), 1


def whole(args: argparse.Namespace) -> Iterator[Row]:
    """Time the host part, colour, and both."""
    import tensorflow as tf

    from lut_tf.models.colour import apply_colour
    from lut_tf.models.preprocess import normalise

    batches = host(args)
    yield HOST, partial(next, batches), BATCH
    batch = next(batches)

    def prepare(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return normalise(batch["view1"]), normalise(apply_colour(batch["view2"], batch["colour"]))

    for name, xla in (("XLA", True), ("graph", False)):
        colour = tf.function(apply_colour, jit_compile=xla)
        yield f"colour ({name})", partial(colour, batch["view2"], batch["colour"]), BATCH
    compiled = tf.function(prepare, jit_compile=True)
    yield BOTH, lambda: compiled(next(batches)), BATCH


def torchvision_rows(args: argparse.Namespace) -> Iterator[Row]:
    """Time the reference's transform, without and with view 2's colour; stacked into batches as its loader does."""
    from PIL import Image, ImageFilter

    torch: Any = importlib.import_module("torch")  # optional, so no import that type checks would follow
    T: Any = importlib.import_module("torchvision.transforms")
    torch.set_num_threads(1)
    bicubic = T.InterpolationMode.BICUBIC
    if args.crop == "simple":
        crop = [T.Resize(SIZE, bicubic), T.RandomCrop(SIZE, 4, padding_mode="reflect"), T.RandomHorizontalFlip()]
    else:
        crop = [T.RandomResizedCrop(SIZE, (0.2, 1.0), interpolation=bicubic), T.RandomHorizontalFlip()]
    blur = T.Lambda(lambda image: image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0))))
    one_of_three = T.RandomChoice([T.Grayscale(3), T.RandomSolarize(128, 1.0), blur])
    colour = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8), one_of_three]
    end = [T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    plain, strong = T.Compose([*crop, *end]), T.Compose([*crop, *colour, *end])
    files = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    following = iter(lambda: random.choice(files), None)

    def pair(second: Any) -> tuple[Any, Any]:
        with open(next(following), "rb") as file:
            image = Image.open(file).convert("RGB")
        return plain(image), second(image)

    def batch(second: Any) -> list[Any]:
        return [torch.stack(views) for views in zip(*(pair(second) for _ in range(BATCH)), strict=True)]

    yield "torchvision, two plain views", lambda: batch(plain), BATCH
    yield PEER, lambda: batch(strong), BATCH


def print_rows(rows: list[Row], images: int, repeats: int) -> None:
    """Let the rows take turns; print their medians, and of those that a run needs their share of the peer's time."""
    found: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for _ in range(repeats):
        for name, step, each in rows:
            found[name].append(turn(step, images, each)[0])
    print(f"{'':<34}{'CPU ms/image':>14}{'images/s':>10}")
    for name, times in found.items():
        print(f"{name:<34}{median(times):>14.2f}{1e3 / median(times):>10.0f}")
    for name in (HOST, BOTH) if PEER in found else ():
        shares = [mine / peer for mine, peer in zip(found[name], found[PEER], strict=True)]
        print(f"{name} / {PEER}: {median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")


def print_scaling(args: argparse.Namespace) -> None:
    """Compare images a second on one core, on two, and of two separate processes with one core each, taking turns."""
    one_core, two_cores, separate = [], [], []
    for _ in range(args.repeats):
        one_core.append(rate(args, "0"))
        two_cores.append(rate(args, "0,1"))
        separate.append(rate(args, "0", "1"))
    rates = ", ".join(f"{median(found):.0f}" for found in (one_core, two_cores, separate))
    print(f"one core, two, two processes of one core each: {rates} images/s of wall time")
    for name, found in (("two cores", two_cores), ("two processes", separate)):
        times = [many / one for many, one in zip(found, one_core, strict=True)]
        print(f"{name} / one core: {median(times):.2f} ({min(times):.2f} to {max(times):.2f})")


def rate(args: argparse.Namespace, *cores: str) -> float:
    """Return the images a second of the host part, in a process for each group of cores, at the same time."""
    command = [sys.executable, __file__, str(args.folder), "--rate-only", "--crop", args.crop]
    command += ["--images", str(args.images), "--repeats", "5"]
    running = [subprocess.Popen([*command, "--cores", group], stdout=subprocess.PIPE, text=True) for group in cores]
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"a process on core {cores} failed, see above")
    return sum(map(float, printed))


def print_memory(args: argparse.Namespace) -> None:
    """Print the resident memory ten times over so many images."""
    batches = host(args)
    for part in range(11):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        print(f"after {args.memory * part // 10:>8} images: {resident / 2**20:>6.0f} MiB", flush=True)
        for _ in range(args.memory // 10 // BATCH if part < 10 else 0):
            next(batches)


def main() -> None:
    """Run what the command line asks for."""
    args = parse()
    cores = {int(core) for core in args.cores.split(",")}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.rate_only:
        batches = host(args)
        print(1e3 / median(turn(partial(next, batches), args.images, BATCH)[1] for _ in range(args.repeats)))
        return
    rows = [*stages(args), *whole(args), *(torchvision_rows(args) if args.peer else ())]
    print_rows(rows, args.images, args.repeats)
    if args.scaling:
        print_scaling(args)
    if args.memory:
        print_memory(args)


if __name__ == "__main__":
    main()
