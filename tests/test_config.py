"""The configuration tree: YAML in and out, and every check that needs no command line."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from runs import has_saved
from settings_table import TABLES, changed, changed_all

from lut_tf.config import (
    COMPARED_BY_IMAGES,
    MAY_DIFFER,
    Config,
    EncoderConfig,
    FinetuneConfig,
    LinearProbeConfig,
    MethodConfig,
    build_group,
    check_value,
    describe,
    from_yaml,
    get_setting,
    settings,
    show,
    to_yaml,
    validate,
    verb_of,
)
from lut_tf.tasks.preflight import preflight
from lut_tf.training.going_on import check_run_dir

RECIPES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def several(**changes: Any) -> Config:
    """Like `changed`, for several settings; `__` stands for the dot."""
    return changed_all({name.replace("__", "."): value for name, value in changes.items()})


def of_digits(run_dir: Path, **changes: Any) -> Config:
    """Return a configuration that the digits' 1,197 training images are enough for."""
    return several(run_dir=str(run_dir), optimizer__batch_size=64, **changes)


def test_defaults_pass() -> None:
    validate(Config())


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        several(run_dir="läufe/1", devices=2, views__scale=(0.25, 1.0), method__head__norm=None),
        *(several(data__path=text) for text in ("017", "1e3", "1:30", "yes", "~", "null", "0x1", ".5", "a b", "é#: ")),
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
    validate(config)
    assert config.run_dir == f"runs/{recipe.stem}"
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in text.split("run_dir:")[0]
    assert ("not reproduced here" in text) == (config.data.source != "digits")


def test_resolve_size() -> None:
    assert EncoderConfig().size() == (16, 768, 12, 12)
    assert EncoderConfig(depth=2).size() == (16, 768, 2, 12)
    assert EncoderConfig(preset=None, patch_size=2, width=64, depth=4, heads=4).size() == (2, 64, 4, 4)


def simmim(**changes: Any) -> Config:
    return several(method__name="simmim", **{"method__mask_ratio": 0.6, **changes})


def attention(**changes: Any) -> Config:
    return several(method__masking__name="attention", **changes)


