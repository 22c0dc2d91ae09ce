"""Guards reading from storage that fails: what may pass is tried again and then stops, the rest counts as damaged."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from data_helpers import encoded, plain, read, write_records
from PIL import Image

from lut_tf.data import open_tfrecord
from lut_tf.data.reading import contents
from lut_tf.data.reading.examples import TFRecords
from lut_tf.data.reading.sources import ImageFolder
from lut_tf.errors import Stopped


def told(kind: type[tf.errors.OpError]) -> tf.errors.OpError:
    return kind(None, None, "try later")


FAILURES = {
    "unavailable": told(tf.errors.UnavailableError),
    "too late": told(tf.errors.DeadlineExceededError),
    "aborted": told(tf.errors.AbortedError),
    "too many requests": told(tf.errors.ResourceExhaustedError),
    "stale handle": OSError(errno.ESTALE, "try later"),
    "input/output error": OSError(errno.EIO, "try later"),
}
LASTING = {
    "not found": (told(tf.errors.NotFoundError), "missing"),
    "no permission": (told(tf.errors.PermissionDeniedError), "unreadable"),
    "a folder": (IsADirectoryError(errno.EISDIR, "is a folder"), "unreadable"),
    "gone": (FileNotFoundError(errno.ENOENT, "gone"), "missing"),
}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Exception, int], ImageFolder]:
    """Return a folder of two images that Pillow reads, whose storage fails a number of times."""
    monkeypatch.setattr(contents, "WAITS", (0.0,) * 4)
    for name, number in (("a.bmp", 1), ("b.bmp", 2)):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(plain(number)), "BMP"))
    original, asked = io.FileIO, []

    def folder(failure: Exception, times: int) -> ImageFolder:
        def opened(path: str) -> io.FileIO:
            asked.append(path)
            if len(asked) <= times:
                raise failure
            return original(path)

        monkeypatch.setattr(contents.io, "FileIO", opened)
        return ImageFolder(tmp_path, damaged_share=1.0)

    return folder


@pytest.mark.medium
@pytest.mark.parametrize("failure", FAILURES)
def test_what_passes_changes_no_image(failure: str, failing: Callable[[Exception, int], ImageFolder]) -> None:
    source = failing(FAILURES[failure], 4)
    assert read(source, 0)[0].max() == 1 and not source.damage.counts and source.damage.end is None


@pytest.mark.medium
@pytest.mark.parametrize("failure", FAILURES)
def test_what_does_not_pass_stops(failure: str, failing: Callable[[Exception, int], ImageFolder]) -> None:
    source = failing(FAILURES[failure], 1000)
    with pytest.raises(tf.errors.OpError):
        read(source, 0)
    assert not source.damage.counts and isinstance(source.damage.end, Stopped)
    assert "a.bmp cannot be read, its storage failed in 5 attempts (try later): start again" in str(source.damage.end)


@pytest.mark.medium
@pytest.mark.parametrize("failure", LASTING)
def test_what_lasts_is_replaced(failure: str, failing: Callable[[Exception, int], ImageFolder]) -> None:
    error, kind = LASTING[failure]
    source = failing(error, 1)
    assert read(source, 0)[0].max() == 2 and source.damage.counts == {kind: 1}


def test_records_are_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contents, "WAITS", (0.0,) * 4)
    write_records(tmp_path / "records", range(3))
    source = open_tfrecord(str(tmp_path / "records"), None, None)
    original, asked = TFRecords.dataset, []

    def dataset(records: TFRecords, index: tf.Tensor) -> tf.data.Dataset:
        asked.append(index)
        if len(asked) < 3:
            raise told(tf.errors.UnavailableError)
        return original(records, index)

    monkeypatch.setattr(TFRecords, "dataset", dataset)
    assert source.records.read(1) and len(asked) == 3
