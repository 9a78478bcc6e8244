"""Whole runs as a user starts them, some forked: a real tiny encoder, real files."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import loader
from finetune.reporting import results_model
from tests.end_to_end.test_push import hub  # noqa: F401
from tests.support import forks
from tests.support.hub import Hub
from tests.support.processes import ENVIRONMENT, ROOT, RUN, launch
from tests.support.runs import finish, run_here, start
from tests.support.tiny import WORDS, tiny_encoder

FILES = {
    "run.json",
    "recipe.yaml",
    "metrics.jsonl",
    "preflight.json",
    "results.json",
    "report.html",
    "model/README.md",
    "model/config.json",
    "model/identity.json",
    "model/model.safetensors",
    "model/modeling_document_classifier.py",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "predictions/test.jsonl",
} | {
    f"checkpoints/step-{step:08d}/{name}"
    for step in (6, 12)
    for name in (
        "SHA256SUMS", "state.json", "state.safetensors", "best/config.json",
        "best/identity.json",
        "best/model.safetensors", "best/modeling_document_classifier.py", "best/tokenizer.json",
        "best/tokenizer_config.json",
    )
}  # fmt: skip


@pytest.fixture(scope="session")
def work(shared):
    """A folder with documents of three labels, a tiny encoder and a recipe, which none changes."""
    return shared("work", write_work)


def write_work(folder):
    tiny_encoder(folder / "encoder")
    data = folder / "data"
    data.mkdir()
    for split, rows in {"train": 41, "validation": 13, "test": 17}.items():
        with (data / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                label = i % 3
                words = [WORDS[(20 * label + i * k) % 60] for k in range(1, 3 + i % 9)]
                line = {"text": " ".join([split, *words]), "label": ["war", "art", "sea"][label]}
                out.write(json.dumps(line) + "\n")
    (folder / "tiny.yaml").write_text(
        "data: {source: data, max_length: 32}\n"
        "model: {source: encoder}\n"
        "train: {epochs: 2, batch_size: 8, log_every: 2, precision: fp32, threads: 1}\n"
        "optim: {lr: 0.1}\n"
        "score: {metrics: [accuracy, f1_macro, log_loss, top_2_accuracy]}\n"
    )


def run(work, *words, name, **more):
    """A run in the folder, forked or by a launcher; its output and its results."""
    output = finish(work, f"run.dir={name}", *words, **more)
    return output, json.loads((work / name / "results.json").read_text())


def refused(work, *words):
    """What a forked run says, if it says so rightly."""
    done = forks.run(forks.TRAIN, "tiny.yaml", *words, cwd=work)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="session")
def one(work, shared):
    output = work / "one.txt"
    shared(
        "work/one", lambda folder: output.write_text(run(work, name="one", launcher=launch())[0])
    )
    return output.read_text(), json.loads((work / "one" / "results.json").read_text())


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def weights(work, name):
    return load_file(work / name / "model" / "model.safetensors")


def test_one_process(work, one):
    output, results = one
    found = {str(p.relative_to(work / "one")) for p in (work / "one").rglob("*") if p.is_file()}
    assert found == FILES
    assert results["num_processes"] == 1
    assert results["data"]["source"].endswith("data")
    assert results["data"]["labels"] == ["art", "sea", "war"]
    assert [results["data"]["splits"][s]["rows"] for s in ("train", "validation", "test")] == [
        41,
        13,
        17,
    ]
    assert (results["train"]["steps"], results["train"]["rows"]) == (12, 82)
    assert results["train"]["seconds"] > 0
    assert results["train"]["rows_per_second"] > 0
    stages, parts = results["cost"]["seconds"], results["cost"]["steps"]
    assert {"prepare", "train", "score", "test", "close", "analyse"} <= set(stages)
    assert list(parts) == ["data", "forward", "backward", "step"]
    assert 0 < sum(parts.values()) <= stages["train"]
    assert "Time by part of a step" in (work / "one" / "report.html").read_text("utf-8")
    assert results["test"]["rows"] == 17
    assert results["test"]["labelled"] is True
    for split in ("validation", "test"):
        assert 0 <= results[split]["accuracy"] <= 1
        assert results[split]["log_loss"] == pytest.approx(results[split]["loss"])
    low, high = results["test"]["intervals"]["accuracy"]
    assert low < results["test"]["accuracy"] < high
    last = (
        f"Test accuracy {results['test']['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f})"
    )
    assert output.endswith(f"\n{last}\nReport: one/report.html\n")
    assert all(len(line) <= 80 for line in output.splitlines()), output


def test_metrics_lines(work, one):
    found = lines(work / "one" / "metrics.jsonl")
    train = [line for line in found if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 4, 6, 8, 10, 12]
    assert set(train[0]) == {
        "kind", "step", "epoch", "loss", "loss_se", "grad_norm", "clipped", "skipped", "lr",
        "rows_per_second", "tokens_per_second",
    }  # fmt: skip
    validation = [line for line in found if line["kind"] == "validation"]
    assert [line["step"] for line in validation] == [6, 12]


def test_predictions_are_the_scored_ones(work, one):
    _, results = one
    answers = lines(work / "one" / "predictions" / "test.jsonl")
    assert len(answers) == 17
    assert answers[0]["row"] == "test.jsonl: line 1"
    right = sum(answer["label"] == answer["predicted"] for answer in answers)
    assert right / 17 == pytest.approx(results["test"]["accuracy"])
    assert all(
        sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5) for answer in answers
    )


def test_the_saved_model_gives_the_predictions(work, one):
    """In a process of its own, through transformers' pipeline, without this package."""
    code = """
import json, sys
sys.modules["finetune"] = None
from transformers import pipeline
answers = [json.loads(line) for line in open("one/predictions/test.jsonl")]
texts = [json.loads(line)["text"] for line in open("data/test.jsonl")]
classify = pipeline("text-classification", model="one/model", trust_remote_code=True, top_k=None)
labels = ["art", "sea", "war"]
for answer, scores in zip(answers, classify(texts, truncation=True), strict=True):
    found = {score["label"]: score["score"] for score in scores}
    assert max(found, key=found.get) == answer["predicted"]
    assert [*answer["probabilities"]] == labels
    for label, chance in answer["probabilities"].items():
        assert abs(found[label] - chance) < 1e-5, (found, answer)
print("same", len(answers))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=work, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.endswith("same 17\n"), done.stdout + done.stderr


@pytest.mark.parametrize("processes", [2, 3])
def test_many_processes_are_many_and_exact(work, one, processes):
    """41 rows in steps of 8, shared by 2 or 3, the last step of one row: the same but for the
    order in which floats are added."""
    name = f"by-{processes}"
    by = {2: {"launcher": launch(2), "processes": 2}, 3: {"processes": 3}}[processes]
    _, results = run(work, name=name, **by)
    _, single = one
    assert results["num_processes"] == processes
    for key in ("steps", "rows", "tokens"):
        assert results["train"][key] == single["train"][key]
    assert results["test"]["rows"] == 17
    assert results["test"]["accuracy"] == single["test"]["accuracy"]
    assert results["test"]["loss"] == pytest.approx(single["test"]["loss"], rel=1e-5)
    for key in ("data", "recipe", "first_weights"):
        assert results["hashes"][key] == single["hashes"][key]
    assert distance(weights(work, name), weights(work, "one")) < 1e-5
    rates = [
        [line["lr"] for line in lines(work / name / "metrics.jsonl") if line["kind"] == "train"]
        for name in ("one", name)
    ]
    assert rates[0] == rates[1]


def distance(weights, reference):
    """The largest difference in any tensor, relative to that tensor's largest value."""
    assert weights.keys() == reference.keys()
    return max(
        float((weights[name] - value).abs().max() / value.abs().max().clamp(min=1e-3))
        for name, value in reference.items()
    )


