"""Make an evaluated model the champion, if it passes the rules: `sdo promote CONFIG [--rollback VERSION --why TEXT]`.

`models:/NAME@champion` then names it, and `@previous` the one before. Exit codes: 0 promoted, 3 refused by the rules,
2 bad input or an evaluation that is out of date, 1 failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipelines.job import run_job
from sdo_ray.exit_codes import ExitCode
from sdo_ray.promotion.settings import PromoteSettings
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.server import check_server, tracking_uri

CODES = {"promoted": ExitCode.OK, "refused": ExitCode.REFUSED, "outdated": ExitCode.BAD_INPUT}
"""Exit codes by decision."""

PROMOTION, ROLLBACK = "promotion.json", "rollback.json"
"""Summaries for programs, beside the evaluation."""


def check(settings: PromoteSettings) -> tuple[RunDirectory, str]:
    """All that is checked before the registry is asked: returns the evaluation's directory, and MLflow's address.

    Raises:
        SettingsError: rules that are none, or an MLflow that does not answer.
    """
    settings.rules()
    run = RunDirectory(settings.evaluation.storage, settings.evaluation.name)
    check_server(uri := tracking_uri(run))
    return run, uri


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument(
        "--rollback", metavar="VERSION", type=int, help="take this champion back: the one before it is champion again"
    )
    flags.add_argument("--why", metavar="TEXT", default="", help="reason of the rollback, kept with the version")
    flags.add_argument("--first", action="store_true", help="there was a champion, and it is gone: promote a first one")
    given, _ = flags.parse_known_args(arguments)

    def job(settings: PromoteSettings) -> int:
        # Not at the top: what only prints the help does not wait for torch.
        from sdo_ray.promotion.promote import promote, roll_back

        if given.rollback is not None and not given.why.strip():
            fix = "give one, for those who find the version later"
            raise SettingsError(Problem("--why", "a rollback takes a reason", fix=fix))
        run, uri = check(settings)
        if given.rollback is not None:
            rollback = roll_back(settings, given.rollback, given.why, uri)
            print(rollback, run.write_json(ROLLBACK, rollback.to_dict()), sep="\n")
            return ExitCode.OK
        promotion = promote(settings, uri, first=given.first)
        print(promotion, run.write_json(PROMOTION, promotion.to_dict()), sep="\n")
        return CODES[promotion.decision]

    return run_job("promote", arguments, flags, job)


if __name__ == "__main__":
    sys.exit(main())
