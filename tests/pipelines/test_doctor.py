"""`sdo doctor`: real checks of this machine, and of conditions that are easily made bad."""

from pathlib import Path

from pipelines.doctor import doctor, main
from sdo_ray.doctor import machine, services, software
from sdo_ray.doctor.finding import Finding, Level, ok, run_check, warning


def test_this_machine_can_run(capsys, monkeypatch) -> None:
    """Everything for real: Ray is started."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    code = main([])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "ran a task in" in out
    assert "11 checks: 0 problems" in out


def test_a_check_that_breaks_stops_no_other_and_counts_as_a_problem(capsys) -> None:
    def broken() -> Finding:
        """the moon."""
        raise OSError("no telescope")

    def half() -> Finding:
        return warning("the sun", "is low", "wait")

    assert doctor([broken, half, lambda: ok("the earth", "is here")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "problem  the moon: could not be checked: OSError: no telescope"
    assert lines[1] == "warning  the sun: is low. To mend: wait"
    assert lines[2] == "ok       the earth: is here"
    assert lines[-1] == "3 checks: 1 problems, 1 warnings"
    assert doctor([half]) == 0


def test_little_room(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "LITTLE_DISK", 10**18)
    monkeypatch.setattr(machine, "LITTLE_SHARED_MEMORY", 10**18)
    assert machine.disk_space(tmp_path).level is Level.WARNING
    assert "--shm-size" in machine.shared_memory(tmp_path).mend
    assert machine.shared_memory(tmp_path / "nowhere").level is Level.OK


def test_packages_against_the_metadata(monkeypatch, tmp_path: Path) -> None:
    info = tmp_path / "doctored-1.0.dist-info"
    info.mkdir()
    wants = ["numpy<1", "pyyaml>=6", "no-such-package>=1", 'neither-this>=2; extra == "emoji"']
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: doctored\nVersion: 1.0\n" + "".join(f"Requires-Dist: {w}\n" for w in wants)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(software, "PACKAGE", "doctored")
    found = software.required_packages()
    assert found.level is Level.PROBLEM
    assert found.says.startswith("numpy is ")
    assert found.says.endswith("not <1; no-such-package is missing")
    found = software.emoji_packages()
    assert found.level is Level.WARNING
    assert found.says.startswith("neither-this is missing")
    assert found.mend == "pip install 'sdo-ray[emoji]'"


def test_torchvision_that_does_not_import(monkeypatch, tmp_path: Path) -> None:
    info = tmp_path / "torchvision-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1\n")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    found = software.torchvision_absent_or_matching()
    assert found.level is Level.PROBLEM
    assert "nms does not exist" in found.says
    assert found.mend == "pip uninstall torchvision"


def test_token_is_named_and_never_shown(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    found = services.ray_cluster()
    assert found.level is Level.PROBLEM
    assert "RAY_ADDRESS is http://head:8265" in found.says
    assert "RAY_AUTH_TOKEN_PATH" in found.mend
    for name, value in (("RAY_AUTH_TOKEN", "hunter2"), ("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))):
        (tmp_path / "token").write_text("hunter2")
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            found = services.ray_cluster()
            assert found.level is Level.OK
            assert "hunter2" not in str(found)


def test_a_cluster_without_authentication_is_said_to_be_open(monkeypatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    found = services.ray_cluster()
    assert found.level is Level.WARNING
    assert "whoever reaches such a cluster can run code on it" in found.says
    assert "RAY_AUTH_MODE=token" in found.mend
    monkeypatch.delenv("RAY_ADDRESS")
    assert services.ray_cluster().level is Level.OK


def test_mlflow_that_does_not_answer(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter2@127.0.0.1:9")
    found = run_check(services.mlflow_server)
    assert found.level is Level.PROBLEM
    assert "MLflow at http://127.0.0.1:9 does not answer" in found.says
    assert "start the server" in found.mend
    assert "hunter2" not in str(found)


def test_ray_that_takes_too_long() -> None:
    found = services.ray_starts(seconds=0.01)
    assert found.level is Level.PROBLEM
    assert "does not answer" in found.says
