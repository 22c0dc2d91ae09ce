from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest
from export_helpers import small_encoder

from lut_tf.export import ExportError, export_encoder, table, verify_file
from lut_tf.export.command import find_encoder, load_encoder
from lut_tf.models.encoder import ViTEncoder

SCRIPTS = Path(__file__).parents[2] / "export"

# Runs scripts one after the other, each with its words up to `--`, and says how each ended and what was loaded then.
RUN = """
import runpy, sys
words = sys.argv[1:]
while words:
    end = words.index("--")
    sys.argv, words = words[:end], words[end + 1 :]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as exit:
        slow = {"tensorflow", "keras", "onnx", "onnxruntime", "sklearn"} & set(sys.modules)
        print(f"status={exit.code} slow={sorted(slow)}")
"""


def run_scripts(*calls: list[str]) -> subprocess.CompletedProcess[str]:
    words = [word for script, *rest in calls for word in (str(SCRIPTS / script), *rest, "--")]
    return subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def small() -> ViTEncoder:
    return small_encoder(depth=1)


@pytest.fixture(scope="module")
def run_dir(small: ViTEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    small.save(folder / "encoder.keras")
    return folder


@pytest.mark.medium
def test_both_formats_the_table_and_the_comparison(run_dir: Path, small: ViTEncoder, tmp_path: Path) -> None:
    reports = export_encoder(run_dir, "saved_model,onnx", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["encoder.onnx", "saved_model"]
    head, first, *_, last = table(reports).splitlines()
    assert head.split() == ["file", "size", "output", "largest", "difference", "tolerance", "batch", "sizes"]
    assert first.startswith(str(tmp_path / "out" / "saved_model")) and first.endswith("1.0e-04    1, 2, 7")
    assert last.split()[0] == "pooled" and len(table(reports).splitlines()) == 7
    for report, source in zip(reports, (run_dir, run_dir / "encoder.keras"), strict=True):
        assert verify_file(report.path, source) == report
    small.resized((32, 48)).save(tmp_path / "rectangle.keras")
    with pytest.raises(ExportError, match="encoder.onnx has the inputs"):
        verify_file(tmp_path / "out" / "encoder.onnx", tmp_path / "rectangle.keras")


@pytest.mark.slow
def test_scripts_write_and_compare(run_dir: Path, small: ViTEncoder, tmp_path: Path) -> None:
    """Status 0 for a file that is right, 1 for one that is another encoder's; one line says why."""
    small.resized((32, 48)).save(tmp_path / "rectangle.keras")
    file = str(run_dir / "export" / "encoder.onnx")
    done = run_scripts(
        ["to_onnx.py", str(run_dir)],
        ["verify.py", file, str(run_dir)],
        ["verify.py", file, str(tmp_path / "rectangle.keras")],
    )
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("status")] == [
        "status=0", "status=0", "status=1"
    ]  # fmt: skip
    assert done.stdout.count("pooled") == 2
    assert done.stderr.startswith("lut-tf: encoder.onnx has the inputs") and done.stderr.count("\n") == 1


def test_scripts_answer_quickly(run_dir: Path) -> None:
    """Without TensorFlow; a mistake is one line and status 2."""
    calls = [
        (["to_onnx.py", "--help"], 0, "RUN_DIR_OR_ENCODER [--to"),
        (["to_saved_model.py", "--help"], 0, "RUN_DIR_OR_ENCODER [--to"),
        (["verify.py", "--help"], 0, "FILE ENCODER"),
        (["to_onnx.py", "none"], 2, "source=none does not exist: give a run directory"),
        (["to_saved_model.py", str(run_dir), "--output", str(Path(__file__))], 2, "is a file: give another output"),
        (["verify.py", "none.onnx", str(run_dir)], 2, "file=none.onnx does not exist"),
        (["verify.py", "none.onnx"], 2, "source"),
    ]
    done = run_scripts(*(words for words, _, _ in calls))
    statuses = [line for line in done.stdout.splitlines() if line.startswith("status")]
    assert statuses == [f"status={status} slow=[]" for _, status, _ in calls]
    for _, status, said in calls:
        assert said in (done.stderr if status else done.stdout)
    assert len(done.stderr.splitlines()) == 4


@pytest.mark.parametrize("script", ["to_onnx.py", "to_saved_model.py"])
def test_a_script_writes_its_own_format(
    script: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever else is on its command line."""
    asked: list[tuple[str, str, str]] = []
    monkeypatch.setattr("lut_tf.export.export_encoder", lambda *words: asked.append(words) or [])
    monkeypatch.setattr(sys, "argv", [script, str(run_dir), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert end.value.code == 0
    assert asked == [(str(run_dir), script.removeprefix("to_").removesuffix(".py"), str(tmp_path), None)]


def test_mistakes_are_refused(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="holds no encoder.keras"):
        export_encoder(tmp_path, ["onnx"])
    for formats in ("tflite", ["onnx", "tflite"], [], ""):
        with pytest.raises(ValueError, match="not a known format: give one or both of saved_model,onnx"):
            export_encoder(run_dir, formats)
    (tmp_path / "text.keras").write_text("not a zip")
    with pytest.raises(ValueError, match="is not a .keras file"):
        export_encoder(tmp_path / "text.keras", ["onnx"])
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("README", "")
    with pytest.raises(ValueError, match="is damaged"):
        export_encoder(tmp_path / "empty.keras", ["onnx"])
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="holds a .*, not a ViTEncoder"):
        export_encoder(tmp_path / "other.keras", ["onnx"])
    monkeypatch.setattr("lut_tf.export.places.os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="no write permission"):
        export_encoder(run_dir, ["onnx"], tmp_path / "out")


def test_a_file_to_compare_that_cannot_be(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="file=none.onnx does not exist"):
        verify_file("none.onnx", run_dir)
    (tmp_path / "file.onnx").touch()
    with pytest.raises(FileNotFoundError, match="source=.* holds no encoder.keras"):
        verify_file(tmp_path / "file.onnx", tmp_path)


def test_an_encoder_of_the_first_names_is_read() -> None:
    before = Path(__file__).parents[1] / "golden" / "encoder_before_renaming.keras"
    assert load_encoder(find_encoder(before)).depth == 1


def test_a_damaged_encoder_is_refused_in_one_sentence(run_dir: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(run_dir / "encoder.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"" if name.endswith(".h5") else good.read(name))
    with pytest.raises(ValueError, match="cannot be read"):
        export_encoder(tmp_path / "bad.keras", ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
