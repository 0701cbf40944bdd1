"""What a search came to: the front and the regular schedules beside it, measured anew on other prompts and noise."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.step_search.candidate import REGULAR, Candidate, Genes
from sdo_ray.step_search.evolution import Measured, front
from sdo_ray.step_search.pareto import ranks


@dataclass(frozen=True)
class Found:
    """One of them."""

    name: str
    """`taylor every 3` of a regular one; else the way and the number of computed steps."""
    cache: dict[str, Any]
    """`sampling.cache`, what is not the default."""
    searched: bool
    """Whether evolution found it; regular ones are there to compare."""
    cost: float
    """Of the time of exact steps, measured side by side."""
    error: float
    """On other prompts and noise than it was found on."""
    search_error: float | None
    """On those that it was found on; None of a regular one that the search did not try."""
    cosine: float | None
    """Of the gradient of the search's `plan` with that of exact steps, on those other prompts; None without rewards."""
    other_steps: dict[str, float]
    """N -> error with as many sampling steps."""
    best: bool
    """Whether none of all is both cheaper and nearer, by these numbers."""


def regular_names(genes: Genes) -> dict[Candidate, str]:
    """The regular schedules of each way to hold, with the order that settings have by default."""
    return {
        genes.regular(hold, order, every): f"{way.name} every {every} order {order}"
        for hold, way in enumerate(genes.holds)
        for every in REGULAR
        if every < genes.num_steps
        for order in genes.orders
        if order == CacheSettings(name=way.name, modules=way.modules).degree
    }


def shown(genes: Genes, known: Sequence[Measured], count: int) -> list[tuple[str, Candidate, Measured | None]]:
    """What is measured at the end: some of the front, spread over it, and the regular schedules.

    Returns:
        Name, candidate, and what the search measured of it.
    """
    measured, names = {one.candidate: one for one in known}, regular_names(genes)
    found = front(known)
    places = sorted({round(i * (len(found) - 1) / max(1, count - 1)) for i in range(min(count, len(found)))})
    some = dict.fromkeys([*(found[place].candidate for place in places), *names])
    return [(names.get(one) or _name(genes, one), one, measured.get(one)) for one in some]


def _name(genes: Genes, one: Candidate) -> str:
    return f"{genes.holds[one.hold].name} {len(one.steps)} of {genes.num_steps} order {one.order}"


def with_best(found: Sequence[Found]) -> list[Found]:
    """The same, cheapest first, with `best` as the numbers say."""
    places = ranks([(one.cost, one.error) for one in found])
    told = [replace(one, best=rank == 0) for one, rank in zip(found, places, strict=True)]
    return sorted(told, key=lambda one: one.cost)


def entries(found: Sequence[Found]) -> list[Mapping[str, Any]]:
    """The best, as `sdo_ray.cheap_steps.schedule_file` wants them."""
    return [{"cost": round(one.cost, 4), "error": round(one.error, 6), "cache": one.cache} for one in found if one.best]


def as_parquet(found: Sequence[Found]) -> bytes:
    """A row each; `cache` and `other_steps` as their plain values."""
    rows = [asdict(one) | {"cache": str(one.cache), "other_steps": list(one.other_steps.items())} for one in found]
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("cache", pa.string()),
            ("searched", pa.bool_()),
            ("cost", pa.float64()),
            ("error", pa.float64()),
            ("search_error", pa.float64()),
            ("cosine", pa.float64()),
            ("other_steps", pa.map_(pa.string(), pa.float64())),
            ("best", pa.bool_()),
        ]
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), buffer)
    return buffer.getvalue()


def as_text(found: Sequence[Found]) -> str:
    """A table for a terminal."""
    others = list(dict.fromkeys(steps for one in found for steps in one.other_steps))
    width = max(len(one.name) for one in found)
    head = f"{'':2}{'steps':<{width}}  {'cost':>6}  {'error':>8}  {'in search':>9}  {'cosine':>7}"
    lines = [head + "".join(f"  {'N = ' + steps:>8}" for steps in others)]
    for one in found:
        line = (
            f"{'*' if one.best else ' '} {one.name:<{width}}  {one.cost:>6.3f}  {one.error:>8.4f}  "
            f"{_number(one.search_error, '.4f'):>9}  {_number(one.cosine, '.3f'):>7}"
        )
        lines.append(line + "".join(f"  {_number(one.other_steps.get(steps), '.4f'):>8}" for steps in others))
    return "\n".join([*lines, "", "* none is both cheaper and nearer to exact steps"])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
