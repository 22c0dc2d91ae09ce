"""Weights carried on: `init_from`, models of run directories, and runs that go on with images that have moved."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_helpers import png
from networks import tiny_encoder, tiny_lut, tiny_mae
from runs import checkpointed, has_saved, lines, replaced, small
from safetensors.numpy import save_file

from lut_tf import LUT, ViTEncoder
from lut_tf.config import Config, to_yaml
from lut_tf.errors import Stopped
from lut_tf.export import export_encoder, verify_file
from lut_tf.export.command import find_encoder, load_encoder
from lut_tf.interop import convert, load_reference, save_encoder, save_reference
from lut_tf.interop.encoders import save_folder
from lut_tf.interop.names import ENCODER_LAYOUTS, HUGGINGFACE_DECODER, bind
from lut_tf.interop.runs import load_run
from lut_tf.interop.tensors import write
from lut_tf.methods.build import build_model
from lut_tf.models.positions import resize_positions
from lut_tf.models.preprocess import HALF
from lut_tf.step import TrainableModel
from lut_tf.tasks.initial import find_initial, load_initial
from lut_tf.tasks.preflight import preflight
from lut_tf.tasks.pretrain import pretrain
from lut_tf.tasks.result import RunResult
from lut_tf.training.checkpoint import DamagedCheckpoint
from lut_tf.training.run_directory import find_saved

QUICK = {
    "probe__before_and_after": False, "probe__every": 0, "logging__tensorboard": False, "checkpoint__keep": 3,
    "compute__deterministic": False,
}  # fmt: skip


class Enough(Exception):
    """Ends a run where it would train."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished run of two epochs."""
    return pretrain(small(tmp_path_factory.mktemp("earlier") / "run", **QUICK))


@pytest.fixture
def unfinished(whole: RunResult, tmp_path: Path) -> Path:
    """The same run, stopped after its first epoch but one."""
    run_dir = tmp_path / "unfinished"
    shutil.copytree(whole.files.root, run_dir)
    for name in ("encoder.keras", "model.weights.h5"):
        (run_dir / name).unlink()
    return run_dir


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that begins a run and gives back the model as it would be trained."""
    seen: list[Any] = []

    def fit(model: Any, *arguments: Any, **options: Any) -> None:
        seen.append(model)
        raise Enough

    def begin(config: Config) -> Any:
        with pytest.raises(Enough):
            pretrain(config)
        return seen.pop()

    monkeypatch.setattr(TrainableModel, "fit", fit)
    monkeypatch.setattr("lut_tf.training.run.check_agreement", lambda *arguments: None)
    return begin


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one.variables, other.variables, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [pytest.param({"epochs": 7}, marks=pytest.mark.slow), {"method__mask_ratio": 0.5, "seed": 3}]
)
def test_a_new_run_starts_from_all_of_an_earlier_one(
    whole: RunResult, tmp_path: Path, begun: Any, capsys: pytest.CaptureFixture[str], settings: dict[str, Any]
) -> None:
    model = begun(small(tmp_path / "new", init_from=str(whole.files.root), **{**QUICK, **settings}))
    assert same(model, whole.model)
    assert int(model.optimizer.iterations) == 0
    assert (
        f"starts from {whole.files.root} (its finished model): encoder, decoder, projector, predictor; teacher; "
        "fresh: optimizer\n"
    ) in capsys.readouterr().out


@pytest.mark.medium
def test_a_new_run_starts_from_the_last_whole_checkpoint_of_one_that_is_not_finished(
    whole: RunResult, unfinished: Path, tmp_path: Path, begun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (unfinished / "checkpoints" / "step_00000018" / "state.index").write_bytes(b"torn")
    model = begun(small(tmp_path / "new", init_from=str(unfinished), **QUICK))
    assert not same(model.encoder, whole.model.encoder)
    assert f"starts from {unfinished} (its checkpoint of step 9): encoder, dec" in capsys.readouterr().out
    assert checkpointed(unfinished) == [9, 18]  # that run is another's: nothing is renamed


def files(folder: Path) -> Iterator[tuple[str, Any, str]]:
    """Files to start from: name, the network in it, what is said of it."""
    encoder, lut, mae = (
        tiny_encoder(patch_size=2, preprocessing=HALF),
        tiny_lut(tiny_encoder(patch_size=2)),
        tiny_mae(tiny_encoder(patch_size=2)),
    )
    encoder.save(folder / "encoder.keras")
    yield (
        "encoder.keras",
        encoder,
        "encoder; teacher: a copy of the student; images normalised by ImageNet's mean and std, there by "
        "[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]; fresh: decoder, projector, predictor, optimizer",
    )
    other_heads = (
        "encoder, decoder; teacher, its projector a copy of the student's; fresh: projector, predictor, optimizer"
    )
    save_reference(mae, folder / "mae.safetensors")
    yield "mae.safetensors", mae, "encoder, decoder; teacher: a copy of the student; fresh: projector, predictor, opt"
    save_reference(lut, folder / "lut.safetensors")
    yield "lut.safetensors", lut, other_heads


@pytest.mark.slow
def test_a_new_run_starts_from_files_and_says_what_it_takes(
    tmp_path: Path, begun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, network, said in files(tmp_path):
        config = small(tmp_path / name.replace(".", "_"), init_from=str(tmp_path / name), **QUICK, decoder__heads=2)
        config = replaced(config, ["encoder", "heads"], 2)
        model = begun(config)
        assert f"starts from {tmp_path / name}: {said}" in capsys.readouterr().out
        held = getattr(network, "encoder", network)
        assert same(model.encoder, held), name
        if "decoder" not in said.split("fresh")[1]:
            assert same(model.decoder, network.decoder)
        teacher = network.teacher_encoder if isinstance(network, LUT) else held
        assert same(model.teacher_encoder, teacher)
        assert same(model.teacher_projector, model.projector)


OTHER_DECODER = {"decoder__width": 24, "decoder__heads": 3, "method__head__hidden": 24}
FRESH = "fresh: decoder, projector, predictor, optimizer"
FIXED, NORMS = "positions stay fixed, there they were learned", "norms add 1e-06 to the variance, there 1e-12"
HALVES = "images normalised by ImageNet's mean and std, there by [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]"


def mae_of_hugging_face(path: Path) -> ViTEncoder:
    """A file of `ViTMAEForPreTraining`, whose norms are Hugging Face's."""
    model = tiny_mae(tiny_encoder(patch_size=2))
    encoder = write(bind(ENCODER_LAYOUTS["huggingface"], model.encoder))
    decoder = write(bind(HUGGINGFACE_DECODER, model.decoder))
    save_file({**{f"vit.{name}": value for name, value in encoder.items()}, **decoder}, path)
    return model.encoder


