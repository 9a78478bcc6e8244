"""A run's results → the terminal, the trackers and the Hub; then the run is finished.

The mark that the run is finished comes after all of it. A run that was killed before is taken up
here, with the outputs that it has.
"""

from functools import partial

from finetune.hub import publish
from finetune.reporting import console_report
from finetune.reporting.results_model import Results
from finetune.reporting.run_outputs import RunOutputs, record_failures
from finetune.runtime.errors import InputError
from finetune.training import checkpoint, trackers
from finetune.training.folder_mark import mark_finished
from finetune.training.session import Session


def deliver(session: Session, results: Results, outputs: RunOutputs) -> None:
    """Print the summary, log to the trackers, push the model; then mark the run as finished.

    Each may be repeated after a kill: the trackers get the same numbers of the same step, and the
    Hub gets no commit where nothing differs.

    Raises:
        IncompleteError: where an output failed, of these or before; the run is not finished then.
        InputError: where the model could not be pushed; after the mark, where only its export to
            ONNX could not.
    """
    env, recipe, folder = session.env, session.recipe, session.folder
    outputs.attempt("the summary", lambda: console_report.print_results(results, folder))
    log = partial(trackers.log_results, env.accelerator, recipe, folder)
    scores, steps = results.test.values(), results.train.steps
    outputs.attempt("logging to the trackers", lambda: log(scores, steps))
    outputs.attempt("closing the trackers", session.close, everywhere=True)
    record_failures(results, outputs)
    lacking: list[str] = []
    with outputs.reported():
        if outputs.has_card:  # after all that is written here: a failure loses nothing
            lacking = env.on_main(lambda: publish.push_model(recipe, folder))
    # A run that keeps no checkpoints has those of its last step and of signals no longer.
    if recipe.checkpoint.every == "never" and recipe.checkpoint.minutes is None:
        env.on_main(lambda: checkpoint.drop_after(folder, -1))
    env.on_main(lambda: mark_finished(folder))  # last of all: nothing that it leaves is taken up
    if lacking:
        raise InputError(lacking)
