"""`lut-tf`: mistakes in one line and status 2, answers without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lut_tf import cli
from lut_tf.cli.program import VERBS
from lut_tf.config import Config, from_yaml, settings

ROOT = Path(__file__).parent.parent


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """Put a recorder in the place of `pretrain`, and the working directory somewhere empty."""
    runs: list[Config] = []
    pretrain = ModuleType("lut_tf.tasks.pretrain")

    def record(config: Config, listing: Any) -> SimpleNamespace:
        runs.append(config)
        return SimpleNamespace(summary=lambda: "a table")

    pretrain.pretrain = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lut_tf.tasks.pretrain", pretrain)
    monkeypatch.chdir(tmp_path)
    return runs


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run `lut-tf` on `words`, check that it refuses in one line with status 2, and return the line."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lut-tf: error: ")
    assert err.count("\n") == 1
    return err


def test_train_reads_file_and_options(pretrained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    text = "epochs: 50\nmethod:\n  mask_ratio: 0.6\noptimizer:\n  base_learning_rate: 1e-3\n  batch_size: 64\n"
    Path("a.yaml").write_text(text)
    assert cli.main(["train", "--config", "a.yaml", "--method.mask_ratio", "0.8", "--run_dir", "here"]) == 0
    (config,) = pretrained
    assert (config.epochs, config.method.mask_ratio, config.run_dir) == (50, 0.8, "here")
    assert config.optimizer.base_learning_rate == 1e-3
    assert capsys.readouterr().out == "a table\n"


# Words after `train`; the setting and value that the line names; a part of the remedy.
MISTAKES = [
    ("--epohcs 3", "unknown setting --epohcs", "did you mean --epochs?"),
    ("--mask_ratio=0.8", "unknown setting --mask_ratio", "did you mean --method.mask_ratio?"),
    ("--method.mask-ratio 0.8", "unknown setting --method.mask-ratio", "did you mean --method.mask_ratio?"),
    ("--epoch 3", "unknown setting --epoch", "did you mean --epochs?"),
    ("--xyzzy 3", "unknown setting --xyzzy;", "lut-tf train --help"),
    ("stray", "argument 'stray'", "--name value"),
    ("--method 4", "method='4'", "--method.NAME value"),
    ("--epochs", "--epochs", "expected one argument"),
    ("--epochs x", "epochs=x", "give a whole number"),
    ("--devices two", "devices=two", "give a whole number or null"),
    ("--views.flip perhaps", "views.flip=perhaps", "give true or false"),
    ("--views.scale [1,2,3]", "views.scale=[1, 2, 3]", "give a list of 2 numbers"),
    ("--method.name simclr", "method.name=simclr", "give one of lut, mae"),
    ("--method.head.norm group", "method.head.norm=group", "give one of batch, layer or null"),
    ("--encoder.preset vit_giant", "encoder.preset='vit_giant'", "vit_base_patch16"),
    ("--method.mask_ratio 0.4", "method.mask_ratio=0.4", "--method.mask_ratio 0.5 or more"),
    ("--epochs 0", "epochs=0", "from 1 up"),
    ("--optimizer.batch_size 20000", "optimizer.batch_size=20000", "--optimizer.batch_size 1197 or less"),
    ("--seed 3000000000", "seed=3000000000", "from 0 to 2147483647"),
    ("--views.scale [0,2]", "views.scale=[0, 2]", "a list of 2 numbers above 0 to 1"),
    ("--config none.yaml", "config='none.yaml'", "the path of a YAML file"),
    ("--config .", "config='.'", "the path of a YAML file"),
]


@pytest.mark.parametrize(("words", "named", "remedy"), MISTAKES, ids=[words for words, _, _ in MISTAKES])
def test_mistakes_on_the_command_line(
    words: str, named: str, remedy: str, pretrained: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["train", *words.split()], capsys)
    assert named in line
    assert remedy in line
    assert pretrained == []
    assert list(Path().iterdir()) == []


MISTAKES_IN_FILES = [
    ("method:\n  mask_ratoi: 0.8\n", "unknown setting method.mask_ratoi", "did you mean method.mask_ratio?"),
    ("epohcs: 3\n", "unknown setting epohcs", "did you mean epochs?"),
    ("epochs: x\n", "epochs=x", "give a whole number"),
    ("epochs:\n", "epochs=null", "give a whole number"),
    ("method: 4\n", "method=4", "give settings of method"),
    ("method:\n  head: [1]\n", "method.head=[1]", "give settings of method.head"),
    ("logging:\n", "logging=null", "leave it out"),
    ("views: {scale: null}\n", "views.scale=null", "a list of 2 numbers"),
    ("- 3\n", "config='a.yaml'", "name: value"),
    ("", "config='a.yaml'", "name: value"),
    ("a: [\n", "config='a.yaml' is not YAML", "line 2"),
]


@pytest.mark.parametrize(("text", "named", "remedy"), MISTAKES_IN_FILES, ids=[t for t, _, _ in MISTAKES_IN_FILES])
def test_mistakes_in_a_file(
    text: str, named: str, remedy: str, pretrained: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.yaml").write_text(text)
    line = refused(["train", "--config", "a.yaml"], capsys)
    assert named in line
    assert remedy in line
    assert pretrained == []
    assert [path.name for path in Path().iterdir()] == ["a.yaml"]


def test_a_file_that_is_no_text(pretrained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    Path("photo.png").write_bytes(b"\x89PNG\xff\xfe\x00")
    assert "config='photo.png' is not YAML" in refused(["train", "--config", "photo.png"], capsys)


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown verb 'trian', did you mean train?" in refused(["trian"], capsys)


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "train" in capsys.readouterr().out


def test_print_config(pretrained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--config", str(ROOT / "configs" / "digits.yaml"), "--epochs", "7", "--print_config"])
    assert ended.value.code == 0
    config = from_yaml(capsys.readouterr().out)
    assert (config.epochs, config.run_dir, config.encoder.preset) == (7, "runs/digits", None)
    assert pretrained == []


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(parser: object, arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "train", VERBS["train"]._replace(run=interrupt))
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err.strip() == "lut-tf: interrupted"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(parser: object, arguments: object) -> None:
        raise ValueError("not raised by a module of lut_tf")

    monkeypatch.setitem(VERBS, "train", VERBS["train"]._replace(run=broken))
    with pytest.raises(ValueError, match="not raised by"):
        cli.main(["train"])


def test_help_gives_every_setting_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split("options:", 1)[1].split())
    for name in settings():
        meaning = text.split(f"--{name} ", 1)[1].split("(type:")[0]
        assert len(meaning.split()) >= 3, f"{name} has no help"


NO_TENSORFLOW = """
import sys
from lut_tf.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
heavy = {"tensorflow", "keras", "numpy", "sklearn", "matplotlib"} & set(sys.modules)
print("imported:", *sorted(heavy))
"""


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "train --help",
        "train --epohcs 3",
        "train --method.mask_ratio 0.4",
        "train --optimizer.batch_size 5000",
    ],
)
def test_answers_without_tensorflow(words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NO_TENSORFLOW, *words.split()], capture_output=True, text=True, cwd=ROOT, check=True
    )
    imported = ended.stdout.strip().splitlines()[-1]
    assert "tensorflow" not in imported
    assert "keras" not in imported
    if "batch_size" not in words:  # only the size of the data set may need a library
        assert imported == "imported:"


def test_script_is_the_verb() -> None:
    script = subprocess.run(
        [sys.executable, "train_lut.py", "--seed", "x"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (script.returncode, script.stdout) == (2, "")
    assert script.stderr == "lut-tf: error: seed=x is of the wrong type: give a whole number\n"
