"""A model with an optimizer as a run holds them between two steps, for bench_checkpoint.py."""

import time
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import BertConfig, BertModel

from finetune.config import schema
from finetune.modeling.modeling_document_classifier import (
    DocumentClassifier,
    DocumentClassifierConfig,
)
from finetune.runtime.background_call import BackgroundCall
from finetune.runtime.held_tensors import hold_tensors
from finetune.training import checkpoint, train_state
from finetune.training.optimizer import build_optimizer
from finetune.training.train_log import TrainLog


class Run:
    """What a run holds between two steps."""

    def __init__(self, folder: Path, hidden: int, layers: int) -> None:
        self.folder, self.accelerator = folder, Accelerator()
        shape = BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden // 64),
            intermediate_size=4 * hidden,
        )
        encoder = BertModel(shape, add_pooling_layer=False)
        known = DocumentClassifierConfig(encoder=encoder.config, num_labels=4)
        model = DocumentClassifier(known)
        model.encoder = encoder
        optimizer = build_optimizer(model, schema.Optim(name="adamw"))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.log, self.steps = TrainLog(self.accelerator, None), 0
        model.save_pretrained(folder / "model")
        self.trained = train_state.trained_names(self.model, self.accelerator)
        self.writing = BackgroundCall("checkpoint")

    def save(self, beside: bool) -> tuple[float, float, int]:
        """Seconds that training is stopped, seconds until all is written, bytes of the state."""
        began, self.steps = time.perf_counter(), self.steps + 1
        tensors, plain = train_state.capture(
            self.model, self.optimizer, self.log, self.accelerator, self.trained
        )
        best, held = checkpoint.hold_best(self.folder, self.steps), None
        if beside:
            held = hold_tensors(tensors)
            assert held is not None, "no room for a copy in memory"

        def write() -> None:
            state = train_state.on_host(tensors) if held is None else held()
            checkpoint.write_checkpoint(self.folder, self.steps, state, plain, best)
            checkpoint.drop_old(self.folder, keep=1, spare=None)

        self.writing.start(write)
        if not beside:
            self.writing.wait()
        stopped = time.perf_counter() - began
        self.writing.wait()
        size = sum(value.nbytes for value in tensors.values())
        return stopped, time.perf_counter() - began, size
