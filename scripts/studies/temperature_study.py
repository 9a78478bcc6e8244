"""How wide the prior of a temperature should be, where few rows are held out (calibration.py).

    python scripts/studies/temperature_study.py [--draws 40]

Draws logits of classes with normal noise around them, whose probabilities are known, and makes them
too timid or too confident by a factor. For each number of held-out rows and each width of the prior
of log T it fits a temperature, and prints what that changes in the log loss of 4,000 other rows:
the mean over draws and the worst draw, in nats. `none` is maximum likelihood with T between 1/20
and 20. Takes 5 minutes on one core.
"""

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

# (labels, distance of a label's mean from the others' in standard deviations): accurate to coarse
TASKS = ((2, 2.5), (2, 1.2), (4, 3.5), (7, 5.0), (10, 2.0), (77, 4.5))
FACTORS = (0.1, 0.3, 1.0, 3.0)  # what the honest logits are multiplied by
ROWS = (12, 30, 70, 150)
# name: (standard deviation of the prior of log T, the largest |log T|)
WIDTHS = {
    "none": (1e6, float(np.log(20))),
    **{str(width): (width, 10.0) for width in (2.0, 1.0, 0.7, 0.5, 0.3)},
}


def draw_logits(
    random: np.random.Generator, rows: int, task: tuple[int, float], factor: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits (rows, labels), `factor` times the honest ones, and the true labels (rows,)."""
    labels, distance = task
    truth = random.integers(0, labels, rows)
    seen = np.eye(labels)[truth] * distance + random.normal(size=(rows, labels))
    return (seen * distance * factor).astype(np.float32), truth


def log_loss_changes(
    task: tuple[int, float], factor: float, rows: int, draws: int, width: tuple[float, float]
) -> list[float]:
    """What a fitted temperature adds to the log loss of other rows, draw by draw, in nats."""
    from finetune.evaluation import calibration  # scipy: after the arguments
    from finetune.evaluation.probabilities import row_losses

    calibration.PRIOR_SD, calibration.SEARCHED = width
    random = np.random.default_rng(0)
    logits, truth = draw_logits(random, 4000, task, factor)
    as_trained = row_losses(logits, truth).mean()
    changes = []
    for _ in range(draws):
        fitted_on = draw_logits(random, rows, task, factor)
        temperature = calibration.fit_temperature(*fitted_on).value
        changes.append(float(row_losses(logits / temperature, truth).mean() - as_trained))
    return changes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=40)
    draws = parser.parse_args().draws
    means: dict[str, list[float]] = {name: [] for name in WIDTHS}
    worst: dict[str, list[float]] = {name: [] for name in WIDTHS}
    for task in TASKS:
        for factor in FACTORS:
            for rows in ROWS:
                cells = []
                for name, width in WIDTHS.items():
                    changes = log_loss_changes(task, factor, rows, draws, width)
                    means[name].append(float(np.mean(changes)))
                    worst[name].append(max(changes))
                    cells.append(f"{name}: {means[name][-1]:+.3f} {worst[name][-1]:+.3f}")
                print(f"{task[0]} labels, x {factor}, {rows} rows   " + "   ".join(cells))
    print("\nprior's width   mean change   worst draw")
    for name in WIDTHS:
        print(f"{name:>13}   {np.mean(means[name]):+11.3f}   {max(worst[name]):+10.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
