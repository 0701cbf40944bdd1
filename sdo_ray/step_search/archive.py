"""What was measured so far, in the run's directory, so that the same command goes on from there."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet

from sdo_ray.settings import Problem, SettingsError
from sdo_ray.step_search.candidate import Candidate, Genes
from sdo_ray.step_search.costs import Costs
from sdo_ray.step_search.evolution import Measured
from sdo_ray.storage import RunDirectory

CANDIDATES, COSTS = "candidates.parquet", "costs.json"

SCHEMA = pa.schema(
    [
        ("generation", pa.int64()),
        ("hold", pa.string()),
        ("hold_number", pa.int64()),
        ("order", pa.int64()),
        ("steps", pa.list_(pa.int64())),
        ("cost", pa.float64()),
        ("error", pa.float64()),
    ]
)


class Archive:
    """Every candidate that was measured, kept as soon as it is.

    Args:
        run: the directory.
        genes: what candidates' numbers mean.

    Attributes:
        known: in the order of measuring.
    """

    def __init__(self, run: RunDirectory, genes: Genes) -> None:
        self._run, self._genes = run, genes
        self.known = self._read()

    def add(self, one: Measured) -> None:
        """Keep one."""
        self.known.append(one)
        rows = [
            {
                "generation": each.generation,
                "hold": self._genes.holds[each.candidate.hold].name,
                "hold_number": each.candidate.hold,
                "order": each.candidate.order,
                "steps": list(each.candidate.steps),
                "cost": each.cost,
                "error": each.error,
            }
            for each in self.known
        ]
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer)
        self._run.write(CANDIDATES, buffer.getvalue())

    def costs(self) -> Costs | None:
        """What calls cost, if that was measured; once, as the search depends on it."""
        found = self._run.read_json(COSTS, lost="what calls cost; delete candidates.parquet too, or they do not match")
        if found is None:
            return None
        computed, held = ({int(way): cost for way, cost in found[key].items()} for key in ("computed", "held"))
        return Costs(computed, held, self._genes.num_steps)

    def keep_costs(self, costs: Costs) -> None:
        """Keep them."""
        self._run.write_json(COSTS, {"computed": dict(costs.computed), "held": dict(costs.held)})

    def _read(self) -> list[Measured]:
        try:
            table = pyarrow.parquet.read_table(pa.BufferReader(self._run.read(CANDIDATES)))
        except FileNotFoundError:
            return []
        except pa.ArrowInvalid as error:
            got = f"{self._run.place(CANDIDATES)} is damaged: {error}"
            fix = "restore it, or delete it and run the same command again, which then measures all anew"
            raise SettingsError(Problem("run.storage", got, fix=fix)) from None
        return [
            Measured(
                Candidate(row["hold_number"], row["order"], tuple(row["steps"])),
                row["generation"],
                row["cost"],
                row["error"],
            )
            for row in table.to_pylist()
        ]
