"""A classifier → a page on this machine to try texts on: what it predicts, and what it read.

    serve(Classifier("runs/bbc_news/…"), port=None)      # until Ctrl-C

`inspect_texts` classifies one document, without any page. The page is Gradio's (extra `demo`), on
loopback alone; it asks nothing of any other address, and `templates/answer.html` escapes all text.
"""

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from markupsafe import Markup

from finetune.inference.classifier import Classifier
from finetune.inference.demo_guard import DemoGuard
from finetune.inference.explanation import explain_answers
from finetune.inference.records import Record, RecordMaker, RequestedColumns
from finetune.reporting import html_report
from finetune.reporting.marked_text import Segment, mark_words
from finetune.runtime import telemetry
from finetune.runtime.commands import install
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import Ids, TokenTable

LOOPBACK = "127.0.0.1"
MAX_SHOWN = 20  # classes, and windows
MOST_REASONS = 3  # labels that are explained
EXPLAINED_TOKENS = 2048  # of the longest document that is explained: some seconds
CHARACTERS = 500_000  # that a box takes: some hundred pages
WAITING = 16  # texts that wait for the one that is classified


@dataclass(frozen=True)
class Window:
    """A part of a document that the encoder reads at once.

    Attributes:
        text: its tokens as text, as the encoder sees it; of a pair, the second below the first.
        tokens: special ones included.
        label: the most probable by this window alone; None where it is the only one.
        score: that label's probability.
    """

    text: str
    tokens: int
    label: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Reason:
    """The words that spoke for a label.

    Attributes:
        texts: the document, or both texts of a pair, each with its column and its segments.
    """

    label: str
    texts: Sequence[tuple[str, Sequence[Segment]]]


@dataclass(frozen=True)
class Inspection:
    """One document's prediction, and what of the document was read.

    Attributes:
        predicted: the labels; none where the model abstains.
        probabilities: of all classes, the most probable first.
        abstain_below: the probability of the best label below which the model abstains, or None.
        tokens: of the whole document, special ones included.
        read: how many of them are in some window.
        out_of_scope: whether no label fits the document.
        reasons: for each of the first predicted labels; none where the engine is not torch, or the
            document too long.
        levels: of labels with levels: those that the model is sure of, with their probabilities.
        number: of a model of numbers: its name, and the prediction with its interval; else None.
    """

    predicted: Sequence[str]
    probabilities: dict[str, float]
    abstain_below: float | None
    multi_label: bool
    tokens: int
    read: int
    windows: Sequence[Window]
    out_of_scope: bool = False
    reasons: Sequence[Reason] = ()
    number: dict[str, dict[str, float]] | None = None
    levels: Sequence[tuple[str, float]] = ()


def inspect_texts(classifier: Classifier, texts: Sequence[str]) -> Inspection:
    """Classify one document.

    Args:
        texts: one for each of the classifier's columns.

    Raises:
        InputError: where one of them is empty or too long.
    """
    for column, text in zip(classifier.columns, texts, strict=True):
        if len(text) > CHARACTERS:  # the box asks for it, and nobody has to use the box
            raise InputError(
                f"this page: '{column}' has {len(text):,} characters; expected at most "
                f"{CHARACTERS:,}; give a shorter text"
            )
    rules, columns = classifier.rules, classifier.columns
    cells = dict(zip(columns, texts, strict=True))
    row = RecordMaker(
        "this page", RequestedColumns(columns, classifier.reading.column_spec())
    ).from_cells("document", 1, cells)
    if row.error is not None:
        raise InputError(row.error)
    table = classifier.encode([row])
    is_number = rules.number is not None
    (prediction,) = classifier.predict([row], table, probabilities=not is_number)
    if "error" in prediction:
        raise InputError(prediction["error"])
    probabilities: dict[str, float] = prediction.get("probabilities", {})
    predicted = [] if is_number else rules.labels_of(prediction)
    return Inspection(
        predicted=predicted,
        probabilities=dict(sorted(probabilities.items(), key=lambda item: -item[1])),
        abstain_below=rules.abstain_below,
        multi_label=rules.multi_label,
        tokens=int(table.full[0]),
        read=int(table.full[0]) - table.total_lost_tokens,
        windows=_windows(classifier, table),
        out_of_scope=bool(prediction.get("out_of_scope")),
        number={rules.labels[0]: prediction} if is_number else None,
        levels=[
            *zip(*(prediction.get(key, ()) for key in ("levels", "level_scores")), strict=True)
        ],
        reasons=[*_reasons(classifier, row, table, predicted[:MOST_REASONS])],
    )


def _reasons(
    classifier: Classifier, row: Record, table: TokenTable, labels: Sequence[str]
) -> Iterator[Reason]:
    """Which words spoke for each of these labels."""
    is_long = int(table.lengths.sum()) > EXPLAINED_TOKENS
    if is_long or classifier.engine_name != "torch" or not classifier.tokenizer.is_fast:
        return
    logits = classifier.engine.logits(table)
    columns = classifier.columns
    for label in labels:
        (words,) = explain_answers(classifier, [row], table, logits, [label])
        texts, highest = [], max((one.score for one in words), default=0.0)
        for number, text in enumerate(row.texts):
            name = columns[number - len(row.texts)] if len(row.texts) > 1 else ""
            own = [(one.start, one.end, one.score) for one in words if one.text == number]
            texts.append((name, mark_words(text, own, highest)))
        yield Reason(label, texts)


