"""Reports of updates."""

from sdo_ray.training.records import Spread, UpdateReport


def report(update: int, preview: bytes | None = None) -> UpdateReport:
    return UpdateReport(
        update=update,
        reward=Spread(0.5 + update, 0.1),
        scores={"a": Spread(1.0, 0.0), "b": Spread(None, None)},
        gradient_norm=2.0,
        step_norms={3: 0.25},
        policy_lag=1.0,
        num_samples=7,
        num_skipped=1,
        seconds={"sampling": 3.0},
        preview=preview,
    )
