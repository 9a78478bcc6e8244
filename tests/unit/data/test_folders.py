"""What of a folder is read: nothing that holds documents is left out without being named."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.folders import Documents, TableFiles, read_layout
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from finetune.inference.inputs import InputSpec, find_inputs
from finetune.runtime.errors import InputError

# Names that tools and habits give to files beside data, and which a label may have as well.
ODD_NAMES = ("license", "LICENCE", "README", "readme", "citation", "dataset_info", "dataset_infos",
             "__label__sport", "__init__", "_SUCCESS", "state", "notes", "10")  # fmt: skip


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "a", "label": "x"}\n' if path.suffix == ".jsonl" else name)
    return root


def labels_of(root: Path, split: str = "train") -> Counter[str | None]:
    documents = read_layout(root, ()).splits[split]
    assert isinstance(documents, Documents)
    return Counter(label for _, label in documents.files)


@given(
    st.dictionaries(
        st.sampled_from(ODD_NAMES),
        st.sets(st.sampled_from(ODD_NAMES), min_size=1),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(["", "train/"]),
)
@settings(max_examples=40, deadline=None)
def test_every_document_of_every_label_is_read(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, set[str]], split: str
) -> None:
    root = tmp_path_factory.mktemp("labels")
    files = [f"{split}{label}/{name}.txt" for label, names in labels.items() for name in names]
    make(root, *files, "README.md", "LICENSE", "dataset_infos.json")
    assert labels_of(root) == {label: len(names) for label, names in labels.items()}
    assert read_layout(root, ()).skipped == []
    found = find_inputs(InputSpec(str(root)))
    assert {str(root / file) for file in files} <= {source.name for source in found}


@pytest.mark.parametrize(
    ("files", "skipped"),
    [
        (["a/1.txt", "b/1.txt", "a/2.md", "b/x.csv", "b/.3.txt"],
         ["a/2.md", "b/x.csv", "b/.3.txt"]),
        (["a/1.txt", "b/1.txt", "c/1.md", "c/2.html"], ["c (2 files)"]),
        (["a/1.txt", "b/1.txt", ".net/1.txt", ".git/config"], [".net (1 file)"]),
        (["a/1.txt", "b/1.txt", "__MACOSX/a/._1.txt", "a/._1.txt"], []),
        (["a/1.txt", "b/1.txt", "loose.txt", "index.csv"], ["loose.txt", "index.csv"]),
        (["train/a/1.txt", "train/b/1.txt", "train/urls.txt", "license/1.txt", "imdb.txt"],
         ["train/urls.txt", "imdb.txt", "license (1 file)"]),
        (["train/a/1.txt", "train/b/1.txt", "more/1.md"], ["more (1 file)"]),
        (["train.jsonl", "README.txt", "sport/1.txt", "images/1.png"],
         ["README.txt", "sport (1 file)"]),
        (["train/1.jsonl", "train/notes.txt", "test/1.jsonl", "old.jsonl"],
         ["train/notes.txt", "old.jsonl"]),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(tmp_path: Path, files: list[str], skipped: list[str]) -> None:
    assert read_layout(make(tmp_path, *files), ()).skipped == skipped


def test_a_run_names_and_counts_it(tmp_path: Path) -> None:
    make(tmp_path, *[f"{label}/{i}.txt" for label in "ab" for i in range(40)], "a/1.md", "b/2.md")
    data = Data(source=str(tmp_path))
    finding = prepare_corpus(load_rows(data), data).findings[0]
    assert str(finding) == (
        "source: 2 files or folders of the source are not read (a/1.md, b/2.md): skipped"
    )


@pytest.mark.parametrize(
    ("files", "within"),
    [
        (["politics/1.txt", "tech/1.txt", "sports/football/1.txt", "sports/tennis/1.txt"], "."),
        (["politics/1.txt", "sports/1.txt", "sports/football/1.txt"], "."),
        (["train/politics/1.txt", "train/sports/football/1.txt", "test/politics/1.txt"], "train"),
    ],
)
def test_labels_within_labels_are_refused(tmp_path: Path, files: list[str], within: str) -> None:
    """They are neither merged, nor is one of them taken for the split."""
    with pytest.raises(InputError) as error:
        read_layout(make(tmp_path, *files), ())
    (problem,) = error.value.problems
    assert problem.startswith(
        f"{tmp_path / within}: expected the documents of each label in a folder of its own, got "
        "folders of documents within a label's folder (sports/football"
    )


def test_folders_of_splits(tmp_path: Path) -> None:
    """A folder for each split, of tables or of labels; the only one may have any name."""
    make(tmp_path, "t/train/0000.jsonl", "t/train/0001.jsonl", "t/test/0000.jsonl")
    rows = load_rows(Data(source=str(tmp_path / "t")))
    assert {split: len(rows[split].texts) for split in rows} == {"test": 1, "train": 2}
    assert rows["train"].places.place(1) == "train/0001.jsonl: line 1"
    make(tmp_path, "all/docs/pos/1.txt", "all/docs/neg/1.txt")
    assert labels_of(tmp_path / "all", "docs") == {"pos": 1, "neg": 1}
    make(tmp_path, "named/2019/pos/1.txt", "named/2019/neg/1.txt", "named/spare/1.txt")
    assert list(read_layout(tmp_path / "named", {"2019"}).splits) == ["2019"]


def test_the_parts_of_spark_are_one_split(tmp_path: Path) -> None:
    make(tmp_path, "part-00000-8f1c-c000.jsonl", "part-00002-8f1c-c000.jsonl", "_SUCCESS")
    (split,) = read_layout(tmp_path, ()).splits.values()
    assert isinstance(split, TableFiles)
    assert (len(split.paths), split.missing) == (2, None)


def test_missing_shards_stop_training_and_prediction(tmp_path: Path) -> None:
    make(tmp_path, "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl")
    said = (
        f"{tmp_path}: of 'train', 2 of 3 shards are there; missing: train-00001-of-00003.jsonl; "
        "copy them there, or"
    )
    with pytest.raises(InputError, match="to read the others alone") as error:
        load_rows(Data(source=str(tmp_path)))
    assert str(error.value).startswith(said)
    with pytest.raises(InputError, match="name those that are to be read with a glob") as error:
        find_inputs(InputSpec(str(tmp_path)))
    assert str(error.value).startswith(said)


def test_a_shard_that_is_named_is_read_alone(tmp_path: Path) -> None:
    make(tmp_path, "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl")
    (train,) = load_rows(Data(source=str(tmp_path / "train-00002-of-00003.jsonl"))).values()
    (note,) = train.notes
    assert note.places == ("train-00000-of-00003.jsonl", "train-00001-of-00003.jsonl")
    told: list[str] = []
    assert len(find_inputs(InputSpec(f"{tmp_path}/train-*"), told.append)) == 2
    assert told == [
        f"{tmp_path}: of 'train', 2 of 3 shards are there; missing: train-00001-of-00003.jsonl"
    ]


def test_shards_of_a_split_that_plays_no_role_may_be_missing(tmp_path: Path) -> None:
    make(tmp_path, "train.jsonl", "extra-0-of-2.jsonl")
    train = load_rows(Data(source=str(tmp_path)))["train"]
    (note,) = train.notes
    assert note.kind == "unread split"
    assert note.places[0].startswith(f"extra ({tmp_path}: of 'extra', 1 of 2 shards are there")


def test_prediction_names_what_it_skips(tmp_path: Path) -> None:
    make(tmp_path, "__label__a/1.txt", "b/2.md", ".hidden/3.txt", "c.txt")
    told: list[str] = []
    found = find_inputs(InputSpec(str(tmp_path)), told.append)
    assert [Path(source.name).name for source in found] == ["1.txt", "c.txt"]
    assert told == [
        f"1 file is not read ({tmp_path}/.hidden/3.txt)",
        f"1 file is not read ({tmp_path}/b/2.md)",
    ]
    find_inputs(InputSpec(str(tmp_path), split="c"), told.append)
    assert f"1 file is not read ({tmp_path}/__label__a/1.txt)" in told
