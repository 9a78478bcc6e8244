"""Text from data is shown, and commands nothing: neither a terminal, nor Markdown, nor a page."""

import contextlib
import io
import json
import logging
import re
import subprocess
import sys
from urllib.parse import quote

import pytest
from huggingface_hub import ModelCard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markupsafe import Markup
from ruamel.yaml import YAML

from finetune import run as training
from finetune.cli import command_parser, exit_codes, main
from finetune.config import loader
from finetune.hub import client
from finetune.reporting import html_report, markdown, model_card
from finetune.runtime import atomic_files, console, streams, telemetry
from finetune.runtime.credentials import mask_credentials
from finetune.runtime.errors import InputError
from finetune.runtime.visible_text import UNSAFE, visible, visible_json, visible_line
from tests.support.browser import Browser, chromium
from tests.support.processes import ENVIRONMENT, ROOT
from tests.unit.reporting.made import changed, made_results

# Clears the screen, sets the title, colours; C1's own CSI; an override; a line of its own; markup.
EVIL = (
    "x\x1b[2J\x1b]0;owned\x07\x9b31m\x08\x7f\u202egnp\u2066"
    "|`code`|**b**|[l](http://e.vil)|![i](http://e.vil/i)|<img src=x onerror=planted=1>"
    "|&lt;|~~s~~|$x$|#1|@all|https://e.vil|www.e.vil|:smile:|\\|\U000e0041"
)
ANY = st.text(st.characters(exclude_categories=()))  # halves of pairs too
# Of what Markdown makes markup of; text of all characters would rarely have any.
MARKUP = st.text(st.sampled_from("ab1.)- +=#*_`|[]()<>&!~$@:/\\\n\t\x1b\u202e"))


@given(ANY)
@example(EVIL)
def test_visible_text_sends_nothing_and_loses_nothing(text):
    shown = visible(text)
    assert not UNSAFE.search(shown)
    assert visible(shown) == shown
    assert not re.search(r"[\n\t]", visible_line(text))
    if "\\" not in text:
        kept = re.sub("[^\x00-\x7f]", lambda m: m[0].encode("unicode_escape").decode(), shown)
        assert kept.encode().decode("unicode_escape") == text


@given(ANY)
@example(EVIL)
def test_visible_json_says_the_same(text):
    written = visible_json(json.dumps({text: text}, ensure_ascii=False))
    assert not UNSAFE.search(written)
    assert json.loads(written) == {text: text}


def test_ordinary_text_stays_as_it_is():
    text = "Zürich, Ελλάδα, שלום, مرحبا, می\u200cخواهم, 京都, 👩\u200d👧, −1 °C …\n\tx"
    assert visible(text) == text


@given(ANY)
@example(EVIL)
def test_whatever_is_printed_is_visible(text):
    stream = io.StringIO()
    streams.write_line(text, stream)
    assert not UNSAFE.search(stream.getvalue())


@given(ANY)
@example(EVIL)
def test_a_cell_of_a_table_stays_on_its_line(text):
    table = console.format_table([["label", "rows"], [text, "3"]])
    assert len(table.split("\n")) == 2
    assert not UNSAFE.search(table)


def test_a_problem_is_one_line(capsys):
    def fail():
        raise InputError(f"'a{EVIL}\nerror: forged'")

    assert exit_codes.run_command(fail) == 2
    said = capsys.readouterr().err
    assert not UNSAFE.search(said)
    assert len(said.splitlines()) == 1


