"""A run's directory, on a disk and at a URI."""

from pathlib import Path

import pytest

from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory


@pytest.fixture(params=["directory", "uri"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path) if request.param == "directory" else f"file://{tmp_path}", "run")


def test_what_is_written_is_read(run: RunDirectory, tmp_path: Path) -> None:
    assert run.read_json("a/b.json") is None
    assert run.write_json("a/b.json", {"x": [1]}) == run.place("a/b.json")
    assert run.read_json("a/b.json") == {"x": [1]}
    assert (tmp_path / "run/a/b.json").is_file()


def test_directories_are_copied_with_what_is_in_them(run: RunDirectory, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_bytes(b"\0\1")
    (source / "top").write_text("t")
    run.copy_in(source)
    assert (tmp_path / "run/deep/file").read_bytes() == b"\0\1"
    assert (tmp_path / "run/top").read_text() == "t"


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunDirectory("runs", "a").uri == f"{tmp_path}/runs/a"


def test_room_on_the_disk(run: RunDirectory) -> None:
    run.check_space(1)
    if run.is_local:
        with pytest.raises(SettingsError, match=r"run\.storage: .* MB free, and the run's checkpoints need"):
            run.check_space(10**18)
    else:
        run.check_space(10**18)
    assert run.read_json("anything") is None  # looking wrote nothing there


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a directory")
    with pytest.raises(SettingsError, match="cannot be written"):
        RunDirectory(str(tmp_path / "runs"), "run").check_space(1)


def test_an_unknown_kind_of_storage() -> None:
    with pytest.raises(SettingsError, match=r"run\.storage: 'tape://x' cannot be used"):
        RunDirectory("tape://x", "run")


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    run = RunDirectory(str(tmp_path), "run")
    run.write("a", b"before")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    class Slow:
        """The local filesystem, killed between the writing of a file and its end."""

        def __getattr__(self, name: str) -> object:
            return killed if name == "move" else getattr(filesystem, name)

    filesystem = run.filesystem
    run.filesystem = Slow()
    with pytest.raises(KeyboardInterrupt):
        run.write("a", b"after")
    assert (tmp_path / "run/a").read_bytes() == b"before"


@pytest.mark.parametrize("query", ["region=eu-west-1", "endpoint_override=minio:9000&scheme=http"])
def test_runs_at_a_uri_with_options_are_apart(query: str) -> None:
    a, b = (RunDirectory(f"s3://bucket/runs/?{query}", name) for name in ("a", "b"))
    assert (a.path, b.path) == ("bucket/runs/a", "bucket/runs/b")
    assert a.uri == f"s3://bucket/runs/a?{query}"
    assert a.place("x/y.json") == f"s3://bucket/runs/a/x/y.json?{query}"


def test_what_is_copied_in_is_copied_out(run: RunDirectory, tmp_path: Path) -> None:
    run.write("deep/file", b"\0\1")
    assert run.has("deep")
    assert run.has("deep/file")
    assert not run.has("deep/other")
    assert (run.copy_out("deep", tmp_path / "out") / "file").read_bytes() == b"\0\1"
    assert run.copy_out("deep/file", tmp_path / "new/one").read_bytes() == b"\0\1"


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        ("runs/one", f"{Path.cwd()}/runs/one"),
        ("one/", f"{Path.cwd()}/one"),
        ("file:///a/b/one", "/a/b/one"),
        ("s3://bucket/runs/one?region=x", "s3://bucket/runs/one?region=x"),
    ],
)
def test_a_run_is_found_by_its_place(place: str, uri: str) -> None:
    assert RunDirectory.at(place).uri == uri
    assert RunDirectory.at(place).name == "one"
