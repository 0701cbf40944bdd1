"""From an evaluated candidate to a promoted one, and back."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdo_ray.evaluation.result import CANDIDATE, IMAGES, NUMBERS, Evaluation, read_evaluation
from sdo_ray.evaluation.result import CHAMPION as CHAMPION_ROLE
from sdo_ray.promotion.aliases import crown, read_aliases, step_back
from sdo_ray.promotion.lock import lease
from sdo_ray.promotion.measured import Measured, check_rules
from sdo_ray.promotion.settings import PromoteSettings
from sdo_ray.promotion.verdict import Verdict, apply_rule
from sdo_ray.registry.versions import CHAMPION, PREVIOUS, SCHEME, RegisteredVersion, find_version
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.server import impatient

if TYPE_CHECKING:
    from mlflow import MlflowClient

RULES, EVALUATION, EVALUATION_SHA256 = "sdo.rules", "sdo.evaluation", "sdo.evaluation.sha256"
CHAMPION_BEFORE, PROMOTED = "sdo.champion_before", "sdo.promoted"
REFUSED, ROLLED_BACK = "sdo.refused", "sdo.rolled_back"
"""Tags of a version: what it was evaluated by, what it replaced, and what was done with it, by whom, when and why."""


@dataclass(frozen=True)
class Promotion:
    """What came of one attempt."""

    decision: Literal["promoted", "refused", "outdated"]
    """`refused` by the rules; `outdated`: the evaluation is not, or no longer, about this candidate against this
    champion, so nothing was decided: evaluate again."""
    reason: str
    """In words."""
    candidate: str
    """`models:/NAME/VERSION`."""
    champion: str | None
    """The champion before, likewise; None if there was none."""
    evaluation: str
    """Where the evaluation is."""
    verdicts: tuple[Verdict, ...]
    """Every rule with its numbers; empty if outdated."""
    by: str
    """Who promoted."""
    when: str
    """ISO time, UTC."""

    def __str__(self) -> str:
        return "\n".join([*map(str, self.verdicts), f"{self.decision}: {self.reason}"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rollback:
    """A champion that was taken back."""

    champion: str
    """`models:/NAME/VERSION` of the champion that is again."""
    instead_of: str
    """Of the one that was."""
    why: str
    by: str
    when: str

    def __str__(self) -> str:
        return f"{self.champion} is champion again, instead of {self.instead_of}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def promote(settings: PromoteSettings, tracking_uri: str, say: Callable[[str], None] = print) -> Promotion:
    """Decide on the evaluated candidate by the rules and, if it passes, make it the champion.

    The same call again, after it was interrupted or has promoted, does what was left and says the same.

    Args:
        settings: the evaluation, the model and the rules.
        tracking_uri: the MLflow server.
        say: gets a line for everything that is waited for.

    Raises:
        SettingsError: before anything is changed: no such model, no complete evaluation, one of something else, or
            rules that it cannot judge, see `check_rules`.
        LeaseOver: the model's lock was not to be had, or lost.
    """
    from mlflow import MlflowClient

    rules, model = settings.rules(), settings.promotion.model
    run = RunDirectory(settings.evaluation.storage, settings.evaluation.name)
    evaluation = _read(run)
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    aliases = read_aliases(client, model)
    candidate = _candidate(evaluation, model, tracking_uri)
    sha256, by, when = _sha256(run), whoami(), datetime.now(UTC).isoformat(timespec="seconds")

    def outcome(
        decision: Literal["promoted", "refused", "outdated"], reason: str, verdicts: tuple[Verdict, ...] = ()
    ) -> Promotion:
        before = f"{SCHEME}{model}/{aliases[CHAMPION]}" if CHAMPION in aliases else None
        return Promotion(decision, reason, candidate.reference, before, run.uri, verdicts, by, when)

    check_rules(rules, Measured.of(evaluation), CHAMPION_ROLE in evaluation.models)
    verdicts = tuple(apply_rule(rule, evaluation) for rule in rules)
    tags = {RULES: "\n".join(map(str, verdicts)), EVALUATION: run.uri, EVALUATION_SHA256: sha256}
    if aliases.get(CHAMPION) == candidate.version and candidate.tags.get(EVALUATION_SHA256) == sha256:
        _tag(client, candidate, {PROMOTED: candidate.tags.get(PROMOTED, f"{when} by {by}")})
        return outcome("promoted", f"{candidate.reference} is the champion, by this evaluation", verdicts)
    if reason := _outdated(evaluation, candidate, aliases, sha256):
        return outcome("outdated", reason)
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        _tag(client, candidate, {REFUSED: f"{when} by {by}, {run.uri}:\n" + "\n".join(map(str, failed))})
        return outcome("refused", f"{candidate.reference} fails {len(failed)} of {len(rules)} rules", verdicts)

    _attach(client, candidate, evaluation.name, run)
    owner = f"{by} (process {os.getpid()})"
    with impatient(), lease(client, model, owner, settings.promotion.lock_seconds, say) as lock:
        aliases = read_aliases(client, model)
        candidate = find_version(candidate.reference, tracking_uri)
        if reason := _outdated(evaluation, candidate, aliases, sha256):
            return outcome("outdated", reason)
        champion = aliases.get(CHAMPION)
        _tag(client, candidate, tags | {CHAMPION_BEFORE: str(champion or "none")})
        crown(client, lock, champion, candidate.version)
        _tag(client, candidate, {PROMOTED: f"{when} by {by}"}, without=(REFUSED, ROLLED_BACK))
    kept = f"; version {champion} is kept as @{PREVIOUS}" if champion else ""
    return outcome("promoted", f"{SCHEME}{model}@{CHAMPION} is version {candidate.version}{kept}", verdicts)


def roll_back(settings: PromoteSettings, why: str, tracking_uri: str, say: Callable[[str], None] = print) -> Rollback:
    """Make the champion before the champion again. There is one step back: then `previous` is gone, until a promotion.

    Args:
        settings: the model; its evaluation and rules do not matter.
        why: for the tag of the version that is no longer champion.
        tracking_uri: the MLflow server.
        say: gets a line for everything that is waited for.

    Raises:
        SettingsError: there is no such model, no champion, or none before it.
        LeaseOver: the model's lock was not to be had, or lost.
    """
    from mlflow import MlflowClient

    model, by, when = settings.promotion.model, whoami(), datetime.now(UTC).isoformat(timespec="seconds")
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    _steps_back(read_aliases(client, model), model)
    owner = f"{by} (process {os.getpid()})"
    with impatient(), lease(client, model, owner, settings.promotion.lock_seconds, say) as lock:
        champion, previous = _steps_back(read_aliases(client, model), model)
        lock.check()
        client.set_model_version_tag(model, str(champion), ROLLED_BACK, f"{when} by {by}: {why}")
        step_back(client, lock, previous)
    return Rollback(f"{SCHEME}{model}/{previous}", f"{SCHEME}{model}/{champion}", why, by, when)


def whoami() -> str:
    """USER@HOST; the user of the MLflow server, where one is named."""
    try:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _read(run: RunDirectory) -> Evaluation:
    try:
        evaluation = read_evaluation(run)
    except OSError as error:
        got = f"{run.uri} cannot be read: {str(error).splitlines()[0]}"
        raise SettingsError(Problem("evaluation", got, fix="correct it, or the access to it")) from None
    if evaluation is None:
        got = f"there is no complete one in {run.uri}"
        raise SettingsError(Problem("evaluation", got, fix="run `sdo evaluate` with this name and storage"))
    return evaluation


def _sha256(run: RunDirectory) -> str:
    """Of the evaluation's two files."""
    digest = hashlib.sha256()
    for name in (NUMBERS, IMAGES):
        with run.filesystem.open_input_stream(f"{run.path}/{name}") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def _candidate(evaluation: Evaluation, model: str, tracking_uri: str) -> RegisteredVersion:
    """The version that was evaluated."""
    reference = evaluation.models.get(CANDIDATE, "nothing")
    if not reference.startswith(f"{SCHEME}{model}/"):
        got = f"its candidate is {reference}, and promotion.model is {model!r}"
        raise SettingsError(Problem("evaluation", got, fix=f"evaluate a version of it, `{SCHEME}{model}/VERSION`"))
    return find_version(reference, tracking_uri)


