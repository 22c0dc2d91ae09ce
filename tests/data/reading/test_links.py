"""Guards listings of folders with links: nothing is listed twice, under a wrong class, or for ever."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from data_helpers import write_files

from lut_tf.data.reading.folder import LINKS, list_folder

# Where a link lies, what it leads to, and what the listing has then beside cat/1.png and dog/2.png, by class.
CASES: dict[str, tuple[str, str, dict[str, list[str]], int]] = {
    "to the root": ("train/cat/link", "train", {}, 1),
    "to its own folder": ("train/cat/link", "train/cat", {}, 1),
    "to above the root": ("train/cat/link", ".", {}, 1),
    "to another class": ("train/cat/link", "train/dog", {}, 1),
    "to a folder in another class": ("train/cat/link", "train/dog/deep", {}, 1),
    "of a class to another class": ("train/ant", "train/dog", {}, 1),
    "of a class to the root": ("train/ant", "train", {}, 1),
    "to a folder elsewhere": ("train/cat/link", "elsewhere", {"cat": ["link/3.png"]}, 0),
    "of a class to a folder elsewhere": ("train/eel", "elsewhere", {"eel": ["3.png"]}, 0),
    "to a hidden folder in the root": ("train/cat/link", "train/.store", {"cat": ["link/4.png"]}, 0),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_files(tmp_path, "train/cat/1.png", "train/dog/2.png", "train/dog/deep/5.png", "elsewhere/3.png")
    write_files(tmp_path / "train" / ".store", "4.png")
    return tmp_path


def listed(folder: Path) -> tuple[dict[str, list[str]], int]:
    listing = list_folder(folder)
    assert listing.labels is not None and listing.classes is not None
    found: dict[str, list[str]] = {name: [] for name in listing.classes}
    for path, label in zip(listing.files, listing.labels, strict=True):
        name = listing.classes[label]
        found[name].append(str(Path(path).relative_to(folder.absolute() / name)))
    return found, listing.left_out.get(LINKS, 0)


@pytest.mark.parametrize("case", CASES)
def test_links_lead_only_to_what_is_not_listed_anyway(case: str, root: Path) -> None:
    link, target, more, refused = CASES[case]
    (root / link).symlink_to(root / target)
    expected = {"cat": ["1.png"], "dog": ["2.png", "deep/5.png"]}
    for name, files in more.items():
        expected[name] = expected.get(name, []) + files
    assert listed(root / "train") == (expected, refused)


def test_what_lies_elsewhere_is_listed_once(root: Path) -> None:
    """Two links to one folder, and in it one back to itself, one to the root and one to a class that is a link."""
    write_files(root / "other", "6.png")
    (root / "train" / "ant").symlink_to(root / "elsewhere")
    (root / "train" / "bee").symlink_to(root / "elsewhere")
    (root / "train" / "eel").symlink_to(root / "other")
    for number, target in enumerate(("elsewhere", "train", "other")):
        (root / "elsewhere" / f"link{number}").symlink_to(root / target)
    expected = {"ant": ["3.png"], "cat": ["1.png"], "dog": ["2.png", "deep/5.png"], "eel": ["6.png"]}
    assert listed(root / "train") == (expected, 4)


def test_a_folder_behind_a_link_is_listed_as_itself(root: Path) -> None:
    (root / "photos").symlink_to(root / "train")
    (root / "train" / "cat" / "link").symlink_to(root / "photos")
    assert listed(root / "photos") == ({"cat": ["1.png"], "dog": ["2.png", "deep/5.png"]}, 1)


def test_thousands_of_links_take_no_time(tmp_path: Path) -> None:
    """Half a second; compared with each other they took twenty."""
    (tmp_path / "train").mkdir()
    for number in range(2000):
        folder = tmp_path / "store" / f"{number:04}"
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
        (tmp_path / "train" / folder.name).symlink_to(folder)
    start = time.monotonic()
    assert list_folder(tmp_path / "train").images == 2000
    assert time.monotonic() - start < 5