def _windows(classifier: Classifier, table: TokenTable) -> list[Window]:
    """The document's windows; where it has several, each with its own prediction."""
    spans = [table.span(window) for window in range(len(table.starts) - 1)]
    windows = [Window(_decode(classifier, table.ids[s]), s.stop - s.start) for s in spans]
    if len(windows) == 1 or classifier.rules.number is not None:
        return windows
    alone = TokenTable(table.ids, table.starts, np.diff(table.starts), table.pad_id)
    probabilities = classifier.rules.probabilities(classifier.engine.logits(alone))
    return [
        Window(window.text, window.tokens, classifier.labels[row.argmax()], float(row.max()))
        for window, row in zip(windows, probabilities, strict=True)
    ]


def _decode(classifier: Classifier, ids: Ids) -> str:
    """Tokens as text, a paragraph for each of those that separators divide."""
    tokenizer = classifier.tokenizer
    groups = itertools.groupby(ids.tolist(), lambda token: token == tokenizer.sep_token_id)
    texts = (str(tokenizer.decode(list(group), skip_special_tokens=True)) for _, group in groups)
    return "\n\n".join(filter(None, texts))


def as_html(inspection: Inspection) -> str:
    """The prediction for the page, with every text in it escaped."""
    template = html_report.template_environment().get_template("answer.html")
    return template.render(inspection=inspection, most=MAX_SHOWN)


def serve(classifier: Classifier, name: str, port: int | None = None) -> None:
    """Show the page until Ctrl-C.

    Args:
        name: of the model, for the title.
        port: None: the first that is free from 7860 on.

    Raises:
        InputError: where Gradio is not installed, or the port is taken.
    """
    page = show(classifier, name, port)
    print_line(f"{name}: {page.local_url}  (Ctrl-C ends it)")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    page.close(verbose=False)


def require_gradio() -> None:
    """Refuse where Gradio is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    if find_spec("gradio") is None:
        raise InputError(f"Gradio is not installed; {install('demo')}")


def show(classifier: Classifier, name: str, port: int | None = None) -> Any:
    """Start the page, and return its `gradio.Blocks`, which have `local_url` and `close`."""
    if port is not None and not 0 < port < 2**16:
        raise InputError(f"--port: expected a number from 1 to 65535, got {port}")
    gr = _gradio()
    from starlette.middleware import Middleware

    blocks = _build_page(gr, classifier, name)
    font = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    mono = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    theme = gr.themes.Base(primary_hue="teal", font=font, font_mono=mono).set(
        button_primary_background_fill="*primary_700", color_accent="*primary_600"
    )
    blocks.queue(api_open=False, max_size=WAITING)
    # A character takes four bytes at most, and JSON around the texts little.
    guard = Middleware(DemoGuard, most_bytes=4 * CHARACTERS * len(classifier.columns) + 2**16)
    try:
        blocks.launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            app_kwargs={"middleware": [guard]},
            blocked_paths=[os.path.sep],  # nor what GRADIO_ALLOWED_PATHS names
            strict_cors=True,
            max_file_size=1,
            theme=theme,
            css=(html_report.PAGES / "demo.css").read_text(encoding="utf-8"),
        )
    except OSError:
        which = "no port from 7860 to 7959 is" if port is None else f"{port} is not"
        raise InputError(f"--port: {which} free; choose another") from None
    return blocks


def _build_page(gr: Any, classifier: Classifier, name: str) -> Any:
    """The `gradio.Blocks`: a box for each column of text, a button and the prediction."""
    lock = threading.Lock()  # an engine serves one at a time

    def classify(*texts: str) -> str:
        try:
            with lock:
                return as_html(inspect_texts(classifier, texts))
        except InputError as error:
            return Markup("<p>{}</p>").format(error)

    with gr.Blocks(title=name, analytics_enabled=False) as blocks:
        gr.HTML(_head(classifier, name), js_on_load=None)
        boxes = [
            gr.Textbox(
                label=column.capitalize(), lines=8, max_lines=20, max_length=CHARACTERS,
                elem_id=f"text-{number}",
            )
            for number, column in enumerate(classifier.columns)
        ]  # fmt: skip
        button = gr.Button("Classify", variant="primary", elem_id="classify")
        result = gr.HTML(elem_id="answer", js_on_load=None)
        for event in (button.click, *(box.submit for box in boxes)):
            event(classify, boxes, result, api_visibility="private", show_progress="minimal")
    return blocks


def _gradio() -> Any:
    """The library, which may report nothing."""
    require_gradio()
    return telemetry.import_silently("gradio")


def _head(classifier: Classifier, name: str) -> str:
    labels = classifier.labels
    more = f" and {len(labels) - MAX_SHOWN:,} more" if len(labels) > MAX_SHOWN else ""
    multi_label = ", none or several for a text" if classifier.rules.multi_label else ""
    if classifier.rules.tasks is not None:
        multi_label = f" of {len(classifier.rules.tasks.each)} tasks, one of each for a text"
    about = f"{name}, {len(labels):,} labels{multi_label}: {', '.join(labels[:MAX_SHOWN])}{more}."
    if classifier.rules.number is not None:
        about = f"{name}, predicts the number ‘{labels[0]}’."
    return Markup("<h1>Try the classifier</h1><p>{}</p>").format(about)
