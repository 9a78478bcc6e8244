"""What clients send and get: the JSON of `/predict`, `/v1/classify` and `/info`, with its types.

`/predict` has the shapes of text-embeddings-inference (router/src/http/types.rs there): `inputs` is
a text, a pair as a list of two texts, or a batch as a list of lists; the answer is a list of labels
with their scores, the most probable first, and of a batch a list of these.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from finetune.inference.records import MOST_WORDS
from finetune.runtime.errors import did_you_mean

LONGEST_KEY = 60  # characters of an unknown key that its sender is told
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
CELLS = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
ROW = {"anyOf": [TEXT, TEXTS, CELLS]}
PREDICT_INPUTS = {
    "description": "a text; a list with a text for each column that the model reads, such as a "
    "pair; or a batch: a list of such lists",
    "anyOf": [TEXT, TEXTS, {"type": "array", "items": TEXTS, "minItems": 1}],
    "examples": ["What is it about?", [["One text."], ["Another."]]],
}
CLASSIFY_INPUTS = {
    "description": "a document, or a list of documents. A document is a text, an object with the "
    "columns that the model reads, or (in a list) a list of their texts",
    "anyOf": [TEXT, CELLS, {"type": "array", "items": ROW, "minItems": 1}],
    "examples": ["What is it about?", ["One text.", "Another."]],
}


class PredictRequest(BaseModel):
    """Other keys are ignored, as there: how a document is truncated is the model's."""

    model_config = ConfigDict(strict=True)
    inputs: Annotated[Any, WithJsonSchema(PREDICT_INPUTS)]
    truncate: bool | None = Field(
        None, description="false: refuse a document of which the model does not read all"
    )
    raw_scores: bool = Field(False, description="logits instead of probabilities")


class LabelScore(BaseModel):
    score: float = Field(description="probability, or logit")
    label: str


class ClassifyRequest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    inputs: Annotated[Any, WithJsonSchema(CLASSIFY_INPUTS)]
    probabilities: bool = Field(False, description="include the probability of each label")
    explain: int = Field(
        0,
        ge=0,
        le=MOST_WORDS,
        description="how many words that spoke for each label to include, the most telling first; "
        "of at most 16 documents",
    )

    @model_validator(mode="before")
    @classmethod
    def name_first_unknown_key(cls, body: Any) -> Any:
        """One error for all unknown keys: to write one for each of 100,000 takes seconds."""
        known = cls.model_fields
        if isinstance(body, dict) and any(key not in known for key in body):
            first = next(key for key in body if key not in known)
            shown = first[:LONGEST_KEY].encode("utf-8", "backslashreplace").decode()
            hint = did_you_mean(shown, [*known], "the keys are")
            raise PydanticCustomError(
                "unknown_key", "no such key{hint}", {"key": shown, "hint": hint}
            )
        return body


class TellingWord(BaseModel):
    """A word that spoke for a label."""

    word: str
    column: str | None = Field(None, description="of a pair: the text that the word is in")
    start: int = Field(description="its first character in the text, from 0")
    end: int = Field(description="the character behind its last")
    score: float = Field(description="by how much it raises the log-odds of the label")


class Classified(BaseModel):
    """One document; label and score of a single-label model, labels and scores of a multi-label
    one, number, low and high of one that predicts numbers; of one of several tasks, for each its
    label under its name, and the probability of that, NAME_score."""

    model_config = ConfigDict(extra="allow")

    label: str | None = Field(None, description="null: the model abstains, or there is an error")
    score: float | None = Field(None, description="probability of the best label")
    labels: list[str] | None = Field(None, description="the most probable first")
    scores: list[float] | None = Field(None, description="their probabilities")
    levels: list[str] | None = Field(
        None, description="of labels with levels: from the coarsest node to the label"
    )
    level_scores: list[float] | None = Field(None, description="the probability of each level")
    out_of_scope: bool | None = Field(
        None, description="whether no label fits, in which case label is null (score.out_of_scope)"
    )
    out_of_scope_score: float | None = Field(
        None, description="the higher, the less the document belongs to any label"
    )
    number: float | None = Field(None, description="of a model of numbers: the prediction")
    low: float | None = Field(None, description="the lower end of its prediction interval")
    high: float | None = Field(None, description="the upper end")
    probabilities: dict[str, float] | None = None
    explanation: list[TellingWord] | dict[str, list[TellingWord]] | None = Field(
        None, description="the words that spoke for the label; multi-label: for each label"
    )
    tokens: int | None = Field(None, description="of the whole document")
    tokens_read: int | None = Field(None, description="of these, how many the model read")
    windows: int | None = Field(None, description="in which it read them")
    error: str | None = Field(None, description="why there is no prediction of this document")


class ClassifyResponse(BaseModel):
    predictions: list[Classified] = Field(description="of each document, in their order")


class ErrorResponse(BaseModel):
    error: str = Field(description="what was expected, what was found, and what to do")
    error_type: str = Field(description="validation, tokenizer, overloaded, backend, …")


class Info(BaseModel):
    """The model and the limits of the server."""

    model_id: str
    model_type: dict[str, Any] = Field(description="classifier: id2label, label2id")
    multi_label: bool
    columns: list[str] = Field(description="the texts that make up a document")
    max_input_length: int = Field(description="tokens of a window")
    truncation: str = Field(description="what is read of longer documents")
    max_windows: int | None
    thresholds: dict[str, float] | None
    abstain_below: float | None
    max_client_batch_size: int = Field(description="rows of a request")
    max_characters: int = Field(description="of a text")
    max_body_bytes: int
    engine: str
    version: str
