"""Dates as numbers: seconds, and places on circles; of any unit and any format of texts."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tables import column, load_source

from subsettune.data.arrow_types import seconds
from subsettune.data.date_texts import DateTexts, format_of, time_of, times_of
from subsettune.data.dates import cycles_of, on_circles
from subsettune.errors import DataError

N = 60
TIMES = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=13 * i) for i in range(N)]
LABELS = [i * 7 % 3 for i in range(N)]


def write(folder: Path, **columns: object) -> Path:
    path = folder / "d.parquet"
    pq.write_table(pa.table({**columns, "label": LABELS}), path)
    return path


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_unit_are_the_same_seconds(unit: str) -> None:
    wanted = [(t - dt.datetime(1970, 1, 1)).total_seconds() for t in TIMES]
    assert seconds(pa.array(TIMES, pa.timestamp(unit))).to_pylist() == wanted
    assert seconds(pa.array(TIMES, pa.timestamp(unit, "Europe/Rome"))).to_pylist() == wanted  # an instant is one
    assert seconds(pa.array([dt.timedelta(hours=1), None], pa.duration(unit))).to_pylist() == [3600.0, None]


def test_days_and_times_of_day() -> None:
    days = [dt.date(1969, 12, 31), dt.date(2024, 2, 29)]
    for kind in (pa.date32(), pa.date64()):
        assert seconds(pa.array(days, kind)).to_pylist() == [-86_400.0, 1_709_164_800.0]
    for kind in (pa.time32("ms"), pa.time64("us")):
        assert seconds(pa.array([dt.time(1, 0, 0, 500_000)], kind)).to_pylist() == [3600.5]


def test_circles_close_and_follow_the_calendar() -> None:
    noon, monday, july = (dt.datetime(2024, 7, 1, 12), dt.datetime(2024, 7, 1), dt.datetime(2031, 7, 9))
    at = np.array([(t - dt.datetime(1970, 1, 1)).total_seconds() for t in (noon, monday, july)] + [np.nan])
    found = on_circles(at, ("hour", "weekday", "month"))
    np.testing.assert_allclose(found[0], [0, -1, 0, 1, 0, -1], atol=1e-6)  # noon, a Monday, half a year
    np.testing.assert_allclose(found[1, :2], [0, 1], atol=1e-6)
    np.testing.assert_allclose(found[2, 4:], [0, -1], atol=1e-6)
    assert np.isnan(found[3]).all()
    before = on_circles(np.array([-1.0, 0.0]), ("hour",))  # a second before 1970 lies beside its first
    np.testing.assert_allclose(before[0], before[1], atol=1e-4)


def test_what_has_which_cycles() -> None:
    assert cycles_of("timestamp[us]") == ("hour", "weekday", "month")
    assert cycles_of("date32[day]") == ("weekday", "month")
    assert cycles_of("time64[us]") == ("hour",)
    assert cycles_of("duration[s]") == ()


def test_a_column_of_times_in_parquet(tmp_path: Path) -> None:
    path = write(tmp_path, when=pa.array(TIMES, pa.timestamp("us")), x=np.arange(N) % 7)
    plain = load_source(path, tmp_path / "cache")
    assert (plain.input_shape, column(plain, "when").kind) == ((2,), "timestamp[us]")
    exact = plain.train.batch(torch.arange(len(plain.train)))[0][:, 0].double()
    rows = plain.train.rows.double()
    wanted = (rows - rows.mean()) / rows.std(correction=0)
    assert torch.allclose(exact, wanted, atol=1e-5)  # seconds of 2024 vary in digits that float32 lacks
    cyclic = load_source(path, tmp_path / "cache", dates="cyclic")
    assert (cyclic.input_shape, column(cyclic, "when").width) == ((8,), 7)


def test_texts_of_parquet_are_dates_where_a_format_says_so(tmp_path: Path) -> None:
    texts = [t.strftime("%d.%m.%Y %H:%M") for t in TIMES]
    path = write(tmp_path, when=texts)
    found = load_source(path, tmp_path / "cache", date_formats={"when": "%d.%m.%Y %H:%M"})
    other = tmp_path / "other"
    other.mkdir()
    same = load_source(write(other, when=pa.array(TIMES, pa.timestamp("us"))), other / "cache")
    assert torch.equal(found.train.batch(torch.arange(9))[0], same.train.batch(torch.arange(9))[0])
    texts[7] = "soon"
    path = write(tmp_path, when=texts)
    with pytest.raises(DataError) as caught:
        load_source(path, tmp_path / "cache", date_formats={"when": "%d.%m.%Y %H:%M"})
    assert str(caught.value) == (
        "column 'when' must hold dates as '%d.%m.%Y %H:%M', got 'soon' in row 7 of d.parquet. Mend "
        "data.date_formats, or the row."
    )


def test_dates_are_no_labels_and_formats_are_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path, when=pa.array(TIMES, pa.timestamp("us")), x=np.arange(N) % 7)
    with pytest.raises(
        DataError, match=r"column 'when' must hold numbers or texts, got timestamp\[us\]\. Name another"
    ):
        load_source(path, tmp_path / "cache", label="when", metric="mse")
    with pytest.raises(DataError, match=r"column 'x' of .* must hold texts to have a format of dates, got int64\."):
        load_source(path, tmp_path / "cache", date_formats={"x": "%Y"})
    with pytest.raises(DataError, match=r"data\.date_formats names 'y', which is no input\. Remove it there\."):
        load_source(path, tmp_path / "cache", date_formats={"y": "%Y"})


def test_texts_that_would_be_categories_are_told_to_be_dates(tmp_path: Path) -> None:
    path = write(tmp_path, when=[f"{t:%Y-%m-%d %H:%M}" for t in TIMES])
    with pytest.raises(DataError, match=r"They are dates: say how they are written, data\."):
        load_source(path, tmp_path / "cache")


def test_formats_that_are_left() -> None:
    judge = DateTexts()
    assert judge.add(pa.array(["1/2/2024", "2/3/2024"])) is None
    assert judge.is_open
    assert judge.add(pa.array(["13/3/2024"])) is None
    assert (judge.is_open, judge.formats) == (False, ("%d/%m/%Y",))
    assert judge.add(pa.array(["3/13/2024"])) == "3/13/2024"
    assert format_of(["2024-01-05T10:00:00Z"]) == "ISO"
    assert format_of(["5.1.2024"]) == "%d.%m.%Y"
    assert format_of(["1/2/2024"]) == format_of(["red"]) == format_of([]) == ""


def test_times_with_a_zone_are_instants() -> None:
    assert time_of("2024-01-01T02:00:00+02:00", "ISO") == dt.datetime(2024, 1, 1)
    assert time_of("2024-5-1 9:30", "ISO") == dt.datetime(2024, 5, 1, 9, 30)
    assert time_of("2024-02-30", "%Y-%m-%d") is time_of("2024-02-30", "ISO") is None
    found, odd = times_of(pa.array(["2024-01-01", None, "2024-01-01"]), ["%Y-%m-%d"])
    assert (found.to_pylist(), odd) == ([dt.datetime(2024, 1, 1), None, dt.datetime(2024, 1, 1)], None)
    assert times_of(pa.array(["2024-01-01", "no", "no"]), ["%Y-%m-%d"])[1] == 1