COMMANDS = [
    ("train", EVIL),
    ("train", "tiny.yaml", f"optim.lr={EVIL}"),
    ("train", "tiny.yaml", f"{EVIL}=1"),
    ("train", "tiny.yaml", "--resume" + EVIL),
    ("train", "tiny.yaml", f"data.source={EVIL}"),
    ("train", "--help", EVIL),
    ("inspect", EVIL),
    ("new", EVIL),
    ("predict", EVIL, EVIL),
    ("predict", "run", "in.csv", f"--{EVIL}"),
    ("predict", "run", "in.csv", "--batch-tokens", EVIL),
    ("report", EVIL),
    ("compare", EVIL, EVIL),
    ("recipes", EVIL),
    ("demo", EVIL, "--port", EVIL),
    ("serve", EVIL, "--port", EVIL),
    ("push", EVIL, EVIL),
    ("completion", EVIL),
    (EVIL,),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: f"{words[0][:8]}-{len(words)}")
def test_what_commands_say_of_their_words(words, here, capsys):
    with contextlib.suppress(SystemExit):
        assert main.main(words) == 2
    said = "".join(capsys.readouterr())
    assert len(said) > 20
    assert not UNSAFE.search(said)


def test_every_command_has_the_same_parser():
    """Of argparse's own, none would show what it quotes; and no error begins otherwise."""
    files = [*(ROOT / "finetune").rglob("*.py")]
    assert len(files) > 100
    own = [file.name for file in files if "argparse.ArgumentParser(" in file.read_text("utf-8")]
    assert own == []


def test_errors_of_the_command_line_are_like_all_others(capsys):
    with pytest.raises(SystemExit) as ended:
        command_parser.CommandParser(prog="finetune x").parse_args(["--colour"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: unrecognized arguments: --colour; see finetune x --help\n"
    )


def test_a_mistyped_option_is_told_the_one_like_it(capsys):
    parser = command_parser.CommandParser(prog="finetune x")
    parser.add_argument("--text")
    with pytest.raises(SystemExit):
        parser.parse_args(["--text-column=body"])
    assert capsys.readouterr().err == (
        "error: unrecognized arguments: --text-column=body; did you mean --text? "
        "see finetune x --help\n"
    )


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError(EVIL)",
        "import warnings; warnings.warn(EVIL)",
        "import logging; logging.getLogger('x').error('%s', EVIL)",
        "import threading; t = threading.Thread(target=lambda: int(EVIL)); t.start(); t.join()",
        "from transformers.utils import logging; logging.get_logger('transformers').error(EVIL)",
        "import logging\ntry: int(EVIL)\nexcept ValueError: logging.exception('no')",
        "import logging; logging.warning('first'); logging.getLogger(EVIL).addHandler(h := "
        "logging.StreamHandler()); h.setFormatter(logging.Formatter('%(name)s')); "
        "logging.getLogger(EVIL).error('x')",
        "class A:\n    def __del__(self): int(EVIL)\nA()",
        "print(EVIL)",
        "import sys; sys.stderr.write(EVIL); sys.stdout.writelines([EVIL])",
        "import sys; sys.exit(EVIL)",
    ],
)
def test_errors_warnings_and_logs_of_libraries(code):
    evil = f"{EVIL} https://me:secret@host/x"
    start = f"import finetune.cli; EVIL = {evil!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=120,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode()
    assert r"\x1b[2J" in said
    assert not UNSAFE.search(said)
    assert "secret" not in said


def test_bars_of_libraries_are_drawn_and_their_names_are_visible():
    code = f"import finetune.cli, tqdm; [*tqdm.tqdm([1], desc={EVIL!r})]"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=120
    )
    printed = done.stderr.decode()
    assert printed.startswith("\r")
    assert r"\x1b[2J" in printed
    assert not UNSAFE.search(printed.replace("\r", ""))


@pytest.mark.parametrize("pattern", [streams.BAR, streams.BAR_AND_COLOURS])
def test_what_libraries_may_send_to_a_terminal(pattern):
    colour = pattern is streams.BAR_AND_COLOURS
    assert bool(pattern.search("a\x1b[31mb")) == colour
    assert bool(pattern.search("\x1b[A\x1b[A")) == colour
    for text in ("a\rb", "\x1b[2J", "a\x1b[A", "\x1b[8m", "\x1b[08m", "\x1b[1;8m", "\x1b]0;t\x07"):
        assert not pattern.search(text)


