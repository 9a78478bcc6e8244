"""The card of an export: its examples load it from where it is."""

import pytest

from finetune.inference.sentence_layout import FOLDER
from finetune.inference.standard_card import describe_use


@pytest.mark.parametrize("has_encoder", [False, True])
def test_a_folder_is_loaded_from_the_one_around_it(tmp_path, has_encoder):
    if has_encoder:
        (tmp_path / FOLDER).mkdir()
    card = describe_use(tmp_path, "standard")
    assert 'from_pretrained(\n    "standard", subfolder="onnx", file_name="model.onnx"\n)' in card
    assert 'AutoTokenizer.from_pretrained("standard")' in card
    assert 'env.localModelPath = "./";\nconst classify = await pipeline(' in card
    assert 'pipeline("text-classification", "standard", { dtype: "fp32" });' in card
    assert ('SentenceTransformer("standard/sentence-transformers")' in card) == has_encoder


def test_a_branch_is_loaded_from_the_hub(tmp_path):
    (tmp_path / FOLDER).mkdir()
    card = describe_use(tmp_path, "ann/model", "onnx")
    assert card.count('"ann/model", revision="onnx"') == 3
    assert '"ann/model", { dtype: "fp32", revision: "onnx" });' in card
    assert 'import { pipeline } from "@huggingface/transformers";' in card
    assert "localModelPath" not in card
    assert 'snapshot_download("ann/model", revision="onnx") + "/sentence-transformers"' in card
