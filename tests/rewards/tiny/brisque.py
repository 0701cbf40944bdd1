from pathlib import Path
from typing import Any


def save_brisque(folder: Path) -> dict[str, Any]:
    """A regression with two vectors, in the files' formats; its options."""
    vectors = [" ".join(f"{i}:{0.1 * ((i * step) % 7 - 3):.2f}" for i in range(1, 37)) for step in (2, 3)]
    head = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 2\nrho -40\nSV\n"
    (folder / "allmodel").write_text(head + f"60 {vectors[0]}\n-30 {vectors[1]}\n")
    (folder / "allrange").write_text("x\n-1 1\n" + "".join(f"{i} -0.5 3\n" for i in range(1, 37)))
    return {"model": folder / "allmodel", "ranges": folder / "allrange"}
