"""No code path runs what a file brought from outside says: checked on the syntax trees of all code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FILES = [
    file
    for top in ("sdo_ray", "rewards", "pipelines", "benchmarks", "infra")
    for file in sorted((REPOSITORY / top).rglob("*.py"))
]

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def dangers(source: str) -> list[str]:
    """What in a file could run code that it reads, or skip a check, in words."""
    tree = ast.parse(source)
    safe_loaders = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "yaml.SafeLoader" for base in node.bases)
    } | {"yaml.SafeLoader"}
    return [
        f"line {getattr(node, 'lineno', 0)}: {what}"
        for node in ast.walk(tree)
        for what in _dangers_of(node, safe_loaders)
    ]


def _dangers_of(node: ast.AST, safe_loaders: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import {alias.name}" for alias in node.names if alias.name.partition(".")[0] in PICKLES)
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
        yield f"from {node.module} import"
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    loader = given.get("Loader") or (ast.unparse(node.args[1]) if len(node.args) > 1 else None)
    if name in ("eval", "exec", "os.system", "os.popen", "__import__"):
        yield f"{name}()"
    if name in ("torch.load", "torch.jit.load") and given.get("weights_only") != "True":
        yield f"{name} without weights_only=True"
    if name in ("yaml.load", "yaml.load_all") and loader not in safe_loaders:
        yield f"{name} with {loader}"
    if name.startswith("yaml.") and "unsafe" in name:
        yield name
    for argument, harmless in {
        "trust_remote_code": ("False",),
        "allow_pickle": ("False",),
        "shell": ("False",),
        "verify": ("True",),
        "use_safetensors": ("True",),
        "safe_serialization": ("True",),
    }.items():
        if given.get(argument, harmless[0]) not in harmless:
            yield f"{name}({argument}={given[argument]})"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_file_runs_what_it_reads(file: Path) -> None:
    assert dangers(file.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "class L(yaml.Loader): pass\nyaml.load(text, L)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=settings.trust)",
        "DiffusionPipeline.from_pretrained(name, use_safetensors=None)",
        "model.save_pretrained(path, safe_serialization=False)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "requests.get(url, verify=False)",
        "eval(text)",
        "os.system(text)",
    ],
)
def test_the_check_can_fail(source: str) -> None:
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "safetensors.torch.load(data)",
        "class L(yaml.SafeLoader): pass\nyaml.load(text, L)",
        "yaml.safe_load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True)",
    ],
)
def test_what_is_safe_passes(source: str) -> None:
    assert dangers(source) == []
