"""Encoder → the same under the head of a masked language model, which tells tokens; and back.

    model, notes = load_language_model(source, recipe.model, attention)
    model(**table.batch(rows, device)).logits        # of the tokens that are asked for
    save_encoder(model, tokenizer, folder)           # loads with AutoModel, and is a model.source

The head is that of the architecture's own class in transformers. Where the source has no weights
for it, as sentence encoders do not, it is new: its transform passes states on, its output weights
are the input embeddings, as in BERT, and its bias says how frequent each token is in the documents.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from finetune.config.schema import Model
from finetune.modeling.build import set_config_dropout, set_dropout
from finetune.modeling.modeling_document_classifier import (
    DocumentClassifier,
    DocumentClassifierConfig,
)
from finetune.modeling.pretrained import (
    hub_arguments,
    load_pretrained,
    read_config,
    set_attention,
    silence_loading,
    validate_weights,
)
from finetune.modeling.saved_model import Tensors, save_tokenizer
from finetune.runtime.atomic_files import share_weights
from finetune.runtime.errors import InputError

KEY = "model.source"


class GivenStates(nn.Module):
    """Stands in an encoder's place below a head, and gives it states that were computed already.

    Attributes:
        embeddings: the encoder's, which some heads read.
        states: (1, tokens, hidden)
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.embeddings = getattr(encoder, "embeddings", None)
        self.states: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        """What the encoder would give."""
        states: Any = self.states
        return BaseModelOutput(last_hidden_state=states)


class MaskedLanguageModel(DocumentClassifier):
    """An encoder under a language model's head: logits of the tokens that a batch asks for.

    It is a classifier of tokens, so that all that packs and trains classifiers takes it.
    """

    def __init__(self, language_model: PreTrainedModel) -> None:
        """
        Args:
            language_model: the architecture's class, of which this takes the encoder.
        """
        config = DocumentClassifierConfig(copy.deepcopy(language_model.config))
        PreTrainedModel.__init__(self, config)
        config.encoder = language_model.config  # with the attention that it was loaded with
        self.encoder = language_model.base_model
        self.takes_types = "token_type_ids" in inspect.signature(self.encoder.forward).parameters
        self.below = GivenStates(self.encoder)
        setattr(language_model, language_model.base_model_prefix, self.below)
        self.whole = language_model
        outputs: Any = language_model.get_output_embeddings()
        self.classifier = outputs

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,  # which only the objective has
        *,
        asked: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_ids, attention_mask, token_type_ids: as of `DocumentClassifier`.
            asked: places among the batch's tokens, row by row (asked,); None: none, and each row's
                pooled state is read instead, by which it is tried whether rows can be packed.

        Returns:
            `logits` (asked, vocabulary), or (rows, vocabulary).
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if self.takes_types and token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs
        )
        states = output.last_hidden_state
        if asked is None:
            read = self.pool(states, attention_mask)
        else:
            read = states.reshape(-1, states.shape[-1]).index_select(0, asked)
        self.below.states = read[None]
        try:
            logits = self.whole(input_ids=asked, return_dict=True).logits[0]
        finally:
            self.below.states = None
        return SequenceClassifierOutput(logits=logits)

    def restore(self) -> PreTrainedModel:
        """The architecture's class with its encoder in place again, which ends this model's use."""
        whole = self.whole
        setattr(whole, whole.base_model_prefix, self.encoder)
        return whole


