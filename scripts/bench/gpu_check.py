"""What this package does on one CUDA GPU, in at most eight minutes: one table, printed at the end.

    python scripts/bench/gpu_check.py MODEL_FOLDER train.jsonl OUT [--seconds 460] [--only PART …]

Each part is guarded: what fails, or finds no CUDA device, is a line of the table, and no other part
is lost for it. On a machine without CUDA the parts run on the CPU in a few steps, to show that they
work; what only a GPU can answer says "no CUDA". Needs no network.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# The loop's waits between two lines of the log, as torch's own counter sees them.
COUNT_WAITS = """
import json, sys, warnings
import torch
from finetune import run
from finetune.training import train_log
seen, at_step = [], {}
warnings.simplefilter("always")
warnings.showwarning = lambda message, *more, **named: seen.append(str(message))
end_step = train_log.TrainLog.end_step
def noted(self, *given, **named):
    end_step(self, *given, **named)
    at_step[self.steps] = sum("synchron" in one for one in seen)
    torch.cuda.set_sync_debug_mode("warn")
train_log.TrainLog.end_step = noted
code = run.main(sys.argv[1:])
print("WAITS", json.dumps(at_step))
sys.exit(code)
"""
TRAINER = "import gpu_check_trainer; gpu_check_trainer.main()"
CAPPED = """
import os, sys
import torch
whole = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction(float(os.environ["CAP_GB"]) * 1e9 / whole)
from finetune import run
sys.exit(run.main(sys.argv[1:]))
"""
SIZES = {
    "MiniLM": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12},
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
}
TUNED = {"bf16": True, "optim": "adamw_torch_fused", "torch_compile": True}


@dataclass
class Check:
    """The files, the time left, and the lines found.

    Attributes:
        cuda: whether there is a CUDA device.
        lines: part, what, value.
    """

    model: Path
    train: Path
    out: Path
    seconds: float
    cuda: bool
    began: float = field(default_factory=time.perf_counter)
    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def left(self) -> float:
        """Seconds until the end."""
        return self.seconds - (time.perf_counter() - self.began)

    def add(self, part: str, what: str, value: object) -> None:
        """A line of the table, which is printed at once, too."""
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        self.lines.append((part, what, text))
        print(f"[{time.perf_counter() - self.began:4.0f} s] {part}: {what}: {text}", flush=True)

    def needs_cuda(self, part: str) -> bool:
        """Whether a part is to be left out here; says so."""
        if not self.cuda:
            self.add(part, "-", "no CUDA")
        return not self.cuda


def start(words: Sequence[str], folder: Path, seconds: float, environment: dict[str, str]) -> Any:
    """A command of Python, awaited: its exit code and output."""
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | environment,
        capture_output=True, text=True, timeout=max(1.0, seconds), check=False,
    )  # fmt: skip


def train(
    check: Check, name: str, *words: str, code: str | None = None, model: Path | None = None,
    **environment: str,
) -> tuple[Path, str]:  # fmt: skip
    """A run of a few steps in a process of its own: its folder, and what it printed.

    Args:
        code: what to run in the place of the command.
        model: another encoder than the given one.

    Raises:
        RuntimeError: with the end of its output, where it failed.
    """
    folder = check.out / name
    recipe = check.out / "check.yaml"
    recipe.write_text(
        "data: {source: x, validation: carve, test: carve}\nmodel: {source: x}\n", encoding="utf-8"
    )
    given = [
        *(str(recipe), f"data.source={check.train}", f"model.source={model or check.model}"),
        *(f"run.dir={folder}", f"cache.dir={check.out / 'cache'}", "run.overwrite=true"),
        *("checkpoint.every=never", "train.epochs=99", *words, "--quiet"),
    ]
    command = ["-c", code] if code else ["-m", "finetune", "train"]
    base = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = start([*command, *given], check.out, check.left(), base | environment)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip()[-200:].replace("\n", " "))
    return folder, done.stdout


def logged(folder: Path, name: str) -> list[float]:
    """A number of each line of a run's log."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line[name] for line in lines if line["kind"] == "train"]


def losses(folder: Path) -> list[float]:
    """The loss of each line of a run's log."""
    return logged(folder, "loss")


def rate_when_warm(folder: Path) -> float:
    """Rows a second of the steps after the log's first line, of lines for as many steps each."""
    _, *rates = logged(folder, "rows_per_second")
    return len(rates) / sum(1 / rate for rate in rates)


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def steps(check: Check, on_cuda: int) -> str:
    """The words that set a run's length: a few steps where there is no GPU."""
    return f"train.max_steps={on_cuda if check.cuda else 2}"


