"""The section `data`: which documents, how they are split, and rules for rows with problems."""

import string
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from finetune.config.section import (
    Count,
    Fraction,
    Names,
    Section,
    TaskWeights,
    conflict,
    is_encoding,
    parse_delimiter,
)

# With fewer rows, the 95 % interval of their accuracy is wider than 50 points.
LEAST_VALIDATION = 10


class Data(Section):
    """Which documents, how they are split, and the rules for rows with problems."""

    source: str = Field(
        description=(
            "Hub id, file (csv, tsv, json, jsonl, parquet, txt; .gz too), folder with a file per "
            "split, folder with a sub-folder per label, saved `datasets` folder, or "
            "package:NAME/path"
        )
    )
    config: str | None = Field(None, description="the configuration of a data set on the Hub")
    revision: str | None = Field(
        None, description="the branch, tag or commit of a data set on the Hub"
    )
    train: str = Field(
        "auto", description="the split to train on; auto: the one called train, or the only one"
    )
    validation: str = Field(
        "auto",
        description=(
            "the split that picks the model and its settings; carve: cut it from train; none: "
            "train on all rows without validation, and keep the last step's model; auto: "
            "validation, valid, val, dev or eval where there is one, else carve, or none where "
            f"that would give fewer than {LEAST_VALIDATION} rows"
        ),
    )
    test: str = Field(
        "auto",
        description=(
            "the split that is scored once, at the end; carve: cut it from train; auto: the one "
            "called test where there is one, else carve"
        ),
    )
    text: str | Names = Field(
        "text", description="the column of the documents; or a list of columns, which are joined"
    )
    template: str | None = Field(
        None,
        description=(
            "how columns are joined, such as '{title}: {body}'; null: with a blank line between "
            "them"
        ),
    )
    text_pair: str | None = Field(
        None, description="for pairs of texts: the column of the second text"
    )
    id: str | None = Field(
        None,
        description=(
            "the column that identifies documents: predictions, the report's errors and suspects "
            "name each document by it; it decides nothing"
        ),
    )
    label: str | Names = Field(
        "label",
        description=(
            "the column of the labels, whose cells may be lists of labels; or a list of columns "
            "of 0 and 1, one for each label (data.tasks names columns with labels of their own)"
        ),
    )
    label_probabilities: str | Names | None = Field(
        None,
        description=(
            "soft labels: a column of objects such as {joy: 0.75, anger: 0.25}, or a list of "
            "columns, one for each label; annotators' votes will do, as numbers are divided by "
            "their sum. Rows are cut by their majority label and scored against it; a validation "
            "or test split without these columns has its labels in data.label"
        ),
    )
    multi_label: bool = Field(
        False,
        description=(
            "for data.label_probabilities: whether each label has a probability of its own, as "
            "where a row may have several labels; false: they are shares of one"
        ),
    )
    weight: str | None = Field(
        None,
        description=(
            "the column of weights, 0 or more, of train's rows in the loss, whose mean over a step "
            "is weighted: 2 is as the row twice, 0 as without it; validation and test count each "
            "row once"
        ),
    )
    label_separator: str | None = Field(
        None,
        description="for cells with several labels: the text that separates them",
        min_length=1,
    )
    label_lists: bool | None = Field(
        None,
        description=(
            "whether cells of labels are lists written as text, such as ['joy', 'anger']; null: "
            "stop where all look so"
        ),
    )
    labels: Names | None = Field(
        None, description="the labels in order; this also names integer labels 0, 1, 2, …"
    )
    similar_labels: Literal["apart", "merge"] = Field(
        "apart",
        description=(
            "labels that look alike, as they differ in case, width, normalization, invisible "
            "characters, spaces or letters of another script: apart, as the data has them, or "
            "merge each group into the label that most rows of train have, or that data.labels "
            "names; they are named with their counts"
        ),
    )
    hierarchy: str | None = Field(
        None,
        description=(
            "the text that separates the levels in label names, such as / in account/close; where "
            "data.label names several columns, they are the levels, from the coarsest to the "
            "finest, and this joins them"
        ),
        min_length=1,
    )
    task: Literal["classes", "ordered", "number"] = Field(
        "classes",
        description=(
            "what labels are: classes; ordered, as stars or severities, so that a near miss is "
            "better than a far one (CORN, Shi et al. 2021); or number: data.label holds numbers, "
            "such as prices, which are predicted by squared error, with intervals"
        ),
    )
    tasks: Names | TaskWeights | None = Field(
        None,
        description=(
            "columns that are a task each, with labels of its own, such as [topic, urgency]: one "
            "encoder learns them together, under one head; or the weight of each in the loss, such "
            "as {topic: 1, urgency: 0.5}. They take the place of data.label, and a row may lack "
            "some"
        ),
    )
    label_order: Names | None = Field(
        None,
        description=(
            "for data.task ordered: the labels from the lowest to the highest; this also names "
            "integer labels 0, 1, 2, …; null: labels that are numbers, in their order"
        ),
    )
    validation_fraction: Fraction = Field(
        0.1, description="the share of train that is cut off for validation"
    )
    test_fraction: Fraction = Field(0.1, description="the share of train that is cut off for test")
    split_seed: int = Field(
        0, ge=0, description="the seed that decides which rows are cut off; independent of run.seed"
    )
    group: str | None = Field(
        None,
        description=(
            "the column of what belongs together, such as an author or a customer: train is cut so "
            "that no group is on both sides, into folds too"
        ),
    )
    split_by_time: str | None = Field(
        None,
        description=(
            "the column of dates, times or numbers by which train is cut: the latest rows are "
            "test, those before them validation"
        ),
    )
    near_duplicates: Literal["apart", "together"] = Field(
        "apart",
        description=(
            "whether train is cut so that near-duplicates are on one side, together; apart: each "
            "text by itself, and only equal ones together"
        ),
    )
    fold: str | None = Field(
        None,
        description=(
            "2/5: cut train into five parts, score the second as test, and train on the others; "
            "run.folds does this with each part"
        ),
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        examples=["2/5"],
    )
    max_train_rows: Count | None = Field(
        None, description="train on a random sample of so many rows"
    )
    rows_per_class: Count | None = Field(
        None, description="train on a random sample of so many rows of each label"
    )
    max_validation_rows: Count | None = Field(
        None, description="validate on a random sample of so many rows"
    )
    max_test_rows: Count | None = Field(
        None, description="score a random sample of so many test rows"
    )
    max_length: int | None = Field(
        None,
        ge=4,
        description=(
            "the most tokens of a document, or of a window, special tokens included; null: the "
            "encoder's limit, at most 512"
        ),
    )
    truncation: Literal["head", "tail", "head_tail", "windows"] = Field(
        "head",
        description=(
            "which part of a longer document is read: its head; its tail; head_tail: a quarter of "
            "the tokens from its head, the rest from its tail; or all of it in overlapping "
            "windows, whose logits are pooled, in training too"
        ),
    )
    stride: int | None = Field(
        None,
        ge=0,
        description=(
            "the tokens that neighbouring windows share; null: a quarter of data.max_length"
        ),
    )
    window_pooling: Literal["mean", "max", "softmax"] = Field(
        "mean",
        description=(
            "how the logits of a document's windows become the document's logits; softmax: their "
            "mean, where each label's windows count by the softmax of their logits"
        ),
    )
    max_windows: Count | None = Field(
        None,
        description=(
            "the most windows of a document, counted from its start, which bounds memory; null: "
            "no limit"
        ),
    )
    encoding: str = Field(
        "utf-8",
        description=(
            "the encoding of text files (csv, tsv, json, jsonl, txt), such as gb18030 or cp1252"
        ),
    )
    delimiter: str = Field(
        "auto",
        description=(
            "what separates the cells of csv and tsv files: comma, semicolon, tab, pipe or another "
            "character, which also makes a table of a .txt file; auto: what the file's name says, "
            "or, where the header then lacks all columns, what its lines show"
        ),
    )
    on_undecodable: Literal["replace", "drop", "stop"] = Field(
        "replace",
        description=(
            "rows with bytes that are not UTF-8: replace those of texts with U+FFFD, drop the row, "
            "or stop (always where they are in a label that is not dropped)"
        ),
    )
    on_empty: Literal["drop", "keep", "stop"] = Field(
        "drop", description="rows whose text is missing or only white space"
    )
    on_null_label: Literal["drop", "stop"] = Field(
        "drop", description="rows without a label, in a split that has labels"
    )
    on_duplicate: Literal["drop", "keep", "stop"] = Field(
        "drop",
        description=(
            "train rows that repeat the text and label of an earlier one (validation and test "
            "splits that are given keep theirs, so that scores stay comparable)"
        ),
    )
    on_leak: Literal["warn", "drop", "stop"] = Field(
        "warn",
        description=(
            "texts of validation or test that are also in train, exactly or nearly (or of test "
            "that are also in validation): warn; drop them from train, or from validation (scores "
            "stay comparable); or stop"
        ),
    )
    on_unseen_label: Literal["stop", "drop"] = Field(
        "stop", description="validation or test rows with a label that train does not have"
    )

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, name: str) -> str:
        if not is_encoding(name):
            raise conflict("encoding", f"an encoding such as gb18030 or cp1252, got '{name}'")
        return name

    @field_validator("delimiter")
    @classmethod
    def _is_delimiter(cls, word: str) -> str:
        found = parse_delimiter(word)
        if found is None:
            expected = "auto, comma, semicolon, tab, pipe or one other character"
            raise conflict("delimiter", f"{expected}, got '{word}'")
        return found

    @model_validator(mode="before")
    @classmethod
    def _tasks_are_labels(cls, given: Any) -> Any:
        """The columns of tasks are those of labels."""
        if not isinstance(given, Mapping) or "label" in given:
            return given
        tasks = given.get("tasks")
        return (
            {**given, "label": [*tasks]}
            if tasks and isinstance(tasks, list | tuple | dict)
            else given
        )

    @field_validator("text", "label", "label_probabilities", "tasks", mode="before")
    @classmethod
    def _lists_are_names(cls, value: object) -> object:
        """Before pydantic 2.11, the members of a union stay strict, whatever `Names` says."""
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _cuts_leave_rows(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise conflict(
                "validation_fraction",
                f"together with data.test_fraction below 1, got {self.validation_fraction} + "
                f"{self.test_fraction}",
            )
        if self.rows_per_class is not None and self.max_train_rows is not None:
            raise conflict("rows_per_class", "null with data.max_train_rows, which draws as well")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise conflict("labels", f"each name once, got {list(self.labels)}")
        if self.labels is not None and not all(name.strip() for name in self.labels):
            raise conflict("labels", f"names that are not blank, got {list(self.labels)}")
        for key in ("validation", "test"):
            if (
                getattr(self, key) not in ("auto", "carve", "none")
                and getattr(self, key) == self.train
            ):
                raise conflict(key, f"another split than data.train, got '{self.train}' for both")
        if self.test == "none":
            raise conflict("test", "a split, carve or auto, got 'none': something must be scored")
        if self.test == self.validation and self.test not in ("auto", "carve"):
            raise conflict(
                "test",
                f"another split than data.validation, got '{self.test}' for both; test is never "
                "used for tuning",
            )
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_several(self) -> Self:
        if (parts := self.fold_of()) is not None and not parts[0] <= parts[1] > 1:
            raise conflict("fold", f"one of two parts or more, as 2/5, got {self.fold}")
        return self

    @model_validator(mode="after")
    def _rows_are_divided_in_one_way(self) -> Self:
        labels = (self.label,) if isinstance(self.label, str) else self.label
        for key in ("group", "split_by_time"):
            column = getattr(self, key)
            if column is not None and column in (*self.columns(), self.text_pair, *labels):
                raise conflict(
                    key, f"another column than those of text and label, got '{column}' again"
                )
        if self.split_by_time is None:
            return self
        for key in ("group", "fold"):
            if getattr(self, key) is not None:
                raise conflict(
                    key,
                    f"null with data.split_by_time, which cuts train by time alone, got "
                    f"'{getattr(self, key)}'",
                )
        if self.near_duplicates == "together":
            raise conflict(
                "near_duplicates", "apart with data.split_by_time, which cuts train by time alone"
            )
        return self

    def never_stopping(self) -> Self:
        """The same, where no row stops the run: to look at all problems."""
        mild = {"on_undecodable": "replace", "on_leak": "warn"}
        stops = [key for key in type(self).model_fields if getattr(self, key) == "stop"]
        return self.model_copy(update={key: mild.get(key, "drop") for key in stops})

    def given_labels(self) -> tuple[str, ...] | None:
        """The labels in order, where the recipe names them."""
        if not isinstance(self.label, str):
            return self.label if self.hierarchy is None and self.tasks is None else None
        given = self.label_order if self.task == "ordered" else self.labels
        return given or self.share_names()

    def task_weights(self) -> dict[str, float]:
        """The weight of each task in the loss, in order; of other recipes none."""
        if isinstance(self.tasks, dict):
            return self.tasks
        return dict.fromkeys(self.tasks or (), 1.0)

    def share_columns(self) -> tuple[str, ...]:
        """The columns of label probabilities."""
        asked = self.label_probabilities or ()
        return (asked,) if isinstance(asked, str) else asked

    def share_names(self) -> tuple[str, ...] | None:
        """The labels whose probabilities columns hold, one for each; None for objects."""
        if self.label_probabilities is None or isinstance(self.label_probabilities, str):
            return None
        return self.labels or self.label_probabilities

    def fold_of(self) -> tuple[int, int] | None:
        """Which part of how many is the test split."""
        if self.fold is None:
            return None
        part, many = map(int, self.fold.split("/"))
        return part, many

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        try:
            fields = None if self.template is None else columns_in(self.template)
        except ValueError as error:
            what = f"columns as {{title}}, got {self.template!r} ({error})"
            raise conflict("template", what) from None
        named = (self.text,) if isinstance(self.text, str) else self.text
        if len(set(named)) < len(named):
            raise conflict("text", f"each column once, got {list(named)}")
        if fields is not None and not fields:
            raise conflict("template", f"a column as {{title}} in it, got {self.template!r}")
        default = ("text",)  # also where it was written out, as in the recipe of a run
        if fields is not None and named != default and set(named) != set(fields):
            raise conflict(
                "template",
                f"just the columns of data.text, {list(named)}; it has {list(fields)}",
            )
        labels = (self.label,) if isinstance(self.label, str) else self.label
        for column in labels:
            if column in self.columns():
                raise conflict("label", f"another column than data.text, got '{column}' for both")
        if self.id is not None and self.id in (*self.columns(), self.text_pair, *labels):
            raise conflict(
                "id", f"another column than those of text and label, got '{self.id}' again"
            )
        if not isinstance(self.label, str):
            if len(set(labels)) < len(labels) or len(labels) < 2:
                raise conflict("label", f"two columns or more, each once, got {list(labels)}")
            for key in ("labels", "label_separator", "label_lists"):
                if getattr(self, key) is not None:
                    raise conflict(key, "null where data.label names several columns")
        if self.hierarchy is not None:
            for key in ("label_separator", "label_lists"):
                if getattr(self, key):
                    raise conflict(key, "null with data.hierarchy, which is of one label a row")
            if self.task != "classes":
                why = "labels have an order there, and no levels"
                if self.task == "number":
                    why = "numbers have no levels"
                raise conflict("hierarchy", f"null with data.task '{self.task}', as {why}")
        if self.label_lists and self.label_separator is not None:
            raise conflict("label_lists", "null or false with data.label_separator")
        if self.text_pair is not None and self.text_pair in (*self.columns(), *labels):
            raise conflict(
                "text_pair",
                f"another column than data.text and data.label, got '{self.text_pair}' again",
            )
        return self

    @model_validator(mode="after")
    def _shares_and_weights_fit(self) -> Self:
        taken = (*self.columns(), self.text_pair)
        if self.weight is not None and self.weight in (*taken, self.label, *self.share_columns()):
            raise conflict(
                "weight", f"another column than those of text and label, got '{self.weight}' again"
            )
        if self.label_probabilities is None:
            if self.multi_label:
                raise conflict(
                    "multi_label",
                    "false without data.label_probabilities: a row has several labels where its "
                    "cell of data.label is a list",
                )
            return self
        key, columns = "label_probabilities", self.share_columns()
        if len({*columns}) < len(columns) or (
            len(columns) < 2 and not isinstance(self.label_probabilities, str)
        ):
            raise conflict(key, f"one column, or two or more, each once, got {list(columns)}")
        for column in columns:
            if column in taken:
                raise conflict(key, f"another column than those of text, got '{column}' for both")
        if not isinstance(self.label, str):
            raise conflict("label", "one column with data.label_probabilities")
        for other in ("label_separator", "label_lists"):
            if getattr(self, other):
                raise conflict(other, "null with data.label_probabilities")
        if self.similar_labels == "merge":
            raise conflict(
                "similar_labels", "apart with data.label_probabilities, which names the labels"
            )
        if self.task != "classes" and self.multi_label:
            raise conflict("multi_label", f"false with data.task '{self.task}'")
        is_list = not isinstance(self.label_probabilities, str)
        if is_list and self.labels is not None and len(self.labels) != len(columns):
            raise conflict(
                "labels",
                f"a name for each of the {len(columns)} columns of data.label_probabilities, got "
                f"{len(self.labels)}",
            )
        return self

    @model_validator(mode="after")
    def _order_is_of_single_labels(self) -> Self:
        if self.task != "ordered":
            if self.label_order is not None:
                raise conflict("label_order", "null without data.task 'ordered'")
            if self.task == "number" and not isinstance(self.label, str):
                raise conflict("label", "one column with data.task 'number'")
            if self.task == "number" and self.similar_labels == "merge":
                raise conflict("similar_labels", "apart with data.task 'number', which has none")
            return self
        if not isinstance(self.label, str):
            raise conflict("label", "one column with data.task 'ordered'")
        for key in ("label_separator", "label_lists", "labels"):
            if getattr(self, key):
                hint = "; data.label_order names them" if key == "labels" else ""
                raise conflict(key, f"null with data.task 'ordered'{hint}")
        if self.label_order is not None:
            if len(set(self.label_order)) < len(self.label_order):
                raise conflict("label_order", f"each label once, got {list(self.label_order)}")
            if len(self.label_order) < 2:
                raise conflict("label_order", f"two labels or more, got {list(self.label_order)}")
        return self

    @model_validator(mode="after")
    def _windows_are_of_single_texts(self) -> Self:
        if self.text_pair is not None and self.truncation != "head":
            raise conflict(
                "truncation",
                "head with data.text_pair, as pairs are cut where they are longest, got "
                f"'{self.truncation}'",
            )
        for key in ("stride", "window_pooling", "max_windows"):
            default = type(self).model_fields[key].default
            if self.truncation != "windows" and getattr(self, key) != default:
                raise conflict(
                    key, f"no choice without data.truncation 'windows', got {getattr(self, key)!r}"
                )
        return self

    def columns(self) -> tuple[str, ...]:
        """The columns that make a document."""
        if self.template is not None:
            return columns_in(self.template)
        return (self.text,) if isinstance(self.text, str) else self.text


def columns_in(template: str) -> tuple[str, ...]:
    """The columns that a template names, each once, in order.

    Raises:
        ValueError: for a brace that opens or closes nothing, or what is not just a name.
    """
    names: dict[str, None] = {}
    for _, name, form, conversion in string.Formatter().parse(template):
        if form or conversion or name == "":
            raise ValueError("only column names may be in braces; write a literal brace twice")
        if name is not None:
            names[name] = None
    return tuple(names)
