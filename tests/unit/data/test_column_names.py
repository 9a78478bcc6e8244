"""What names of columns tell, in several languages and ways of writing."""

import pytest

from finetune.data.column_names import DOCUMENTS, LABELS, is_attribute, likely


@pytest.mark.parametrize(
    ("name", "of_labels"),
    [("label", 1), ("Label ", 1), ("topicName", 0.1), ("Kategorien", 0.5), ("CATÉGORIE", 0.5),
     ("カテゴリ", 0.5), ("price", 0), ("", 0)],
)  # fmt: skip
def test_names_of_labels(name: str, of_labels: float) -> None:
    assert likely(name, LABELS) >= of_labels
    assert (likely(name, LABELS) > 0) == (of_labels > 0)


def test_names_of_documents_and_attributes() -> None:
    assert likely("text", DOCUMENTS) == 1 > likely("Beschreibung", DOCUMENTS) > 0.5
    assert likely("code", DOCUMENTS) == 0
    assert all(map(is_attribute, ["Priorität", "PRIORITY", "ticket_status", "land", "优先级"]))
    assert not any(map(is_attribute, ["label", "island", "Kategorie", "estimate"]))