def of_mae(path: Path) -> ViTEncoder:
    model = tiny_mae(tiny_encoder(patch_size=2, positions="learned"))
    save_reference(model, path)
    return model.encoder


def of_lut(path: Path) -> ViTEncoder:
    model = tiny_lut(tiny_encoder(patch_size=2))
    save_reference(model, path)
    return model.encoder


def saved_folder(path: Path) -> ViTEncoder:
    encoder = tiny_encoder(patch_size=2, positions="learned", layer_norm_eps=1e-12, preprocessing=HALF)
    save_folder(encoder, path)
    return encoder


def of_trainer(path: Path) -> ViTEncoder:
    """Shown ImageNet's images, as the group says that it lies in."""
    encoder = tiny_encoder(patch_size=2, positions="learned")
    save_encoder(encoder, path, "reference")
    return encoder


def in_keras(path: Path) -> ViTEncoder:
    encoder = tiny_encoder(patch_size=2, layer_norm_eps=1e-12)
    encoder.save(path)
    return encoder


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "write_it", "settings", "said"),
    [
        ("mae.safetensors", of_mae, OTHER_DECODER, f"encoder; teacher: a copy of the student; {FIXED}; {FRESH}"),
        ("lut.safetensors", of_lut, OTHER_DECODER, "encoder, projector, predictor; teacher; fresh: decoder, optimizer"),
        (
            "hf_mae.safetensors",
            mae_of_hugging_face,
            {"decoder__heads": 2},
            f"encoder, decoder; teacher: a copy of the student; {NORMS}; fresh: projector, predictor, optimizer",
        ),
        (
            "hf_mae.safetensors",
            mae_of_hugging_face,
            OTHER_DECODER,
            f"encoder; teacher: a copy of the student; {NORMS}; {FRESH}",
        ),
        ("folder", saved_folder, {}, f"encoder; teacher: a copy of the student; {FIXED}; {HALVES}; {NORMS}; {FRESH}"),
        ("of_trainer.pth", of_trainer, {}, f"encoder; teacher: a copy of the student; {FIXED}; {FRESH}"),
        ("encoder.keras", in_keras, {}, f"encoder; teacher: a copy of the student; {NORMS}; {FRESH}"),
    ],
    ids=[
        "MAE, another decoder", "LUT, another decoder", "Hugging Face's MAE", "Hugging Face's MAE, another decoder",
        "a folder of save_pretrained", "a trainer's group", "an encoder of Keras",
    ],
)  # fmt: skip
def test_what_fits_is_taken_and_what_the_weights_knew_otherwise_is_said(
    tmp_path: Path,
    begun: Any,
    capsys: pytest.CaptureFixture[str],
    name: str,
    write_it: Any,
    settings: dict[str, Any],
    said: str,
) -> None:
    if name.endswith(".pth"):
        pytest.importorskip("torch")
    held, source = write_it(tmp_path / name), str(tmp_path / name)
    model = begun(small(tmp_path / "new", init_from=source, encoder__heads=2, **{**QUICK, **settings}))
    assert f"starts from {source}: {said}\n" in capsys.readouterr().out
    assert same(model.encoder, held)


