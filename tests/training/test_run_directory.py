"""What stands in a run directory's way, before anything slow and before anything is written."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from runs import has_saved, small

from lut_tf.cli.program import main
from lut_tf.cli.train import with_own_settings
from lut_tf.config import to_yaml
from lut_tf.errors import Stopped
from lut_tf.tasks.preflight import preflight
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.run_directory import RunFiles


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "folder") for name in ("config.yaml", "resolved.json", "metrics.jsonl", "probes.json", "lock",
                                        "encoder.keras", "model.weights.h5", "pictures/curves.png")),
        *((name, "file") for name in ("checkpoints", "pictures", "tensorboard")),
    ],
)  # fmt: skip
def test_a_folder_in_the_place_of_a_file_and_the_other_way_round(
    tmp_path: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if kind == "folder" else path.touch()
    said = f"run_dir='{tmp_path}' holds the {kind} {name} where a run keeps a "
    with pytest.raises(ValueError, match=rf"^{said}.*: move it away, or give another --run_dir$"):
        preflight(small(tmp_path))
    assert main(["train", "--run_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"lut-tf: error: {said}")


@pytest.mark.parametrize(
    "text", ["", "\n", "\0" * 100, "- a\n", "epochs: [\n", "nothing: 1\n", "epochs: many\n", "\x01"]
)
def test_a_configuration_of_no_use_says_what_may_be_done(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the run's own settings would be read from it."""
    (tmp_path / "config.yaml").write_text(text)
    for words in (["--seed", "0"], ["--config", "configs/digits.yaml"]):
        assert main(["train", *words, "--run_dir", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            f"lut-tf: error: run_dir='{tmp_path}' holds a config.yaml that this version cannot read ("
        )
        assert line.endswith(
            "or remove it and give the run's own settings to go on, or another --run_dir to begin anew"
        )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--run_dir {}", "--config {}/config.yaml --run_dir {}"),
        ("--seed 1 --run_dir={}", "--config {}/config.yaml --seed 1 --run_dir={}"),
        ("--run_dir none --run_dir {}", "--config {}/config.yaml --run_dir none --run_dir {}"),
        ("--run_dir {} --config other.yaml", "--run_dir {} --config other.yaml"),
        ("--config=other.yaml --run_dir {}", "--config=other.yaml --run_dir {}"),
        ("--run_dir none --seed 1", "--run_dir none --seed 1"),
        ("--run_dir {} --run_dir none --seed 1", "--run_dir {} --run_dir none --seed 1"),
        ("--run_dir", "--run_dir"),
        ("--seed 1", "--seed 1"),
        ("", ""),
    ],
)
def test_a_run_directory_alone_brings_its_own_settings(tmp_path: Path, words: str, found: str) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(small(tmp_path)))
    assert with_own_settings(words.format(tmp_path).split()) == found.replace("{}", str(tmp_path)).split()


def test_the_command_line_counts_for_more_than_a_runs_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checked against what may differ, as ever; the directory may have moved."""
    seen: list[Any] = []
    monkeypatch.setattr("lut_tf.tasks.preflight.preflight", lambda config: seen.append(config) or preflight(config))
    (tmp_path / "config.yaml").write_text(to_yaml(small(Path("where it was"), seed=7)))
    has_saved(tmp_path)
    monkeypatch.setattr("lut_tf.cli.train.import_tensorflow", lambda: (_ for _ in ()).throw(Stopped("enough")))
    assert main(["train", "--run_dir", str(tmp_path), "--checkpoint.keep", "5"]) == 1
    assert seen[-1] == small(tmp_path, seed=7, checkpoint__keep=5)
    assert main(["train", "--run_dir", str(tmp_path), "--seed", "8"]) == 2
    assert "seed was 7, now 8" in capsys.readouterr().err


@pytest.mark.medium
@pytest.mark.parametrize("room", [0, 100], ids=["for nothing", "for the lock"])
def test_a_disk_that_is_full_from_the_start_is_one_line(tmp_path: Path, room: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(Stopped, match=rf"^{tmp_path}/run could not be written \(File too large\); the last good"):
            pretrain(small(tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not RunFiles(tmp_path / "run").config.exists()


@pytest.mark.medium
def test_a_checkpoint_of_another_network_without_its_configuration(tmp_path: Path) -> None:
    """Refused by what differs; and the wrong settings do not become the run's."""
    from lut_tf.methods.build import build_model
    from lut_tf.tasks.build import compile_model
    from lut_tf.training.checkpoint import Checkpoints

    config = small(tmp_path, logging__tensorboard=False, probe__before_and_after=False)
    model = build_model(config, 18)
    compile_model(config, model, 9)
    Checkpoints(tmp_path / "checkpoints", model).save(9)
    said = (
        r"step_00000009 is of a run with other settings, .*\[.*16.*\] there and .*\[.*32.*\] here.*another --run_dir$"
    )
    with pytest.raises(ValueError, match=said):
        pretrain(small(tmp_path, encoder__width=32, logging__tensorboard=False, probe__before_and_after=False))
    assert not (tmp_path / "config.yaml").exists()


def test_a_run_begun_before_a_setting_goes_on_by_its_directory_alone(tmp_path: Path) -> None:
    """As it went without it: photographs that a run has seen lying are not shown to it upright."""
    config = small(tmp_path, data__source="image_folder", data__path=str(tmp_path), data__apply_exif=False)
    (tmp_path / "config.yaml").write_text(to_yaml(config).replace("  apply_exif: false\n", ""))
    words = with_own_settings(["--run_dir", str(tmp_path)])
    assert words == ["--config", str(tmp_path / "config.yaml"), "--data.apply_exif=false", "--run_dir", str(tmp_path)]
