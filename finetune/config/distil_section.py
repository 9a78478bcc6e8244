"""The section `distil`: teachers whose probabilities a model learns from."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from finetune.config.section import Names, Section, conflict


class Distil(Section):
    """Teachers whose probabilities a model learns from, on labelled and unlabelled rows."""

    teacher: str | Names | None = Field(
        None,
        description=(
            "a trained classifier of the same labels: a run's folder, a model's folder or a Hub "
            "id; of a list, the mean of their probabilities is learned; null: labels alone are"
        ),
    )
    unlabelled: str | Names | None = Field(
        None,
        description=(
            "files of documents without labels, read as data.source is, that train is given too; "
            "they are learned from the teacher alone, and left out where validation or test has "
            "the same text, or nearly"
        ),
    )
    temperature: float = Field(
        2.0,
        gt=0,
        description=(
            "what the logits of teacher and model are divided by, so that the teacher's lesser "
            "labels count more"
        ),
    )
    weight: float = Field(
        0.5,
        gt=0,
        le=1,
        description=(
            "of labelled rows: the teacher's part of the loss; their own label has the rest"
        ),
    )

    @field_validator("teacher", "unlabelled", mode="before")
    @classmethod
    def _lists_are_names(cls, value: object) -> object:
        """Before pydantic 2.11, the members of a union stay strict, whatever `Names` says."""
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _all_keys_are_of_a_teacher(self) -> Self:
        if self.teacher is not None:
            return self
        for key, field in type(self).model_fields.items():
            if getattr(self, key) != field.default:
                default = "null" if field.default is None else field.default
                raise conflict(key, f"{default}, its default, without distil.teacher")
        return self

    def teachers(self) -> tuple[str, ...]:
        """The teachers, one after another."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()

    def files(self) -> tuple[str, ...]:
        """The files of documents without labels."""
        return (self.unlabelled,) if isinstance(self.unlabelled, str) else self.unlabelled or ()
