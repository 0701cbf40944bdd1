"""Reward models of the Qwen2-VL kind: a head at tokens of their own.

what is seen, and a text with the tokens -> Qwen2-VL -> states at the tokens -> head
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, Qwen2VLModel

from rewards.towers.checkpoint import load_strict, precision
from rewards.towers.qwen_vl import QwenVl, from_old_names


class TokenHead:
    """A Qwen2-VL with a head.

    Positions count on through what is seen, and do not follow its rows and columns: the reward models of this kind pass
    the language model none, and transformers 4.45, which they were trained with, then counted.

    Args:
        base: the model that it was trained from, for its configuration and tokenizer; hub id or local folder.
        tokens: that it has beside those of `base`.
        tensors: of the model and, under `rm_head`, of the head, by names of any version of transformers.
        head: width of the states -> the head, without weights.
        what: the model's name, for messages.
        pixels: of an image or frame, at least and at most.
        dtype: what the model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: the base is not there.
        ValueError: other keys or shapes.
    """

    def __init__(
        self,
        base: str,
        tokens: Sequence[str],
        tensors: Mapping[str, Tensor],
        head: Callable[[int], nn.Module],
        what: str,
        pixels: tuple[int, int],
        dtype: str,
        device: str,
    ) -> None:
        tensors = from_old_names(tensors)
        tensors.pop("lm_head.weight", None)  # it writes no words
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_special_tokens({"additional_special_tokens": [*tokens]})
        self._tokens = torch.tensor(tokenizer.convert_tokens_to_ids([*tokens]), device=device)
        config = AutoConfig.from_pretrained(base)
        embedded = tensors.get("model.language_model.embed_tokens.weight", ())
        config.text_config.vocab_size = max(len(embedded), 1)
        with init_empty_weights():
            network = nn.ModuleDict({"model": Qwen2VLModel(config), "rm_head": head(config.text_config.hidden_size)})
        load_strict(network, tensors, what).to(device)
        self._head = network["rm_head"].to(torch.promote_types(precision(dtype), torch.float32))
        self.vlm = QwenVl(network["model"].to(precision(dtype)), tokenizer, config.model_type, pixels)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the head says at each of the tokens, where it is last, [tokens, outputs].

        Args:
            inputs: from `vlm`.
        """
        ids = inputs["input_ids"]
        counted = torch.arange(ids.shape[1], device=ids.device)[None]
        states = self.vlm.model(**inputs, position_ids=counted, use_cache=False).last_hidden_state[0]
        last = torch.stack([(ids[0] == token).nonzero()[-1, 0] for token in self._tokens])
        return self._head(states[last].to(next(self._head.parameters()).dtype))


def check_instruction(file: Path, *parts: str) -> None:
    """Check what such a model is asked: a text with the places and tokens that it must have.

    Raises:
        ValueError: it lacks one, or there is none.
    """
    file = file.expanduser()
    text = file.read_text() if file.is_file() else ""
    if missing := [part for part in parts if part not in text]:
        raise ValueError(f"option 'instruction': {str(file)!r} must be a text with {' and '.join(missing)} in it")