def test_more_processes_than_rows_in_the_last_step(work):
    """41 rows in steps of 8 leave a last step of one row, which one of two processes computes.

    Weights of labels and a balanced order are the same for both.
    """
    words = (
        *("train.epochs=1", "train.class_weights={war: 3, sea: 0.5}", "train.sampling=balanced"),
        *("optim.momentum=0", "checkpoint.every=never"),
    )
    _, results = run(work, *words, name="ragged", processes=2)
    assert (results["num_processes"], results["train"]["rows"]) == (2, 41)
    _, single = run(work, *words, name="ragged-alone")
    assert results["hashes"]["recipe"] == single["hashes"]["recipe"] != ""
    assert distance(weights(work, "ragged"), weights(work, "ragged-alone")) < 1e-5


def test_the_saved_recipe_repeats_the_run(work, one, tmp_path):
    """From another folder, as a module, with the resolved recipe: bit-identical weights."""
    done = subprocess.run(
        [sys.executable, "-m", "finetune.run", str(work / "one" / "recipe.yaml")],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = (tmp_path / "runs" / "tiny").iterdir()
    again = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights(work, "one").items())


def test_the_saved_recipe_leaves_nothing_open(work, one):
    saved = loader.load(work / "one" / "recipe.yaml")
    assert saved.data.source == str(work / "data")
    assert saved.model.source == str(work / "encoder")
    assert (saved.data.max_length, saved.train.precision, saved.train.threads) == (32, "fp32", 1)
    assert (saved.model.attention, saved.train.micro_batch_tokens) == ("eager", 512) or (
        saved.model.attention == "sdpa"
    )
    assert (saved.optim.lr, saved.model.freeze) == (0.1, "embeddings")
    assert (saved.run.dir, saved.run.overwrite) == (None, False)


