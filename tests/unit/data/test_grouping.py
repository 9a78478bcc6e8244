"""Train cut by group, by time, and with near-duplicates together: no group is on both sides."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune.config import schema
from finetune.data import carving, prepare, sources, splitting
from finetune.data.corpus import split_hash
from finetune.data.grouping import group_rows
from finetune.runtime.errors import InputError

GROUPS = st.integers(2, 60).flatmap(
    lambda rows: st.tuples(
        st.lists(st.integers(0, 12), min_size=rows, max_size=rows),
        st.lists(st.integers(0, 3), min_size=rows, max_size=rows),
    )
)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.sampled_from([(0.1, 0.1), (0.3, 0.2), (0.0, 0.5)]), st.booleans())
def test_groups_stay_whole_and_every_label_stays_in_train(drawn, fractions, multi_label):
    groups, labels = map(np.array, drawn)
    if multi_label:
        labels = (labels[:, None] >> np.arange(2)) & 1
    side = splitting.carve_groups(groups, labels, fractions, 3)
    for group in np.unique(groups):
        assert len(np.unique(side[groups == group])) == 1
    has = labels > 0 if multi_label else np.eye(4, dtype=bool)[labels]
    assert (has[side == splitting.STAYS].any(axis=0) == has.any(axis=0)).all()
    assert (side == splitting.carve_groups(groups, labels, fractions, 3)).all()
    if not fractions[0]:
        assert (side != 0).all()
    parts = splitting.deal_groups(groups, labels, 2, 3)
    for group in np.unique(groups):
        assert len(np.unique(parts[groups == group])) == 1


def test_a_cut_of_groups_has_its_share_of_each_label():
    draw = np.random.default_rng(0)
    groups, labels = draw.integers(0, 300, 3000), draw.choice(3, 3000, p=[0.6, 0.3, 0.1])
    side = splitting.carve_groups(groups, labels, (0.1, 0.2), 0)
    parts = splitting.deal_groups(groups, labels, 5, 0)
    for label in range(3):
        of_label = labels == label
        for cut, share in ((0, 0.1), (1, 0.2)):
            assert (side[of_label] == cut).mean() == pytest.approx(share, abs=0.02)
        for part in range(5):
            assert (parts[of_label] == part).mean() == pytest.approx(0.2, abs=0.02)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.booleans())
def test_counts_are_those_of_the_whole_table(drawn, multi_label):
    keys, labels = map(np.array, drawn)
    has = np.eye(4, dtype=int)[labels]
    if multi_label:
        labels = (labels[:, None] >> np.arange(2)) & 1
        has = np.column_stack([labels, ~labels.any(axis=1)]).astype(int)
    groups, counts = splitting._count_by_group(keys, labels)
    assert [*dict.fromkeys(keys.tolist())] == [keys[groups == g][0] for g in range(max(groups) + 1)]
    there = has[:, has.any(axis=0)]
    for group in range(max(groups) + 1):
        names, rows = counts.of(group)
        whole = has[groups == group].sum(axis=0)
        assert sorted(rows) == sorted(whole[whole > 0])
        assert names.tolist() == sorted(set(names.tolist()))
    totals = counts.totals()
    assert totals[totals > 0].tolist() == there.sum(axis=0).tolist()


def test_clusters_of_very_different_sizes_are_cut_by_rows(tmp_path, monkeypatch):
    sizes = [400, *[5] * 19, *[1] * 500]
    keys = np.repeat(np.arange(len(sizes)), sizes)
    labels = (keys >= 20).astype(int)
    rows = [{"text": f"t{i}", "label": "ab"[label]} for i, label in enumerate(labels)]
    monkeypatch.setattr(carving, "group_rows", lambda pool, data: keys[pool.keep])
    corpus = corpus_of(tmp_path, rows, near_duplicates="together", test_fraction=0.1)
    assert len(corpus.test.labels) / len(rows) == pytest.approx(0.1, abs=0.01)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_no_row_of_test_is_earlier_than_one_of_validation_or_train(times):
    times = np.array(times, dtype=float)
    side = splitting.cut_latest(times, (0.2, 0.2))
    parts = [times[side == part] for part in (splitting.STAYS, 1, 0)]
    assert len(parts[0])
    before = parts[0].max()
    for part in parts[1:]:
        if len(part):
            assert part.min() > before
            before = part.max()


def corpus_of(folder, rows, **keys):
    folder.mkdir(exist_ok=True)
    lines = (json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text("".join(lines))
    data = schema.Data(source=str(folder / "rows.jsonl"), validation="carve", **keys)
    return prepare.prepare_corpus(sources.load_rows(data), data)


def many(count=200):
    return [
        {"text": f"word{i} and word{i * 7} of text {i}", "label": "ab"[i % 2],
         "author": f"A{i % 23}" if i % 5 else None, "day": f"2024-{1 + i % 12:02}-{1 + i % 28:02}"}
        for i in range(count)
    ]  # fmt: skip


def test_authors_are_in_one_split(tmp_path):
    corpus = corpus_of(tmp_path, many(), group="author")
    by_split = [
        {one for one in split.attributes["author"] if one is not None} for split in corpus.splits()
    ]
    assert sum(map(len, by_split)) == len(set.union(*by_split)) == 23
    assert corpus.test.origin.endswith("10 %, stratified, seed 0, groups of 'author' whole")
    assert 10 <= len(corpus.test) <= 30
    plain = corpus_of(tmp_path, many())
    assert split_hash(plain.test) != split_hash(corpus.test)


def test_groups_of_several_splits_of_the_source_are_named(tmp_path):
    for split, authors in (("train", "aabbccdd"), ("test", "adex")):
        rows = [
            {"text": f"{split} {i} text", "label": "xy"[i % 2], "author": author}
            for i, author in enumerate(authors)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = schema.Data(source=str(tmp_path), group="author", validation="none")
    found = prepare.prepare_corpus(sources.load_rows(data), data).findings
    assert [str(one) for one in found if one.kind == "shared group"] == [
        "test: 2 rows are of groups that are also in train (test.jsonl: line 1, test.jsonl: line "
        "2): kept; the source divides them so, whatever data.group (author) says"
    ]


def test_the_latest_rows_are_test(tmp_path):
    corpus = corpus_of(tmp_path, many(), split_by_time="day")
    times = [sorted(split.attributes["day"]) for split in corpus.splits()]
    assert times[0][-1] < times[1][0] <= times[1][-1] < times[2][0]
    assert 10 <= len(corpus.test) <= 30
    assert re.fullmatch(
        r"split off from rows.jsonl: the latest 10 % by 'day', from 2024-11-\d\d on",
        corpus.test.origin,
    )


def test_labels_that_came_up_later_follow_the_rule_for_unseen_labels(tmp_path):
    rows = many()
    for row in rows:
        if row["day"] > "2024-12":
            row["label"] = "new"
    with pytest.raises(InputError, match="have a label that train does not have"):
        corpus_of(tmp_path, [*rows], split_by_time="day")
    rows = [row | {"label": "a"} if i % 24 == 11 else row for i, row in enumerate(rows)]
    corpus = corpus_of(tmp_path, rows, split_by_time="day", on_unseen_label="drop")
    assert len(corpus.test) > 0
    (unused,) = [one for one in corpus.findings if one.kind == "unused label"]
    assert unused.places == ("new",)
    assert set(corpus.test.labels) == {corpus.labels.index("a")}


def test_near_duplicates_are_on_one_side(tmp_path):
    words = [f"w{i}" for i in range(1000)]
    draw = np.random.default_rng(0)
    rows = []
    for i in range(60):
        text = " ".join(draw.choice(words, 20))
        rows += [{"text": f"{text}{end}", "label": "ab"[i % 2]} for end in ("", " more", " less")]
    together = corpus_of(tmp_path, rows, near_duplicates="together")
    assert not [one for one in together.findings if one.kind == "near leak"]
    assert together.test.origin.endswith("near-duplicates together")
    assert [one for one in corpus_of(tmp_path, rows).findings if one.kind == "near leak"]


def test_what_hangs_together_by_either_is_one_group(tmp_path):
    rows = [
        {"text": " ".join(f"{name}{i}" for i in range(20)) + end, "label": label, "author": author}
        for name, end, label, author in (
            ("p", "", "a", "1"), ("p", " x", "b", "2"), ("q", "", "a", "2"), ("r", "", "b", None),
            ("s", "", "a", None),
        )
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = schema.Data(source=str(tmp_path / "t.jsonl"), group="author", near_duplicates="together")
    (pool,) = prepare._compare_documents(
        sources.load_rows(data), sources.Roles("train", None, None)
    ).values()
    keys = group_rows(pool, data)
    assert len(set(keys[:3])) == 1
    assert len(set(keys)) == 3


def test_what_cannot_be_cut_so_is_refused(tmp_path):
    rows = many(40)
    rows[3]["day"], rows[5]["day"] = None, "31/12/2024"
    with pytest.raises(InputError) as caught:
        corpus_of(tmp_path, rows, split_by_time="day")
    assert str(caught.value) == (
        "'day' (data.split_by_time): expected a date or time as ISO 8601 writes it (2024-05-31, "
        "2024-05-31T14:00:00+02:00), or a number, in every row, got nothing at rows.jsonl: line 4, "
        "'31/12/2024' at rows.jsonl: line 6"
    )
    with pytest.raises(InputError, match="no column 'autor'"):
        corpus_of(tmp_path, rows, group="autor")
    same = [row | {"author": "one", "day": "2024"} for row in rows]
    with pytest.raises(InputError, match="it takes smaller groups, or more of them than the 1 of"):
        corpus_of(tmp_path, same, group="author")
    with pytest.raises(InputError, match="it takes rows of at least three times in 'day'"):
        corpus_of(tmp_path, same, split_by_time="day")
    given = {"train": many(40), "validation": many(12), "test": many(12)}
    for split, some in given.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "rows.jsonl").unlink()
    data = schema.Data(source=str(tmp_path), split_by_time="day")
    with pytest.raises(InputError, match="nothing is cut from train"):
        prepare.prepare_corpus(sources.load_rows(data), data)


@pytest.mark.parametrize(
    "keys",
    [{"group": "text"}, {"split_by_time": "day", "group": "author"},
     {"split_by_time": "day", "fold": "1/2"}, {"split_by_time": "label"},
     {"split_by_time": "day", "near_duplicates": "together"}],
)  # fmt: skip
def test_keys_that_contradict_each_other_are_refused(keys):
    with pytest.raises(ValidationError):
        schema.Data(source="x", **keys)