def test_logs_to_files_are_visible(tmp_path):
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    evil = f"{EVIL} https://me:secret@host/x"
    try:
        raise ValueError(evil)
    except ValueError:
        handler.handle(streams.VisibleRecord(evil, logging.ERROR, "", 0, evil, (), sys.exc_info()))
    handler.close()
    written = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Traceback" in written
    assert not UNSAFE.search(written)
    assert "secret" not in written


@pytest.fixture(scope="module")
def labelled(documents, shared):
    """A run whose labels, column and file names are an attacker's."""
    text, evil = "te\x1b[31mxt", EVIL.replace("/", "")

    def train(folder):
        (folder / "data").mkdir(parents=True)
        for split in ("train", "validation", "test"):
            rows = [
                {text: f"{word} {split} {i} {EVIL}", "label": f"{evil}{word}"}
                for i in range(8)
                for word in ("ham", "egg")
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "data" / f"{split}.jsonl").write_text(lines)
        recipe = (documents / "tiny.yaml").read_text().replace("source: encoder", "source: enc")
        (folder / "tiny.yaml").write_text(recipe)
        (folder / "enc").symlink_to(documents / "encoder")
        out = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(out):
            words = (f"data.text={text}", "run.dir=run", "train.max_steps=6", "score.every=3")
            assert training.main(["tiny.yaml", *words]) == 0
        (folder / "printed.txt").write_text(out.getvalue())

    return shared("attacked", train)


def test_a_run_prints_and_writes_nothing_that_acts(labelled):
    printed = (labelled / "printed.txt").read_text()
    assert r"\x1b[2J" in printed
    assert not UNSAFE.search(printed)
    found = []
    for file in (labelled / "run").rglob("*"):
        if file.suffix in (".md", ".html", ".json", ".jsonl", ".yaml", ".txt"):
            found.append(file.name)
            if file.parent.name != "predictions":  # data, with the labels as they are
                text = file.read_text(encoding="utf-8")
                assert not UNSAFE.search(text), file.name
    expected = {"README.md", "report.html", "results.json", "metrics.jsonl", "recipe.yaml"}
    assert expected <= set(found)
    # And nothing is lost: the labels of JSON are the data's.
    results = json.loads((labelled / "run" / "results.json").read_text())
    assert sorted(results["data"]["labels"]) == sorted(
        EVIL.replace("/", "") + word for word in ("egg", "ham")
    )


def rendered(text):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def inline(tokens):
    return [child for token in tokens for child in token.children or ()]


@given(ANY | MARKUP)
@example(EVIL)
@example("a\n\n# b")
def test_markdown_stays_in_its_cell(text):
    cell = markdown.escape(text)
    expected = visible_line(text.strip()).strip()
    for before, after, kinds in (
        ("| a | b |\n|---|---|\n| ", " | 1 |", 4),
        ("# ", "", 1),
        ("- ", "", 1),
        ("Labels: ", ".", 1),
    ):
        tokens = rendered(f"{before}{cell}{after}\n")
        assert sum(token.type == "inline" for token in tokens) == kinds or not expected
        children = inline(tokens)
        assert {child.type for child in children} <= {"text", "text_special"}
        shown = "".join(child.content for child in children)
        assert expected in shown
    assert sum(token.type == "tr_open" for token in rendered(f"|a|b|\n|-|-|\n|{cell}|1|\n")) == 2


@given(ANY | MARKUP)
@example("`")
@example("``a`` ` b")
def test_code_ends_where_it_should(text):
    expected = visible_line(text.strip())
    if expected:
        [child] = inline(rendered(f"{markdown.code(text)}\n"))
        assert (child.type, child.content.strip()) == ("code_inline", expected.strip())
    [block] = rendered(markdown.block(visible(text), "yaml"))
    assert block.type == "fence"
    assert block.content.rstrip("\n") == visible(text).rstrip("\n")


