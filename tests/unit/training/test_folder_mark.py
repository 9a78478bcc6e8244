"""`run.json`: whose a folder is, and whether something is left to do there."""

import pytest

from finetune.runtime.errors import InputError
from finetune.training import folder_mark, run_folder, run_removal


def test_a_mark_is_finished_and_opened_again(tmp_path):
    own = folder_mark.write_mark(tmp_path, "run")
    assert folder_mark.read_mark(tmp_path) == folder_mark.FolderMark("run", own, None, {})
    folder_mark.mark_finished(tmp_path)
    finished = folder_mark.read_mark(tmp_path)
    assert (finished.id, finished.finished is not None) == (own, True)
    folder_mark.mark_finished(tmp_path)
    assert folder_mark.read_mark(tmp_path) == finished
    folder_mark.mark_unfinished(tmp_path)
    assert folder_mark.read_mark(tmp_path) == folder_mark.FolderMark("run", own, None, {})


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"kind": "run"}', "\xff", "[" * 9,
    '{"format": 2, "kind": "run", "id": "1", "finished": null}',
    '{"format": 1, "kind": "run", "id": "1"}',
    '{"format": 1, "kind": "run", "id": "1", "finished": 3}',
    '{"format": 1, "kind": "run", "id": "1", "finished": null, "texts": {"a": 1}}',
    '{"format": 1, "kind": "run", "id": "", "finished": null}'])  # fmt: skip
def test_a_mark_that_says_nothing_is_named_and_stays(tmp_path, text):
    """It is not taken for none: a run that has still to be published would count as finished."""
    (tmp_path / folder_mark.FILE).write_bytes(text.encode("latin-1"))
    (tmp_path / "results.json").write_text("{}")
    newer = "expected format 1, found 2: a newer version of this program wrote it; use"
    said = newer if '"format": 2' in text else r"run\.json is damaged: expected format 1 with "
    for use in (
        folder_mark.read_mark,
        folder_mark.mark_finished,
        folder_mark.mark_unfinished,
        run_folder.is_complete,
        run_removal.refuse_unless_removable,
        lambda folder: folder_mark.record_text(folder, "model/README.md", b"x"),
    ):
        with pytest.raises(InputError, match=said):
            use(tmp_path)
    assert (tmp_path / folder_mark.FILE).read_bytes() == text.encode("latin-1")


def test_a_text_is_recorded_once(tmp_path):
    folder_mark.write_mark(tmp_path, "run")
    for text in (b"one", b"one", b"two"):
        folder_mark.record_text(tmp_path, "model/README.md", text)
    folder_mark.mark_finished(tmp_path)
    folder_mark.mark_unfinished(tmp_path)
    assert [len(sums) for sums in folder_mark.read_mark(tmp_path).texts.values()] == [2]
