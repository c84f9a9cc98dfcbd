"""Spot ratios beside those of real UV photographs: what is reported of them."""

import csv

import numpy as np
import pytest

from jaxface.metrics import spot_ratios


def rows_of(real, translated, color, **more):
    names = {"real": real, "translated": translated, "color": color} | more
    return [dict(zip(names, values)) for values in zip(*names.values())]


REAL = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
OURS = [0.0, 0.2, 0.1, 0.3, 0.5, 0.4]
COLOR = [0.5, 0.1, 0.4, 0.3, 0.0, 0.2]
PEOPLE = np.array(list("abcdef"))


def test_correlations_are_those_of_the_rows():
    rows = rows_of(REAL, OURS, COLOR, pigment=REAL[::-1])
    found = spot_ratios.correlations(rows, {}, PEOPLE, "device")
    r = lambda a, b: np.corrcoef(a, b)[0, 1]
    wanted = {
        "spot_ratio_r": r(OURS, REAL),
        "spot_ratio_r_color": r(COLOR, REAL),
        "spot_ratio_r_color_gain": r(OURS, REAL) - r(COLOR, REAL),
        # Both have one mean and one variance: then concordance is correlation.
        "spot_ratio_ccc": r(OURS, REAL),
        "spot_ratio_bias": 0.0,
        "spot_ratio_r_pigment": r(OURS, REAL[::-1]),
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, abs=1e-12), name
    apart = 1.96 * np.std(np.subtract(OURS, REAL), ddof=1)
    assert found["spot_ratio_limit_high"].value == pytest.approx(apart, rel=1e-3)
    assert found["spot_ratio_limit_low"].value == pytest.approx(-apart, rel=1e-3)
    assert found["spot_ratio_r"].n == 6 and "in the device" in found["spot_ratio_r"].protocol


def test_correlations_before_phones_have_names_of_their_own():
    rival = rows_of(REAL, COLOR, COLOR)
    found = spot_ratios.correlations(rows_of(REAL, OURS, COLOR), {"v1": rival}, PEOPLE, "phone")
    r = lambda a: np.corrcoef(a, REAL)[0, 1]
    assert found["spot_ratio_r_phone"].value == pytest.approx(r(OURS))
    assert found["spot_ratio_r_phone_v1"].value == pytest.approx(r(COLOR))
    assert found["spot_ratio_r_phone_gain"].value == pytest.approx(r(OURS) - r(COLOR))
    assert all("_phone" in name for name in found)
    assert "hidden UV" in found["spot_ratio_r_phone"].protocol
    device = spot_ratios.correlations(rows_of(REAL, OURS, COLOR), {"v1": rival}, PEOPLE, "device")
    assert {"spot_ratio_r_device_v1", "spot_ratio_r_device_gain"} < set(device)


def test_tones_with_fewer_than_five_people_are_left_out():
    rows = rows_of(REAL, OURS, COLOR)
    assert spot_ratios.by_tone(rows, PEOPLE, np.full(6, 50.0)).keys() == {"spot_ratio_r_light"}
    # Borders belong to the lighter tone; one of six is darker.
    found = spot_ratios.by_tone(rows, PEOPLE, np.array([10, 10, 20, 30, 40.9, 9.9]))
    assert found.keys() == {"spot_ratio_r_medium"}
    wanted = np.corrcoef(OURS[:5], REAL[:5])[0, 1]
    assert found["spot_ratio_r_medium"].value == pytest.approx(wanted)
    assert found["spot_ratio_r_medium"].n == 5
    # Six photographs, but of four people.
    assert spot_ratios.by_tone(rows, np.array(list("aabbcd")), np.full(6, 0.0)) == {}


def test_mean_of_people_passes_over_what_is_not_known():
    found = spot_ratios.mean_of_people(np.array([1.0, np.nan, 3.0]), np.array(["a", "b", "c"]))
    assert found.value == 2 and found.n == 2 and found.low <= 2 <= found.high
    none = spot_ratios.mean_of_people(np.array([np.nan]), np.array(["a"]))
    assert np.isnan(none.value) and none.n == 0


def test_table_has_every_column_of_every_row(tmp_path):
    spot_ratios.write_table(tmp_path, [{"id": "é", "real": 0.25}, {"id": "b", "translated_v1": 1}])
    with open(tmp_path / "spot_ratios.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "real", "translated_v1"], ["é", "0.25", ""], ["b", "", "1"]
        ]  # fmt: skip
