"""From an evaluated candidate to a promoted one, and back."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from sdo_ray.evaluation.result import CANDIDATE, SHA256_TAG, Evaluation, evaluation_sha256, read_evaluation
from sdo_ray.evaluation.result import CHAMPION as CHAMPION_ROLE
from sdo_ray.promotion.aliases import (
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    Move,
    complete,
    make,
    read_aliases,
    version_before,
)
from sdo_ray.promotion.lock import Lease, lease
from sdo_ray.promotion.measured import Measured, check_rules
from sdo_ray.promotion.settings import PromoteSettings
from sdo_ray.promotion.verdict import Verdict, apply_rule
from sdo_ray.registry.verify import check_files
from sdo_ray.registry.versions import CHAMPION, PREVIOUS, SCHEME, RegisteredVersion, find_version
from sdo_ray.settings import Problem, SettingsError, at, under
from sdo_ray.storage import RunDirectory
from sdo_ray.tracking.server import impatient

if TYPE_CHECKING:
    from mlflow import MlflowClient

RULES, EVALUATION, EVALUATION_RUN = "sdo.rules", "sdo.evaluation", "sdo.evaluation.run"
EVALUATION_SHA256, COMPARED_WITH = "sdo.evaluation.sha256", "sdo.compared_with"
"""Tags of a version: what it was judged by, where that is, its MLflow run and its files, and the champion of then."""


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
    tried: int = 0
    """Candidates compared with this champion so far, this one included: of many that are no better, some pass."""
    notes: tuple[str, ...] = ()
    """What to know besides."""

    def __str__(self) -> str:
        return "\n".join([*map(str, self.verdicts), *(f"note: {note}" for note in self.notes), self._said])

    @property
    def _said(self) -> str:
        count = f"; candidate {self.tried} of those compared with this champion" if self.tried and self.champion else ""
        return f"{self.decision}: {self.reason}{count}"

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


def promote(
    settings: PromoteSettings, tracking_uri: str, say: Callable[[str], None] = print, *, first: bool = False
) -> Promotion:
    """Decide on the evaluated candidate by the rules and, if it passes, make it the champion.

    The same call again, after it was interrupted or has promoted, does what was left and says the same.

    Args:
        settings: the evaluation, the model and the rules.
        tracking_uri: the MLflow server.
        say: gets a line for everything that is waited for.
        first: promote a first champion although there was one, whose version or alias was deleted.

    Raises:
        SettingsError: before anything is changed: no such model, no complete evaluation, one of something else, files
            that are not those evaluated or registered, or rules that it cannot judge, see `check_rules`.
        LeaseOver: the model's lock was not to be had, or lost.
    """
    from mlflow import MlflowClient

    rules, model = settings.rules(), settings.promotion.model
    run = RunDirectory(settings.evaluation.storage, settings.evaluation.name)
    evaluation = _read(run)
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    aliases = read_aliases(client, model)
    candidate = _candidate(evaluation, model, tracking_uri)
    check_rules(rules, Measured.of(evaluation), CHAMPION_ROLE in evaluation.models)
    sha256 = evaluation_sha256(run)
    _check_evaluation(client, evaluation, sha256)
    verdicts = tuple(apply_rule(rule, evaluation) for rule in rules)
    passes = all(verdict.passed for verdict in verdicts)
    if passes and aliases.get(CHAMPION) != candidate.version:
        with under("evaluation"):
            check_files(candidate, tracking_uri)
    by, when = whoami(), _now()
    notes = tuple(_notes(evaluation, [rule.metric for rule in rules]))

    def outcome(decision: Literal["promoted", "refused", "outdated"], reason: str, tried: int = 0) -> Promotion:
        before = f"{SCHEME}{model}/{aliases[CHAMPION]}" if CHAMPION in aliases else None
        shown = () if decision == "outdated" else verdicts
        return Promotion(decision, reason, candidate.reference, before, run.uri, shown, by, when, tried, notes)

    with _locked(client, settings, by, say) as lock:
        aliases = read_aliases(client, model)
        candidate = find_version(candidate.reference, tracking_uri)
        champion = aliases.get(CHAMPION)
        if champion == candidate.version and candidate.tags.get(EVALUATION_SHA256) == sha256:
            return outcome("promoted", _already(candidate, verdicts))
        if reason := _outdated(evaluation, candidate, aliases, sha256):
            return outcome("outdated", reason)
        if champion is None and not first:
            check_champion(client, model)
        tried = _tried(client, candidate, champion)
        place = {EVALUATION: run.uri, EVALUATION_RUN: evaluation.run_id or "", COMPARED_WITH: str(champion or "none")}
        _tag(client, lock, candidate, place | {RULES: "\n".join(map(str, verdicts)), EVALUATION_SHA256: sha256})
        if failed := [verdict for verdict in verdicts if not verdict.passed]:
            why = f"{when} by {by}, {run.uri}:\n" + "\n".join(map(str, failed))
            _tag(client, lock, candidate, {REFUSED: why})
            return outcome("refused", f"{candidate.reference} fails {len(failed)} of {len(rules)} rules", tried)
        make(client, lock, Move(champion, candidate.version, f"{when} by {by}", is_rollback=False))
    kept = f"; version {champion} is kept as @{PREVIOUS}" if champion else ""
    return outcome("promoted", f"{SCHEME}{model}@{CHAMPION} is version {candidate.version}{kept}", tried)


def roll_back(
    settings: PromoteSettings, version: int, why: str, tracking_uri: str, say: Callable[[str], None] = print
) -> Rollback:
    """Take the champion `version` back: the champion before it is champion again. Done for that one, it goes on back.

    The same call again, after it was interrupted or has rolled back, does what was left and says the same.

    Args:
        settings: the model; its evaluation and rules do not matter.
        version: the champion that is taken back. If another is champion by then, nothing is done.
        why: for the tag of the version that is no longer champion.
        tracking_uri: the MLflow server.
        say: gets a line for everything that is waited for.

    Raises:
        SettingsError: there is no such model, `version` is not its champion, or there is none before it.
        LeaseOver: the model's lock was not to be had, or lost.
    """
    from mlflow import MlflowClient

    model, by, when = settings.promotion.model, whoami(), _now()
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    read_aliases(client, model)
    with _locked(client, settings, by, say) as lock:
        champion = read_aliases(client, model).get(CHAMPION)
        with at("--rollback"):
            done = find_version(f"{SCHEME}{model}/{version}", tracking_uri).tags.get(ROLLED_BACK)
        if champion is not None and champion != version and done:
            when, by, why = _said(done)
            previous = champion
        elif champion != version:
            got = f"got {version}, and the champion of {model!r} is " + ("none" if champion is None else str(champion))
            raise SettingsError(Problem("--rollback", got, fix="look again at which one is to be taken back"))
        elif (before := version_before(client, model, version)) is None:
            got = f"{model!r} has no champion before version {version} to go back to"
            raise SettingsError(Problem("--rollback", got, fix="promote another version"))
        else:
            previous = before
            make(client, lock, Move(version, previous, f"{when} by {by}: {why}", is_rollback=True))
    return Rollback(f"{SCHEME}{model}/{previous}", f"{SCHEME}{model}/{version}", why, by, when)


def check_champion(client: MlflowClient, model: str) -> None:
    """Refuse a registered model whose champion is gone: without one, rules against it judge nothing.

    Raises:
        SettingsError: it has no champion, and versions of it were promoted.
    """
    versions = client.search_model_versions(f"name = '{model}'")
    if any(CHAMPION in version.aliases for version in versions):
        return
    once = [f"version {v.version} ({v.tags[PROMOTED]})" for v in versions if PROMOTED in v.tags]
    if once:
        got = f"{model!r} has no champion, but there were some: {', '.join(once)}"
        fix = f"give the alias {CHAMPION} back to the right version, or promote a first one again with --first"
        raise SettingsError(Problem("promotion.model", got, fix=fix))


def whoami() -> str:
    """USER@HOST; the user of the MLflow server, where one is named."""
    try:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _locked(client: MlflowClient, settings: PromoteSettings, by: str, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the model's lock, with what others left half done completed."""
    owner = f"{by} (process {os.getpid()})"
    with impatient(), lease(client, settings.promotion.model, owner, settings.promotion.lock_seconds, say) as lock:
        if completed := complete(client, lock):
            say(completed)
        yield lock


