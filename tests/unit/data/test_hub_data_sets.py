"""Tables that only `datasets` can load, as prediction asks for them."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from finetune.data.columns import ColumnSpec
from finetune.data.hub_data_sets import dataset_reader, load_tables
from finetune.runtime.errors import InputError


def test_a_saved_folder(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(dev=table).save_to_disk(tmp_path / "many")
    assert list(load_tables(str(tmp_path / "one"), None)) == ["train"]
    tables = load_tables(str(tmp_path / "many"), None)
    rows = dataset_reader(tables["dev"], "here", "many dev")(ColumnSpec(("text",), "label"))
    assert (rows.texts, rows.labels) == (["a", "b"], [0, 1])
    assert rows.places.place(1) == "many dev: row 2"


def test_a_folder_that_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match="not a whole folder of datasets' save_to_disk"):
        load_tables(str(tmp_path), None)


def test_messages_speak_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("Couldn't reach 'o/n' on the Hub")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as error:
        load_tables("o/n", None)
    assert str(error.value).startswith("INPUT: 'o/n' is no file or folder here")
    assert str(error.value).endswith("or name a local copy")
