"""`lut-tf`: mistakes in one line and status 2, answers without TensorFlow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lut_tf
from lut_tf import cli
from lut_tf.cli.program import VERBS
from lut_tf.config import Config, from_yaml, get_setting, settings

ROOT = Path(__file__).parent.parent


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
    ("--epochs", "--epochs has no value", "give --epochs=VALUE"),
    ("--epochs=--", "--epochs has no value", "give --epochs=VALUE"),
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
    ("--method mae", "method='mae'", "did you mean --method.name mae?"),
    ("--encoder vit_base_patch16", "encoder='vit_base_patch16'", "did you mean --encoder.preset vit_base_patch16?"),
    ("--data photos", "data='photos'", "did you mean --data.path photos?"),
    ("--data tfds", "data='tfds'", "did you mean --data.source tfds?"),
    ("--lr 1e-3", "unknown setting --lr", "did you mean --optimizer.base_learning_rate?"),
    ("--batch-size 64", "unknown setting --batch-size", "did you mean --optimizer.batch_size?"),
    ("--weight_decay 0", "unknown setting --weight_decay", "did you mean --optimizer.weight_decay?"),
    ("--data_path a", "unknown setting --data_path", "did you mean --data.path?"),
    ("--model vit", "unknown setting --model", "did you mean --encoder.preset?"),
    ("--resume a", "unknown setting --resume", "did you mean --run_dir? (a run that is started again"),
    ("--width 8", "unknown setting --width", "did you mean --encoder.width or --decoder.width?"),
    ("--warmup_epocs 8", "unknown setting --warmup_epocs", "did you mean --optimizer.warmup_epochs?"),
    ("--epochs !!bool", "epochs=!!bool", "give a whole number"),
    ("--workers !!bool", "workers='!!bool'", "give --strategy multi_worker too"),
    ("--strategy multi_worker --workers a,b --worker_index 0", "workers=a,b", "host:port,host:port"),
    (f"--seed {'[' * 5000}", "seed=[[[", "give a whole number"),
    (f"--epochs {'9' * 400}", "epochs=a number", "from 1 up, at most 2147483647"),
    (f"--epochs {'9' * 5000}", "epochs=a number", "from 1 up, at most 2147483647"),
    (f"--optimizer.clip_norm {'9' * 400}", "optimizer.clip_norm=inf", "a number from 0 up"),
    ("--optimizer.clip_norm -1e-3", "--optimizer.clip_norm has no value", "give --optimizer.clip_norm=VALUE"),
    ("--epochs 1_000", "epochs=1_000", "give a whole number"),
    ("--epochs 1.5", "epochs=1.5", "give a whole number"),
    ("--optimizer.betas 0.9", "optimizer.betas=[0.9]", "a list of 2 numbers"),
    (f"--run_dir {'a' * 256}", "run_dir='aaa", "give a shorter run_dir"),
    ("--run_dir ~nobody-at-all/a", "run_dir='~nobody-at-all/a'", "give ./~nobody-at-all/a"),
    ("--run_dir gs://bucket/a", "run_dir='gs://bucket/a'", "a local or mounted folder"),
]


@pytest.mark.parametrize(("words", "named", "remedy"), MISTAKES, ids=[words[:40] for words, _, _ in MISTAKES])
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
    ("[" * 9000, "config='a.yaml' is not YAML", "more than 20 levels"),
    ("#" * 300_000, "config='a.yaml' has 300000 characters", "a smaller file"),
    ("a: &a [*a]\n", "unknown setting a", "the file takes run_dir, epochs"),
    ("method: &m {head: *m}\n", "unknown setting method.head.head", "did you mean"),
    ("views: &v {scale: &s [*s, 1]}\n", "views.scale=&s [*s, 1]", "a list of 2 numbers"),
    ("epochs: 1\nepochs: 2\n", "config='a.yaml' has epochs twice, in lines 1 and 2", "leave one of them"),
    ("views: {flip: true}\nviews.flip: true\n", "config='a.yaml' has views.flip twice", "leave one of them"),
    ("epochs: 1\n---\nepochs: 2\n", "config='a.yaml' is not YAML", "another document"),
    ("epochs: 1:30\n", "epochs=1:30", "give a whole number"),
    ("epochs: 1_000\n", "epochs=1_000", "give a whole number"),
    ("epochs: 0b1\n", "epochs=0b1", "give a whole number"),
    ("seed: 2024-01-01\n", "seed=2024-01-01", "give a whole number"),
    ("views: {flip: yes}\n", "views.flip=yes", "give true or false"),
    ("views: {flip: off}\n", "views.flip=off", "give true or false"),
    ("run_dir: 5\n", "run_dir=5", "give a text"),
    ("workers: !!bool maybe\n", "workers=!!bool maybe", "give a text or null"),
    ("data: {path: !!python/name:os.system x}\n", "data.path=!!python/name:os.system x", "give a text or null"),
    ("method: mae\n", "method=mae", "did you mean method.name: mae?"),
    ("lr: 1e-3\n", "unknown setting lr", "did you mean optimizer.base_learning_rate?"),
    ("<<: {epochs: 3}\n", "unknown setting <<", "the file takes"),
    ('run_dir: "a\\0b"\n', "run_dir='a\\x00b'", "give another run_dir"),
    ('data: {name: "\\ud800"}\n', "data.name='\\ud800'", "give a text"),
]


@pytest.mark.parametrize(("text", "named", "remedy"), MISTAKES_IN_FILES, ids=[t[:40] for t, _, _ in MISTAKES_IN_FILES])
def test_mistakes_in_a_file(
    text: str, named: str, remedy: str, pretrained: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.yaml").write_text(text)
    line = refused(["train", "--config", "a.yaml"], capsys)
    assert named in line
    assert remedy in line
    assert pretrained == []
    assert [path.name for path in Path().iterdir()] == ["a.yaml"]


def test_several_mistakes_are_told_at_once(pretrained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    """Of names, types and ranges, in files and options; each in a line of its own."""
    Path("a.yaml").write_text("epohcs: 3\nviews: {hue: 3, flip: 4}\n")
    words = ["train", "--lr", "3", "--config", "a.yaml", "stray", "--seed", "x", "--method", "mae"]
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    begins = ["unknown setting --lr", "argument 'stray'", "method='mae'", "unknown setting epohcs"]
    begins += ["views.hue=3 is out", "views.flip=4 is of the wrong", "seed=x"]
    assert out == "" and pretrained == []
    assert [line.startswith(f"lut-tf: error: {begin}") for line, begin in zip(err.splitlines(), begins, strict=True)]


def test_several_contradictions_are_told_at_once(pretrained: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    words = "train --epochs 3 --optimizer.accumulate 3 --compute.all_reduce ring --views.padding 200"
    assert cli.main(words.split()) == 2
    named = ["views.padding=200", "optimizer.warmup_epochs=40", "optimizer.batch_size=4096", "compute.all_reduce=ring"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("lut-tf: error: ").split()[0] for line in lines] == named


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("epochs", "1e2", 100),
        ("epochs", "017", 17),
        ("epochs", "0x1F", 31),
        ("optimizer.betas", "0.5,0.95", (0.5, 0.95)),
        ("optimizer.betas", "[0.5, 0.95]", (0.5, 0.95)),
        ("optimizer.base_learning_rate", "1e-3", 0.001),
        ("optimizer.clip_norm", "2", 2.0),
        ("devices", "null", None),
        ("method.head.norm", "null", None),
        ("views.flip", "False", False),
        ("data.path", "null", None),
        ("data.path", "017", "017"),
        ("data.path", "a: [b", "a: [b"),
        ("data.path", "photos/", "photos"),
    ],
)
def test_values_that_are_understood(name: str, words: str, expected: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, and in a file, where a text that looks like a number is in quotes."""
    with pytest.raises(SystemExit):
        cli.main(["train", f"--{name}={words}", "--print_config"])
    quoted = words if words == "null" else f"'{words}'"
    for config in (from_yaml(capsys.readouterr().out), from_yaml(f"{name}: {quoted}")):
        found = get_setting(config, name)
        assert (type(found), found) == (type(expected), expected)