def evil_labels(values):
    for at, one in enumerate(values["classes"]):
        one["label"] = f"{EVIL}\n---\nlicense: evil\n{at}"
    values["data"]["labels"] = [one["label"] for one in values["classes"]]
    values["data"]["source"] = f"/data/{EVIL.replace('/', '')}```\n# owned"


def test_front_matter_and_card_keep_their_shape(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {source: x.csv}\n")
    recipe = loader.load(tmp_path / "recipe.yaml", [])
    name = "n\n---\nlicense: evil"
    publish = recipe.publish.model_copy(update={"license": name, "language": (name, EVIL)})
    recipe = recipe.model_copy(update={"publish": publish})
    saved = f"run:\n  name: |\n    ```\n    # owned {EVIL}\n"
    text = model_card.build_card(changed(made_results(), evil_labels), recipe, "x", saved)
    assert not UNSAFE.search(text)
    plain = model_card.build_card(made_results(), recipe, "x", "run: {}")
    kinds = [
        [token.type for token in rendered(one.split("\n---\n\n", 1)[1]) if token.type != "inline"]
        for one in (text, plain)
    ]
    assert kinds[0] == kinds[1]
    assert ModelCard(text).data.license == visible_line(name)
    assert ModelCard(text).data.language == [visible_line(name), visible_line(EVIL)]


@given(ANY)
@example(EVIL)
def test_pages_escape_html_and_show_controls(text):
    template = html_report.template_environment().from_string('<p title="{{ x }}">{{ x }}</p>')
    page = template.render(x=text)
    assert not UNSAFE.search(page)
    inner = page.removeprefix('<p title="').removesuffix("</p>")
    assert not re.search(r"<(?!/)|['\"](?!>)", inner)
    assert template.render(x=Markup("<b>\u202e</b>")).count("<b>") == 2  # charts stay markup


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed here")
def test_reports_in_a_browser(labelled):
    with Browser() as browser:
        browser.open((labelled / "run" / "report.html").as_uri())
        browser.wait("document.readyState === 'complete'")
        assert browser.value("window.planted") is None
        assert browser.value("document.querySelectorAll('img').length") == 0
        assert browser.value(r"document.body.innerText.includes('\\x1b[2J')")
        assert browser.problems == []
        assert [asked for asked in browser.requests if not asked.startswith("file:")] == []


@given(ANY)
@example(EVIL)
def test_recipes_are_written_visibly_and_read_back(text):
    written = loader._dump({"run": {"name": text}}, unicode=False)
    with contextlib.suppress(UnicodeError):
        text.encode()
        assert not UNSAFE.search(written)
        assert YAML(typ="safe", pure=True).load(written) == {"run": {"name": text}}


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@host/x", "https://***@host/x"),
        ("http://secret@host:8080", "http://***@host:8080"),
        ("https://me:sec/ret@host/x?y=1", "https://***@host/x?y=1"),
        ("socks5h://me:s@ecret@proxy:1", "socks5h://***@proxy:1"),
        ("https://host/x?token=secret&b=1", "https://host/x?token=***&b=1"),
        ("https://host/x?b=1&X-Amz-Signature=secret", "https://host/x?b=1&X-Amz-Signature=***"),
        ("postgresql://me:secret@db/optuna", "postgresql://***@db/optuna"),
        ("https://host:8080/@user", "https://host:8080/@user"),
        ("https://host/a@b", "https://host/a@b"),
        ("see https://host and me@host", "see https://host and me@host"),
        ("https://host:8080 and me@host", "https://host:8080 and me@host"),
        ("mailto:a@b.de, a:b@c.de", "mailto:a@b.de, a:b@c.de"),
        ("me:secret@proxy:3128", "***@proxy:3128"),
        ("HTTPS_PROXY=me:secret@proxy", "HTTPS_PROXY=***@proxy"),
        ("//me:secret@proxy:3128", "//***@proxy:3128"),
        ("https://me:se cret@host/", "https://***@host/"),
        ("https://me:se \"cr'et@host/", "https://***@host/"),
        ("https://me:\"s\" 'e'@host/", "https://***@host/"),
        ("https://me:s<et@host/", "https://***@host/"),
        ("postgresql://u:p'w@h/db", "postgresql://***@h/db"),
        ("https://h/#access_token=secret", "https://h/#access_token=***"),
        ("?to=https%3A%2F%2Fme%3Asecret%40h", "?to=https%3A%2F%2F***%40h"),
        ("?to=https%253A%252F%252Fme%253As%2540h", "?to=https%253A%252F%252F***%2540h"),
        ("Authorization: Bearer hf_secret", "Authorization: Bearer ***"),
        ("Proxy-Authorization: Basic bWU6cw==", "Proxy-Authorization: Basic ***"),
        ("authorization: see the docs", "authorization: see the docs"),
        ("HF_TOKEN=hf_secret", "HF_TOKEN=***"),
    ],
)
def test_credentials_are_masked_wherever_they_are_said(address, shown, capsys, monkeypatch):
    assert str(InputError(f"'{address}': no")) == f"'{shown}': no"
    assert str(InputError(["a\x1b[1m", address])) == f"a\\x1b[1m\n{shown}"
    console.print_line(f"at {address}")
    console.print_error(f"at {address}")
    assert [*capsys.readouterr()] == [f"at {shown}\n"] * 2
    record = streams.VisibleRecord("x", logging.ERROR, "", 0, "at %s", (address,), None)
    assert record.getMessage() == f"at {shown}"
    assert streams._format_warning(f"at {address}", UserWarning, "f", 1).endswith(f"{shown}\n")


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "hf-pa/ss", "hf-pa/ss"),
        ("WANDB_API_KEY", "0f3c9a", "0f3c9a"),
        ("https_proxy", "me:pa/ss%21@proxy", "pa/ss!"),
        ("HF_ENDPOINT", "https://me:p'a\"ss@hub.example", "p'a\"ss"),
        ("MLFLOW_TRACKING_URI", "https://tok-123@host", "tok-123"),
    ],
)
def test_the_credentials_of_the_process_are_masked_in_any_form(name, value, secret, monkeypatch):
    monkeypatch.setenv(name, value)
    forms = {secret, quote(secret, ""), json.dumps(secret)[1:-1]}
    for form in forms:
        assert mask_credentials(f"is {form} known?") == "is *** known?"