@pytest.mark.medium
def test_what_was_loaded_is_let_go_once_it_is_given(whole: RunResult, tmp_path: Path) -> None:
    """It lies in the host's memory until then."""
    config = small(tmp_path / "new", init_from=str(whole.files.root), **QUICK)
    found = find_initial(config)
    assert found is not None
    initial = load_initial(config, found)
    loaded = initial.parts["encoder"]
    assert all(variable.value.device.endswith("device:CPU:0") for variable in loaded.variables)
    loaded = weakref.ref(loaded)
    assert "encoder, decoder" in initial.give(build_model(config, 1))
    gc.collect()
    assert loaded() is None


@pytest.mark.medium
def test_where_nothing_was_learned_a_run_begins_anew_with_other_settings(tmp_path: Path, begun: Any) -> None:
    """As after a first start that was out of memory; nor do its figures count."""
    run_dir = tmp_path / "run"
    begun(small(run_dir, **QUICK))
    (run_dir / "probes.json").write_text('{"random encoder": {"knn": 0.5}}')
    other = small(run_dir, optimizer__batch_size=64, decoder__depth=2, **QUICK)
    assert begun(other).decoder.depth == 2
    assert (run_dir / "config.yaml").read_text() == to_yaml(other)
    assert not (run_dir / "probes.json").exists()


GIVE_A_STEP = "give --step of another checkpoint"


@pytest.mark.medium
@pytest.mark.parametrize(
    ("torn", "step", "what", "remedy"),
    [
        ("model.weights.h5", None, "model.weights.h5 cannot be read", rf"{GIVE_A_STEP} \(9, 18\), or another run"),
        ("*/step_00000009/*", 9, "step_00000009 is not whole", rf"{GIVE_A_STEP} \(18\), or another run"),
    ],
)
def test_the_remedy_is_one_that_the_command_has(
    whole: RunResult, tmp_path: Path, torn: str, step: int | None, what: str, remedy: str
) -> None:
    """`--step` where there is one, and never the run directory to begin anew in."""
    root = tmp_path / "run"
    shutil.copytree(whole.files.root, root)
    for path in root.glob(torn):
        path.write_bytes(b"torn")
    with pytest.raises((ValueError, Stopped), match=rf"{what}.*: {remedy}$"):
        convert(root, tmp_path / "out.keras", step=step)
    if step:
        with pytest.raises(Stopped, match=rf"{what}: {remedy}$"):
            load_encoder(find_encoder(root, step))
        return
    with pytest.raises(ValueError, match=rf"{what}.*: bring back a copy, or give another --init_from$"):
        pretrain(small(tmp_path / "new", init_from=str(root), **QUICK))
    assert not (tmp_path / "new").exists()


