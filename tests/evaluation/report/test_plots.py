"""Plots: marks where the values are."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from sdo_ray.evaluation.report.plots import HEIGHT, WIDTH, curve_plot, histogram_plot, interval_plot


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def points(shape: ElementTree.Element) -> np.ndarray:
    return np.array([[float(n) for n in pair.split(",")] for pair in shape.attrib["points"].split()])


def test_an_interval_lies_on_its_side_of_zero() -> None:
    for low, high, side in ((1.0, 2.0, 1), (-2.0, -1.0, -1)):
        svg = parsed(interval_plot((low + high) / 2, low, high, "higher"))
        zero, line, mark = list(svg)
        ends = [float(line.attrib[name]) for name in ("x1", "x2")]
        middle = float(zero.attrib["x1"])
        assert ends == sorted(ends)
        assert all(side * (end - middle) > 0 for end in ends)
        assert ends[0] < float(mark.attrib["cx"]) < ends[1]
        assert min(ends) >= 0
        assert max(ends) <= float(svg.attrib["viewBox"].split()[2])
    assert "95 % interval" in svg.attrib["aria-label"]


def test_nothing_at_all_is_a_mark_on_zero() -> None:
    zero, line, mark = list(parsed(interval_plot(0.0, 0.0, 0.0, "unclear")))
    assert mark.attrib["cx"] == line.attrib["x1"] == f"{float(zero.attrib['x1']):.1f}"


def test_a_histogram_has_the_shares_as_areas() -> None:
    values = {"base": np.array([0.0, 0.0, 0.0, 1.0]), "candidate": np.array([1.0, math.nan])}
    svg = parsed(histogram_plot("quality", values))
    areas = {shape.attrib["class"]: points(shape) for shape in svg if shape.tag == "polygon"}
    floor = areas["area base"][0, 1]
    heights = floor - areas["area base"][1:-1, 1]
    assert heights[0] == pytest.approx(3 * heights[-1], abs=0.2)  # three at 0, one at 1
    assert floor - areas["area candidate"][-2, 1] == pytest.approx(heights[0] * 4 / 3, abs=0.2)
    means = {shape.attrib["class"]: float(shape.attrib["x1"]) for shape in svg if "mean" in shape.attrib["class"]}
    assert means["mean base"] < means["mean candidate"]
    assert svg.attrib["aria-label"] == "quality: base mean 0.250, candidate mean 1.000"
    for area in areas.values():
        assert area.min() >= 0
        assert (area <= [WIDTH, HEIGHT]).all()


@pytest.mark.parametrize("values", [[], [math.nan], [2.0], [2.0, 2.0]])
def test_histograms_of_next_to_nothing(values: list[float]) -> None:
    svg = histogram_plot("quality", {"base": np.array(values)})
    assert "nan" not in str(svg).lower()
    parsed(svg)


def test_a_curve_goes_through_its_means_in_its_band() -> None:
    curve = [(1, 0.0, 1.0), (2, 2.0, 0.5), (3, 1.0, 0.0)]
    svg = parsed(curve_plot("reward", curve))
    line, band = points(svg.find("polyline")), points(svg.find("polygon"))
    scale = (line[1, 1] - line[0, 1]) / 2.0  # units of the plot a unit of reward, negative
    assert line[2, 1] == pytest.approx(line[0, 1] + scale, abs=0.1)
    upper, lower = band[:3], band[3:][::-1]
    for (_, _, deviation), middle, above, below in zip(curve, line, upper, lower, strict=True):
        assert above[0] == below[0] == middle[0]
        assert above[1] - middle[1] == pytest.approx(scale * deviation, abs=0.1)
        assert middle[1] - below[1] == pytest.approx(scale * deviation, abs=0.1)
    assert svg.attrib["aria-label"] == "reward over 3 updates: from 0.000 to 1.000"


def test_a_curve_of_one_update() -> None:
    assert not re.search("nan|inf", str(curve_plot("reward", [(1, 0.5, 0.0)])))


def test_one_update_is_a_point() -> None:
    plot = curve_plot("a", [(1, 0.5, 0.0)])
    assert '<circle class="dot candidate"' in plot
    assert ">update 1</text>" in plot
    assert ">2</text>" not in plot  # an update that there is not
    assert "<circle" not in curve_plot("a", [(1, 0.5, 0.0), (2, 0.5, 0.0)])


def test_names_are_escaped() -> None:
    svg = histogram_plot('<b>"x', {'" onload="': np.array([1.0])})
    assert "<b>" not in svg
    assert parsed(svg).attrib["aria-label"].startswith('<b>"x')