def test_a_short_credential_is_no_reason_to_mask_words(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "model")
    assert mask_credentials("the model") == "the model"


@pytest.mark.parametrize(
    "name", [*telemetry.OFF, "HF_HUB_ENABLE_HF_TRANSFER", "hf_hub_download_of"]
)
def test_the_name_of_a_setting_is_no_token(name):
    assert mask_credentials(f"set {name}=1") == f"set {name}=1"


@pytest.mark.parametrize("start", ["hf_", "ghp_", "gho_", "github_pat_11AAAAAAA0_"])
def test_a_token_is_known_by_its_beginning(start):
    shown = "github_pat_" if start.startswith("github") else start
    assert mask_credentials(f"({start}{'aBcD0123' * 4})") == f"({shown}***)"


def test_an_endpoint_with_a_password_is_not_said(monkeypatch):
    monkeypatch.setattr(client.constants, "ENDPOINT", "https://me:secret@hub.example")
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(client, "get_token", lambda: None)
    with pytest.raises(InputError, match=r"https://\*\*\*@hub\.example/settings/tokens") as caught:
        client.connect(client.HubErrors("me/x", "set it up"))
    assert "secret" not in str(caught.value)


@given(st.text("a:/@?#= &\\'\"", max_size=300) | st.text(max_size=300))
@example("a://" * 20000)
@example("://a:" * 20000)
@example("?token" * 20000)
def test_masking_takes_no_time_and_never_fails(text):
    streams.readable(text, io.StringIO())