# --- parts ----------------------------------------------------------------------------------------


def machine(check: Check) -> None:
    """Versions and devices."""
    import torch
    import transformers

    name = torch.cuda.get_device_name() if check.cuda else "no CUDA"
    check.add("machine", "device", name)
    check.add("machine", "torch, CUDA", f"{torch.__version__}, {torch.version.cuda}")
    check.add("machine", "transformers", transformers.__version__)
    check.add("machine", "cores", os.cpu_count())


def waits(check: Check) -> None:
    """How often a step waits for the device, between two lines of the log."""
    if check.needs_cuda("waits"):
        return
    variants = {"sgd": (), "adamw": ("optim.name=adamw",), "fp16": ("train.precision=fp16",)}
    for name, words in variants.items():
        more = ("train.log_every=50", "train.max_steps=40", "score.every=1000")
        _, said = train(check, f"waits-{name}", *more, *words, code=COUNT_WAITS)
        counted = json.loads(said.split("WAITS ")[-1].splitlines()[0])
        check.add("waits", f"{name}, steps 10 to 39", counted["39"] - counted["10"])


def numbers(check: Check) -> None:
    """The losses of the same steps on CUDA and on the CPU, in fp32: within 1e-4."""
    words = "train.precision=fp32", "train.log_every=1", steps(check, 20), "train.batch_size=16"
    on_cpu, _ = train(check, "on-cpu", *words, ACCELERATE_USE_CPU="true")
    check.add("numbers", "first and last loss on the CPU", f"{losses(on_cpu)[0]:.6f}, "
              f"{losses(on_cpu)[-1]:.6f}")  # fmt: skip
    if check.needs_cuda("numbers"):
        return
    on_cuda, _ = train(check, "on-cuda", *words)
    pairs = zip(losses(on_cuda), losses(on_cpu), strict=True)
    check.add("numbers", "largest relative difference", max(abs(a - b) / b for a, b in pairs))


def window(check: Check) -> tuple[int, int]:
    """The steps of each side of the speed table, and how many of them only warm it up."""
    return (120, 20) if check.cuda else (2, 1)


def speed(check: Check) -> None:
    """Rows a second of the loop, and of Trainer as it comes and tuned, over the same steps."""
    for size, shape in SIZES.items():
        if not check.cuda and size != "MiniLM":
            continue
        encoder = random_encoder(check, size, shape)
        for batch in (32, 256) if check.cuda else (8,):
            for side, words in (("ours", ()), ("ours, compiled", ("train.compile=true",))):
                if side != "ours" and not check.cuda:
                    continue
                name = f"{size}-{batch}-{side.replace(', ', '-')}"
                more = f"train.batch_size={batch}", "model.freeze=none", "score.every=1000"
                many, warm = window(check)
                timed = f"train.max_steps={many}", f"train.log_every={warm}"
                folder, _ = train(check, name, *more, *timed, *words, model=encoder)
                rate = rate_when_warm(folder)
                check.add("speed", f"{size}, batch {batch}, {side}, rows/s", rate)
            for side, more_arguments in (("Trainer", {}), ("Trainer, tuned", TUNED)):
                if check.cuda or side == "Trainer":
                    rate = time_trainer(check, encoder, batch, more_arguments)
                    check.add("speed", f"{size}, batch {batch}, {side}, rows/s", rate)


def random_encoder(check: Check, size: str, shape: dict[str, int]) -> Path:
    """An encoder of a published shape, with random weights and the given tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = check.out / f"encoder-{size}"
    if not folder.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(check.model, trust_remote_code=False)
        layers = shape["num_hidden_layers"] if check.cuda else 1
        known: dict[str, Any] = shape | {"num_hidden_layers": layers}
        config = BertConfig(
            vocab_size=len(tokenizer), intermediate_size=4 * shape["hidden_size"],
            pad_token_id=tokenizer.pad_token_id, **known,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def time_trainer(check: Check, encoder: Path, batch: int, more: dict[str, Any]) -> float:
    """Rows a second of transformers' Trainer, after its first steps."""
    words = ["-c", TRAINER, str(encoder), str(check.train)]
    many, warm = window(check)
    asked = json.dumps({"batch": batch, "steps": many, "warm": warm, "more": more})
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = start([*words, asked], check.out, check.left(), environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-200:].replace("\n", " "))
    return float(done.stdout.split("ROWS_PER_SECOND")[-1])


