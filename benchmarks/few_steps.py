"""How near a model of few steps has come to its own samples of many: Frechet distances before and after.

python -m benchmarks.few_steps RUN FOLDER

RUN is the directory of a run of `pipelines/configs/few_steps_emoji.yaml`, whose closing comparison has images of
held-out prompts by the base and by the aligned model, both with few steps; FOLDER has images that the base makes with
many. The features are those of `sdo evaluate`: EfficientNet-Lite0 at 128 pixels, mean pooling. As many images are taken
of each; the distance between two halves of FOLDER says how far such sets of one model are apart.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rewards.features import FeatureSettings, ImageFeatures
from rewards.towers.references import image_files, read_image
from sdo_ray.evaluation.distances import frechet_distance
from sdo_ray.media.picture import open_image


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    table = pq.read_table(given.run / "heldout.parquet")
    network = ImageFeatures(FeatureSettings(size=128))
    references = _features(network, [read_image(file)[0] for file in image_files(given.folder)])
    many = references[: len(table)]
    print("| images | Frechet distance from the base's of many steps |\n|---|---|")
    for role in ("base", "aligned"):
        images = [_tensor(png) for png in table[role].to_pylist()]
        print(f"| {role}, few steps | {frechet_distance(_features(network, images[: len(many)]), many):.1f} |")
    halves = f"{len(references[::2])} against {len(references[1::2])}"
    print(f"| the base's of many steps, {halves} | {frechet_distance(references[::2], references[1::2]):.1f} |")


def _tensor(png: bytes) -> Tensor:
    return torch.from_numpy(np.asarray(open_image(png)).copy()).permute(2, 0, 1).float() / 255


def _features(network: ImageFeatures, images: list[Tensor]) -> np.ndarray:
    with torch.no_grad():
        parts = [network(torch.stack(images[i : i + 16])) for i in range(0, len(images), 16)]
    return torch.cat(parts).double().numpy()


if __name__ == "__main__":
    main()