def by_teacher(**changes: Any) -> Config:
    return attention(method__masking__guide="teacher", **changes)


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
    (several(method__name="beit"), "method.name=beit", "one of lut, mae, simmim"),
    (several(method__mask_unit=16), "method.mask_unit=16", "leave it out, or give --method.name simmim"),
    (several(method__drop_path=0.1, method__name="mae"), "method.drop_path=0.1", "or give --method.name simmim"),
    (simmim(method__momentum=0.9), "method.momentum=0.9", "or give --method.name lut"),
    (simmim(method__norm_pix_loss=False), "method.norm_pix_loss=false", "or give --method.name lut or mae"),
    (simmim(method__mask_unit=24), "method.mask_unit=24", "--method.mask_unit 16"),
    (simmim(encoder__image_size=(96, 64), method__mask_unit=48), "method.mask_unit=48", "--method.mask_unit 32"),
    (simmim(method__mask_ratio=0.99), "method.mask_ratio=0.99", "smaller --method.mask_ratio"),
    (simmim(method__mask_ratio=0.0), "method.mask_ratio=0", "larger --method.mask_ratio"),
    (simmim(decoder__depth=4), "decoder.depth=4", "give --method.name lut or mae"),
    (several(method__masking__throw_ratio=0.1), "method.masking.throw_ratio=0.1", "--method.masking.name attention"),
    (several(method__masking__guide="teacher"), "method.masking.guide=teacher", "--method.masking.name attention"),
    (attention(), "method.masking.guide=table", "--method.masking.guide teacher"),
    (attention(method__name="mae"), "method.masking.guide=table", "--method.masking.name random"),
    (by_teacher(method__name="mae"), "method.masking.guide=teacher", "--method.name lut"),
    (by_teacher(method__teacher_mask_ratio=0.5), "method.teacher_mask_ratio=0.5", "--method.teacher_mask_ratio 0"),
    (
        by_teacher(method__masking__throw_ratio=0.25),
        "method.mask_ratio=0.75 and",
        "smaller --method.masking.throw_ratio",
    ),
    (by_teacher(method__mask_ratio=0.3, method__masking__throw_ratio=0.1), "method.mask_ratio=0.3", "0.5 or more"),
    (
        by_teacher(encoder__image_size=112, method__mask_ratio=0.25, method__masking__throw_ratio=0.25),
        "method.mask_ratio=0.25 leaves no two",
        "0.5 or more",
    ),
    (by_teacher(method__mask_ratio=0.004, method__masking__throw_ratio=0.6), "method.mask_ratio=0.004", "larger"),
    (several(optimizer__minimum_learning_rate=1.0), "optimizer.minimum_learning_rate=1", "base_learning_rate"),
    (several(optimizer__warmup_learning_rate=1.0), "optimizer.warmup_learning_rate=1", "base_learning_rate"),
    (several(method__context_source="cls"), "method.context_source=cls", "one of patches, class_token"),
    (several(method__context_steers="all"), "method.context_steers=all", "one of visible, masked, both"),
    (several(method__context_supervision="x"), "method.context_supervision=x", "one of pooled, tokens, both"),
    (several(method__teacher_mask_ratio=1.0), "method.teacher_mask_ratio=1", "smaller --method.teacher_mask_ratio"),
    (several(method__teacher_mask_ratio=1e-20), "method.teacher_mask_ratio=1e-20", "larger --method.teacher"),
    (several(method__teacher_mask_ratio=1.5), "method.teacher_mask_ratio=1.5", "from 0 to 1"),
    *(
        (several(method__context_supervision=kind, **{f"method__{name}": value}), f"method.{name}={value}", remedy)
        for kind in ("tokens", "both")
        for name, value, remedy in (
            ("context_distance", "infonce", "--method.context_distance l2"),
            ("teacher_mask_ratio", 0.5, "--method.context_supervision pooled"),
        )
    ),
    (
        several(method__context_supervision="tokens", method__context_source="class_token"),
        "method.context_source=class_token",
        "leave it out",
    ),
    *(
        (several(method__name="mae", **{f"method__{name}": value}), f"method.{name}={value}", "--method.name lut")
        for name, value in (
            ("context_source", "class_token"),
            ("context_steers", "both"),
            ("context_supervision", "tokens"),
            ("teacher_mask_ratio", 0.5),
        )
    ),
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
def test_what_cannot_work_is_refused(config: Config, named: str, remedy: str) -> None:
    with pytest.raises(ValueError) as caught:
        validate(config)
    line = str(caught.value)
    assert line.startswith(named)
    assert remedy in line
    assert "\n" not in line


