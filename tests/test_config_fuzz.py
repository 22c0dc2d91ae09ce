"""Random configurations: a command line or file of settings begins a run or is refused in stated lines, always."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from lut_tf import cli
from lut_tf.config import Config, settings
from lut_tf.config.suggestions import USUAL

NAMES = list(settings())
SCALARS = [
    "0", "1", "-1", "2", "64", "1e2", "1e-3", "0.5", "1.5", "017", "0x10", "0o7", "1:30", "1_000", ".inf", "-.inf",
    ".nan",
    "true", "false", "yes", "null", "~", "", "x", "a b", "é", "mae", "lut", "simmim", "mirrored", "multi_worker",
    "digits",
    "image_folder", "tfrecord", "vit_tiny_patch16", "layer", "ring", "9" * 30, "9" * 400, "9" * 5000, "1e400",
    "-0", "a:1",
    "a:1,b:1", "0.9,0.95", "[0.2, 1]", "[1]", "[]", "{}", "{a: 1}", "[[1], 2]", "[" * 3000, "{" * 3000, "]", "'", '"',
    "!!bool x",
    "!!int 3", "!!python/name:os.system x", "&a [*a]", "*a", "&a 1", "%", "@", "`", "|", ">", "- 1", "? 1",
    "# 1", "n" * 300,
    "~nobody-at-all", "~/x", "a/[b]*", "gs://a/b", "/dev/null", "/proc/x", "--", "-", "-x", "2024-01-01",
    "\t", "\n", "\u2028", "\x1b[31m",
    "\udc80",
]  # fmt: skip


def name(source: random.Random) -> str:
    """A setting's name, mostly; else a group's, another program's, a slip of the hand, or nonsense."""
    good = source.choice(NAMES)
    return source.choice(
        [good] * 12
        + [good.split(".")[0], good.split(".")[-1], source.choice(list(USUAL)), f"{good}.x", good[1:], good.upper()]
        + ["".join(source.choices(string.printable, k=5)), "config", "", ".", "méthode", "print_config"]
    )


def value(source: random.Random) -> str:
    other = "".join(source.choices(string.printable + "é\x00\ufeff", k=source.randrange(8)))
    return source.choice(
        [source.choice(SCALARS)] * 4 + [str(source.randrange(-3, 2000)), f"{source.random():.3}", other]
    )


def words(source: random.Random) -> list[str]:
    found: list[str] = []
    for _ in range(source.choice([1, 1, 1, 2, 3, 6])):
        found += source.choice(
            [
                [f"--{name(source)}", value(source)],
                [f"--{name(source)}={value(source)}"],
                [f"--{name(source)}"],
                [value(source)],
            ][: source.choice([2, 2, 2, 4])]
        )
    return found


def text(source: random.Random) -> str:
    """Lines of settings, flat, nested or in braces; now and then cut, doubled or sprinkled with other characters."""
    lines: list[str] = []
    for _ in range(source.choice([1, 1, 2, 3, 6])):
        *groups, leaf = name(source).split(".")
        held = f"{leaf}: {value(source)}"
        shape = source.randrange(3)
        if shape == 0:
            lines += [f"{'  ' * depth}{group}:" for depth, group in enumerate(groups)] + ["  " * len(groups) + held]
        else:
            dotted = ".".join([*groups, leaf])
            lines.append(f"{dotted}: {value(source)}" if shape == 1 else f"{dotted}: {{{held}}}")
    whole = "\n".join(lines) + "\n"
    if source.random() < 0.1:
        cut = source.randrange(len(whole))
        whole = (
            whole[:cut]
            + source.choice(["", whole, "\t", "\x00", "[", "{", "&a ", "*a", "---\n", "\ufeff"])
            + whole[cut:]
        )
    return whole


def check(number: int, capsys: pytest.CaptureFixture[str]) -> int:
    """Run one case in an empty folder, and return its status."""
    source = random.Random(number)
    call = ["train", *words(source)]
    if source.random() < 0.5:
        content = text(source).encode("utf-8", "surrogateescape" if source.random() < 0.9 else "replace")
        Path("a.yaml").write_bytes(content)
        call[1:1] = ["--config", "a.yaml"]
        if source.random() < 0.7:
            del call[3:]
    before = sorted(Path().iterdir())
    try:
        status = cli.main(call)
    except SystemExit as ended:  # --help, --print_config
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    assert status in (0, 2), call
    assert (err == "") == (status == 0), call
    assert status == 0 or out == "", call
    for line in err.splitlines():
        assert line.startswith("lut-tf: error: ") and len(line) < 2000 and line.isprintable(), (call, line)
        assert any(
            word in line
            for word in ("give ", "did you mean", "takes ", "leave ", "choose ", "mend it", "write them", "--help")
        ), line
    assert sorted(Path().iterdir()) == before, call
    return status


def run(numbers: range, capsys: pytest.CaptureFixture[str], runs: list[Config], folder: Path) -> None:
    statuses = []
    for number in numbers:
        try:
            statuses.append(check(number, capsys))
        except Exception as error:
            error.add_note(f"case {number}")
            raise
    assert {0, 2} == set(statuses)
    assert runs, "none of the cases begins a run"


@pytest.fixture(autouse=True)
def digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the default batch fit the digits, so that some cases begin a run; and give every `~` an empty folder."""
    monkeypatch.setattr("lut_tf.config.run.check_batch_size", lambda batch_size, images: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_random_settings(
    pretrained: list[Config],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run(range(100), capsys, pretrained, tmp_path)


@pytest.mark.slow
def test_many_random_settings(
    pretrained: list[Config],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run(range(100, 4100), capsys, pretrained, tmp_path)
