"""A path is the user's: whatever the file system takes as a name works everywhere, and the rest is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from data_helpers import png, shown, write_records
from networks import tiny_mae
from runs import command, learned_lines

from lut_tf import cli
from lut_tf.config import Config, DataConfig, from_yaml
from lut_tf.data.reading.listing import list_data
from lut_tf.data.reading.records import record_files
from lut_tf.data.reading.sources import open_sources
from lut_tf.paths import check_path, spelled_out, without_patterns
from lut_tf.training.checkpoint import Checkpoints
from lut_tf.writing import write_text

ALL = "a [x] {y} *?$1$ größer ~'\"\\"
NAMES = ["a b", "[x]", "runs [x]", "*", "a?", "{x}", "größer", "a~", "$x$ and $", "back\\slash", "n" * 255, ALL]


# The rest of the names hold one kind of these characters each.
@pytest.fixture(
    params=[name if name in ("a b", "[x]", ALL) else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
    ids=lambda name: name[:20],
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with an odd name, and beside it one that the name would match as a pattern."""
    (tmp_path / "x").mkdir()
    folder = tmp_path / request.param
    folder.mkdir()
    return folder


@pytest.mark.medium
def test_checkpoints_come_back(place: Path) -> None:
    model = tiny_mae()
    model.compile("sgd", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    kept = Checkpoints(place / "checkpoints", model)
    kept.save(3)
    before = [variable.numpy() for variable in model.variables]
    for variable in model.trainable_variables:
        variable.assign(variable + 1.0)
    assert kept.restore() == 3
    assert all((variable.numpy() == old).all() for variable, old in zip(model.variables, before, strict=True))


def test_saved_models_are_read(place: Path) -> None:
    """Variables too, which TensorFlow looks for by a pattern."""
    module = tf.Module()
    module.weight = tf.Variable(3.0)
    tf.saved_model.save(module, str(place / "saved_model"))
    with without_patterns(place / "saved_model") as folder:
        assert float(tf.saved_model.load(str(folder)).weight) == 3.0


def written(place: Path) -> dict[str, DataConfig]:
    """Three images and two files of records in a folder, as sources."""
    for number in range(3):
        (place / f"{number}.png").write_bytes(png(number))
    write_records(place / "a-0", [5, 6])
    write_records(place / "a-1", [7])
    paths = {"folder": place, "pattern": place / "a-*", "file": place / "a-1"}
    return {
        name: DataConfig("image_folder" if path == place else "tfrecord", str(path)) for name, path in paths.items()
    }


def test_folders_and_records_are_found(place: Path) -> None:
    assert {name: list_data(data).images for name, data in written(place).items()} == {
        "folder": 3, "pattern": 3, "file": 1
    }  # fmt: skip


@pytest.mark.medium
def test_what_is_found_is_read(tmp_path: Path) -> None:
    (tmp_path / ALL).mkdir()
    read = {name: shown(open_sources(data, list_data(data)).train) for name, data in written(tmp_path / ALL).items()}
    assert read == {"folder": [0, 1, 2], "pattern": [5, 6, 7], "file": [7]}


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path: Path) -> None:
    for number, name in enumerate(["a", "[a]", "b"]):
        write_records(tmp_path / name, [number])
    for pattern, expected in (("[a]", ["[a]"]), ("[ab]", ["a", "b"])):
        assert [Path(file).name for file in record_files(str(tmp_path / pattern))] == expected