NUMBERS = [name for name, hint in settings().items() if "number" in describe(hint)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range_and_says_it(name: str) -> None:
    """Below it, and infinite or undefined where the setting is a fraction: refused with the range as the remedy."""
    hint, default = settings()[name], get_setting(Config(), name)
    whole = "whole" in describe(hint)
    for number in (-1,) if whole else (-1.0, float("nan"), float("inf")):
        value = (number, 1.0) if isinstance(default, tuple) else number
        with pytest.raises(ValueError) as caught:
            validate(changed(name, value))
        assert str(caught.value) == f"{name}={show(value)} is out of range: give {describe(hint)}"
    assert " from " in describe(hint) or " above " in describe(hint)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (2**31, settings()["seed"], "seed=2147483648 is out of range: give a whole number from 0 to 2147483647"),
        (1.0, settings()["optimizer.betas"], "of the wrong type: give a list of 2 numbers"),
        ((0.9, 1.0), settings()["optimizer.betas"], "give a list of 2 numbers from 0 to just under 1"),
        (0.0, settings()["method.temperature"], "give a number above 0"),
        ("x", settings()["devices"], "of the wrong type: give a whole number or null"),
        (0, settings()["devices"], "out of range: give a whole number from 1 up or null"),
    ],
)
def test_the_words_of_types_and_ranges(value: Any, hint: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_value("seed", value, hint)
    assert words in str(caught.value)


def test_what_lies_at_the_ends_of_a_range_is_taken() -> None:
    validate(several(seed=2**31 - 1, views__blur_radius=(0.001, 4.0), optimizer__betas=(0.0, 0.999)))
    validate(several(optimizer__clip_norm=1))  # a whole number is a number


def test_half_the_patches_are_enough_for_two_views() -> None:
    validate(several(method__mask_ratio=0.5))
    validate(several(method__mask_ratio=0.4, method__name="mae"))


def test_a_group_survives_json() -> None:
    """What methods write into `.keras` files, tuples and groups within groups too."""
    for group in (MethodConfig(mask_ratio=0.6, head=replace(MethodConfig().head, norm=None)), Config()):
        assert build_group(type(group), json.loads(json.dumps(asdict(group)))) == group


def test_batch_and_replicas() -> None:
    several(optimizer__accumulate=4).check_replicas(8)
    with pytest.raises(ValueError, match=r"optimizer\.batch_size=4096 .*3 device.* --optimizer\.batch_size 4095"):
        Config().check_replicas(3)


def test_batch_larger_than_the_data_set(tmp_path: Path) -> None:
    config = of_digits(tmp_path)
    with pytest.raises(ValueError, match=r"^optimizer\.batch_size=1198 .* 1197 .*--optimizer\.batch_size 1197 or less"):
        preflight(changed("optimizer.batch_size", 1198, config))
    assert preflight(changed("optimizer.batch_size", 1197, config)).images == 1197


def test_more_neighbours_than_images(tmp_path: Path) -> None:
    config = of_digits(tmp_path, probe__images=10)
    with pytest.raises(ValueError, match=r"^probe\.neighbours=20 .* 10 images .*--probe\.neighbours 10 or less"):
        preflight(config)


def test_neighbours_matter_only_where_k_nn_is_asked(tmp_path: Path) -> None:
    """A flat folder of three images trains, though there are fewer of them than neighbours."""
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / "images" / f"{name}.png").touch()
    flat = {"data__source": "image_folder", "data__path": str(tmp_path / "images"), "optimizer__batch_size": 2}
    assert preflight(several(run_dir=str(tmp_path / "run"), **flat)).images == 3


def folder_of(folder: Path, *names: str, **settings: Any) -> Config:
    """A run on a folder of empty files, which are not read before it begins."""
    for name in names:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).touch()
    data = {"data__source": "image_folder", "data__path": str(folder / "images"), **settings}
    return several(run_dir=str(folder / "run"), **data)


# Files of a folder, whether they are evaluation images too, and other settings, where k-NN is not asked of them.
WITHOUT_KNN: dict[str, tuple[list[str], bool, dict[str, Any]]] = {
    "without evaluation images": (["a/1.png", "b/2.png"], False, {}),
    "one class": (["a/1.png", "a/2.png"], True, {}),
    "nothing is to be measured": (["a/1.png", "b/2.png"], True, {"probe__before_and_after": False}),
}


@pytest.mark.parametrize("case", WITHOUT_KNN)
def test_small_folders_train_where_k_nn_is_not_asked(case: str, tmp_path: Path) -> None:
    names, evaluated, settings = WITHOUT_KNN[case]
    evaluation = {"data__evaluation_path": str(tmp_path / "images")} if evaluated else {}
    assert preflight(folder_of(tmp_path, *names, optimizer__batch_size=2, **evaluation, **settings)).images == 2


