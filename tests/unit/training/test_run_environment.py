"""What a run has before it knows its data, and gives back before the next one."""

import weakref

from finetune.modeling import build
from tests.support.runs import run_here


def test_each_seed_s_model_is_gone_before_the_next_is_built(here, monkeypatch):
    """With skipped and packed layers, whose models refer to themselves."""
    built, alive, build_classifier = [], [], build.build_classifier

    def counted(*given, **named):
        alive.append(sum(model() is not None for model in built))
        model = build_classifier(*given, **named)
        built.append(weakref.ref(model))
        return model

    monkeypatch.setattr(build, "build_classifier", counted)
    run_here("run.dir=seeds", "run.seeds=[0, 1, 2]", "train.max_steps=4", "model.freeze=1",
             "model.dropout=0", "checkpoint.every=never")  # fmt: skip
    assert alive == [0, 0, 0]
    assert sum(model() is not None for model in built) <= 1