def repeat(check: Check) -> None:
    """Whether two runs give the same weights, as they come and with run.deterministic."""
    for name, words in (("as it comes", ()), ("run.deterministic", ("run.deterministic=true",))):
        more = steps(check, 30), "model.dropout=0.1", *words
        hashes = {
            results(train(check, f"repeat-{i}", *more)[0])["hashes"]["weights"] for i in range(2)
        }
        check.add("repeat", f"{name}: two runs give the same weights", len(hashes) == 1)


def resume(check: Check) -> None:
    """Whether a run that is taken up in its middle ends with the same weights."""
    many = 30 if check.cuda else 2
    words = steps(check, 30), "run.deterministic=true", f"checkpoint.every={many // 2}"
    folder, _ = train(check, "whole", *words, "checkpoint.keep=9")
    whole = results(folder)["hashes"]["weights"]
    point = folder / "checkpoints" / f"step-{many // 2:08d}"
    again = f"run.resume={point}", "run.overwrite=false"
    folder, _ = train(check, "whole", *words, "checkpoint.keep=9", *again)
    check.add("resume", "the same weights", results(folder)["hashes"]["weights"] == whole)


def memory(check: Check) -> None:
    """Whether runs survive on a card of so many GB, and with which micro-batches."""
    if check.needs_cuda("memory"):
        return
    encoder = random_encoder(check, "BERT-base", SIZES["BERT-base"])
    for cap in (2, 3, 6):
        words = "train.batch_size=512", "model.freeze=none", "optim.name=adamw", "train.max_steps=3"
        try:
            folder, _ = train(check, f"cap-{cap}", *words, code=CAPPED, model=encoder,
                              CAP_GB=str(cap))  # fmt: skip
            found: object = results(folder)["hardware"]["micro_batch_tokens"]
        except RuntimeError as error:
            found = f"failed: {error}"[:80]
        check.add("memory", f"BERT-base, AdamW, {cap} GB: tokens at once", found)


def inference(check: Check) -> None:
    """Documents a second of Classifier and of pipeline, and how often they agree."""
    from transformers import pipeline

    sys.path.insert(0, str(ROOT))
    from finetune import Classifier

    folder, _ = train(check, "to-predict", steps(check, 60))
    texts = [json.loads(line)["text"] for line in check.train.read_text("utf-8").splitlines()]
    texts = texts[: 4000 if check.cuda else 16]
    theirs = pipeline(
        "text-classification", model=str(folder / "model"), device=0 if check.cuda else "cpu"
    )
    ours = Classifier(folder)
    calls: dict[str, Callable[[], list[str]]] = {
        "pipeline": lambda: [one["label"] for one in theirs(texts, batch_size=32, truncation=True)],
        "Classifier": lambda: [one["label"] for one in ours(texts)],
    }
    said = {}
    for name, call in calls.items():
        began = time.perf_counter()
        said[name] = call()
        check.add("inference", f"{name}, rows/s", len(texts) / (time.perf_counter() - began))
    agree = sum(a == b for a, b in zip(*said.values(), strict=True)) / len(texts)
    check.add("inference", "share of the same labels", agree)


PARTS: dict[str, Callable[[Check], None]] = {
    "machine": machine, "waits": waits, "numbers": numbers, "speed": speed, "repeat": repeat,
    "resume": resume, "memory": memory, "inference": inference,
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="the folder of an encoder")
    parser.add_argument("train", type=Path, help="a .jsonl file with text and label")
    parser.add_argument("out", type=Path, help="a folder for runs and found.json")
    parser.add_argument("--seconds", type=float, default=460, help="for all parts")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts, and print the table."""
    known = build_parser().parse_args(words)
    import torch  # what takes seconds to load, no --help needs

    known.out.mkdir(parents=True, exist_ok=True)
    model, train, out = (path.resolve() for path in (known.model, known.train, known.out))
    check = Check(model, train, out, known.seconds, torch.cuda.is_available())
    for name in known.only:
        if check.left() < 20:
            check.add(name, "-", "no time left")
            continue
        try:
            PARTS[name](check)
        except Exception as error:  # whatever it is, the other parts go on
            check.add(name, "failed", f"{type(error).__name__}: {error}"[:240])
    widths = [max(len(line[i]) for line in check.lines) for i in range(2)]
    print()
    for part, what, value in check.lines:
        print(f"{part:{widths[0]}}  {what:{widths[1]}}  {value}")
    (known.out / "found.json").write_text(json.dumps(check.lines, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
