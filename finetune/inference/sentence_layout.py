"""A classifier with a linear head → a folder of sentence-transformers, which encodes to logits.

    save_sentence_transformer(model, tokenizer, Path("standard/sentence-transformers"))
    SentenceTransformer("standard/sentence-transformers").encode(["…"])    # (rows, classes)

Its modules are the encoder, the pooling, where the model has it the norm, and the head as a dense
layer without an activation. The files are those of the library's own `save`; it is not needed here.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from finetune.modeling import saved_model
from finetune.modeling.modeling_document_classifier import DocumentClassifier

FOLDER = "sentence-transformers"
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def save_sentence_transformer(
    model: DocumentClassifier, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write the folder.

    Args:
        model: in fp32 on the CPU.
    """
    config, head = model.config, model.classifier
    model.encoder.save_pretrained(folder)
    saved_model.save_tokenizer(tokenizer, folder)
    hidden, classes = head.in_features, head.out_features
    weight = head.weight.detach()
    if config.pooled_norm is not None:  # Normalize gives vectors of length 1
        weight = weight * config.pooled_norm
    modules: dict[str, dict[str, Any] | None] = {
        "Transformer": None,
        "Pooling": {
            "word_embedding_dimension": hidden,
            **{mode: config.pooling == pooling for pooling, mode in MODES.items()},
        },
        **({} if config.pooled_norm is None else {"Normalize": None}),
        "Dense": {
            "in_features": hidden,
            "out_features": classes,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }
    listed = []
    for index, (name, settings) in enumerate(modules.items()):
        path = "" if index == 0 else f"{index}_{name}"
        kind = f"sentence_transformers.models.{name}"
        listed.append({"idx": index, "name": str(index), "path": path, "type": kind})
        (folder / path).mkdir(exist_ok=True)
        if settings is not None:
            _write(folder / path / "config.json", settings)
    tensors = {"linear.weight": weight.contiguous(), "linear.bias": head.bias.detach()}
    save_file(tensors, folder / path / "model.safetensors", metadata={"format": "pt"})
    longest = {"max_seq_length": tokenizer.model_max_length, "do_lower_case": False}
    _write(folder / "sentence_bert_config.json", longest)
    _write(folder / "modules.json", listed)


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
