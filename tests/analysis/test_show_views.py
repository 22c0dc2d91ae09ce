"""Guards the picture of views: it is drawn, its words say what the numbers say, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_files
from PIL import Image

from lut_tf import cli
from lut_tf.analysis.views import describe, draw_views
from lut_tf.methods.masking import MaskPlan
from lut_tf.models.colour import SOLARIZE, Colour

DIGITS = ["--encoder.image_size", "32", "--encoder.patch_size", "4", "--optimizer.batch_size", "60"]


@pytest.mark.medium
@pytest.mark.parametrize("method", ["lut", "mae", "simmim --method.mask_unit 8"])
def test_command_draws_a_grid(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "views.png"
    words = [
        "show-views",
        *DIGITS,
        "--method.name",
        *method.split(),
        "--images",
        "3",
        "--step",
        "25",
        "--output",
        str(picture),
    ]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"wrote {picture}\n"
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    blue = np.all(pixels == [92, 107, 148], axis=-1).mean()
    assert 0.1 < blue < 0.5 and pixels.shape[0] > 400


@pytest.mark.medium
def test_a_folder_smaller_than_a_batch_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "images", "1.png", "2.png")
    words = ["--data.source", "image_folder", "--data.path", str(tmp_path / "images"), "--encoder.image_size", "32"]
    picture = str(tmp_path / "views.png")
    assert cli.main(["show-views", *words, "--output", picture, "--optimizer.batch_size", "256"]) == 0
    assert capsys.readouterr().out == f"wrote {picture}\n" and Image.open(picture).height < 600


def test_words_say_what_was_done() -> None:
    colour = Colour(1.2, 0.7, 1.0, -0.1, 2.0, 0.0, 1.0, 3.0, SOLARIZE, 128.0, 1.0)
    batch = {
        "index": np.array([7]),
        "geometry1": np.array([[0.1, 0.2, 0.5, 0.5, 1.0]]),
        "geometry2": np.array([[0.0, 0.0, 1.0, 1.0, 0.0]]),
        "view2": None,
        "colour": np.array([colour]),
    }
    assert describe(batch, 0).splitlines() == [
        "image 7", "view 1: rows 10% to 60%,", "  columns 20% to 70%, flipped", "view 2: rows 0% to 100%,",
        "  columns 0% to 100%", "  contrast × 0.70", "  brightness × 1.20", "  hue -36°", "  solarize from 128",
    ]  # fmt: skip


def test_the_visible_patches_are_shown_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of white images, as they are handed to matplotlib: patches 1 and 2 of a 2 x 2 grid stay white."""
    shown: list[np.ndarray] = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda axes, image, **options: shown.append(image))
    geometry = np.array([[0.0, 0.0, 1.0, 1.0, 0.0]])
    batch = {"index": np.array([7]), "geometry1": geometry, "view1": np.full((1, 8, 8, 3), 255, np.uint8)}
    plan = MaskPlan(np.array([[1, 2]]), np.array([[0, 3]]))
    draw_views(batch, (plan,), (2, 2), tmp_path / "views.png")
    whole, masked = shown
    assert (whole == 255).all()
    assert (masked[:4, 4:] == 255).all() and (masked[4:, :4] == 255).all()
    assert (masked[:4, :4] == [92, 107, 148]).all() and (masked[4:, 4:] == [92, 107, 148]).all()


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show-views", *DIGITS, "--images", "0"]) == 2
    assert "--images=0 is out of range" in capsys.readouterr().err
    assert cli.main(["prepare", "a", "--to", "zip"]) == 2
    assert "--to=zip is no format: give one of array_record, tfrecord" in capsys.readouterr().err
    assert cli.main(["prepare", ".", "--shards", "-1"]) == 2
    assert "--shards=-1 is out of range" in capsys.readouterr().err


@pytest.mark.medium
def test_too_many_damaged_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path / "photos", "1.png", "2.png")
    (tmp_path / "photos" / "0.jpg").touch()
    words = ["show-views", "--data.source", "image_folder", "--data.path", str(tmp_path / "photos"), *DIGITS]
    assert cli.main([*words, "--images", "2", "--output", str(tmp_path / "views.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lut-tf: error: data.path") and len(error.strip().splitlines()) == 1