@pytest.mark.medium
def test_another_image_size_resizes_the_positions(
    whole: RunResult, tmp_path: Path, begun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = begun(small(tmp_path / "new", init_from=str(whole.files.root), encoder__image_size=24, **QUICK))
    resized = whole.model.encoder.resized(24)
    assert same(model.encoder, resized)
    table = resize_positions(whole.model.decoder.positions.numpy(), whole.model.decoder.grid, model.decoder.grid)
    np.testing.assert_array_equal(model.decoder.positions.numpy(), table)
    assert "; positions resized from 8×8 to 12×12 patches; fresh: optimizer" in capsys.readouterr().out


@pytest.mark.medium
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"init_from": "nowhere"}, r"^init_from='nowhere' does not exist: give a run directory, an encoder's"),
        ({"init_from": " "}, r"^init_from='' is empty"),
        ({"init_from": "new"}, r"^init_from='new' is the run directory itself: leave it out, or give another"),
        ({"init_from": "empty"}, r"^init_from='empty' holds no config.yaml: give the directory of a run"),
        ({"init_from": "unsaved"}, r"^init_from='unsaved' holds neither model.weights.h5 nor a checkpoint"),
        ({"init_from": "text.pth"}, r"^init_from='text.pth' cannot be read \(text.pth is damaged"),
        ({"init_from": "text.keras"}, r"^init_from='text.keras' cannot be read \("),
        ({"init_from": "text.txt"}, r"^init_from='text.txt' cannot be read \(text.txt is not a file of weights"),
        ({"init_from": "classless.keras"}, r"^init_from='classless.keras' holds an encoder without class token"),
        (
            {"init_from": "scaled.keras"},
            r"^init_from='scaled.keras' holds an encoder with register tokens or LayerScale",
        ),
        (
            {"encoder__width": 32},
            r"^encoder.width=32 does not fit init_from=.*, whose encoder has 16: give --encoder.w",
        ),
        (
            {"init_from": "mae.safetensors", "encoder__width": 24, "encoder__heads": 3},
            r"^encoder.width=24 does not fit init_from='mae.safetensors', whose encoder has 16: give --encoder.w",
        ),
        ({"init_from": "folder"}, r"^encoder.heads=4 does not fit init_from='folder', whose encoder has 2: give"),
        ({"encoder__patch_size": 4}, r"^encoder.patch_size=4 does not fit init_from=.*, whose encoder has 2"),
        ({"encoder__depth": 2}, r"^encoder.depth=2 does not fit init_from=.*, whose encoder has 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else ",".join(f"{name}={x}" for name, x in value.items()),
)
def test_what_cannot_be_started_from_is_refused_and_nothing_is_written(
    whole: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "unsaved"):
        Path(folder).mkdir()
    shutil.copy(whole.files.config, "unsaved")
    for name in ("text.pth", "text.keras", "text.txt"):
        Path(name).write_text("no weights")
    tiny_encoder(patch_size=2, class_token=False, heads=4).save("classless.keras")
    tiny_encoder(patch_size=2, layer_scale=True, heads=4).save("scaled.keras")
    of_mae(Path("mae.safetensors"))
    saved_folder(Path("folder"))
    if settings.get("init_from") == "new":
        Path("new").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        pretrain(small(Path("new"), **{"init_from": str(whole.files.root), **QUICK, **settings}))
    assert not Path("new").exists() or not list(Path("new").iterdir())


@pytest.mark.medium
def test_a_run_that_goes_on_does_not_read_again_what_it_started_from(
    whole: RunResult, tmp_path: Path, begun: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone; another one, or none, is another run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole.files.root, "going")
    written = small(Path("going"), init_from="gone", **QUICK)
    Path("going/config.yaml").write_text(to_yaml(written))
    shutil.rmtree("going/checkpoints/step_00000018")
    preflight(dataclasses.replace(written, init_from=f"{tmp_path}/gone/"))  # the same in other words
    assert not same(begun(written).encoder, whole.model.encoder)
    for other in ("another", None):
        with pytest.raises(ValueError, match=f"init_from was gone, now {other or 'null'}"):
            pretrain(dataclasses.replace(written, init_from=other))


def test_more_epochs_are_refused_with_the_way_to_go_on(whole: RunResult, tmp_path: Path) -> None:
    root = whole.files.root
    with pytest.raises(ValueError, match=rf"epochs was 2, now 9.*with --init_from {root} it starts from these weights"):
        pretrain(small(root, epochs=9, **QUICK))
    with pytest.raises(ValueError, match=r"give another --run_dir, or the old value$"):
        pretrain(small(root, encoder__width=32, **QUICK))