def test_a_batch_and_neighbours_that_are_too_many_are_named_at_once(tmp_path: Path) -> None:
    names = ("a/1.png", "b/2.png")
    config = folder_of(tmp_path, *names, data__evaluation_path=str(tmp_path / "images"))
    with pytest.raises(ValueError, match=r"--optimizer\.batch_size 2 or less\nprobe.* --probe\.neighbours 2 or less"):
        preflight(config)


def test_the_recipe_for_a_folder_begins_on_few_photographs(tmp_path: Path) -> None:
    config = from_yaml((RECIPES[0].parent / "image_folder.yaml").read_text(encoding="utf-8"))
    images = folder_of(tmp_path, *(f"{number}.jpg" for number in range(65))).data
    assert preflight(replace(config, run_dir=str(tmp_path / "run"), data=images)).images == 65


def test_a_run_begun_before_a_setting_goes_on_as_it_began(tmp_path: Path) -> None:
    """EXIF was not applied before it could be asked for: an old run is not given turned images in silence."""
    config = folder_of(tmp_path, "1.png", "2.png", optimizer__batch_size=2)
    saved = tmp_path / "run" / "config.yaml"
    has_saved(tmp_path / "run")
    lines = to_yaml(config).splitlines()
    saved.write_text("\n".join(line for line in lines if "apply_exif" not in line))
    with pytest.raises(ValueError, match=r"apply_exif was false, now true.*: give another --run_dir.*, or the old"):
        preflight(config)
    assert preflight(changed("data.apply_exif", False, config)).images == 2
    digits = of_digits(tmp_path / "digits")
    has_saved(tmp_path / "digits")
    (tmp_path / "digits" / "config.yaml").write_text(to_yaml(digits).replace("  apply_exif: true\n", ""))
    assert preflight(replace(digits, run_dir=str(tmp_path / "digits"))).images == 1197


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    config = folder_of(tmp_path, "1.png", "2.png", optimizer__batch_size=2)
    has_saved(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    (tmp_path / "run" / "resolved.json").write_text('{"images": 2}')
    assert preflight(config).images == 2
    (tmp_path / "images" / "3.tif").touch()
    with pytest.raises(ValueError, match=r"run_dir=.* was begun on 2 images, and there are 3 now: give another"):
        preflight(config)


@pytest.mark.parametrize("name", ["data.path", "data.evaluation_path"])
def test_missing_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()
    images = several(run_dir=str(tmp_path), data__source="image_folder", data__path=str(tmp_path / "images"))
    config = changed(name, str(tmp_path / "none"), images)
    with pytest.raises(FileNotFoundError, match=rf"^{name}: '.*none' does not exist: give an existing folder"):
        preflight(config)


@pytest.mark.parametrize(
    ("saved", "offer"),
    [
        ("checkpoints/step_00000001/state.index", True),
        ("model.weights.h5", True),
        ("encoder.keras", False),  # --init_from RUN wants the whole model
    ],
)
def test_run_dir_of_another_configuration(tmp_path: Path, saved: str, offer: bool) -> None:
    """It is refused where something was learned, which nobody wants to lose; else it is a beginning anew."""
    old = of_digits(tmp_path)
    other = changed("views.scale", (0.1, 1.0), changed("epochs", 300, old))
    (tmp_path / "config.yaml").write_text(to_yaml(old))
    preflight(other)
    (tmp_path / saved).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / saved).touch()
    preflight(old)
    with pytest.raises(ValueError) as caught:
        preflight(other)
    line = str(caught.value)
    assert line.startswith(f"run_dir='{tmp_path}' holds a run of another configuration")
    assert "epochs was 400, now 300; views.scale was [0.2, 1], now [0.1, 1]" in line
    with_weights = f" (with --init_from {tmp_path} it starts from these weights)" if offer else ""
    assert line.endswith(f"give another --run_dir{with_weights}, or the old values")


