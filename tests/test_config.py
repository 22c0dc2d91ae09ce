"""The configuration tree: YAML in and out, and every check that needs no command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from lut_tf.checks import MAY_DIFFER, RANGES, check, check_batch, check_files, resolve_size
from lut_tf.settings import get_setting, show

from lut_tf import checks
from lut_tf.config import Config, EncoderConfig, from_yaml, settings, to_yaml

RECIPES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def changed(name: str, value: Any, tree: Any = None) -> Any:
    """Return the default `Config` with one setting changed."""
    tree = Config() if tree is None else tree
    first, _, rest = name.partition(".")
    return replace(tree, **{first: changed(rest, value, getattr(tree, first)) if rest else value})


def several(**changes: Any) -> Config:
    """Like `changed`, for several settings; `__` stands for the dot."""
    config = Config()
    for name, value in changes.items():
        config = changed(name.replace("__", "."), value, config)
    return config


@pytest.fixture
def data_set(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes the data room count a given number of images."""

    def holds(images: int) -> None:
        monkeypatch.setattr("lut_tf.data.folder.count_images", lambda data: images)

    return holds


def test_defaults_pass() -> None:
    check(Config())


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        several(run_dir="läufe/1", devices=2, views__scale=(0.25, 1.0), method__head__norm=None),
        several(encoder__preset=None, optimizer__base_learning_rate=1e-7, data__path="a: b", strategy="single"),
    ],
)
def test_yaml_round_trip(config: Config) -> None:
    assert from_yaml(to_yaml(config)) == config


