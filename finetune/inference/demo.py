"""A classifier → a page on this machine to try texts on: what it answers, and what of them it read.

    serve(Classifier("runs/bbc_news/…"), port=None)      # until Ctrl-C

`look` makes one answer, without any page. The page is Gradio's (extra `demo`), on loopback
alone; it asks nothing of any other address, and `templates/answer.html` escapes all text.
"""

import itertools
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from markupsafe import Markup

from finetune.inference.classifier import Classifier
from finetune.inference.records import RecordMaker, RequestedColumns
from finetune.reporting import html_report
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import Ids, TokenTable

LOOPBACK = "127.0.0.1"
MOST = 20  # classes, and windows, that are shown
CHARACTERS = 500_000  # that a box takes: some hundred pages


@dataclass(frozen=True)
class Piece:
    """A part of a document that went through the encoder at once.

    Attributes:
        text: what its tokens say, as the encoder sees it; of a pair, the second below the first.
        tokens: special ones included.
        label: the likeliest by this piece alone; None where there is no other piece.
        score: that label's probability.
    """

    text: str
    tokens: int
    label: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Inspection:
    """What a classifier makes of one document.

    Attributes:
        given: the labels that it answers with; none where it abstains.
        probabilities: of all classes, the likeliest first.
        below: the probability under which it gives no label; None where it always does.
        tokens: of the whole document, special ones included.
        read: how many of them stand in some piece.
    """

    given: Sequence[str]
    probabilities: dict[str, float]
    below: float | None
    several: bool
    tokens: int
    read: int
    pieces: Sequence[Piece]


def inspect_texts(classifier: Classifier, texts: Sequence[str]) -> Inspection:
    """Classify one document.

    Args:
        texts: one for each of the classifier's columns.

    Raises:
        InputError: where one of them is empty.
    """
    rules, columns = classifier.rules, classifier.columns
    cells = dict(zip(columns, texts, strict=True))
    row = RecordMaker(
        "this page", RequestedColumns(columns, classifier.reading.wanted())
    ).from_cells("document", 1, cells)
    if row.error is not None:
        raise InputError(row.error)
    table = classifier.encode([row])
    (answer,) = classifier.answers([row], table, probabilities=True)
    chances: dict[str, float] = answer["probabilities"]
    given = answer["labels"] if rules.several else [answer["label"]]
    return Inspection(
        given=[label for label in given if label is not None],
        probabilities=dict(sorted(chances.items(), key=lambda item: -item[1])),
        below=rules.abstain_below,
        several=rules.several,
        tokens=int(table.full[0]),
        read=int(table.full[0]) - table.cut,
        pieces=_pieces(classifier, table),
    )


def _pieces(classifier: Classifier, table: TokenTable) -> list[Piece]:
    """The document's pieces; where it has several, each with its own answer."""
    spans = [table.span(piece) for piece in range(len(table.starts) - 1)]
    found = [Piece(_said(classifier, table.ids[span]), span.stop - span.start) for span in spans]
    if len(found) == 1:
        return found
    alone = TokenTable(table.ids, table.starts, np.diff(table.starts), table.pad_id)
    chances = classifier.rules.probabilities(classifier.engine.logits(alone))
    return [
        Piece(piece.text, piece.tokens, classifier.labels[row.argmax()], float(row.max()))
        for piece, row in zip(found, chances, strict=True)
    ]


def _said(classifier: Classifier, ids: Ids) -> str:
    """What some tokens say, in paragraphs where separators stand between them."""
    tokenizer = classifier.tokenizer
    parts = itertools.groupby(ids.tolist(), lambda token: token == tokenizer.sep_token_id)
    said = (str(tokenizer.decode(list(part), skip_special_tokens=True)) for _, part in parts)
    return "\n\n".join(filter(None, said))


def as_html(seen: Inspection) -> str:
    """The answer for the page, with every text in it escaped."""
    template = html_report.template_environment().get_template("answer.html")
    return template.render(seen=seen, most=MOST)


def serve(classifier: Classifier, name: str, port: int | None = None) -> None:
    """Show the page until Ctrl-C.

    Args:
        name: of the model, for the title.
        port: None: the first that is free from 7860 on.

    Raises:
        InputError: where Gradio is not installed, or the port is taken.
    """
    shown = show(classifier, name, port)
    print_line(f"{name}: {shown.local_url}  (Ctrl-C ends it)")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    shown.close(verbose=False)


def require_gradio() -> None:
    """Refuse where Gradio is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    if find_spec("gradio") is None:
        raise InputError("gradio is not installed here; run: pip install gradio")


def show(classifier: Classifier, name: str, port: int | None = None) -> Any:
    """Start the page and come back; its `gradio.Blocks`, which have `local_url` and `close`."""
    if port is not None and not 0 < port < 2**16:
        raise InputError(f"--port: expected a number from 1 to 65535, got {port}")
    gr = _gradio()
    lock = threading.Lock()  # an engine serves one at a time

    def answer(*texts: str) -> str:
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
        found = gr.HTML(elem_id="answer", js_on_load=None)
        for event in (button.click, *(box.submit for box in boxes)):
            event(answer, boxes, found, api_visibility="private", show_progress="minimal")
    font = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    mono = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    theme = gr.themes.Base(primary_hue="teal", font=font, font_mono=mono).set(
        button_primary_background_fill="*primary_700", color_accent="*primary_600"
    )
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
            theme=theme,
            css=(html_report.PAGES / "demo.css").read_text(encoding="utf-8"),
        )
    except OSError:
        which = "no port from 7860 to 7959 is" if port is None else f"{port} is not"
        raise InputError(f"--port: {which} free; choose another") from None
    return blocks


def _gradio() -> Any:
    """The library, told before it is imported to ask nothing of anybody."""
    require_gradio()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return import_module("gradio")


def _head(classifier: Classifier, name: str) -> str:
    labels = classifier.labels
    more = f" and {len(labels) - MOST:,} more" if len(labels) > MOST else ""
    several = ", none or several for a text" if classifier.rules.several else ""
    about = f"{name}, {len(labels):,} labels{several}: {', '.join(labels[:MOST])}{more}."
    return Markup("<h1>Try the classifier</h1><p>{}</p>").format(about)
