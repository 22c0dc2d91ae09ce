"""What encoders are worth on CIFAR-10: LUT, one direction of it, MAE and an untrained encoder, at equal compute.

    python benchmarks/study_cifar10.py cifar10_jpeg.tar.xz --output runs/study_cifar10
    python benchmarks/study_cifar10.py cifar10_jpeg.tar.xz --output runs/study_cifar10 --long 27

The archive holds `cifar/{train,test}/CLASS/NUMBER.jpg`. Encoders are pre-trained on the training images, without their
labels; the probe's regularisation and fine-tuning's epoch are chosen on a tenth of them, and the official test images
are asked once. Each step is a `lut-tf` command of its own, each run in a directory of its own: started again, the study
goes on where it was stopped. A table, the figures as JSON and a picture are what it leaves. `--long` pre-trains one LUT
of so many epochs and one MAE of as many FLOP instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lut_tf.evaluate.results import Figure

PATCHES, PATCH, WIDTH, DEPTH, HEADS = 64, 4, 96, 4, 3
DECODER_WIDTH, DECODER_DEPTH, HIDDEN = 64, 1, 256
BATCH = 128
ENCODER = {"preset": "null", "image_size": 32, "patch_size": PATCH, "width": WIDTH, "depth": DEPTH, "heads": HEADS}
SHARED: dict[str, object] = {
    **{f"encoder.{name}": value for name, value in ENCODER.items()},
    "decoder.width": DECODER_WIDTH,
    "decoder.depth": DECODER_DEPTH,
    "decoder.heads": 4,
    "optimizer.batch_size": BATCH,
    "optimizer.base_learning_rate": 1e-3,
    "optimizer.rate_rule": "none",
    "probe.before_and_after": "false",
    "logging.tensorboard": "false",
    "views.padding": 4,
}
LUT: dict[str, object] = {"method.context_weight": 0.25, "method.momentum": 0.99, "method.head.hidden": HIDDEN}


FINETUNING = {
    "epochs": 2,
    "optimizer.batch_size": 128,
    "optimizer.base_learning_rate": 1e-3,
    "optimizer.rate_rule": "none",
    "optimizer.warmup_epochs": 0.2,
    "views.operations": 0,
    "views.mixup": 0,
    "views.cutmix": 0,
    "views.erasing": 0,
    "views.scale": "0.4,1.0",
    "classifier.drop_path": 0,
    "logging.tensorboard": "false",
}
"""Short: mixing and strong changes of the images are for hundreds of epochs."""
COLUMNS = {
    ("knn", "knn20"): "k-NN",
    ("few_shot", "10_shot"): "10 labels a class",
    ("logistic_probe", "mean/top1"): "linear probe",
    ("finetune", "top1"): "fine-tuning",
}
"""Protocol and figure of each column."""


class Method(NamedTuple):
    """A row of the study.

    Attributes:
        settings: of `lut-tf train`.
        student: passes of the student over the visible quarter of the patches.
        teacher: passes of the teacher over all patches.
        projections: passes through a head, forward alone counting one and with its gradient three.
    """

    settings: dict[str, object]
    student: int
    teacher: int
    projections: int


METHODS = {
    "LUT": Method(LUT, student=2, teacher=2, projections=2 * 2 * 3 + 2),
    "LUT, one direction": Method({**LUT, "method.symmetric": "false"}, student=1, teacher=1, projections=2 * 3 + 1),
    "MAE": Method(
        {"method.name": "mae", "views.crop": "random_resized", "views.padding": 4}, student=1, teacher=0, projections=0
    ),
}


def transformer(tokens: int, width: int, depth: int) -> float:
    """Return the FLOP of the matrix products of `depth` blocks on `tokens` tokens, forward."""
    return depth * tokens * (24 * width**2 + 4 * tokens * width)


def flop(method: Method) -> float:
    """Return the FLOP of one image's share of a training step; a gradient costs two forward passes."""
    embedding, visible = 2 * 3 * PATCH**2 * WIDTH, PATCHES // 4
    student = transformer(1 + visible, WIDTH, DEPTH) + visible * embedding
    teacher = transformer(1 + PATCHES, WIDTH, DEPTH) + PATCHES * embedding
    decoder = transformer(1 + PATCHES, DECODER_WIDTH, DECODER_DEPTH)
    decoder += 2 * (1 + visible) * WIDTH * DECODER_WIDTH + 2 * (PATCHES + 1) * DECODER_WIDTH * 3 * PATCH**2
    heads = method.projections * 2 * 2 * WIDTH * HIDDEN
    return 3 * (method.student * student + decoder) + method.teacher * teacher + heads