def load_language_model(
    source: str, options: Model, attention: str, log_frequencies: Tensor, seed: int
) -> tuple[MaskedLanguageModel, bool]:
    """The encoder under its language model's head, in fp32 on the CPU, and whether the head is new.

    Args:
        source: a folder or a Hub id.
        log_frequencies: of each token in the documents: what a new head's bias is. (vocabulary,)
        seed: of weights of a new head that nothing else decides.

    Raises:
        InputError: where there is no such encoder, or its architecture has no such head.
    """
    config = read_config(source, options)
    check_language_model(config, source)
    if options.dropout is not None:
        set_config_dropout(config, options.dropout)
    with silence_loading(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        whole, info = load_pretrained(
            AutoModelForMaskedLM, source, KEY, attention, config=config, **hub_arguments(options)
        )
        prefix = f"{whole.base_model_prefix}."
        fresh = validate_weights(whole, info, prefix, source, KEY, may_be_new=("pooler",))
        if options.dropout is not None:
            set_dropout(whole, options.dropout)
        whole.config.name_or_path = ""  # of this machine
        model = MaskedLanguageModel(whole).eval()
        set_attention(model, attention, asked=False)
    fresh = {name for name in fresh if not name.startswith(prefix)}
    if fresh:
        _start_head(model, fresh, log_frequencies)
    if any(".pooler." in f".{name}" for name, _ in model.encoder.named_parameters()):
        model.encoder.pooler.requires_grad_(False)  # no loss reaches it
    return model, bool(fresh)


def check_language_model(config: PretrainedConfig, source: str) -> None:
    """
    Raises:
        InputError: where transformers has no masked language model of an encoder's architecture.
    """
    if isinstance(config, DocumentClassifierConfig):
        raise InputError(
            f"ENCODER: expected a pretrained encoder, found the classifier '{source}', whose head "
            "would be lost; name the encoder that it began with, and train again from the result"
        )
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise InputError(
            f"ENCODER: expected an architecture that transformers has as a masked language model, "
            f"such as BERT, found '{config.model_type}' in '{source}'"
        )


@torch.no_grad()
def _start_head(model: MaskedLanguageModel, fresh: set[str], log_frequencies: Tensor) -> None:
    """What the weights of a head that the source lacks start with."""
    outputs = model.classifier
    for name, module in model.whole.named_modules():
        if f"{name}.weight" not in fresh or module is outputs:
            continue
        if isinstance(module, nn.Linear) and module.in_features == module.out_features:
            nn.init.eye_(module.weight)
    for name, parameter in model.whole.named_parameters():
        if name in fresh and parameter.shape == log_frequencies.shape:
            parameter.copy_(log_frequencies)


def save_encoder(
    model: MaskedLanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    original: PretrainedConfig,
    more: Tensors,
) -> None:
    """Write encoder, head and tokenizer as transformers does; the model is of no use then.

    Args:
        original: the source's config, whose dropout was left out in training.
        more: weights of the encoder that no loss reached, by their names in it.
    """
    whole = model.restore()
    for name, value in vars(original).items():
        if "dropout" in name or name.endswith("pdrop"):
            setattr(whole.config, name, value)
    weights = {name: value.detach().cpu() for name, value in whole.state_dict().items()}
    weights |= {f"{whole.base_model_prefix}.{name}": value for name, value in more.items()}
    with silence_loading():
        whole.save_pretrained(folder, state_dict=weights)
        save_tokenizer(tokenizer, folder)
    share_weights(folder)


def read_unreached(source: str, options: Model) -> tuple[PretrainedConfig, Tensors]:
    """The source's config, and its pooler, which a language model's class leaves out.

    Raises:
        InputError: where the source cannot be loaded.
    """
    config = read_config(source, options)
    original = copy.deepcopy(config)
    with silence_loading(), torch.random.fork_rng(devices=[]):
        encoder, info = load_pretrained(
            AutoModel, source, KEY, "eager", config=config, **hub_arguments(options)
        )
        fresh = validate_weights(encoder, info, "", source, KEY, may_be_new=("pooler",))
    return original, {
        name: value.detach().clone()
        for name, value in encoder.state_dict().items()
        if name.startswith("pooler.") and name not in fresh
    }


def log_frequencies(counts: Sequence[int] | Any) -> Tensor:
    """The logarithm of each token's share, each counted once more than it was met. (vocabulary,)"""
    shares = torch.as_tensor(counts, dtype=torch.float64) + 1
    return (shares / shares.sum()).log().float()