TF_CONFIGS = [
    ("no", "is no JSON"),
    ("[" * 100_000, "is no JSON"),
    ("[]", "is no object"),
    ("{}", "has no object cluster"),
    ('{"cluster": {"worker": ["a:1"]}}', "has no object task"),
    ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "has no list of hosts"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "has no list of hosts"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "none of its 1 hosts"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}', "none of its 1 hosts"),
]


@pytest.mark.parametrize(("text", "said"), TF_CONFIGS, ids=[text[:60] for text, _ in TF_CONFIGS])
def test_a_wrong_tf_config(
    text: str, said: str, pretrained: list[Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    line = refused(["train", "--optimizer.batch_size", "64", "--strategy", "multi_worker"], capsys)
    assert "TF_CONFIG=" in line and said in line and "--worker_index" in line
    assert pretrained == []


def test_a_right_tf_config(pretrained: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}')
    assert cli.main(["train", "--optimizer.batch_size", "64", "--strategy", "multi_worker"]) == 0
    monkeypatch.delenv("TF_CONFIG")
    assert cli.main(["train", "--optimizer.batch_size", "64", "--strategy", "multi_worker"]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lut-tf {lut_tf.__version__}\n"


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
    def interrupt(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "train", VERBS["train"]._replace(run=interrupt))
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err.strip() == "lut-tf: interrupted"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: object) -> None:
        raise ValueError("not raised by a module of lut_tf")

    monkeypatch.setitem(VERBS, "train", VERBS["train"]._replace(run=broken))
    with pytest.raises(ValueError, match="not raised by"):
        cli.main(["train"])


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_a_verb_is_understood(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each help has one, with the verb's own options, and names every option's value and default in words."""
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert (
        "None" not in text and "default: null)" not in re.split("the run:|the measure:", text.split("options:")[1])[0]
    )
    example = " ".join(text.split("example: lut-tf ")[1].split())
    asked: list[Any] = []
    monkeypatch.setitem(VERBS, verb, VERBS[verb]._replace(run=asked.append))
    monkeypatch.chdir(ROOT)
    assert cli.main(example.split()) == 0 and len(asked) == 1


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
