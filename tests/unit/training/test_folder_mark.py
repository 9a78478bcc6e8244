"""`run.json`: whose a folder is, and whether something is left to do there."""

import pytest

from finetune.training import folder_mark


def test_a_mark_is_finished_and_opened_again(tmp_path):
    own = folder_mark.write_mark(tmp_path, "run")
    assert folder_mark.read_mark(tmp_path) == folder_mark.FolderMark("run", own)
    folder_mark.mark_finished(tmp_path)
    finished = folder_mark.read_mark(tmp_path)
    assert (finished.id, finished.finished is not None) == (own, True)
    folder_mark.mark_finished(tmp_path)
    assert folder_mark.read_mark(tmp_path) == finished
    folder_mark.mark_unfinished(tmp_path)
    assert folder_mark.read_mark(tmp_path) == folder_mark.FolderMark("run", own)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"kind": "run"}', "\xff",
    '{"format": 2, "kind": "run", "id": "1", "finished": null}',
    '{"format": 1, "kind": "run", "id": "", "finished": null}'])  # fmt: skip
def test_what_is_no_mark(tmp_path, text):
    (tmp_path / folder_mark.FILE).write_bytes(text.encode("latin-1"))
    assert folder_mark.read_mark(tmp_path) is None
    folder_mark.mark_finished(tmp_path)
    assert (tmp_path / folder_mark.FILE).read_bytes() == text.encode("latin-1")
