"""Source + label space → a classifier that is ready to train; classifier ↔ folder.

    model = build(source, recipe.model, labels, attention="sdpa", seed=0)
    save(model, tokenizer, folder)
    model, tokenizer = load(folder)

Importing this module registers `DocumentClassifier`, so that the Auto classes and `pipeline` load
its folders without `trust_remote_code`.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from finetune import heads
from finetune.freezing import freeze, freeze_unreached
from finetune.modeling_document_classifier import DocumentClassifier, DocumentClassifierConfig
from finetune.pretrained import (
    check_folder,
    encoder_config,
    first_line,
    hub_arguments,
    load_tokenizer,
    quietly,
    read_config,
    reading,
)
from finetune.problems import InputError, some
from finetune.recipe import Model

AutoConfig.register(DocumentClassifierConfig.model_type, DocumentClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    DocumentClassifierConfig, DocumentClassifier, exist_ok=True
)


def build(
    source: str,
    choices: Model,
    labels: Sequence[str],
    attention: str,
    seed: int,
    priors: Sequence[float] | None = None,
) -> PreTrainedModel:
    """The pretrained encoder under a new head, frozen as chosen, in fp32 on the CPU, in eval mode.

    Where `source` is a classifier of the same labels, pooled alike, its head goes on being trained.

    Args:
        source: a folder or a Hub id.
        labels: the label space; `labels[i]` names the logits' column i.
        attention: eager, sdpa or flash_attention_2. An encoder that has no sdpa or flash attention
            runs eager, unless the recipe asked for it by name.
        seed: of the new weights; the global random state stays as it is.
        priors: where a row may have several labels, the share of train's rows that have each. Then
            each logit has a sigmoid of its own, and a new head starts from that share.

    Raises:
        InputError: where the source has no such encoder, or the recipe's choices do not fit it.
    """
    config = read_config(source, choices)
    if choices.dropout is not None:
        _set_config_dropout(encoder_config(config), choices.dropout)
    make = _linear if choices.head == "linear" else _native
    with quietly(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed, the CPU's only
        model, fresh, head_is_trained = make(
            source, config, choices, _label_fields(labels, priors is not None), attention
        )
        if choices.dropout is not None:
            for module in model.modules():
                if isinstance(module, nn.Dropout):  # some classes have a rate of their own
                    module.p = choices.dropout
    head = heads.of(model)
    if not head_is_trained and choices.head_init == "names":
        heads.start_from_names(model, load_tokenizer(source, choices), labels)
    elif not head_is_trained:
        heads.start(head, choices.head_init, seed)
    if not head_is_trained and priors is not None:
        heads.start_at_priors(head, priors)
    freeze(model, choices.freeze)
    for name, parameter in model.named_parameters():
        if name in fresh:
            parameter.requires_grad_(True)  # nothing pretrained to keep there
    head.requires_grad_(True)
    model.eval()
    freeze_unreached(model)
    with quietly():
        _set_attention(model, attention, asked=choices.attention != "auto")
    return model


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights (safetensors), config, tokenizer and, for the linear head, its code.

    Args:
        weights: the model's by name, where the model itself holds only a shard of them.
    """
    with quietly():
        model.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)


def load(
    source: Path | str,
    attention: str = "sdpa",
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A saved classifier, in fp32 on the CPU, in eval mode, and its tokenizer.

    Args:
        source: a folder or a Hub id.

    Raises:
        InputError: where the folder is not a whole model folder, or the Hub has no such model.
    """
    key = source = str(source)
    check_folder(source, key)
    hub: dict[str, Any] = {
        "local_files_only": Path(source).is_dir(),
        "trust_remote_code": trust_remote_code,
        "revision": revision,
    }
    with quietly():
        model, info = _from_pretrained(
            AutoModelForSequenceClassification, source, key, attention, **hub
        )
        _check_weights(model, info, "", source, key)
        _set_attention(model, attention, asked=False)
        with reading(source, key):
            tokenizer = AutoTokenizer.from_pretrained(source, **hub)
    return model, tokenizer


def shell(model: PreTrainedModel) -> PreTrainedModel:
    """A copy without weights: sharding changes a model's own class, and what is saved of it."""
    bare = copy.deepcopy(model)
    torch.nn.Module.to(bare, "meta")
    return bare


def weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of weights by name: the same for the same numbers, on every machine."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def first_weights(
    model: PreTrainedModel, choices: Model, priors: Sequence[float] | None = None
) -> str:
    """The hash of the weights that a run begins with.

    Without a head that was made of names: encoder, labels and tokenizer decide it, but threads and
    kernels its last bits, and a run may go on with others. A bias that starts at priors counts as
    zeros, where it once started: train decides it, and checkpoints hold what became of it.
    """
    weights, its = model.state_dict(), heads.name_of(model)
    if choices.head_init == "names":
        weights = {name: w for name, w in weights.items() if name.rpartition(".")[0] != its}
    elif priors is not None and heads.is_at_priors(heads.of(model), priors):
        weights[f"{its}.bias"] = torch.zeros_like(weights[f"{its}.bias"])
    return weights_hash(weights)


# What the two makers return: the model, the names of its weights that the source does not have,
# and whether its head is one that the source trained for the same labels.
Made = tuple[PreTrainedModel, set[str], bool]