def _outdated(evaluation: Evaluation, candidate: RegisteredVersion, aliases: dict[str, int], sha256: str) -> str:
    """Why the evaluation is not, or no longer, about this candidate against this champion; empty if it is."""
    evaluated = evaluation.details.get("sha256", {}).get(CANDIDATE, candidate.sha256)
    champion = aliases.get(CHAMPION)
    now = f"{SCHEME}{candidate.name}/{champion}" if champion else "nothing"
    then = evaluation.models.get(CHAMPION_ROLE, "nothing")
    if evaluated != candidate.sha256:
        what = f"the files of {candidate.reference} are not those that were evaluated"
    elif champion == candidate.version:
        what = f"{candidate.reference} is the champion already"
    elif ROLLED_BACK in candidate.tags and candidate.tags.get(EVALUATION_SHA256) == sha256:
        what = f"{candidate.reference} was promoted by this evaluation and rolled back ({candidate.tags[ROLLED_BACK]})"
    elif then != now:
        what = f"the champion is {now}, and the evaluation compared with {then}"
    else:
        return ""
    return f"{what}; evaluate again"


def _attach(client: MlflowClient, candidate: RegisteredVersion, name: str, run: RunDirectory) -> None:
    """Keep the evaluation's files with the MLflow run that made the candidate."""
    if candidate.run_id is None:
        return
    with tempfile.TemporaryDirectory() as directory:
        for file in (NUMBERS, IMAGES):
            local = Path(directory) / file
            with run.filesystem.open_input_stream(f"{run.path}/{file}") as stream:
                local.write_bytes(stream.read())
            client.log_artifact(candidate.run_id, str(local), f"evaluations/{name}")


def _tag(client: MlflowClient, version: RegisteredVersion, tags: dict[str, str], without: tuple[str, ...] = ()) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)
    for key in without:
        if key in version.tags:
            client.delete_model_version_tag(version.name, str(version.version), key)


def _steps_back(aliases: dict[str, int], model: str) -> tuple[int, int]:
    """The champion and the one before."""
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if champion is None:
        got = f"{model!r} has no champion to roll back"
        raise SettingsError(Problem("promotion.model", got, fix="promote a version first"))
    if previous is None or previous == champion:
        raise SettingsError(
            Problem(
                "promotion.model",
                f"{model!r} has no champion before version {champion} to go back to",
                "one step is kept by a promotion, none by a rollback",
                "promote another version",
            )
        )
    return champion, previous
