"""A promoter that is killed between two changes of the registry."""

from typing import Any

import mlflow
import pytest

from sdo_ray.promotion.aliases import MOVE


class Killed(BaseException):
    """Nothing that a process does after SIGKILL arrives."""


def kill_at(monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """Kill whoever has changed the registry `nth` times since it noted its move, that change included."""
    began, dead = list[Any](), list[bool]()

    def changing(real: Any) -> Any:
        def change(self: Any, *arguments: Any) -> Any:
            if dead:
                raise Killed
            if began or MOVE in arguments:
                began.append(arguments)
            answer = real(self, *arguments)
            if len(began) == nth:
                dead.append(True)
                raise Killed
            return answer

        return change

    for kind in ("registered_model_alias", "registered_model_tag", "model_version_tag"):
        for verb in ("set", "delete"):
            name = f"{verb}_{kind}"
            monkeypatch.setattr(mlflow.MlflowClient, name, changing(getattr(mlflow.MlflowClient, name)))
