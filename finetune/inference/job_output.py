"""The predictions of a chunk → a shard; all shards of a job → its output."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.config.label_tasks import score_field
from finetune.inference import outputs
from finetune.inference.chunks import Chunk
from finetune.inference.decision import DecisionRules
from finetune.inference.id_check import IdCheck, IdProblems
from finetune.inference.job_options import OutputOptions
from finetune.inference.outputs import Columns
from finetune.inference.records import ANSWERED_BY, STUDENT
from finetune.inference.shards import Footer, ShardStore

Row = dict[str, Any]


@dataclass(frozen=True)
class JobOutput:
    """What the rows of a job's output look like.

    Attributes:
        names: of the columns that are copied from the input, `id` first.
        rules: those that the predictions follow.
        id: the input's column that `id` holds; None: it holds numbers, or files.
        cascades: whether each row says which of two models predicted it.
    """

    options: OutputOptions
    names: Sequence[str]
    rules: DecisionRules
    id: str | None = None
    cascades: bool = False

    def make_shard(self, chunk: Chunk, predictions: Iterator[Row]) -> tuple[list[str], Row]:
        """A chunk's rows of output as lines of JSON, and the fields of its footer."""
        lines, counts, errors, abstained, out_of_scope = [], Counter[str](), 0, 0, 0
        by_student = 0
        kinds: dict[str, set[str]] = {name: set() for name in self.names}
        rows = enumerate(zip(chunk.rows, predictions, strict=True), chunk.first)
        for number, (record, prediction) in rows:
            values = record.beside
            if len(values) < len(self.names):  # no column is the id
                values = (number, *values)
            for name, value in zip(self.names, values, strict=True):
                if (kind := outputs.json_kind(value)) is not None:
                    kinds[name].add(kind)
            labels = self._labels(prediction)
            errors += "error" in prediction
            abstained += "error" not in prediction and not labels
            out_of_scope += bool(prediction.get("out_of_scope"))
            by_student += prediction.get(ANSWERED_BY) == STUDENT
            counts.update(labels)
            line = dict(zip(self.names, values, strict=True)) | prediction
            lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
        return lines, {
            "errors": errors,
            "abstained": abstained,
            "out_of_scope": out_of_scope,
            "by_student": by_student,
            "input": chunk.input,
            "counts": dict(counts),
            "kinds": {name: sorted(seen) for name, seen in kinds.items()},
        }

    def _labels(self, prediction: Row) -> list[str]:
        if "error" in prediction:
            return []
        if self.rules.number is not None:
            return [self.rules.number.column]
        return self.rules.labels_of(prediction)

    def merge_shards(self, store: ShardStore, count: int) -> tuple[list[Footer], IdProblems]:
        """Write all shards, in order, to the output.

        Returns:
            Their footers, and the rows that their `id` does not tell apart.
        """
        footers = [store.read(index)[1] for index in range(count)]
        names = tuple(self.names)
        kinds = {
            name: frozenset[str]().union(*(footer.kinds[name] for footer in footers))
            for name in names
        }
        kinds |= {
            "score": frozenset({"float"}),
            "labels": frozenset({"texts"}),
            "scores": frozenset({"floats"}),
            "out_of_scope": frozenset({"bool"}),
            "out_of_scope_score": frozenset({"float"}),
            "levels": frozenset({"texts"}),
            "level_scores": frozenset({"floats"}),
            **{name: frozenset({"float"}) for name in ("number", "low", "high")},
            **{
                score_field(name): frozenset({"float"})
                for name in (() if self.rules.tasks is None else self.rules.tasks.names)
            },
        }
        columns = [*names, *self.rules.fields, *([ANSWERED_BY] if self.cascades else [])]
        if self.options.probabilities:
            probabilities = [f"probabilities.{label}" for label in self.rules.labels]
            columns += probabilities
            kinds |= dict.fromkeys(probabilities, frozenset({"float"}))
        if self.options.explain:
            columns.append("explanation")

        check = IdCheck() if self.id is not None else None

        def rows(belongs: Callable[[Row], bool], checked: bool = False) -> Iterator[Row]:
            for line in store.lines(count):
                row = json.loads(line)
                if checked and check is not None:
                    check.add(row["id"])
                if belongs(row):
                    yield row

        file, errors = self.options.file, self.options.errors
        if errors is None:
            every = Columns((*columns, "error"), kinds, self.options.spreadsheet_safe)
            outputs.write_rows(rows(lambda row: True, checked=True), file, every)
        else:
            invalid = Columns((*names, "error"), kinds, self.options.spreadsheet_safe)
            outputs.write_rows(rows(lambda row: "error" in row), errors, invalid)
            valid = Columns(tuple(columns), kinds, self.options.spreadsheet_safe)
            outputs.write_rows(rows(lambda row: "error" not in row, checked=True), file, valid)
        problems = IdProblems()
        if check is not None:
            problems = check.conclude(lambda: (row["id"] for row in rows(lambda row: True)))
        return footers, problems