def _linear(
    source: str, config: PretrainedConfig, choices: Model, fields: dict[str, Any], attention: str
) -> Made:
    inner = encoder_config(config)
    if inner.model_type not in CONFIG_MAPPING:
        raise InputError(
            f"model.head: 'linear' needs an encoder that transformers has, found "
            f"'{inner.model_type}' with its own code in '{source}'; set model.head=native"
        )
    whole = DocumentClassifierConfig(
        encoder=inner,
        pooling=choices.pooling,
        pooled_norm=choices.pooled_norm,
        classifier_dropout=_own_dropout(config) if choices.dropout is None else choices.dropout,
        **fields,
    )
    if isinstance(config, DocumentClassifierConfig):
        model, info = _from_pretrained(
            DocumentClassifier,
            source,
            "model.source",
            attention,
            config=whole,
            **hub_arguments(choices),
        )
        fresh = _check_weights(model, info, "encoder.", source, "model.source")
        model.config.encoder.name_or_path = ""
        same = _is_same_task(config, fields) and all(
            getattr(config, key) == getattr(choices, key) for key in ("pooling", "pooled_norm")
        )
        return model, fresh, same
    encoder, info = _from_pretrained(
        AutoModel,
        source,
        "model.source",
        attention,
        config=inner,
        **hub_arguments(choices),
    )
    _check_weights(encoder, info, "", source, "model.source", ("pooler",))
    # The saved config keeps neither the path on this machine nor the labels of an earlier task.
    encoder.config.name_or_path = ""
    encoder.config.problem_type = None
    encoder.config.id2label = None
    encoder.config.num_labels = 2
    whole.encoder = encoder.config
    with torch.device("meta"):  # a shell: an encoder of its own would be thrown away
        model = DocumentClassifier(whole)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = model.encoder.pooler
    model.encoder = encoder
    model.classifier = nn.Linear(encoder.config.hidden_size, len(fields["id2label"]))
    return model, set(), False


def _native(
    source: str, config: PretrainedConfig, choices: Model, fields: dict[str, Any], attention: str
) -> Made:
    if isinstance(config, DocumentClassifierConfig):
        raise InputError(
            f"model.head: 'native' needs an encoder or a native classifier, found a linear one in "
            f"'{source}'; set model.head=linear, or model.source to the encoder it began with"
        )
    own_code = "AutoModelForSequenceClassification" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not own_code:
        raise InputError(
            f"model.head: 'native' needs an architecture with a classification class, and "
            f"'{config.model_type}' has none; set model.head=linear"
        )
    same = _is_same_task(config, fields)
    for name, value in fields.items():
        setattr(config, name, value)
    model, info = _from_pretrained(
        AutoModelForSequenceClassification,
        source,
        "model.source",
        attention,
        config=config,
        **hub_arguments(choices),
    )
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    head = heads.name_of(model)
    fresh = _check_weights(model, info, prefix, source, "model.source", ("pooler", head))
    return model, fresh, same and f"{head}.weight" not in fresh


def _from_pretrained(
    auto: Any, source: str, key: str, attention: str, **more: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with fp32 weights from safetensors (never a pickle), and the loading report."""
    with reading(source, key):
        model, info = auto.from_pretrained(
            source,
            # sdpa is the default, and falls back to eager where the architecture has none.
            attn_implementation="eager" if attention == "eager" else None,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # `_check_weights` says it better
            output_loading_info=True,
            **more,
        )
    return model, info


def _check_weights(
    model: PreTrainedModel,
    info: dict[str, Any],
    prefix: str,
    source: str,
    key: str,
    may_be_new: Sequence[str] = (),
) -> set[str]:
    """The names of the weights that are new; InputError where some under `prefix` are.

    But for the parts that may be new: a head, and a pooler, which language models come without.
    """
    shapes = {name: (tuple(found), tuple(want)) for name, found, want in info["mismatched_keys"]}
    missing = set(info["missing_keys"]) | set(shapes)
    wrong = sorted(
        name
        for name in missing
        if name.startswith(prefix) and not any(f".{part}." in f".{name}" for part in may_be_new)
    )
    if wrong:
        said = [
            f"{n} {shapes[n][0]} instead of {shapes[n][1]}" if n in shapes else n for n in wrong
        ]
        raise InputError(
            f"{key}: expected the weights that config.json describes, but in '{source}' "
            f"{len(wrong)} of {len(model.state_dict())} are missing or of another shape: "
            f"{some(said)}; get the model again, or mend its config.json"
        )
    return missing


def _set_config_dropout(config: PretrainedConfig, rate: float) -> None:
    """Every dropout field. Before building: some modules read a rate once, or become Identity."""
    for name, value in list(vars(config).items()):
        is_rate = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        if ("dropout" in name or name.endswith("pdrop")) and is_rate:
            setattr(config, name, rate)


def _own_dropout(config: PretrainedConfig) -> float:
    """The rate that the architecture has before its own head."""
    for name in ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    return 0.0


def _set_attention(model: PreTrainedModel, attention: str, asked: bool) -> None:
    """Check what was asked for, and switch on flash attention, which loading left off.

    Off until now because it cannot run on the CPU, where the model is built.
    """
    encoder = model.base_model
    has = {
        "sdpa": encoder._supports_sdpa,
        "flash_attention_2": encoder._supports_flash_attn,
    }.get(attention, True)
    if not has:
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


def _is_same_task(config: PretrainedConfig, fields: Mapping[str, Any]) -> bool:
    """Whether a source's head gives the same labels, by a softmax or sigmoids alike."""
    several = "multi_label_classification"
    alike = (config.problem_type == several) == (fields["problem_type"] == several)
    return alike and bool(dict(config.id2label or {}) == fields["id2label"])


def _label_fields(labels: Sequence[str], several: bool) -> dict[str, Any]:
    kind = "multi" if several else "single"
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        # By this, `pipeline` uses a sigmoid or a softmax, whatever an earlier task had.
        "problem_type": f"{kind}_label_classification",
    }