class Run(NamedTuple):
    """One pre-training.

    Attributes:
        method: its row.
        budget: what it has as much of as LUT's run: `epochs` or `compute`.
        epochs: passes over the training images.
        seed: of the run.
    """

    method: str
    budget: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """The run's folder."""
        words = self.method.lower().replace(", ", "_").replace(" ", "_")
        return f"{words}_{self.epochs}_epochs_seed_{self.seed}"


def planned(epochs: int, seeds: int, long: bool) -> list[Run]:
    """Return the runs of the study, seed by seed, so that what is there early is a whole table of fewer seeds."""
    runs = []
    for seed in range(seeds):
        if not long:
            runs.append(Run("untrained", "none", 0, seed))
        for name, method in METHODS.items():
            equal = max(epochs, round(epochs * flop(METHODS["LUT"]) / flop(method)))
            if long:
                runs += [Run(name, "compute", equal, seed)] if name in ("LUT", "MAE") else []
                continue
            runs.append(Run(name, "epochs", epochs, seed))
            if equal > epochs:
                runs.append(Run(name, "compute", equal, seed))
    return runs


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack the archive, once; return the folder of its parts."""
    if not (folder / "whole").exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (folder / "whole").touch()
    return folder / "cifar"


def lut_tf(*words: object) -> None:
    """Run a command of `lut-tf`."""
    subprocess.run([sys.executable, "-m", "lut_tf.cli", *map(str, words)], check=True)


def options(settings: Mapping[str, object]) -> list[str]:
    """Return settings as `lut-tf` takes them."""
    return [f"--{name}={value}" for name, value in settings.items()]


def pretrain(run: Run, folder: Path, data: Path) -> None:
    """Pre-train, or go on; of an untrained encoder there is nothing but its first weights."""
    if run.epochs == 0:
        untrained(run, folder)
        return
    settings = {
        **SHARED,
        **METHODS[run.method].settings,
        "data.source": "image_folder",
        "data.path": data / "train",
        "run_dir": folder,
        "epochs": run.epochs,
        "seed": run.seed,
        "optimizer.warmup_epochs": max(1, math.ceil(run.epochs / 10)),
        "logging.pictures_every": 0,
    }
    lut_tf("train", *options(settings))


def untrained(run: Run, folder: Path) -> None:
    """Save an encoder as a run begins with it."""
    import keras

    from lut_tf import ViTEncoder

    keras.utils.set_random_seed(run.seed)
    folder.mkdir(parents=True, exist_ok=True)
    ViTEncoder(32, PATCH, WIDTH, DEPTH, HEADS).save(folder / "encoder.keras")


def measure(folder: Path, data: Path, seed: int) -> None:
    """Measure an encoder by each protocol; what is chosen is chosen on a tenth of the training images."""
    images = {"data.source": "image_folder", "data.path": data / "train", "data.evaluation_path": data / "test"}
    encoder, chosen = folder / "encoder.keras", {**images, "data.holdout": 0.1}
    lut_tf("knn", encoder, *options({**images, "neighbours": 20}))
    lut_tf("few-shot", encoder, *options({**images, "shots": 10}))
    lut_tf("probe", encoder, *options({**chosen, "solver": "logistic"}))
    tuned = {**FINETUNING, **chosen, "init_from": encoder, "run_dir": folder / "finetune", "seed": seed}
    lut_tf("finetune", *options(tuned))


def figures(folder: Path) -> dict[str, Figure]:
    """Return what was measured of a run, by column."""
    from lut_tf.evaluate.results import find_results, read_result

    found: dict[str, Figure] = {}
    for path in find_results([folder, folder / "finetune"]):
        result = read_result(path)
        for (protocol, name), column in COLUMNS.items():
            if result.protocol == protocol and name in result.figures:
                found[column] = result.figures[name]
    return found


def once(folder: Path, name: str, act: Callable[[], None]) -> None:
    """Do something and write down that it was done and how long it took; not again where that is written."""
    stamp = folder / f"{name}.seconds"
    if stamp.exists():
        return
    start = time.monotonic()
    act()
    stamp.write_text(f"{time.monotonic() - start:.0f}\n")


def cell(values: list[float]) -> str:
    """Return the mean of some seeds' figures, their deviation where there are two or more, and how many there are."""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread} ({len(values)})"


