"""Token ids → logits: a pretrained encoder, pooling, dropout, and one linear layer.

    states = encoder(ids)                   # (rows, tokens, hidden)
    pooled = mean of the real tokens' states, or the first token's state, in fp32;
             where `pooled_norm` says so, scaled to that length
    logits = classifier(dropout(pooled))    # (rows, classes)

Where the labels are ordered, `classifier` has one output less than there are labels, and `logits`
are the logarithms of the labels' probabilities (`ordered_log_probabilities`). Where a number is
predicted, `classifier` has one output, and `logits` is that number in the unit of the training data
(`number_mean`, `number_deviation`). Where the labels are those of several tasks (`tasks`), `logits`
are the log-odds of each label among those of its task (`task_log_odds`).

The encoder may also be a table of static embeddings (`StaticEncoder`), one vector for each token
whatever is around it, so that pooling is the mean of table rows.

There is no tanh layer between pooling and logits, and no other new weight than `classifier`.
`config.json` holds the encoder's whole config under `encoder`, the pooling, and the label names.

This file needs torch and transformers only. It travels with the weights, so that

    AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    pipeline("text-classification", model=folder, trust_remote_code=True)

work where the toolkit that trained the model is not installed. Where it is, `import
finetune.modeling.build` makes both work without the flag.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput


def pool_mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the real tokens. (rows, tokens, hidden) → (rows, hidden)"""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (rows, tokens, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def pool_cls(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The first real token's state. (rows, tokens, hidden) → (rows, hidden)"""
    first = attention_mask.int().argmax(dim=1)  # not 0 where the padding is on the left
    return states[torch.arange(len(states), device=states.device), first]


# `pooling` → how a row's token states become one vector. A new one is a function above and an entry
# here, and its name under `model.pooling` in the recipe's schema.
POOLINGS = {"mean": pool_mean, "cls": pool_cls}


def ordered_log_probabilities(outputs: Tensor) -> Tensor:
    """What a head of ordered labels puts out → the logarithm of each label's probability.

    Output k is the logit of being above label k, given that it is not below (CORN, Shi et al. 2021,
    arXiv 2111.08851). By the chain rule, label k has the probability of being above all before it,
    and not above k itself; so the probabilities are consistent, and sum to 1. Their cross-entropy
    is the sum of CORN's binary losses. (rows, labels - 1) → (rows, labels)
    """
    above = nn.functional.logsigmoid(outputs).cumsum(dim=1)
    above = nn.functional.pad(above, (1, 0))  # nothing is below the first label
    return above + nn.functional.pad(nn.functional.logsigmoid(-outputs), (0, 1))


class StaticEncoderConfig(PretrainedConfig):
    """The shape of a table of static embeddings.

    Args:
        vocab_size, hidden_size: its rows and columns.
        distilled_from: a hash of the encoder that it was made of, and of how; None: not known.
        kwargs: `pad_token_id` and the rest of `PretrainedConfig`.
    """

    model_type = "static-embeddings"

    def __init__(
        self,
        vocab_size: int = 16,
        hidden_size: int = 16,
        distilled_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers = 0
        self.distilled_from = distilled_from
        super().__init__(**kwargs)


class StaticEncoder(PreTrainedModel):
    """Token ids → a vector for each token, the same whatever is around it."""

    config_class = StaticEncoderConfig

    def __init__(self, config: StaticEncoderConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.embeddings = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """(rows, tokens) → `last_hidden_state` (rows, tokens, hidden)."""
        states = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        return BaseModelOutput(last_hidden_state=states)


def task_log_odds(outputs: Tensor, sizes: Sequence[int]) -> Tensor:
    """What a head of several tasks puts out → the log-odds of each label among those of its task.

    The probabilities of a task's labels are the softmax of its outputs; log p / (1 - p) of a label
    is its output less the log-sum-exp of the others'. So a sigmoid of each gives the probability,
    as with any model of several labels. (rows, labels) → (rows, labels)

    Args:
        sizes: how many labels, 2 or more, each task has, in the order of the outputs.
    """
    found = []
    for block in outputs.split([*sizes], dim=1):
        highest = block.argmax(dim=1, keepdim=True)
        without = block.scatter(1, highest, -torch.inf)
        rest = without.logsumexp(dim=1, keepdim=True)
        # Of all labels but the most probable, 1 - p is one half or more: nothing cancels out.
        total = block.logsumexp(dim=1, keepdim=True)
        others = total + torch.log1p(-(without - total).exp())
        found.append(block - others.scatter(1, highest, rest))
    return torch.cat(found, dim=1)


class DocumentClassifierConfig(PretrainedConfig):
    """The encoder's config with that of the head.

    Args:
        encoder: the encoder's config, or its `to_dict()`; null: BERT's defaults.
        pooling: "mean" over the real tokens, or "cls" for the first one.
        pooled_norm: the Euclidean norm that each pooled vector is scaled to; None: as it comes.
        classifier_dropout: probability of the dropout before the linear layer.
        ordered: whether the labels are ordered, from the lowest to the highest.
        number_mean, number_deviation: where a number is predicted (`problem_type` regression): what
            the output is multiplied by, and what is then added; None: labels are predicted.
        tasks: where the labels are those of several tasks, one after the other: of each its `name`,
            how many `labels` it has, and its `weight` in the loss; None: there is one task.
        kwargs: `id2label`, `label2id` and the rest of `PretrainedConfig`.
    """

    model_type = "document-classifier"
    sub_configs = {"encoder": AutoConfig}  # noqa: RUF012 # carries dtype and attention down

    def __init__(
        self,
        encoder: PretrainedConfig | dict[str, Any] | None = None,
        pooling: str = "mean",
        pooled_norm: float | None = None,
        classifier_dropout: float = 0.0,
        ordered: bool = False,
        number_mean: float | None = None,
        number_deviation: float | None = None,
        tasks: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected {' or '.join(POOLINGS)}, got {pooling!r}")
        if not isinstance(encoder, PretrainedConfig):
            settings = {**(encoder or {"model_type": "bert"})}
            is_static = settings["model_type"] == StaticEncoderConfig.model_type
            made = StaticEncoderConfig if is_static else AutoConfig.for_model
            encoder = made(**settings)
        self.encoder = encoder
        self.pooling = pooling
        self.pooled_norm = pooled_norm
        self.classifier_dropout = classifier_dropout
        self.ordered = ordered
        self.number_mean, self.number_deviation = number_mean, number_deviation
        self.tasks = tasks
        super().__init__(**kwargs)


class DocumentClassifier(PreTrainedModel):
    """One row of logits for each row of token ids."""

    config_class = DocumentClassifierConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    # `Trainer` takes `**kwargs` for a loss that divides by the rows of all accumulated batches.
    # This one is the mean of its own batch: it is to be divided by their number.
    accepts_loss_kwargs = False
    # This class has no attention of its own; the encoder checks again whether it can.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: DocumentClassifierConfig) -> None:
        super().__init__(config)
        if isinstance(config.encoder, StaticEncoderConfig):
            self.encoder: Any = StaticEncoder(config.encoder)
        else:  # whoever trusts this file's code has not read code that its config may name
            self.encoder = AutoModel.from_config(config.encoder, trust_remote_code=False)
        if getattr(self.encoder, "pooler", None) is not None:
            # Its output is not used, and weights without a gradient stop DDP. Not None: some
            # encoders call it unasked.
            self.encoder.pooler = nn.Identity()
        self.takes_types = "token_type_ids" in inspect.signature(self.encoder.forward).parameters
        self.dropout = nn.Dropout(config.classifier_dropout)
        outputs = len(config.id2label or ()) - bool(config.ordered)
        self.classifier = nn.Linear(config.encoder.hidden_size, outputs)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify rows of token ids.

        Args:
            input_ids: (rows, tokens).
            attention_mask: (rows, tokens), 1 for real tokens and 0 for padding; None: all real.
            token_type_ids: (rows, tokens); ignored where the encoder takes none.
            labels: (rows,) class indices; multi-label (`problem_type`): 0 and 1 (rows, classes);
                where a number is predicted, numbers (rows,).
            kwargs: go to the encoder.

        Returns:
            `logits` (rows, classes) and, with labels, the mean cross-entropy as `loss`;
            multi-label: binary cross-entropy, summed over the classes; of numbers: the squared
            error, as a multiple of their variance; of tasks: the mean of their cross-entropies by
            the tasks' weights, in which a task that a row has no label of counts 0.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if self.takes_types and token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids
        kwargs["return_dict"] = True
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        pooled = self.pool(output.last_hidden_state, attention_mask)
        if self.config.pooled_norm is not None:
            pooled = self.config.pooled_norm * nn.functional.normalize(pooled, dim=-1)
        with torch.autocast(pooled.device.type, enabled=False):  # bf16 logits would tie
            logits = self.classifier(self.dropout(pooled.to(self.classifier.weight.dtype)))
            if self.config.ordered:
                logits = ordered_log_probabilities(logits)
            if self.config.tasks is not None:
                logits = task_log_odds(logits, [task["labels"] for task in self.config.tasks])
            if self.config.number_deviation is not None:
                logits = logits * self.config.number_deviation + self.config.number_mean
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What `forward` says of it."""
        logits = logits.float()
        if self.config.tasks is not None:
            sizes = torch.tensor([task["labels"] for task in self.config.tasks])
            weights = torch.tensor([float(task["weight"]) for task in self.config.tasks])
            counts = (weights / weights.sum()).repeat_interleave(sizes).to(logits.device)
            nats = -nn.functional.logsigmoid(logits)
            return (nats * labels.float() * counts).sum() / len(labels)
        if self.config.problem_type == "multi_label_classification":
            nats = nn.functional.binary_cross_entropy_with_logits(
                logits, labels.float(), reduction="sum"
            )
            return nats / len(labels)
        if self.config.number_deviation is not None:
            errors = (logits[:, 0] - labels.float()) / self.config.number_deviation
            squared: Tensor = (errors**2).mean()
            return squared
        return nn.functional.cross_entropy(logits, labels)

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Token states (rows, tokens, hidden) → one fp32 vector a row (rows, hidden)."""
        return POOLINGS[self.config.pooling](states.float(), attention_mask)


# `save_pretrained` copies this file into the folder and names both classes in config.json.
DocumentClassifierConfig.register_for_auto_class("AutoConfig")
DocumentClassifier.register_for_auto_class("AutoModelForSequenceClassification")
