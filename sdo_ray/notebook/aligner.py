"""Alignment as a loop of one process: rewards in, a LoRA out.

    aligner = Aligner(pipe, {"vivid": vivid}, sampling={"num_inference_steps": 20}, training={"learning_rate": 1e-3})
    for update in aligner.run(prompts, updates=50):
        print(update)
    aligner.save("lora")  # pipe.load_lora_weights("lora")

A batch is sampled, rewarded and taken back by the code that samplers run, and stepped by the trainers' optimizer. What
`sdo align` has beyond that, a cluster, resuming by itself, evaluation and the registry among it, is not here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from rewards.terms import Mixing, RewardTerm
from sdo_ray.config.calls import check_options
from sdo_ray.config.loading import validated
from sdo_ray.media.modality import modality_of
from sdo_ray.media.picture import picture
from sdo_ray.models.adapter_file import has_adapter_file, save_adapter
from sdo_ray.models.checkpointing import checkpoint_as_set
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.lora import adapter_off, started
from sdo_ray.notebook.rewards import Given, asked, local_rewards
from sdo_ray.notebook.settings import AlignerSettings
from sdo_ray.notebook.state import load_state, save_state
from sdo_ray.notebook.update import Update
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.kept_graph import choose_kept_graph
from sdo_ray.rollout.preparation import runner_of, set_decoding
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.sampling import draw
from sdo_ray.rollout.settings import LearningSamplerSettings
from sdo_ray.seeds import derive_seed, generator
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.training.optimizer import learning_rate, make_optimizer, pull_back

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Aligner:
    """Trains a LoRA on a pipeline.

    Args:
        pipeline: of diffusers, without adapters, on the device where it is to compute. It is frozen and gets the LoRA.
        rewards: key -> a function of images [B, 3, H, W] in [0, 1] and B prompts that returns scores [B] with a graph,
            a reward (docs/rewards.md), or the name of one.
        weights: key -> weight; 1 where it is not named, 0: only watched.
        seed: fixes noise, kept steps, the order of prompts and the LoRA's start.
        images_at_once: rows that are sampled together.
        settings: sections `lora`, `sampling`, `plan` and `training`, as in docs/configuration.md, each a mapping; of
            `training` what `sdo_ray.notebook.settings.TRAINING` names.

    Raises:
        SettingsError: a setting or a reward cannot be, or the pipeline has adapters.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        rewards: Mapping[str, Given],
        *,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        images_at_once: int = 8,
        **settings: Any,
    ) -> None:
        self.settings = validated(AlignerSettings, settings)
        _check_given(pipeline, images_at_once)
        self.pipeline, self.seed, self.images_at_once = pipeline, seed, images_at_once
        self.next_update = 0
        """Number of the next update."""
        self._rewards = local_rewards(rewards)
        self._terms = [RewardTerm(key, (weights or {}).get(key, 1.0)) for key in self._rewards]
        self._check(weights or {})
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)
        set_decoding(pipeline, self.settings.sampling.decode)
        model = ModelSettings(base=str(getattr(pipeline, "name_or_path", "") or "pipeline"), lora=self.settings.lora)
        trained = attach_working_copy(pipeline.components, model)
        self._modules = {name: module for name, module in trained.items() if hasattr(module, "peft_config")}
        self._check_file(self._modules)
        checkpoint_as_set(pipeline, None)
        self._runner = runner_of(pipeline, self.settings.sampling)
        self.masters = started(self._modules, self.settings.lora, derive_seed(seed, "adapter", 0))
        """The LoRA's weights, float32 on the CPU; the pipeline holds a copy of its own type."""
        self._initial = {name: weights.clone() for name, weights in self.masters.items()}
        self._take_over()
        training = self.settings.training
        self.optimizer = make_optimizer(training.optimizer, list(self.masters.values()), training.learning_rate)
        pull_back(self.optimizer, self.masters.values(), training.weight_decay)
        on_gpu = float(pipeline.device.type == "cuda")
        here = LearningSamplerSettings(batch_size=images_at_once, in_flight=1, num_gpus=on_gpu)
        self._kept_graph = choose_kept_graph(pipeline, self.settings.sampling, self.settings.plan, here)

    def run(self, prompts: Sequence[str], updates: int) -> Iterator[Update]:
        """Make the updates up to number `updates`, each of `training.batch_size` rows, every prompt once an epoch.

        Args:
            prompts: to learn on.
            updates: how many in all, those before included, so that a loop that was stopped goes on.

        Yields:
            What each came to. Whoever ends the loop ends the training.
        """
        if isinstance(prompts, str) or not prompts:
            got = "got one text, whose letters would be prompts" if prompts else "got none"
            raise SettingsError(Problem("prompts", got, fix="give a list of at least one"))
        size = self.settings.training.batch_size
        while self.next_update < updates:
            [table] = schedule(
                list(prompts),
                seed=self.seed,
                batch_size=size,
                sampler_batch_size=size,
                start=self.next_update,
                stop=self.next_update + 1,
            )
            yield self.update(PromptBatch.from_arrow(table))

    def update(self, batch: PromptBatch) -> Update:
        """One update of the rows of `batch`: up the mean reward of those that count.

        An update whose gradient is not finite, or without a sample that counts, makes no step.
        """
        found = [self._contribution(part) for part in batch.parts(self.images_at_once)]
        done = Update.of(batch.update, found)
        gradients = [contribution.gradient for contribution in found if contribution.num_samples]
        norm = 0.0
        if gradients:
            names = gradients[0].shapes
            total = torch.stack([gradient.vector for gradient in gradients]).sum(0) / done.num_samples
            norm = float(total.norm())
            if torch.isfinite(total).all() and norm:
                training = self.settings.training
                total *= min(1.0, training.max_grad_norm / norm)
                parts = total.split([self.masters[name].numel() for name in names])
                for name, part in zip(names, parts, strict=True):
                    self.masters[name].grad = -part.view_as(self.masters[name])
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(training, batch.update)
                self.optimizer.step()
                self._take_over()
        self.next_update = batch.update + 1
        return done.with_norm(norm)

    def draw(self, prompts: Sequence[str]) -> list[Image.Image]:
        """Pictures of what the policy makes, see `sdo_ray.media.picture`; each place has noise of its own."""
        noise = [generator(self.seed, "preview noise", i) for i in range(len(prompts))]
        samples = draw(self.pipeline, self.settings.sampling.pipeline_call(prompts), noise, self._runner)
        return [picture(x, modality_of(type(self.pipeline))) for x in samples]

    def base_model(self) -> AbstractContextManager[None]:
        """Within the block, the pipeline is the base model."""
        return adapter_off(self.pipeline)

    def save(self, directory: str | Path) -> Path:
        """Write the LoRA for `load_lora_weights`; returns the file."""
        return save_adapter(type(self.pipeline), self._modules, self.masters, Path(directory).expanduser())

    def save_checkpoint(self, file: str | Path) -> None:
        """Write what `load_checkpoint` goes on from, as safetensors."""
        save_state(Path(file).expanduser(), self.masters, self.optimizer, self.next_update)

    def load_checkpoint(self, file: str | Path) -> None:
        """Go on where another `Aligner` of the same settings wrote `file`, with the same images to the bit.

        Raises:
            SettingsError: it is of another LoRA, or no checkpoint.
        """
        self.next_update = load_state(Path(file).expanduser(), self.masters, self.optimizer)
        self._take_over()

    def _contribution(self, batch: PromptBatch) -> Contribution:
        return compute_contribution(
            self.pipeline,
            batch,
            batch.update,
            seed=self.seed,
            sampling=self.settings.sampling,
            plan=self.settings.plan,
            rewards=asked(self._rewards),
            terms=self._terms,
            mixing=Mixing(),
            kept_graph=self._kept_graph,
            differentiable=any(reward.differentiable for reward in self._rewards.values()),
            runner=self._runner,
            others={"base": self._initial},
            anchor=self.settings.training.anchor,
        )

    def _take_over(self) -> None:
        """Give the pipeline the weights."""
        set_parameters(self._modules, self.masters)

    def _check(self, weights: Mapping[str, float]) -> None:
        if unknown := sorted(set(weights) - set(self._rewards)):
            got, legal = f"got {', '.join(unknown)}", f"the rewards are {', '.join(self._rewards)}"
            raise SettingsError(Problem("weights", got, legal, "name one of these"))
        check_options(type(self.pipeline), self.settings.sampling)
        denoisers = find_denoisers(self.pipeline)
        if adapted := [name for name, module in denoisers.items() if getattr(module, "peft_config", None)]:
            got = f"its {adapted[0]} has an adapter"
            raise SettingsError(Problem("pipeline", got, fix="fuse it: `pipe.fuse_lora(); pipe.unload_lora_weights()`"))
        if self.settings.lora.init == "pissa":
            got = "got 'pissa', which takes weights out of the pipeline that is given"
            raise SettingsError(Problem("lora.init", got, "default, gaussian", "choose one, or use `sdo align`"))
        self._check_file(denoisers)

    def _check_file(self, adapted: Collection[str]) -> None:
        if not has_adapter_file(type(self.pipeline), adapted):
            got = f"diffusers has no file for adapters of {' and '.join(adapted)} of a {type(self.pipeline).__name__}"
            raise SettingsError(Problem("pipeline", got, fix="use `sdo align`, which hands out a complete model"))


def _check_given(pipeline: Any, images_at_once: int) -> None:
    if not hasattr(pipeline, "components"):
        got = f"got a {type(pipeline).__name__}"
        raise SettingsError(Problem("pipeline", got, fix="give what `DiffusionPipeline.from_pretrained(...)` returns"))
    if images_at_once < 1:
        raise SettingsError(Problem("images_at_once", f"got {images_at_once}", "it is 1 or more"))
