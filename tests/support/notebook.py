"""Runs a notebook's cells as Jupyter would; `python -m tests.support.notebook FILE` keeps their outputs in it."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image


def run(cells: list[str]) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, in nbformat 4; raises what a cell raises."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run_cell(cell, names) for cell in cells]


def _run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    tree, printed, shown = ast.parse(source), io.StringIO(), None
    last = end if tree.body and isinstance(end := tree.body[-1], ast.Expr) else None
    if last is not None:
        tree.body.pop()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if shown is not None:
        data: dict[str, Any] = {"text/plain": [repr(shown).partition(" at 0x")[0]]}
        if isinstance(shown, Image.Image):
            png = io.BytesIO()
            shown.save(png, "PNG")
            data = {"text/plain": [f"<an image of {shown.width} x {shown.height}>"]}
            data["image/png"] = base64.b64encode(png.getvalue()).decode()
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    return outputs


def cells_of(notebook: dict[str, Any]) -> list[str]:
    """The code of its code cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    content = json.loads(file.read_text())
    outputs = iter(run(cells_of(content)))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        cell |= {"outputs": next(outputs), "execution_count": number}
    file.write_text(json.dumps(content, indent=1) + "\n")
