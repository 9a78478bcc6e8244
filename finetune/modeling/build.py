"""Source + label space → a classifier that is ready to train; classifier ↔ folder.

model = build(source, recipe.model, labels, attention="sdpa", seed=0)
save(model, tokenizer, folder)
model, tokenizer = load(folder)
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from finetune.config.schema import Model
from finetune.data.label_tasks import Tasks
from finetune.data.number_scale import NumberScale
from finetune.modeling import head as head_module
from finetune.modeling.freezing import freeze, freeze_unreached
from finetune.modeling.kept_labels import keep_rows, match_labels
from finetune.modeling.layer_selection import cut_layers, resolve_layers
from finetune.modeling.model_identity import check_identity
from finetune.modeling.modeling_document_classifier import (
    DocumentClassifier,
    DocumentClassifierConfig,
)
from finetune.modeling.pretrained import (
    encoder_config,
    hub_arguments,
    load_pretrained,
    load_tokenizer,
    read_config,
    set_attention,
    silence_loading,
    validate_weights,
)
from finetune.modeling.saved_model import weights_hash
from finetune.runtime.errors import InputError


def build_classifier(
    source: str,
    options: Model,
    labels: Sequence[str],
    attention: str,
    seed: int,
    priors: Sequence[float] | None = None,
    ordered: bool = False,
    scale: NumberScale | Tasks | None = None,
) -> PreTrainedModel:
    """The pretrained encoder under a new head, frozen as chosen, in fp32 on the CPU, in eval mode.

    Where `source` is a classifier of the same labels and pooling, its head is trained on; with
    `model.head_init: keep` also where only some of the labels are the same.

    Args:
        source: a folder or a Hub id.
        labels: the label space; `labels[i]` names the logits' column i.
        attention: eager, sdpa or flash_attention_2. An encoder that has no sdpa or flash attention
            runs eager, unless the recipe asked for it by name.
        seed: of the new weights; the global random state stays as it is.
        priors: multi-label: the share of train's rows that have each label. Then each logit has a
            sigmoid of its own, and a new head starts from that share.
        ordered: whether the labels go from the lowest to the highest; for the linear head.
        scale: of the numbers to be predicted, whose name is the one of `labels`; or the tasks that
            `labels` are of; for the linear head.

    Raises:
        InputError: where the source has no such encoder, or the recipe's choices do not fit it.
    """
    config = read_config(source, options)
    check_identity(source, "model.source", config, None, revision=options.revision)
    if options.dropout is not None:
        set_config_dropout(encoder_config(config), options.dropout)
    keeps, multi_label = options.head_init == "keep", priors is not None
    known = match_labels(config, source, options, labels, multi_label) if keeps else None
    fields = _label_fields(labels if known is None else known.of_source, multi_label, ordered)
    if isinstance(scale, NumberScale):
        fields |= _number_fields(scale)
    elif scale is not None:
        fields["tasks"] = scale.as_config()
    with silence_loading(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed, the CPU's only
        build_with_head = HEADS[options.head]
        model, fresh, head_is_trained = build_with_head(source, config, options, fields, attention)
        if options.dropout is not None:
            set_dropout(model, options.dropout)
        if options.keep_layers is not None:
            encoder: Any = model.base_model
            cut_layers(encoder, resolve_layers(options.keep_layers, encoder.config))
    if known is not None:
        _require_head(head_is_trained, source)
        keep_rows(model, known, labels, options, source, priors)
        model.config.update(_label_fields(labels, multi_label, ordered))
    elif not head_is_trained:
        _start_head(model, options, labels, source, seed, priors)
    _freeze_pretrained(model, options.freeze, fresh)
    with silence_loading():
        set_attention(model, attention, asked=options.attention != "auto")
    return model


def _require_head(is_there: bool, source: str) -> None:
    """
    Raises:
        InputError: where there is no head to keep.
    """
    if not is_there:
        raise InputError(
            f"model.head_init: keep: expected a classifier with a head, found none in '{source}'; "
            "set model.head_init=zeros or label_names"
        )


def _start_head(
    model: PreTrainedModel,
    options: Model,
    labels: Sequence[str],
    source: str,
    seed: int,
    priors: Sequence[float] | None,
) -> None:
    """What a new head starts with."""
    head = head_module.find_head(model)
    if options.head_init == "label_names":
        head_module.initialize_from_names(model, load_tokenizer(source, options), labels)
    else:
        head_module.initialize_head(head, options.head_init, seed)
    if priors is not None:
        head_module.initialize_at_priors(head, priors)
    elif getattr(model.config, "ordered", False):
        head_module.initialize_ordered(head)


def initial_weights_hash(model: PreTrainedModel, options: Model, from_priors: bool = False) -> str:
    """The hash of the weights that a run begins with.

    Without a head that was made of names, in whole or in part: encoder, labels and tokenizer decide
    it, but threads and kernels its last bits, and a run may go on with others.

    Args:
        from_priors: whether the head's bias follows from the labels of train: without it.
    """
    weights, head = model.state_dict(), head_module.head_name(model)
    made_of = getattr(model.base_model.config, "distilled_from", None)
    if options.is_static and made_of is not None:
        # Like names, distilled embeddings have last bits that threads and kernels decide. Those of
        # a folder, which may be trained ones, are as they are.
        prefix = f"{model.base_model_prefix}."
        weights = {name: w for name, w in weights.items() if not name.startswith(prefix)}
        weights[made_of] = torch.zeros(0)
    if "label_names" in (options.head_init, options.head_init == "keep" and options.new_labels):
        weights = {name: w for name, w in weights.items() if name.rpartition(".")[0] != head}
    elif from_priors:
        weights.pop(f"{head}.bias", None)
    return weights_hash(weights)


# The model, the names of its weights that the source lacks, and whether its head is one that the
# source trained for the same labels.
Built = tuple[PreTrainedModel, set[str], bool]


def _build_linear(
    source: str, config: PretrainedConfig, options: Model, fields: dict[str, Any], attention: str
) -> Built:
    inner = encoder_config(config)
    if inner.model_type not in CONFIG_MAPPING:
        raise InputError(
            f"model.head: 'linear' needs an encoder that transformers has, found "
            f"'{inner.model_type}' with its own code in '{source}'; set model.head=native"
        )
    whole = DocumentClassifierConfig(
        encoder=inner,
        pooling=options.pooling,
        pooled_norm=options.pooled_norm,
        classifier_dropout=_own_dropout(config) if options.dropout is None else options.dropout,
        **fields,
    )
    if isinstance(config, DocumentClassifierConfig):
        model, info = load_pretrained(
            DocumentClassifier,
            source,
            "model.source",
            attention,
            config=whole,
            **hub_arguments(options),
        )
        fresh = validate_weights(model, info, "encoder.", source, "model.source")
        model.config.encoder.name_or_path = ""
        same = _is_same_task(config, fields) and all(
            getattr(config, key) == getattr(options, key) for key in ("pooling", "pooled_norm")
        )
        return model, fresh, same
    encoder, info = load_pretrained(
        AutoModel,
        source,
        "model.source",
        attention,
        config=inner,
        **hub_arguments(options),
    )
    validate_weights(encoder, info, "", source, "model.source", ("pooler",))
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
    outputs = len(fields["id2label"]) - bool(fields.get("ordered"))
    model.classifier = nn.Linear(encoder.config.hidden_size, outputs)
    return model, set(), False


def _build_native(
    source: str, config: PretrainedConfig, options: Model, fields: dict[str, Any], attention: str
) -> Built:
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
    model, info = load_pretrained(
        AutoModelForSequenceClassification,
        source,
        "model.source",
        attention,
        config=config,
        **hub_arguments(options),
    )
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    head = head_module.head_name(model)
    fresh = validate_weights(model, info, prefix, source, "model.source", ("pooler", head))
    return model, fresh, same and f"{head}.weight" not in fresh


# model.head → how the encoder gets it. A new kind is an entry here, and its name in the schema.
HEADS = {"linear": _build_linear, "native": _build_native}


def set_config_dropout(config: PretrainedConfig, rate: float) -> None:
    """Every dropout field. Before building: some modules read a rate once, or become Identity."""
    for name, value in list(vars(config).items()):
        is_rate = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        if ("dropout" in name or name.endswith("pdrop")) and is_rate:
            setattr(config, name, rate)


def _freeze_pretrained(model: PreTrainedModel, what: str | int, fresh: set[str]) -> None:
    """Freeze what the recipe says of the pretrained weights, and what no loss reaches."""
    freeze(model, what)
    for name, parameter in model.named_parameters():
        if name in fresh:
            parameter.requires_grad_(True)  # nothing pretrained to keep there
    head_module.find_head(model).requires_grad_(True)
    model.eval()
    freeze_unreached(model)


def set_dropout(model: PreTrainedModel, rate: float) -> None:
    """Every dropout module: some classes have a rate of their own."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def _own_dropout(config: PretrainedConfig) -> float:
    """The rate that the architecture has before its own head."""
    for name in ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    return 0.0