def test_yaml_holds_every_setting() -> None:
    text = to_yaml(Config())
    assert all(f"{name.rsplit('.', 1)[-1]}:" in text for name in settings())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse_and_pass(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    config = from_yaml(text)
    if recipe.stem == "image_folder":  # the user's own folder comes from the command line
        config = changed("data.path", "photos", config)
    check(config)
    assert config.run_dir == f"runs/{recipe.stem}"
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in text.split("run_dir:")[0]
    assert ("not reproduced here" in text) == (config.data.source != "digits")


def test_published_recipes_say_what_the_paper_says() -> None:
    for size in ("small", "base", "large"):
        lut, mae = (
            from_yaml((RECIPES[0].parent / f"{m}_vit_{size}_imagenet.yaml").read_text()) for m in ("lut", "mae")
        )
        assert lut.method.context_weight == (1.0 if size == "small" else 0.25)
        assert (lut.views.crop, mae.views.crop) == ("simple", "random_resized")
        assert (lut.optimizer.rate_rule, mae.optimizer.rate_rule) == ("sqrt", "linear")
        for config in (lut, mae):
            assert resolve_size(config.encoder).width == {"small": 384, "base": 768, "large": 1024}[size]
            assert (config.epochs, config.optimizer.warmup_epochs, config.optimizer.batch_size) == (1600, 40, 4096)


def test_resolve_size() -> None:
    assert resolve_size(EncoderConfig()) == (16, 768, 12, 12)
    assert resolve_size(EncoderConfig(depth=2)) == (16, 768, 2, 12)
    assert resolve_size(EncoderConfig(preset=None, patch_size=2, width=64, depth=4, heads=4)) == (2, 64, 4, 4)


# A configuration that cannot work; the setting and value that its line names; a part of the remedy.
REFUSED = [
    (several(encoder__preset="vit_giant"), "encoder.preset='vit_giant'", "vit_base_patch16"),
    (several(encoder__preset=None, encoder__width=64), "encoder.patch_size=null", "--encoder.preset"),
    (several(encoder__image_size=225), "encoder.image_size=225", "--encoder.image_size 224"),
    (several(encoder__image_size=8), "encoder.image_size=8", "--encoder.image_size 16"),
    (several(encoder__heads=7), "encoder.width=768", "--encoder.width 756"),
    (several(encoder__width=18, encoder__heads=3), "encoder.width=18", "--encoder.width 24"),
    (several(decoder__heads=7), "decoder.width=512", "--decoder.width 504"),
    (several(decoder__width=6, decoder__heads=3), "decoder.width=6", "--decoder.width 12"),
    (several(method__mask_ratio=0.49), "method.mask_ratio=0.49", "--method.mask_ratio 0.5 or more"),
    (several(method__mask_ratio=0.999), "method.mask_ratio=0.999", "smaller --method.mask_ratio"),
    (several(method__mask_ratio=0.0, method__name="mae"), "method.mask_ratio=0", "larger --method.mask_ratio"),
    (several(method__mask_ratio=float("nan")), "method.mask_ratio=nan", "from 0 to 1"),
    (several(method__mask_ratio=75), "method.mask_ratio=75", "from 0 to 1"),
    (several(method__name="simmim"), "method.name=simmim", "one of lut, mae"),
    (several(epochs="3"), "epochs=3", "a whole number"),
    (several(epochs=True), "epochs=true", "a whole number"),
    (several(views__scale=(0.2,)), "views.scale=[0.2]", "a list of 2 numbers"),
    (several(views__scale=(1.0, 0.2)), "views.scale=[1, 0.2]", "give [0.2, 1]"),
    (several(views__scale=(0.0, 1.0)), "views.scale=[0, 1]", "above 0 to 1"),
    (several(views__hue=0.6), "views.hue=0.6", "from 0 to 0.5"),
    (several(views__padding=112), "views.padding=112", "--views.padding 111"),
    (several(optimizer__warmup_epochs=401.0), "optimizer.warmup_epochs=401", "--optimizer.warmup_epochs 400"),
    (several(optimizer__accumulate=3), "optimizer.batch_size=4096", "--optimizer.batch_size 4095"),
    (several(strategy="mirrored", devices=3), "optimizer.batch_size=4096", "multiple of 3"),
    (several(devices=3), "optimizer.batch_size=4096", "multiple of 3"),
    (several(strategy="single", devices=2), "devices=2", "--strategy mirrored"),
    (
        several(optimizer__batch_size=4, optimizer__accumulate=4, method__context_distance="infonce"),
        "optimizer.batch_size=4",
        "two images or more",
    ),
    (several(data__source="image_folder"), "data.path=null", "--data.path FOLDER"),
    (several(data__path="photos"), "data.path='photos'", "--data.source image_folder"),
]


@pytest.mark.parametrize(("config", "named", "remedy"), REFUSED, ids=[named for _, named, _ in REFUSED])
def test_check_refuses(config: Config, named: str, remedy: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(config)
    line = str(caught.value)
    assert line.startswith(named)
    assert remedy in line
    assert "\n" not in line


@pytest.mark.parametrize("name", RANGES)
def test_numbers_below_their_range_are_refused(name: str) -> None:
    number = -1.0 if settings()[name] is float else -1
    value = (number, 1.0) if isinstance(get_setting(Config(), name), tuple) else number
    with pytest.raises(ValueError, match=rf"^{name}=.* give .*") as caught:
        check(changed(name, value))
    assert f"{name}={show(value)}" in str(caught.value)


def parts(hint: Any) -> set[Any]:
    """The types that a union or a tuple is made of; a literal's values are none."""
    return set() if get_origin(hint) is Literal else set(get_args(hint))


def test_every_number_has_a_range() -> None:
    numbers = {name for name, hint in settings().items() if {int, float} & {hint, *parts(hint)}}
    assert numbers == set(RANGES)


def test_half_the_patches_are_enough_for_two_views() -> None:
    check(several(method__mask_ratio=0.5))
    check(several(method__mask_ratio=0.4, method__name="mae"))


def test_check_batch() -> None:
    check_batch(several(optimizer__accumulate=4), replicas=8)
    with pytest.raises(ValueError, match=r"optimizer\.batch_size=4096 .*3 device.* --optimizer\.batch_size 4095"):
        check_batch(Config(), replicas=3)


def test_batch_larger_than_the_data_set(tmp_path: Path, data_set: Callable[[int], None]) -> None:
    data_set(4095)
    with pytest.raises(ValueError, match=r"^optimizer\.batch_size=4096 .* 4095 .*--optimizer\.batch_size 4095 or less"):
        check_files(several(run_dir=str(tmp_path)))
    data_set(4096)
    check_files(several(run_dir=str(tmp_path)))


def test_more_neighbours_than_images(tmp_path: Path, data_set: Callable[[int], None]) -> None:
    data_set(5000)
    config = several(run_dir=str(tmp_path), probe__images=10)
    with pytest.raises(ValueError, match=r"^probe\.neighbours=20 .* 10 images .*--probe\.neighbours 10 or less"):
        check_files(config)


@pytest.mark.parametrize("name", ["data.path", "data.evaluation_path"])
def test_missing_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()
    images = several(run_dir=str(tmp_path), data__source="image_folder", data__path=str(tmp_path / "images"))
    config = changed(name, str(tmp_path / "none"), images)
    with pytest.raises(FileNotFoundError, match=rf"^{name}: '.*none' does not exist: give an existing folder"):
        check_files(config)


def test_run_dir_of_another_configuration(tmp_path: Path, data_set: Callable[[int], None]) -> None:
    data_set(10**6)
    old = several(run_dir=str(tmp_path))
    (tmp_path / "config.yaml").write_text(to_yaml(old))
    check_files(old)
    with pytest.raises(ValueError) as caught:
        check_files(changed("views.scale", (0.1, 1.0), changed("epochs", 3, old)))
    line = str(caught.value)
    assert line.startswith(f"run_dir='{tmp_path}' holds a run of another configuration")
    assert "epochs was 400, now 3; views.scale was [0.2, 1], now [0.1, 1]" in line
    assert line.endswith("give another --run_dir, or the old values")


def test_what_may_differ_on_a_run_dir(tmp_path: Path, data_set: Callable[[int], None]) -> None:
    data_set(10**6)
    config = several(strategy="mirrored", devices=2, data__parallel_calls=3, logging__pictures=1, run_dir=str(tmp_path))
    (tmp_path / "config.yaml").write_text(to_yaml(Config()))
    check_files(config)
    may = [name for name in settings() if any(name == m or name.startswith(f"{m}.") for m in MAY_DIFFER)]
    rooms = ("views", "encoder", "decoder", "method", "optimizer")
    assert [name for name in may if name.split(".")[0] in rooms] == ["optimizer.max_bad_steps"]


def test_run_dir_with_an_unreadable_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: many\n")
    with pytest.raises(ValueError, match=r"^run_dir=.*config\.yaml.*epochs.*give another --run_dir"):
        check_files(several(run_dir=str(tmp_path)))


def test_run_dir_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match=rf"^run_dir='{tmp_path}/a/b' .* {tmp_path}: give another --run_dir"):
        check_files(several(run_dir=str(tmp_path / "a" / "b")))
    assert list(tmp_path.iterdir()) == []


def test_run_dir_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^run_dir='.*file/run' .* is a file: give another --run_dir"):
        check_files(several(run_dir=str(tmp_path / "file" / "run")))