def test_hosts_may_have_first_weights_in_different_places(tmp_path: Path) -> None:
    """What they hold is compared as the run begins; where the hosts go on, it is not read."""
    hosts = changed_all({"strategy": "multi_worker", "workers": "a:1,b:1", "worker_index": 0}, of_digits(tmp_path))
    one, other = (changed("init_from", place, hosts) for place in ("here", "there"))
    assert one.identity() == other.identity() != changed("seed", 7, other).identity()
    (tmp_path / "config.yaml").write_text(to_yaml(one))
    has_saved(tmp_path)
    check_run_dir(other)


@pytest.mark.parametrize("tree", TABLES)
def test_the_table_of_other_values_is_whole(tree: type) -> None:
    assert {"run_dir", *TABLES[tree]} == set(settings(tree))
    assert all(value not in (None, get_setting(tree(), name)) for name, value in TABLES[tree].items())


@pytest.mark.parametrize("tree", TABLES)
def test_what_may_not_differ_is_refused_on_a_run_dir(tree: type, tmp_path: Path) -> None:
    """Every setting outside MAY_DIFFER, by its name and both values; all those in it together are taken.

    Where the images lie is no matter of this: they are compared themselves.
    """
    old, other = changed_all({"run_dir": str(tmp_path), "optimizer.batch_size": 64}, tree()), TABLES[tree]
    (tmp_path / "config.yaml").write_text(to_yaml(old))
    has_saved(tmp_path)
    may = {name for name in other if any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_DIFFER)}
    may |= set(COMPARED_BY_IMAGES)
    allowed = refused = old
    for name, value in other.items():
        allowed = changed(name, value, allowed) if name in may else allowed
        refused = changed(name, value, refused)
    check_run_dir(allowed)
    with pytest.raises(ValueError) as caught:
        check_run_dir(refused)
    for name, value in other.items():
        words = f"{name} was {show(get_setting(old, name))}, now {show(value)}"
        assert (words in str(caught.value)) == (name not in may), name


@pytest.mark.parametrize("tree", TABLES)
@pytest.mark.parametrize("wanted", TABLES)
def test_a_run_dir_of_another_task_is_refused(tree: type, wanted: type, tmp_path: Path) -> None:
    """By the names at the top of its settings, also where a later version has added one of them."""
    verbs = {Config: "train", FinetuneConfig: "finetune", LinearProbeConfig: "probe"}
    text = to_yaml(tree())
    (tmp_path / "config.yaml").write_text(text)
    for known in (text, text.replace("seed: 0\n", "")):
        assert verb_of(known) == verbs[tree]
    has_saved(tmp_path)
    config = changed_all({"run_dir": str(tmp_path)}, wanted())
    if tree is wanted:
        check_run_dir(config)
        return
    with pytest.raises(ValueError, match=rf"^run_dir=.* of lut-tf {verbs[tree]}, and one of lut-tf {verbs[wanted]}"):
        check_run_dir(config)


def test_nothing_that_is_learned_may_differ() -> None:
    may = [name for name in settings() if any(name == m or name.startswith(f"{m}.") for m in MAY_DIFFER)]
    learned = ("views", "encoder", "decoder", "method", "optimizer")
    assert [name for name in may if name.split(".")[0] in learned] == ["optimizer.max_bad_steps"]


def test_run_dir_with_an_unreadable_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: many\n")
    with pytest.raises(ValueError, match=r"^run_dir=.*config\.yaml.*epochs.*or another --run_dir to begin anew$"):
        check_run_dir(of_digits(tmp_path))


def test_run_dir_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match=rf"^run_dir='{tmp_path}/a/b' .* {tmp_path}: give another --run_dir"):
        check_run_dir(of_digits(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_run_dir_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^run_dir='.*file/run' .* is a file: give another --run_dir"):
        check_run_dir(of_digits(tmp_path / "file" / "run"))


def test_a_seed_that_is_too_large_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^seed=3000000000 is out of range"):
        preflight(of_digits(tmp_path / "run", seed=3_000_000_000))
    assert list(tmp_path.iterdir()) == []