def _said(rolled_back: str) -> tuple[str, str, str]:
    """When, by whom and why, of the tag."""
    when, _, rest = rolled_back.partition(" by ")
    by, _, why = rest.partition(": ")
    return when, by, why


def _read(run: RunDirectory) -> Evaluation:
    try:
        evaluation = read_evaluation(run, pictures=False)
    except OSError as error:
        got = f"{run.uri} cannot be read: {str(error).splitlines()[0]}"
        raise SettingsError(Problem("evaluation", got, fix="correct it, or the access to it")) from None
    if evaluation is None:
        got = f"there is no complete one in {run.uri}"
        raise SettingsError(Problem("evaluation", got, fix="run `sdo evaluate` with this name and storage"))
    return evaluation


def _check_evaluation(client: MlflowClient, evaluation: Evaluation, sha256: str) -> None:
    """See that the files are those that the evaluation's MLflow run noted: every job can write to the storage."""
    from mlflow.exceptions import MlflowException

    fix = "evaluate again, under another name"
    if evaluation.run_id is None:
        got = f"{evaluation.name!r} is of an earlier version, which did not note its files in MLflow"
        raise SettingsError(Problem("evaluation", got, fix=fix))
    try:
        noted = client.get_run(evaluation.run_id).data.tags.get(SHA256_TAG)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"):
            raise
        cause = " ".join(error.message.split())
        got = f"its MLflow run {evaluation.run_id} cannot be read: {cause}"
        raise SettingsError(Problem("evaluation", got, fix=fix)) from None
    if noted != sha256:
        got = f"its files are not those that its MLflow run {evaluation.run_id} noted; they were changed since"
        raise SettingsError(Problem("evaluation", got, fix=fix))


