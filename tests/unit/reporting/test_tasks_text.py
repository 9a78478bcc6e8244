"""The table of several tasks: the mean of the baselines is there where every task has one."""

from types import SimpleNamespace

from finetune.evaluation.analysis_model import SplitScores
from finetune.reporting.tasks_text import tabulate_tasks


def test_means_and_tasks_stand_beside_the_baselines():
    names = ("accuracy", "topic.accuracy", "tone.accuracy")
    of = dict(zip(names, (0.7, 0.8, 0.6), strict=True))
    ends = {"accuracy": (0.6, 0.8)} | dict.fromkeys(names[1:])
    test = SplitScores(rows=9, labelled=True, loss=0.5, intervals=ends, **of)
    none = SplitScores(rows=0, labelled=False)
    tasks = []
    for name, value in (("topic", 0.5), ("tone", 0.3)):
        one = SplitScores(rows=9, labelled=True, accuracy=value)
        tasks.append(SimpleNamespace(name=name, baselines=SimpleNamespace(tfidf=one, majority=one)))
    results = SimpleNamespace(validation=none, test=test, scores=test, tasks=tasks)
    assert tabulate_tasks(results) == [
        ["", "test", "95 % interval", "TF-IDF", "majority"],
        ["accuracy", "0.7000", "0.6000 to 0.8000", "0.4000", "0.4000"],
        ["topic.accuracy", "0.8000", "", "0.5000", "0.5000"],
        ["tone.accuracy", "0.6000", "", "0.3000", "0.3000"],
        ["rows", "9", "", "", ""],
    ]
