"""A model's folder or Hub id → its config, tokenizer and weights."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import ERROR, getLogger
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    dynamic_module_utils,
)
from transformers.utils import logging

from finetune.config.schema import Model
from finetune.modeling.layer_selection import cut_config, resolve_layers
from finetune.modeling.load_errors import explain_load_errors, first_line
from finetune.modeling.model_identity import check_identity
from finetune.modeling.modeling_document_classifier import (
    DocumentClassifier,
    DocumentClassifierConfig,
    StaticEncoder,
    StaticEncoderConfig,
)
from finetune.modeling.source_checks import Shapes, check_source
from finetune.modeling.tokenizer_fit import POSITIONS_AFTER_PADDING, read_tokenizer
from finetune.runtime.errors import InputError, shorten

STATIC_SIZE = 256  # numbers of a static embedding, or of the encoder's states where they have fewer
SPARE_WEIGHTS = 10_000_000  # 40 MB: a new head, a pooler; a tiny model may describe so much more
# Whoever loads a model imports this module, so that the Auto classes and `pipeline` know a
# `DocumentClassifier` folder, and need no `trust_remote_code` for it.
AutoConfig.register(DocumentClassifierConfig.model_type, DocumentClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    DocumentClassifierConfig, DocumentClassifier, exist_ok=True
)
AutoConfig.register(StaticEncoderConfig.model_type, StaticEncoderConfig, exist_ok=True)
AutoModel.register(StaticEncoderConfig, StaticEncoder, exist_ok=True)


def load_config(source: str, options: Model) -> PretrainedConfig:
    """The encoder's config, with the layers that stay; of a `DocumentClassifier` folder, the one
    inside; of `static:…`, that of the static embeddings.

    Args:
        source: a folder or a Hub id.

    Raises:
        InputError: where there is no config, none of a text encoder, or one of fewer layers.
    """
    config = encoder_config(read_config(source, options))
    if options.keep_layers is not None:
        cut_config(config, resolve_layers(options.keep_layers, config))
    return static_config(config, None) if options.is_static else config


def static_config(encoder: PretrainedConfig, distilled_from: str | None) -> StaticEncoderConfig:
    """The config of static embeddings that are distilled from an encoder of this config.

    Args:
        distilled_from: as of `StaticEncoderConfig`.
    """
    return StaticEncoderConfig(
        vocab_size=encoder.vocab_size,
        hidden_size=min(STATIC_SIZE, encoder.hidden_size),
        distilled_from=distilled_from,
        pad_token_id=getattr(encoder, "pad_token_id", None),
    )


def load_tokenizer(source: str, options: Model) -> PreTrainedTokenizerBase:
    """The tokenizer beside the encoder.

    Raises:
        InputError: where there is none, or one that does not fit the encoder.
    """
    config = read_config(source, options)
    with silence_loading():
        tokenizer = read_tokenizer(
            source, "model.source", encoder_config(config), **hub_arguments(options)
        )
    check_identity(
        source, "model.source", config, tokenizer, weights=False, revision=options.revision
    )
    return tokenizer


def max_positions(config: PretrainedConfig) -> int | None:
    """How many tokens a text may have, special ones included; None where nothing limits it."""
    config = encoder_config(config)
    try:
        size: object = config.max_position_embeddings
    except (AttributeError, NotImplementedError):  # XLNet's raises
        return None
    if not isinstance(size, int) or size <= 0:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        return size - int(config.pad_token_id) - 1
    return size


def read_config(source: str, options: Model) -> PretrainedConfig:
    config = read_checked_config(source, "model.source", **hub_arguments(options))
    encoder = encoder_config(config)
    if encoder.is_encoder_decoder or getattr(encoder, "vocab_size", None) is None:
        raise InputError(
            f"model.source: expected a text encoder such as BERT, found '{encoder.model_type}' in "
            f"'{source}'; name another model"
        )
    return config


def read_checked_config(
    source: str,
    key: str,
    *,
    trust_remote_code: bool,
    revision: str | None = None,
    classifier: bool = False,
) -> PretrainedConfig:
    """A model's config, once its files make sense.

    Args:
        classifier: whether its labels will be used.

    Raises:
        InputError: where there is none, with every problem of it otherwise.
    """
    with silence_loading(), explain_load_errors(source, key):
        check_source(source, key, revision, classifier)
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    forget_implementations(config)
    return config


def forget_implementations(config: PretrainedConfig) -> None:
    """Have no config choose how attention and experts are computed: the recipe does, or torch."""
    for value in (config, *vars(config).values()):
        if isinstance(value, PretrainedConfig):
            for name in ("_attn_implementation_internal", "_experts_implementation_internal"):
                if getattr(value, name, None) is not None:
                    setattr(value, name, None)
            if value is not config:
                forget_implementations(value)


def hub_arguments(options: Model) -> dict[str, Any]:
    return {"revision": options.revision, "trust_remote_code": options.trust_remote_code}


def encoder_config(config: PretrainedConfig) -> PretrainedConfig:
    return config.encoder if isinstance(config, DocumentClassifierConfig) else config


@contextmanager
def silence_loading() -> Iterator[None]:
    """Without progress bars, retries of the Hub's client, and the report on new weights, which
    `validate_weights` reads; and without a question on stdin.

    Where code comes with a model, and no caller said whether to trust it, transformers asks, and
    takes what is on stdin for the answer: the documents. With no time to wait it refuses. Every
    load here says it, but some classes load others within them, and do not.
    """
    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = getLogger("huggingface_hub")
    of_hub = hub.level
    logging.set_verbosity_error()
    hub.setLevel(ERROR)
    logging.disable_progress_bar()
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds
        logging.set_verbosity(verbosity)
        hub.setLevel(of_hub)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(
    auto: Any,
    source: str,
    key: str,
    attention: str,
    *,
    config: PretrainedConfig,
    trust_remote_code: bool,
    revision: str | None = None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with fp32 weights from safetensors (never a pickle), and the loading report.

    Args:
        auto: the class that loads it.
        config: as `read_checked_config` gave it.

    Raises:
        InputError: where it cannot be loaded; where the config describes far more than the weights.
    """
    with explain_load_errors(source, key):
        shapes = check_source(source, key, revision, weights=True)
        if not trust_remote_code:  # else its own code says what is built
            check_allocation(auto, config, shapes, source, key)
        model, info = auto.from_pretrained(
            source,
            config=config,
            revision=revision,
            trust_remote_code=trust_remote_code,
            # sdpa is the default, and falls back to eager where the architecture has none.
            attn_implementation="eager" if attention == "eager" else None,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # `validate_weights` reports it better
            output_loading_info=True,
        )
    return model, info


