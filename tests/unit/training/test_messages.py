"""What training says on the terminal."""

from pathlib import Path

from finetune.training import messages


def test_lines(capsys):
    messages.print_training()
    messages.print_validation(1200, {"loss": 0.5, "loss_se": 0.1, "accuracy": 0.75}, best=True)
    messages.print_back_off(ValueError("step 9: lost"), 4, 0.5)
    messages.print_resumed(Path("run/checkpoints/step-00000004"), 4, 36, ["numpy was 1, and is 2"])
    printed = capsys.readouterr().out
    assert "validation at step 1,200: loss 0.5000  accuracy 0.7500, the best so far" in printed
    assert "loss_se" not in printed
    assert "  ! step 9: lost\n" in printed
    assert "  ! numpy was 1, and is 2\n" in printed
