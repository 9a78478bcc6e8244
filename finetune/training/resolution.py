"""What the machine, the encoder and the Hub decided of a recipe → the recipe that runs again."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from finetune.compute.hardware_plan import Hardware
from finetune.config.model_section import STATIC
from finetune.config.schema import Recipe
from finetune.data.local_paths import resolve_local_path
from finetune.training.optimizer import head_scale


@dataclass(frozen=True)
class Resolution:
    """The values that `auto` and `null` came to, by section and key."""

    values: dict[str, dict[str, Any]]

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        plan: Hardware,
        max_length: int,
        frozen_states: str,
        model: PreTrainedModel,
    ) -> "Resolution":
        """Read them off the built model and the machine's plan.

        Args:
            max_length: tokens kept of each document, or of each window.
            frozen_states: the precision in which frozen layers' states are kept, or off.
        """
        encoder: Any = model.base_model.config
        attention = encoder._attn_implementation or "eager"
        if recipe.model.is_static:  # it has none
            attention = recipe.model.attention
        return cls(
            {
                "data": {"max_length": max_length},
                "model": {
                    "attention": attention,
                    "revision": getattr(encoder, "_commit_hash", None) or recipe.model.revision,
                },
                "cache": {"frozen_states": frozen_states},
                "optim": {"head_lr_scale": head_scale(model, recipe.optim)},
                "train": {
                    "precision": plan.precision,
                    "micro_batch_tokens": plan.micro_batch_tokens,
                    "packing": "auto" if plan.packed else "off",
                    "threads": plan.threads,
                },
            }
        )

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe to save: resolved, with local sources as absolute paths.

        So it runs from anywhere. It names no run folder: run again, it gets a new one.
        """
        own: dict[str, dict[str, Any]] = {
            "data": {"source": _absolute(recipe.data.source)},
            "model": {"source": _absolute(recipe.model.source)},
            "run": {"dir": None, "overwrite": False, "resume": None},
        }
        sections = {
            name: getattr(recipe, name).model_copy(
                update=self.values.get(name, {}) | own.get(name, {})
            )
            for name in self.values.keys() | own.keys()
        }
        return recipe.model_copy(update=sections)


def _absolute(source: str) -> str:
    if source.startswith(STATIC):
        return STATIC + _absolute(source.removeprefix(STATIC))
    path = None if source.startswith("package:") else resolve_local_path(source)
    return source if path is None else str(path.absolute())