def check_allocation(
    auto: Any, config: PretrainedConfig, shapes: Shapes, source: str, key: str
) -> None:
    """Compare what a config describes with the weights, before memory is taken for it.

    Args:
        auto: the class that will be loaded; it is built without memory here.

    Raises:
        InputError: where the model would have more than twice the weights that are there.
    """
    there = sum(math.prod(shape) for shape in shapes.values())
    if not there:
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole = copy.deepcopy(config)
        if isinstance(whole, DocumentClassifierConfig):
            model: PreTrainedModel = DocumentClassifier(whole)
        else:
            model = auto.from_config(whole, trust_remote_code=False)
    # What is computed from the config takes memory as well: masks and tables of positions.
    described = sum(parameter.numel() for parameter in model.parameters())
    described += sum(buffer.numel() * buffer.element_size() // 4 for buffer in model.buffers())
    if described > 2 * there + SPARE_WEIGHTS:
        raise InputError(
            f"{key}: expected the weights that config.json describes, {described:,} numbers, found "
            f"{there:,} in '{source}'; get the model again, or fix its config.json"
        )


def validate_weights(
    model: PreTrainedModel,
    info: dict[str, Any],
    prefix: str,
    source: str,
    key: str,
    may_be_new: Sequence[str] = (),
) -> set[str]:
    """The names of the weights that the source lacks, which are new.

    Args:
        may_be_new: a head, and a pooler, which language models come without.

    Raises:
        InputError: where others under `prefix` are new.
    """
    shapes = _mismatched_shapes(model, info)
    missing = set(info["missing_keys"]) | set(shapes)
    wrong = sorted(
        name
        for name in missing
        if name.startswith(prefix) and not any(f".{part}." in f".{name}" for part in may_be_new)
    )
    if wrong:
        listed = [f"{name} {shapes[name]}" if name in shapes else name for name in wrong]
        raise InputError(
            f"{key}: expected the weights that config.json describes, but in '{source}' "
            f"{len(wrong)} of {len(model.state_dict())} are missing or of another shape: "
            f"{shorten(listed)}; get the model again, or fix its config.json"
        )
    return missing


def _mismatched_shapes(model: PreTrainedModel, info: dict[str, Any]) -> dict[str, str]:
    """Name → the shape in the file and in the model, for weights where they differ."""
    wanted, differ = model.state_dict(), {}
    for entry in info["mismatched_keys"]:
        # transformers 5: (name, found, wanted); 4: the name alone.
        name, found = (entry, "another shape") if isinstance(entry, str) else entry[:2]
        found = found if isinstance(found, str) else tuple(found)
        differ[name] = f"{found} instead of {tuple(wanted[name].shape)}"
    return differ


def set_attention(model: PreTrainedModel, attention: str, asked: bool) -> None:
    """Check what was asked for, and switch on flash attention, which loading left off.

    Off until now because it cannot run on the CPU, where the model is built.
    """
    encoder = model.base_model
    supported = {
        "sdpa": encoder._supports_sdpa,
        "flash_attention_2": encoder._supports_flash_attn,
    }.get(attention, True)
    if not supported:
        if asked:
            raise InputError(
                f"model.attention: {type(encoder).__name__} has no '{attention}'; set "
                "model.attention=auto or eager"
            )
        return
    if attention == "flash_attention_2":
        try:
            model.set_attn_implementation(attention)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"model.attention: '{attention}' does not work here: {first_line(error)}; set "
                "model.attention=auto"
            ) from error
        switched = model.config._attn_implementation == attention
        if not switched and asked:  # transformers 4 only warns
            raise InputError(
                f"model.attention: this release of transformers cannot switch "
                f"{type(encoder).__name__} to '{attention}'; set model.attention=auto, or install "
                "transformers 5"
            )