# Whose keys are names: of labels, of metrics, of the run's parts, of libraries.
NAMED = ("classes", "intervals", "paired_difference", "seconds", "versions")


def keys_of(value, prefix=""):
    """Every key of nested objects, by its name alone."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in (
                "classes",
                "intervals",
                "paired_difference",
                "seconds",
                "versions",
            ) or isinstance(inner, list):  # the labels' own names, those of metrics, of stages
                yield from keys_of(inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from keys_of(value[0])


def test_every_key_of_the_results_is_explained(one):
    _, results = one
    explained = results_model.describe()
    keys = set(keys_of(results)) - {"train", "validation", "test"}
    assert len(keys) > 45
    assert keys >= {
        "intervals",
        "confused_pairs",
        "max_length",
        "first_weights",
        "rows_per_second",
        "findings",
    }
    measured = {"accuracy", "f1_macro", "log_loss", "top_2_accuracy"}
    missing = {key for key in keys - measured if key not in explained}
    assert missing == set()


def test_a_first_try_with_a_few_documents(work):
    """Splits of one row: no standard error can be given, and nothing breaks."""
    few = work / "few"
    few.mkdir()
    (few / "train.csv").write_text(
        "text,label\n" + "".join(f"word {WORDS[i]},{i % 2}\n" for i in range(12))
    )
    words = "data.source=few", "data.labels=[no, yes]", "train.epochs=1"
    words = *words, "data.validation=carve"
    _, results = run(work, *words, name="few-run")
    assert results["data"]["labels"] == ["no", "yes"]
    assert (results["validation"]["rows"], results["test"]["rows"]) == (1, 1)
    assert results["test"]["loss_se"] is None


@pytest.mark.parametrize(
    ("words", "message", "launcher"),
    [
        (["data.text=body"], "no column 'body' (data.text)", launch(2)),
        (["run.dir=/proc/run"], "/proc/run: cannot write: ", None),
    ],
)
def test_what_one_process_refuses_all_refuse(work, words, message, launcher):
    words = "run.dir=bad", *words
    process = start(work, *words, launcher=launcher, processes=2, stderr=subprocess.PIPE)
    done = SimpleNamespace(stderr=process.communicate(timeout=300)[1])
    assert process.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(set(errors))  # each problem once
    assert message in errors[0]
    assert "[rank" not in done.stderr  # the launcher adds its own, but no process has a traceback
    assert not (work / "bad").exists()


def test_trackers_dropout_adamw_native_and_an_unlabelled_test(work):
    """One run through the choices that the others leave at their defaults."""
    pytest.importorskip("tensorboard")
    other = work / "unlabelled"
    other.mkdir()
    for split in ("train", "validation"):
        (other / f"{split}.jsonl").write_text((work / "data" / f"{split}.jsonl").read_text())
    (other / "test.txt").write_text("the team won\nthe bank lost\n")
    output, results = run(
        work,
        "data.source=unlabelled",
        "run.trackers=[tensorboard]",
        "optim.name=adamw",
        "optim.lr=1e-3",
        "optim.schedule=cosine",
        "model.head=native",
        "model.dropout=0.2",
        "train.label_smoothing=0.1",
        "score.every=5",
        "score.monitor=loss",
        name="other",
    )
    assert results["test"] == {
        "rows": 2, "labelled": False, "loss": None, "loss_se": None, "intervals": {},
    }  # fmt: skip
    assert "test has no labels: its 2 rows were predicted, not scored" in output
    answers = lines(work / "other" / "predictions" / "test.jsonl")
    assert [sorted(answer) for answer in answers] == [
        ["predicted", "probabilities", "row", "text"]
    ] * 2
    steps = [
        line["step"]
        for line in lines(work / "other" / "metrics.jsonl")
        if line["kind"] == "validation"
    ]
    assert steps == [5, 10, 12]
    assert list((work / "other" / "trackers").rglob("events.out.tfevents*"))
    assert not (work / "other" / "model" / "modeling_document_classifier.py").exists()


def test_a_run_publishes_its_model_folder(work):
    with Hub() as remote:
        done = subprocess.run(
            [sys.executable, RUN, "tiny.yaml", "run.dir=out", "publish.repo_id=ann/tiny",
             "train.max_steps=2"],
            cwd=work,
            env=ENVIRONMENT | {
                "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": remote.url, "HF_TOKEN": remote.token,
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Published: {remote.url}/ann/tiny/commit/" in done.stdout
        sent = remote.files("ann/tiny")
    model = {file.name: file.read_bytes() for file in (work / "out" / "model").iterdir()}
    assert {name: sent[name] for name in model} == model
    assert set(sent) - set(model) <= {".gitattributes"}
    written = [file.read_bytes() for file in (work / "out").rglob("*") if file.is_file()]
    assert not any(remote.token.encode() in content for content in written)


def test_publishing_is_refused_before_training(work, hub, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(work)
    run_here("run.dir=refused", "publish.repo_id=bob/tiny", code=2)
    assert capsys.readouterr().err.startswith("error: publish.repo_id: ")
    assert not (work / "refused").exists()


def test_results_table(work, one):
    """The README's table comes from runs, whose documents must still be the same."""
    _, results = one
    readme = work / "README.md"
    marks = "<!-- results: scripts/studies/results_table.py -->", "<!-- end of results -->"
    readme.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    done = forks.run("scripts.studies.results_table", "one", "--readme", "README.md", cwd=work)
    assert done.returncode == 0, done.stderr
    text = readme.read_text()
    assert text.startswith(f"before\n{marks[0]}\n| recipe |")
    assert text.endswith(f"|\n{marks[1]}\nafter\n")
    assert (
        f"| [tiny](recipes/tiny.yaml) | 41 / 17 | 3 | {100 * results['test']['accuracy']:.1f} ("
        in text
    )
    for name in ("data", "one"):
        shutil.copytree(work / name, work / f"other-{name}")
    recipe = work / "other-one" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(work / "data"), str(work / "other-data")))
    file = work / "other-data" / "test.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    done = forks.run("scripts.studies.results_table", "other-one", cwd=work)
    assert done.returncode == 2
    assert done.stderr.startswith("error: other-one: the documents of ")