def images_of(folder: Path, offset: int = 0, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number in range(16):
        path = folder / names[number % 2] / f"{number + offset}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return folder


@pytest.mark.medium
def test_images_may_move_and_be_named_otherwise_but_not_be_others(
    tmp_path: Path, begun: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**QUICK, "data__source": "image_folder", "optimizer__batch_size": 8}
    images_of(Path("images"))
    begun(small(Path("run"), data__path="images", **settings))
    assert len(json.loads(Path("run/resolved.json").read_text())["images_digest"]) == 64
    has_saved(Path("run"))
    Path("link").symlink_to("images")
    for same_images in ("images/", str(tmp_path / "images"), "link", "./images", str(images_of(tmp_path / "moved"))):
        preflight(small(Path("run"), data__path=same_images, **settings))
    renamed, classes = images_of(Path("renamed"), offset=100), images_of(Path("classes"), names=("cat", "cow"))
    Path("images/cat/0.png").unlink()
    for other in ("images", str(renamed), str(classes)):
        with pytest.raises(ValueError, match="^run_dir='run' has begun with other images"):
            preflight(small(Path("run"), data__path=other, **settings))
    evaluation = str(images_of(tmp_path / "asked"))
    preflight(small(Path("run"), data__path=str(tmp_path / "moved"), data__evaluation_path=evaluation, **settings))
    for torn in ("torn", '{"images_digest": 7}'):  # or of an earlier version: only places are compared
        Path("run/resolved.json").write_text(torn)
        preflight(small(Path("run"), data__path="link/", **settings))
        with pytest.raises(ValueError, match=r"\(data.path was images, now moved\): give another"):
            preflight(small(Path("run"), data__path="moved", **settings))


@pytest.mark.medium
def test_an_unfinished_run_is_exported_and_verified(
    whole: RunResult, unfinished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report = export_encoder(unfinished, "onnx")[0]
    assert report.path == unfinished / "export" / "encoder.onnx"
    assert f"{unfinished} is not finished: its checkpoint of step 18 is taken" in caplog.text
    assert verify_file(report.path, whole.files.root).path == report.path  # step 18 is the last


@pytest.mark.medium
def test_a_step_says_which_checkpoint(whole: RunResult, unfinished: Path, tmp_path: Path) -> None:
    """Of a finished run too, whose encoder is taken without one; a damaged one is not passed over."""
    for root in (whole.files.root, unfinished):
        found = find_encoder(root, 9)
        assert not same(load_encoder(found), whole.model.encoder)
        assert same(load_run(find_saved(root), "").model, whole.model)
    assert same(load_encoder(find_encoder(unfinished, 18)), whole.model.encoder)
    assert find_encoder(whole.files.root) == whole.files.encoder
    for wrong, error in (({"step": 5}, "step=5 is no checkpoint of .*, which has 9, 18: give one"),):
        with pytest.raises(FileNotFoundError, match=error):
            find_encoder(unfinished, **wrong)
    with pytest.raises(ValueError, match="step=9 is for a run directory"):
        find_encoder(whole.files.encoder, 9)
    (unfinished / "checkpoints" / "step_00000018" / "state.index").write_bytes(b"torn")
    with pytest.raises(DamagedCheckpoint, match="step_00000018 is not whole"):
        load_encoder(find_encoder(unfinished, 18))
    assert not same(load_encoder(find_encoder(unfinished)), whole.model.encoder)


@pytest.mark.medium
def test_a_run_is_converted_whole(whole: RunResult, unfinished: Path, tmp_path: Path) -> None:
    for root in (whole.files.root, unfinished):
        path = convert(root, tmp_path / "whole.safetensors", layout="reference")
        model = load_reference(path, num_heads=4, decoder_num_heads=whole.model.decoder.heads)
        for part in ("encoder", "decoder", "projector", "predictor", "teacher_encoder", "teacher_projector"):
            assert same(getattr(model, part), getattr(whole.model, part)), part
    encoder = keras.saving.load_model(convert(unfinished, tmp_path / "encoder.keras", step=18))
    assert same(encoder, whole.model.encoder)
    with pytest.raises(ValueError, match="step=18 is for a run directory"):
        convert(tmp_path / "encoder.keras", tmp_path / "other.keras", step=18)
    with pytest.raises(ValueError, match="num_heads is given, but .* knows its own"):
        convert(unfinished, tmp_path / "other.keras", num_heads=2)


def test_all_checkpoints_damaged_is_one_line(unfinished: Path) -> None:
    for index in unfinished.glob("checkpoints/step_*/state.index"):
        index.unlink()
    with pytest.raises(
        Stopped, match="^none of the 2 checkpoints in .* is whole: bring back a copy, or give another run$"
    ):
        load_encoder(find_encoder(unfinished))


@pytest.mark.slow
def test_a_run_from_earlier_weights_trains_to_its_end(whole: RunResult, tmp_path: Path) -> None:
    """Its first loss is below that of chance's first, for it goes on from where the other has stopped."""
    again = pretrain(small(tmp_path / "new", init_from=str(whole.files.root), epochs=1, **QUICK))
    assert again.files.encoder.exists()
    assert lines(tmp_path / "new")[0]["loss"] < lines(whole.files.root)[0]["loss"]
