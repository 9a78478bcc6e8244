"""The classifier as an actor of Ray Data: batches of rows → the same batches with predictions.
Also Parquet files that hold the rows of a dataset in its order.

    rows = ray.data.read_parquet("news/")
    model = {"source": "runs/…"}
    rows.map_batches(RayClassifier, fn_constructor_kwargs=model, batch_format="pyarrow", …)

Each actor loads the model once. A row that cannot be read gets an `error`, as everywhere.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data.block import BlockAccessor
from ray.data.datasource import BlockBasedFileDatasink

from finetune.config.label_tasks import score_field
from finetune.data.cells import arrow_values

# Of each field that predictions may have (`DecisionRules.fields`).
KINDS: dict[str, Any] = {
    "label": pa.string(),
    "score": pa.float64(),
    "labels": pa.list_(pa.string()),
    "scores": pa.list_(pa.float64()),
    "levels": pa.list_(pa.string()),
    "level_scores": pa.list_(pa.float64()),
    **dict.fromkeys(("number", "low", "high"), pa.float64()),
    "out_of_scope": pa.bool_(),
    "out_of_scope_score": pa.float64(),
}


class OrderedSink(BlockBasedFileDatasink):
    """Parquet files, a file for each task that writes.

    Ray's own `write_parquet` hands a task's blocks to Arrow's `write_dataset` with threads, which
    may write them in another order (apache/arrow#26818).
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder, file_format="parquet")

    def write_block_to_file(self, block: BlockAccessor, file: Any) -> None:
        pq.write_table(block.to_arrow(), file)


class RayClassifier:
    """One process of Ray's that predicts.

    Args:
        source: the model, as for `Classifier`; every machine must find it there.
        text: the columns of the documents; empty: those that the model was trained on.
        keep: the columns that stay, beside that of the model's data.id; None: all.
        probabilities: include the probability of each label, in the columns `probabilities.X`.
        options: the other arguments of `Classifier`.
    """

    def __init__(
        self,
        source: str,
        text: Sequence[str] = (),
        keep: Sequence[str] | None = None,
        probabilities: bool = False,
        **options: Any,
    ) -> None:
        # Here, as the processes that only read and write files need no torch.
        from finetune.inference.classifier import Classifier
        from finetune.inference.records import RequestedColumns
        from finetune.runtime import telemetry

        telemetry.turn_off()  # another machine has not the environment of the command
        self.classifier = Classifier(source, **options)
        self.columns = RequestedColumns(
            tuple(text) or self.classifier.columns, self.classifier.reading.column_spec()
        )
        self.keep, self.probabilities = keep, probabilities
        if probabilities:
            self.classifier.rules.refuse_number("probabilities", "has none")

    def __call__(self, batch: Any) -> Any:
        """A `pyarrow.Table` → one with `label` and `score` (or `labels` and `scores`), `error`."""
        from finetune.inference.ray_reader import PROBLEM
        from finetune.inference.records import Record, RecordMaker

        problems: list[str | None] = [None] * batch.num_rows
        if PROBLEM in batch.column_names:  # what was read here tells what it could not read
            problems = batch.column(PROBLEM).to_pylist()
            batch = batch.drop_columns([PROBLEM])
        maker = RecordMaker("the batch", self.columns)  # of which file it is, Ray does not say
        columns = [
            arrow_values(batch.column(name)) if name in batch.column_names else None
            for name in self.columns.texts
        ]
        rows = [
            Record((), (), problem)
            if problem is not None
            else maker.from_cells(
                "row",
                number + 1,
                {
                    name: values[number]
                    for name, values in zip(self.columns.texts, columns, strict=True)
                    if values is not None
                },
            )
            for number, problem in enumerate(problems)
        ]
        table = self.classifier.encode(rows)
        predictions = list(self.classifier.predict(rows, table, self.probabilities))
        kinds, tasks = KINDS, self.classifier.rules.tasks
        for name in () if tasks is None else tasks.names:
            kinds = kinds | {name: pa.string(), score_field(name): pa.float64()}
        added = {
            name: pa.array([prediction[name] for prediction in predictions], kinds[name])
            for name in self.classifier.rules.fields
        }
        if self.probabilities:
            for label in self.classifier.labels:
                values = [
                    prediction.get("probabilities", {}).get(label) for prediction in predictions
                ]
                added[f"probabilities.{label}"] = pa.array(values, pa.float64())
        errors = [prediction.get("error") for prediction in predictions]
        added["error"] = pa.array(errors, pa.string())
        named = {*(self.keep or batch.column_names), self.classifier.reading.id}
        kept = [name for name in batch.column_names if name in named]
        own = {name: batch.column(name) for name in kept if name not in added}
        return pa.table(own | added)
