"""Guards names of folders and files: whatever stands in them, every source reads them, and printed commands do."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest
import toy_data_set  # noqa: F401
from data_helpers import shown, write_files, write_records

from lut_tf.cli import train
from lut_tf.config import Config, config_from, from_yaml, to_yaml
from lut_tf.data import list_data, open_sources
from lut_tf.data.preparing.prepare import prepare
from lut_tf.data.reading.public import builder_of

NAMES = ["a b", "a[1]*?", "[ab]", "{a,b}", "Übung", "a'b\"", "$HOME;", "a: b", "- a", "007", "a\\b ", "[a"]
QUICK = ("a b", "a[1]*?", "a: b", "- a")
SOME = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def configured(command: str) -> Config:
    """Return the settings of a command as a shell would hand them to it."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("lut-tf", "train")
    parser = ArgumentParser()
    train.add_arguments(parser)
    return config_from(parser.parse_args(words))


def numbers(config: Config) -> list[int]:
    return sorted(shown(open_sources(config.data, list_data(config.data)).train))


@pytest.mark.medium
@pytest.mark.parametrize("name", SOME)
def test_folders_of_any_name_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(name, "cat/0.png", "dog/1.png")
    Path("link").symlink_to(name)
    places = [name, f"{name}/", f"{tmp_path}/{name}", "link", "link/"]
    for place in places if name == "a b" else places[:1]:
        command = f"lut-tf train --data.source image_folder --data.path={shlex.quote(place)}"
        assert numbers(configured(command)) == [0, 1], place


def test_a_run_directory_keeps_names_of_any_kind() -> None:
    config = configured(f"lut-tf train --data.path {shlex.quote(' '.join(NAMES))} --data.name {shlex.quote(NAMES[7])}")
    assert from_yaml(to_yaml(config)) == config


@pytest.mark.medium
@pytest.mark.parametrize("name", [SOME[0], *(pytest.param(name, marks=pytest.mark.slow) for name in SOME[1:])])
def test_records_in_folders_of_any_name_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    write_records(f"{name}/0.tfrecord", range(2))
    write_records(f"{name}/[x].tfrecord", range(2, 3))
    for pattern, expected in (("*.tfrecord", [0, 1, 2]), ("[0].tfrecord", [0, 1]), ("[x].tfrecord", [2])):
        command = f"lut-tf train --data.source tfrecord --data.path={shlex.quote(f'{name}/{pattern}')}"
        assert numbers(configured(command)) == expected, pattern


def test_a_pattern_of_folders_is_one(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"part{number}").mkdir()
        write_records(tmp_path / f"part{number}" / "0", range(number, number + 1))
    command = f"lut-tf train --data.source tfrecord --data.path '{tmp_path}/part[01]/*'"
    assert numbers(configured(command)) == [0, 1]


@pytest.mark.medium
@pytest.mark.parametrize("name", ["a b [1] {c} *?", "Übung's $HOME;/"])
def test_the_printed_command_reads_what_was_prepared(name: str, tmp_path: Path) -> None:
    write_files(tmp_path / "images", "cat/0.png", "dog/1.png")
    said = prepare(str(tmp_path / "images"), "tfrecord", f"{tmp_path}/{name}", shards=1, workers=1)
    assert numbers(configured(said.partition(": ")[2])) == [0, 1]


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_the_printed_command_reads_a_public_data_set(kind: str, tmp_path: Path) -> None:
    said = prepare("lut_toy", kind, f"{tmp_path}/a 'b' [1] {{c}} *?/")
    assert numbers(configured(said.partition("): ")[2])) == list(range(12))


def test_a_misspelt_public_data_set_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.name='cifar_10' is no data set .*, did you mean cifar10\?: give"):
        builder_of("cifar_10", str(tmp_path))
    with pytest.raises(ValueError, match=r"SOURCE='imagnet2012' .*, did you mean imagenet2012\?: give"):
        prepare("imagnet2012", output=str(tmp_path))