def _is_same_task(config: PretrainedConfig, fields: Mapping[str, Any]) -> bool:
    """Whether a source's head predicts the same labels, both by a softmax or both by sigmoids."""
    multi_label = "multi_label_classification"
    same_kind = (config.problem_type == multi_label) == (fields["problem_type"] == multi_label)
    same_kind &= getattr(config, "ordered", False) == fields.get("ordered", False)
    same_kind &= all(
        getattr(config, key, None) == fields.get(key) for key in ("number_mean", "number_deviation")
    )
    same_kind &= _task_sizes(getattr(config, "tasks", None)) == _task_sizes(fields.get("tasks"))
    return same_kind and bool(dict(config.id2label or {}) == fields["id2label"])


def _task_sizes(tasks: Sequence[Mapping[str, Any]] | None) -> list[tuple[Any, Any]]:
    """The tasks, whatever their weights."""
    return [(task.get("name"), task.get("labels")) for task in tasks or ()]


def _number_fields(number: NumberScale) -> dict[str, Any]:
    """By these, `pipeline` and the model's own code give a number in the user's unit."""
    return {
        "number_mean": number.mean,
        "number_deviation": number.deviation,
        "problem_type": "regression",
    }


def _label_fields(
    labels: Sequence[str], multi_label: bool, ordered: bool = False
) -> dict[str, Any]:
    kind = "multi" if multi_label else "single"
    return {
        **({"ordered": True} if ordered else {}),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        # By this, `pipeline` uses a sigmoid or a softmax, whatever an earlier task had.
        "problem_type": f"{kind}_label_classification",
    }
