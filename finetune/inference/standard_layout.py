"""A saved classifier → a folder that other libraries load, without this package or its code.

    checks = standard_layout.export_standard(Classifier(folder), folder, Path("standard"), rows)

    config.json                  the encoder's own model_type, and its …ForSequenceClassification
    tokenizer.json …             the tokenizer's files
    onnx/model.onnx              fp32; its output is `logits`
    onnx/model_quantized.onnx    int8, where it predicts as well
    sentence-transformers/       of a linear head: a folder whose `encode` gives the logits

That is what optimum (`ORTModelForSequenceClassification`), transformers.js and the Hub's servers
look for. Pooling and head are in the graph. No weights lie beside it that the named class would
load: it would pool them in another way.
"""

import copy
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
)

from finetune.inference import onnx_export, onnx_quantization, sentence_layout
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.engines import ONNX, STANDARD_INT8, STANDARD_ONNX
from finetune.inference.onnx_comparison import Check
from finetune.inference.records import Record
from finetune.inference.sample_texts import sample_records
from finetune.inference.standard_card import describe_use
from finetune.modeling import model_identity, saved_model
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.tokenization.document_format import DocumentFormat, drop_detector

# The operators of version 18 are what torch exports by itself; every runtime of the last three
# years knows them. Those of 22 are for a model that does not run in these.
OPSETS = (18, 22)


def export_standard(
    classifier: Classifier,
    source: str,
    out: Path,
    rows: Sequence[Record],
    truth: NDArray[np.int64] | None = None,
    int8: bool = False,
    threads: int | None = None,
) -> list[Check]:
    """Write the folder as a whole; how each model did, as of `onnx_export.export_onnx`.

    Args:
        int8: refuse a model whose int8 predicts worse; without it, int8 is left out then.

    Raises:
        InputError: where the exported model predicts other labels, and for a model of ordered
            labels. Nothing is written then.
    """
    classifier.rules.refuse_number("--layout standard", "that layout has no head for")
    classifier.rules.refuse_tasks("--layout standard", "which that layout has no head for")
    if classifier.rules.ordered:
        raise InputError(
            f"{source}: the standard layout has no head of ordered labels (data.task: ordered); "
            "export it with finetune export alone, or push it as it is"
        )
    reference, first = onnx_export.make_reference(classifier, source, rows, truth, threads)
    checks = [first]
    aside = out.with_name(f".{out.name}.new")
    with explain_write_errors(out, "write it to"):
        shutil.rmtree(aside, ignore_errors=True)
        graphs = (aside / STANDARD_ONNX).parent
        graphs.mkdir(parents=True)
        try:
            checks.append(onnx_export.write_checked(source, graphs, reference, OPSETS))
            small = aside / "int8"
            shutil.copytree(graphs, small)
            try:
                tried = [*onnx_quantization.quantize(small / ONNX, reference)]
                (small / ONNX).replace(aside / STANDARD_INT8)
                checks += tried
            except InputError as error:
                if int8:
                    raise
                print_wrapped(f"{STANDARD_INT8} is left out: {_without_option(error)}", mark="  ! ")
            shutil.rmtree(small)
            _save_rest(source, aside, out.name, checks)
            aside.replace(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    print_limits(classifier.reading, classifier.rules)
    return checks


def sample_rows(model: str, classifier: Classifier, count: int) -> list[Record]:
    """Documents to check an export on, where none are given.

    Args:
        model: as the user named it: of a run's folder, the beginnings of its test documents.
    """
    is_pair = classifier.reading.text_pair is not None
    return sample_records(Path(model), classifier.tokenizer, is_pair, count)


def _without_option(error: InputError) -> str:
    return error.problems[0].removeprefix("--int8: ").partition("; nothing was written")[0]


def _save_rest(source: str, folder: Path, name: str, checks: Sequence[Check]) -> None:
    """Write config, tokenizer, card and identity; for a linear head, sentence-transformers' folder.

    Args:
        name: that the folder will have.
        checks: of torch, of fp32, and of int8, where that is written; the written one is last.
    """
    model, tokenizer = saved_model.load_classifier(source)
    config = standard_config(model)
    config.save_pretrained(folder)
    saved_model.save_tokenizer(tokenizer, folder)
    if isinstance(model, DocumentClassifier):
        sentence_layout.save_sentence_transformer(model, tokenizer, folder / sentence_layout.FOLDER)
    (folder / "README.md").write_text(describe_use(folder, name), "utf-8")
    int8 = checks[-1].agreement if (folder / STANDARD_INT8).is_file() else None
    kept = {"kept_labels": checks[1].agreement, "kept_labels_int8": int8}
    model_identity.write_identity(folder, tokenizer, config, source, **kept)


def standard_config(model: PreTrainedModel) -> PretrainedConfig:
    """The encoder's own config, with the labels, under the name of its own classification class.

    What this package reads of it besides, `document`, stays: other libraries pass over it.
    """
    if not isinstance(model, DocumentClassifier):
        own = copy.deepcopy(model.config)
        drop_detector(own)
        return own
    config: PretrainedConfig = copy.deepcopy(model.config.encoder)
    for name in ("id2label", "label2id", "problem_type", "hierarchy", model_identity.OURS):
        if getattr(model.config, name, None) is not None:
            setattr(config, name, copy.deepcopy(getattr(model.config, name)))
    drop_detector(config)
    config.architectures = [_class_name(config, model)]
    config.name_or_path = ""
    return config


def _class_name(config: PretrainedConfig, model: PreTrainedModel) -> str:
    known: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if type(config) in known:
        return str(known[type(config)].__name__)
    encoders: Any = AutoModel
    encoder = encoders._model_mapping[type(config)]
    return f"{encoder.__name__.removesuffix('Model')}ForSequenceClassification"


def print_limits(reading: DocumentFormat, rules: DecisionRules) -> None:
    """Say in one message what this model does that other libraries will not do with the folder."""
    limits = [*find_limits(reading, rules)]
    if limits:
        print_wrapped(
            f"other libraries will not do what this layout has no place for: {'; '.join(limits)}. "
            "finetune predict does it with this folder too",
            mark="  ! ",
        )


def find_limits(reading: DocumentFormat, rules: DecisionRules) -> Iterator[str]:
    """Each as what it is, and what has to be done instead."""
    if rules.multi_label and rules.thresholds is not None:
        low, high = min(rules.thresholds), max(rules.thresholds)
        yield (
            f"a threshold for each label (from {low:.2f} to {high:.2f}), under "
            "document.thresholds in config.json: compare each probability with its own"
        )
    if rules.abstain_below is not None:
        yield f"no label where the best one's probability is below {rules.abstain_below:.4g}"
    if reading.truncation == "windows":
        yield (
            f"windows of {reading.max_length:,} tokens over the whole document, whose logits are "
            f"pooled ({reading.window_pooling}): a document is cut after the first"
        )
    elif reading.truncation != "head":
        yield (
            f"what is kept of a long document (data.truncation: {reading.truncation}), where "
            "it is another part than the tokenizer's own truncation keeps"
        )
    if reading.text_pair is not None:
        yield f"pairs: the second text ({reading.text_pair}) has to be given as `text_pair`"
    if len(reading.text) > 1 or reading.template is not None:
        yield f"the columns of a document ({', '.join(reading.text)}) have to be joined before"
