"""The first texts of a file, for the scripts that compare how they are answered."""

import itertools


def read_texts(data: str, rows: int) -> list[str]:
    """At most so many; rows that cannot be read are left out."""
    from finetune.data.formats.source import ReadProgress
    from finetune.inference import inputs
    from finetune.inference.records import RequestedColumns, read_records

    found = (
        row.texts[0]
        for item in inputs.find_inputs(inputs.InputSpec(data))
        for row in read_records(item, RequestedColumns(("text",)), ReadProgress())
        if row.error is None
    )
    return list(itertools.islice(found, rows))
