from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest

from lut_tf.export import export_encoder, table
from lut_tf.export.command import export_script, verify_script
from lut_tf.models.encoder import ViTEncoder

SCRIPTS = Path(__file__).parents[2] / "export"

# Runs a script and says what it had loaded by the end.
QUICK = """
import runpy, sys
script, *arguments = sys.argv[1:]
sys.argv = [script, *arguments]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    slow = {"tensorflow", "keras", "onnx", "onnxruntime", "sklearn"} & set(sys.modules)
    print(f"status={end.code} slow={sorted(slow)}")
"""


@pytest.fixture(scope="module")
def run_dir(encoder: ViTEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    encoder.save(folder / "encoder.keras")
    return folder


def test_both_formats_and_the_table(run_dir: Path, tmp_path: Path) -> None:
    reports = export_encoder(run_dir, "saved_model,onnx", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["encoder.onnx", "saved_model"]
    head, first, *_, last = table(reports).splitlines()
    assert head.split() == ["file", "size", "output", "largest", "difference", "tolerance", "batch", "sizes"]
    assert first.startswith(str(tmp_path / "out" / "saved_model")) and first.endswith("1.0e-04    1, 2, 7")
    assert last.split()[0] == "pooled" and len(table(reports).splitlines()) == 7


def test_scripts_write_and_compare(
    run_dir: Path, rectangle: ViTEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_script("onnx", [str(run_dir)]) == 0
    assert "pooled" in capsys.readouterr().out
    file = run_dir / "export" / "encoder.onnx"
    assert verify_script([str(file), str(run_dir / "encoder.keras")]) == 0
    rectangle.save(tmp_path / "rectangle.keras")
    assert verify_script([str(file), str(tmp_path / "rectangle.keras")]) == 1
    assert "encoder.onnx has the inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["to_onnx.py", "--help"], 0, "RUN_DIR_OR_ENCODER.keras"),
        (["to_saved_model.py", "--help"], 0, "RUN_DIR_OR_ENCODER.keras"),
        (["verify.py", "--help"], 0, "ENCODER.keras"),
        (["to_onnx.py", "none"], 2, "source=none does not exist: give a run directory"),
        (["to_onnx.py", "{run}", "encoder.pb"], 2, "output=encoder.pb does not end in .onnx: give encoder.pb.onnx"),
        (["to_saved_model.py", "{run}", "{run}"], 2, "holds something else than an earlier export"),
        (["verify.py", "none.onnx", "{run}"], 2, "file=none.onnx does not exist"),
    ],
)
def test_scripts_answer_quickly(run_dir: Path, arguments: list[str], status: int, said: str) -> None:
    script, *rest = (text.replace("{run}", str(run_dir)) for text in arguments)
    command = [sys.executable, "-c", QUICK, str(SCRIPTS / script), *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said in done.stdout + done.stderr
    assert f"status={status} slow=[]" in done.stdout
    assert status == 0 or len(done.stderr.splitlines()) == 1


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


def test_a_damaged_encoder_is_refused_in_one_sentence(run_dir: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(run_dir / "encoder.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"" if name.endswith(".h5") else good.read(name))
    with pytest.raises(ValueError, match="cannot be read"):
        export_encoder(tmp_path / "bad.keras", ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