def _candidate(evaluation: Evaluation, model: str, tracking_uri: str) -> RegisteredVersion:
    """The version that was evaluated."""
    reference = evaluation.models.get(CANDIDATE, "nothing")
    if not reference.startswith(f"{SCHEME}{model}/"):
        got = f"its candidate is {reference}, and promotion.model is {model!r}"
        raise SettingsError(Problem("evaluation", got, fix=f"evaluate a version of it, `{SCHEME}{model}/VERSION`"))
    return find_version(reference, tracking_uri)


def _outdated(evaluation: Evaluation, candidate: RegisteredVersion, aliases: dict[str, int], sha256: str) -> str:
    """Why the evaluation is not, or no longer, about this candidate against this champion; empty if it is."""
    evaluated = evaluation.details.get("sha256", {}).get(CANDIDATE)
    champion = aliases.get(CHAMPION)
    now = f"{SCHEME}{candidate.name}/{champion}" if champion else "nothing"
    then = evaluation.models.get(CHAMPION_ROLE, "nothing")
    if evaluated != candidate.sha256:
        what = f"the files of {candidate.reference} are not those that were evaluated"
    elif champion == candidate.version:
        what = f"{candidate.reference} is the champion already"
    elif candidate.tags.get(ROLLED_BACK) and candidate.tags.get(EVALUATION_SHA256) == sha256:
        what = f"{candidate.reference} was promoted by this evaluation and rolled back ({candidate.tags[ROLLED_BACK]})"
    elif then != now:
        what = f"the champion is {now}, and the evaluation compared with {then}"
    else:
        return ""
    return f"{what}; evaluate again"


def _already(candidate: RegisteredVersion, verdicts: tuple[Verdict, ...]) -> str:
    said = f"{candidate.reference} is the champion, by this evaluation"
    failing = sum(not verdict.passed for verdict in verdicts)
    if failing:
        then = candidate.tags.get(RULES, "").replace("\n", "; ")
        said += f" and the rules of then ({then}); {failing} of those of now fail, which takes nothing back"
    return said


def _tried(client: MlflowClient, candidate: RegisteredVersion, champion: int | None) -> int:
    """Versions compared with this champion, the candidate included."""
    tags = {COMPARED_WITH: str(champion or "none")}
    versions = client.search_model_versions(f"name = '{candidate.name}'")
    others = (v for v in versions if int(v.version) != candidate.version)
    return 1 + sum(tags.items() <= v.tags.items() for v in others)


def _notes(evaluation: Evaluation, metrics: list[str]) -> Iterator[str]:
    told = evaluation.details.get("metrics", {})
    for metric in dict.fromkeys(metrics):
        if told.get(metric, {}).get("trained_on"):
            yield f"the candidate learned from {metric}, which so says how well it learned; have an evaluator beside it"


def _tag(client: MlflowClient, lock: Lease, version: RegisteredVersion, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        lock.check()
        client.set_model_version_tag(version.name, str(version.version), key, value)