def report(runs: list[Run], output: Path) -> None:
    """Print a row for each method and budget, mean and standard deviation over seeds, and draw the picture."""
    rows: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        if not (output / run.name / "measure.seconds").exists():
            continue
        row = rows.setdefault(f"{run.method}, {run.epochs} epochs" if run.epochs else run.method, {})
        for column, figure in figures(output / run.name).items():
            row.setdefault(column, []).append(100 * figure.value)
    columns = list(COLUMNS.values())
    print(f"\n{'accuracy on the test images, % (seeds)':<38}" + "".join(f"{column:>18}" for column in columns))
    for name, row in rows.items():
        cells = (cell(row[column]) if column in row else "–" for column in columns)
        print(f"{name:<38}" + "".join(f"{cell:>18}" for cell in cells))
    (output / "study.json").write_text(json.dumps(rows, indent=2) + "\n")
    draw(rows, output / "study.png")


def draw(rows: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Draw each seed as a dot and the mean as a line, a panel for each protocol."""
    from matplotlib.figure import Figure as Picture

    columns = list(COLUMNS.values())
    picture = Picture(figsize=(3.2 * len(columns), 0.45 * len(rows) + 1.4), layout="constrained")
    for axes, column in zip(picture.subplots(1, len(columns), sharey=True), columns, strict=True):
        for place, row in enumerate(rows.values()):
            if values := row.get(column):
                axes.plot(values, [place] * len(values), "o", alpha=0.6, color=f"C{place}")
                axes.plot([mean(values)] * 2, [place - 0.3, place + 0.3], color=f"C{place}", linewidth=2)
        axes.set_title(column)
        axes.set_xlabel("accuracy, %")
        axes.grid(axis="x", alpha=0.3)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
    picture.savefig(path, dpi=100)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="CIFAR-10 as JPEG files in a tar archive")
    parser.add_argument("--output", type=Path, default=Path("runs/study_cifar10"), help="folder of the study")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of LUT, which make the budget")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each row")
    parser.add_argument("--long", type=int, default=0, metavar="EPOCHS", help="one longer LUT, and MAE at its compute")
    parser.add_argument("--pretrain-only", action="store_true", help="leave measuring for a later start")
    return parser.parse_args()


def main() -> None:
    """Go on with the study."""
    args = parse()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    data = unpacked(args.archive, args.output / "data")
    budget = args.long or args.epochs
    runs = planned(budget, 1 if args.long else args.seeds, bool(args.long))
    for number, run in enumerate(runs, 1):
        folder = args.output / run.name
        share = run.epochs * (flop(METHODS[run.method]) / flop(METHODS["LUT"]) if run.epochs else 0) / budget
        print(f"[{number}/{len(runs)}] {run.name}: {share:.2f} of LUT's compute", flush=True)
        once(folder, "pretrain", partial(pretrain, run, folder, data))
        if not args.pretrain_only:
            once(folder, "measure", partial(measure, folder, data, run.seed))
    report(runs, args.output)


if __name__ == "__main__":
    main()