@pytest.mark.slow
def test_every_verb_takes_any_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train below `~`, go on where the run was moved to, and use by way of a link what it left."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["train", *command(Path("run_dir"), epochs=1, probe__every=0, probe__before_and_after=False)[2:]]
    at = words.index("run_dir")

    def status(*call: str) -> int:
        done = cli.main(list(call))
        assert done == 0, capsys.readouterr().err
        return done

    status(*words[:at], f"~/{ALL}/", *words[at + 1 :])
    shutil.move(tmp_path / ALL, tmp_path / "[moved] *")
    (tmp_path / "link").symlink_to("[moved] *")
    trained = learned_lines(tmp_path / "link")
    status(*words[:at], "[moved] */", *words[at + 1 :])
    assert learned_lines(tmp_path / "link") == trained
    status("export", "~/link", "--to", "saved_model,onnx", "--output", f"~/{ALL}")
    status("verify", f"~/{ALL}/encoder.onnx", "link/")
    status("convert", "~/link/encoder.keras", f"~/{ALL}/[w].safetensors")
    status("convert", f"~/{ALL}/[w].safetensors", f"~/{ALL}/[w].keras", "--num_heads", "4")
    status("show-views", *words[1:], "--output", f"~/{ALL}/[views].png", "--images", "2")
    assert {path.name for path in (tmp_path / ALL).iterdir()} == {
        "saved_model", "encoder.onnx", "[w].safetensors", "[w].keras", "[views].png"
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} - {".cache"} == {ALL, "[moved] *", "link"}


LONG = "n" * 256
CALLS: dict[str, Callable[[str], list[str]]] = {
    "train": lambda path: ["train", "--run_dir", path],
    "train on": lambda path: ["train", "--data.source", "image_folder", "--data.path", path],
    "train by": lambda path: ["train", "--config", path],
    "show-views": lambda path: ["show-views", "--optimizer.batch_size", "64", "--output", f"{path}/a.png"],
    "export": lambda path: ["export", path],
    "verify": lambda path: ["verify", path, path],
    "convert": lambda path: ["convert", path, "a.keras"],
    "convert to": lambda path: ["convert", "a.keras", f"{path}/a.keras"],
    "prepare": lambda path: ["prepare", path, "--to", "tfrecord", "--output", "a"],
    "prepare to": lambda path: ["prepare", ".", "--to", "tfrecord", "--output", path],
}


@pytest.mark.parametrize(
    "path",
    [LONG, f"a/{LONG}/b", "a/" * 2000, "a\0b", "a\udc80", "~nobody-at-all/a", "nowhere", "nowhere/a"],
    ids=range(8),
)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_path_is_refused(
    call: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name or path too long, characters that cannot be, an unknown home, a link that leads nowhere."""
    monkeypatch.chdir(tmp_path)
    Path("nowhere").symlink_to("gone")
    assert cli.main(CALLS[call](path)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lut-tf: error: ") and err.count("\n") == 1
    assert "give" in err or "mend" in err
    assert [entry.name for entry in Path().iterdir()] == ["nowhere"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~/a/", "{home}/a"),
        ("~", "{home}"),
        ("/", "/"),
        ("a//", "a"),
        ("", ""),
        ("gs://b/c/", "gs://b/c/"),
        ("a~", "a~"),
    ],
)
def test_a_path_spelled_out(path: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the settings come from."""
    monkeypatch.setenv("HOME", "/somebody")
    expected = expected.format(home="/somebody")
    assert spelled_out(path) == expected
    for config in (Config(run_dir=path), from_yaml(f"run_dir: '{path}'")):
        assert config.run_dir == expected
    assert DataConfig(path=path, evaluation_path=path) == DataConfig(path=expected, evaluation_path=expected)


def test_names_up_to_the_end_are_paths(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127, *NAMES):
        check_path("run_dir", str(tmp_path / name))
    with pytest.raises(ValueError, match="run_dir='.*' has a name of 256 bytes"):
        check_path("run_dir", "ü" * 128)


def test_what_is_written_to_a_link_goes_where_it_leads(tmp_path: Path) -> None:
    for name in ("there", "not there yet"):
        link, target = tmp_path / f"link {name}", tmp_path / "folder" / name
        link.symlink_to(target)
        if name == "there":
            write_text(target, "old")
        write_text(link, "new")
        assert link.is_symlink() and target.read_text(encoding="utf-8") == "new"
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"there", "not there yet"}