def test_a_dry_run_names_damaged_weights(work):
    shutil.copytree(work / "encoder", work / "no-weights")
    (work / "no-weights" / "model.safetensors").write_bytes(b"no weights")
    words = "model.source=no-weights", "run.dir=dry", "--dry-run"
    done = forks.run(forks.TRAIN, "tiny.yaml", *words, cwd=work)
    assert done.returncode == 2
    assert "model.source: expected weights in model.safetensors, found a damaged" in done.stderr
    assert not (work / "dry").exists()


def test_a_dry_run_writes_nothing(work):
    words = "run.dir=dry", "--dry-run"
    done = forks.run(forks.TRAIN, "tiny.yaml", *words, cwd=work)
    assert done.returncode == 0, done.stderr
    assert not (work / "dry").exists()
    for part in ("41", "12 steps of 8 documents", "Learning rate", "max_length: 32", "A dry run"):
        assert part in done.stdout
    (work / "copy.yaml").write_text(
        done.stdout.split("differs from the defaults")[1].split("A dry run")[0]
    )
    assert loader.load(work / "copy.yaml").run.name == "tiny"


def test_help_explains_every_field():
    done = subprocess.run([sys.executable, RUN, "--help", "all"], capture_output=True, text=True)
    assert done.returncode == 0
    for part in ("optim.lr", "data.source", "publish.repo_id", "default 32"):
        assert part in done.stdout


def test_a_run_folder_is_replaced_only_when_told(work, one):
    shutil.copytree(work / "one", work / "taken")
    said = refused(work, "run.dir=taken")
    assert said.startswith("error: run.dir: taken is not empty (checkpoints, metrics.jsonl")
    (work / "taken" / "notes.txt").write_text("mine")
    said = refused(work, "run.dir=taken", "run.overwrite=true")
    assert said.startswith("error: run.overwrite: taken holds 1 file that no run wrote (notes.txt)")
    (work / "taken" / "notes.txt").unlink()
    run(work, "run.overwrite=true", "train.epochs=1", name="taken")
    steps = [
        line["step"] for line in lines(work / "taken" / "metrics.jsonl") if line["kind"] == "train"
    ]
    assert steps == [1, 2, 4, 6]


def test_quiet_and_json(work, one):
    """What a script reads: two lines, or the results and nothing else."""
    _, results = one
    for words in (["--quiet"], ["--json"]):
        done = forks.run(forks.TRAIN, "tiny.yaml", f"run.dir=told{words[0]}", *words, cwd=work)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        folder = work / f"told{words[0]}"
        if words == ["--quiet"]:
            score, report = done.stdout.splitlines()
            assert score.startswith(f"Test accuracy {results['test']['accuracy']:.4f} (95 % ")
            assert report == f"Report: told{words[0]}/report.html"
        else:
            assert done.stdout == (folder / "results.json").read_text()
            assert json.loads(done.stdout)["hashes"]["weights"] == results["hashes"]["weights"]
    assert refused(work, "--json", "--dry-run") == (
        "error: --json: a dry run has no results; leave one of the two out\n"
    )
