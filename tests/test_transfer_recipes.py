"""Guards the recipes of fine-tuning and probing: they parse, say what is so, and a step of each runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import write_files
from networks import tiny_encoder
from runs import CONFIGS
from settings_table import changed

from lut_tf.config import TREES, differences, from_yaml, get_setting, validate

VERBS = ("finetune", "probe")
RECIPES = [path for verb in VERBS for path in sorted((CONFIGS / verb).glob("*.yaml"))]
SETS = {
    "aircraft", "cars", "cifar10", "cifar100", "cub200", "flowers", "inaturalist2017", "inaturalist2018",
    "inaturalist2019", "inaturalist2021", "pets", "stl10", "tiny_imagenet", "vit_base_imagenet", "vit_large_imagenet",
    "vit_small_imagenet",
}  # fmt: skip


def named(path: Path) -> str:
    return f"{path.parent.name} {path.stem}"


def recipe(path: Path) -> Any:
    return from_yaml(path.read_text(encoding="utf-8"), TREES[path.parent.name])


def stated(path: Path, what: str) -> int:
    """Return a number of the recipe's head."""
    found = re.search(rf"([\d,]+) {what}", path.read_text(encoding="utf-8"))
    assert found, what
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("verb", VERBS)
def test_every_data_set_has_a_recipe(verb: str) -> None:
    assert {path.stem for path in RECIPES if path.parent.name == verb} == SETS


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_parses_and_contradicts_nothing(path: Path) -> None:
    config, verb, text = recipe(path), path.parent.name, path.read_text(encoding="utf-8")
    validate(config)
    config.check_images(stated(path, "to train on"))
    assert config.run_dir == f"runs/{verb}_{path.stem}"
    head = text.split("run_dir:")[0]
    assert f"lut-tf {verb} ENCODER --config configs/{verb}/{path.name}" in head and "not reproduced here" in head
    assert all(f"# {word}:" in head for word in ("Command", "Images", "Hardware", "Time", "Expected"))


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_begins_with_an_encoder_that_another_trains(path: Path) -> None:
    trained = Path(str(get_setting(recipe(path), "init_from"))).name
    config = from_yaml((CONFIGS / f"{trained}.yaml").read_text(encoding="utf-8"))
    assert config.run_dir == f"runs/{trained}"
    if path.stem.startswith("vit_"):
        assert path.stem in trained
    size = {"vit_base": "B", "vit_larg": "L", "vit_smal": "S"}.get(path.stem[:8], "B")
    assert f"ViT-{size}/16" in path.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_says_only_what_differs_from_the_defaults(path: Path) -> None:
    config, default = recipe(path), TREES[path.parent.name]()
    said = set(re.findall(r"^ *(\w+): *[^\s#]", path.read_text(encoding="utf-8").split("run_dir:")[1], re.M))
    differing = {name.rpartition(".")[2] for name in differences(default, config)}
    assert said == differing - {"run_dir"}


@pytest.mark.medium
@pytest.mark.parametrize("path", [path for path in RECIPES if recipe(path).data.source == "tfds"], ids=named)
def test_the_classes_are_those_of_the_public_data_set(path: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    data = recipe(path).data
    builder = tfds.builder(data.name, data_dir=tmp_path)  # neither prepared nor downloaded
    labels = [one for one in builder.info.features.values() if isinstance(one, tfds.features.ClassLabel)]
    assert labels[0].num_classes == stated(path, "classes")


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_the_page_on_evaluation_says_what_the_recipe_says(path: Path) -> None:
    page = (CONFIGS.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("|") and f"`{path.stem}`" in line]
    cells = [cell.strip() for cell in row.split("|")]
    wanted = [f"{stated(path, what):,}" for what in ("to train on", "to evaluate on", "classes")]
    assert cells[3:5] == [f"{wanted[0]}, {wanted[1]}", wanted[2]]
    assert cells[2] == {"tfds": "`tfds`", "image_folder": "folders"}[recipe(path).data.source]


def shrunk(config: Any, root: Path) -> Any:
    """The same on a few made images of three classes, from a tiny encoder, for one epoch of one step."""
    tiny_encoder().save(root / "encoder.keras")
    write_files(root / "images", *(f"{name}/{number}.png" for name in "abc" for number in range(3)))
    data = type(config.data)("image_folder", str(root / "images"), str(root / "images"))
    changes: dict[str, Any] = {
        "run_dir": str(root / "run"), "init_from": str(root / "encoder.keras"), "epochs": 1,
        "data": replace(data, holdout=0.34 if config.data.holdout else 0.0), "optimizer.batch_size": 6,
        "optimizer.accumulate": min(config.optimizer.accumulate, 2),
        "optimizer.warmup_epochs": 0.0, "logging.tensorboard": False,
    }  # fmt: skip
    for name, value in changes.items():
        config = changed(name, value, config)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_step_of_a_recipe_runs(path: Path, tmp_path: Path) -> None:
    import lut_tf

    run = {"finetune": "finetune", "probe": "linear_probe"}[path.parent.name]
    getattr(lut_tf, run)(shrunk(recipe(path), tmp_path))
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert np.isfinite([float(figure) for figure in re.findall(r"[\d.]+", line)]).all() and '"loss"' in line