# Every shape of credentials: what stands around one, and the characters that it may have there.
PASSWORD = "aZ09 _-.~!$%^&*()+=|;'\"\\/`?#éß"
TOKEN = "aZ09_-.~"
SHAPES = {
    "https://me:{}@host/x": PASSWORD,
    "socks5h://{}@proxy:1": TOKEN + "!$&()*+;=%",
    "postgresql+psycopg2://me:{}@db:5432/optuna": PASSWORD,
    "cannot reach https://me:{}@host:8080, try again": PASSWORD,
    "//me:{}@proxy:3128": TOKEN + "'!$&()*+;=%#?",
    "me:{}@proxy:3128": TOKEN + "!$&()*+;%#?",
    "HTTPS_PROXY=me:{}@proxy": TOKEN + "!$&()*+;%#?",
    "https://host/x?token={}&b=1": TOKEN + "!$()*+=%",
    "https://host/x?b=1&X-Amz-Signature={}": TOKEN + "%",
    "https://host/x?api_key={}": TOKEN + "%",
    "https://h/#access_token={}": TOKEN + "%",
    "?to=https%3A%2F%2Fme%3A{}%40h": TOKEN,
    "?to=https%253A%252F%252Fme%253A{}%2540h": TOKEN,
    "Authorization: Bearer {}": TOKEN + "+/=",
    "{{'authorization': 'Bearer {}'}}": TOKEN + "+/=",
    "Proxy-Authorization: Basic {}": TOKEN + "+/=",
    "HF_TOKEN={}": TOKEN + "!$()*+=%/",
    "AWS_SECRET_ACCESS_KEY={}": TOKEN + "+/=",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_credential_of_any_shape_is_masked(shape):
    @settings(max_examples=60)
    @given(st.text(SHAPES[shape], max_size=30), st.text(SHAPES[shape], max_size=30))
    def attack(before, after):
        secret = f"x{before}MARKER{after}7"
        # A quote behind which a bracket follows may as well end a string of JSON.
        assume(not re.search(r"""["']\s*[,:}\])]|://""", secret))
        text = shape.format(secret)
        assert "MARKER" not in mask_credentials(text), text
        assert "MARKER" not in mask_credentials(f"'{text}': no such host")
        written = mask_credentials(json.dumps({"a": [text, "an e-mail: me@host"]}))
        assert "MARKER" not in written
        assert json.loads(written)["a"][1] == "an e-mail: me@host"

    attack()


@given(st.recursive(
    st.text(max_size=12)
    | st.sampled_from(["https://host:8080/x", "https://me:a'b \"c@h", "me@host", "https://u:x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
))  # fmt: skip
def test_json_stays_json(value):
    for ascii_only in (True, False):
        json.loads(mask_credentials(json.dumps(value, ensure_ascii=ascii_only)))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "https://host:8080", "b": "me@host"}',
        '{"a": "https://user:word", "b": "me@host"}',
        "{'a': 'https://user:word', 'b': 'me@host'}",
        "open 'https://host:8080' or write to me@host",
        '<a href="https://user:word">x</a> me@host',
        "ratio 3:4, me@host",
        "mailto:me@host",
    ],
)
def test_what_is_no_credential_stays(text):
    assert mask_credentials(text) == text


def test_logs_of_a_run_are_written_visibly(tmp_path):
    atomic_files.append_json_line(tmp_path / "log.jsonl", {"label": EVIL})
    atomic_files.write_json(tmp_path / "a.json", {EVIL: [EVIL]})
    for file in tmp_path.iterdir():
        assert not UNSAFE.search(file.read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "a.json").read_text()) == {EVIL: [EVIL]}
