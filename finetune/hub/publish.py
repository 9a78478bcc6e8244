"""What a run does with the Hub. Only a recipe that names a repository imports the Hub's client."""

from pathlib import Path

from finetune.config.schema import Recipe
from finetune.runtime import console
from finetune.runtime.errors import InputError


def check_access(recipe: Recipe) -> None:
    """Check, before hours of training, that the model may be pushed where the recipe says.

    Raises:
        InputError: where it may not.
    """
    if recipe.publish.repo_id is not None:
        from finetune.hub import push

        push.check_access(recipe.publish)
        if recipe.publish.onnx:
            from finetune.inference import onnx_export

            onnx_export.check_installed("publish.onnx: ")


def push_model(recipe: Recipe, run: Path) -> list[str]:
    """Push the model of a finished run to the recipe's repository, if it names one.

    Returns:
        Why there is no export to ONNX beside it where the recipe asks for one, with the command
        that repeats it; the run lacks nothing of its own then.

    Raises:
        InputError: where the model is not there, with the command that pushes it later.
    """
    if recipe.publish.repo_id is not None:
        from finetune.hub import push

        trust_remote_code = recipe.model.trust_remote_code
        pushed = push.push(run, recipe.publish, trust_remote_code=trust_remote_code)
        console.print_line(f"Published: {pushed.url}", even_if_quiet=True)
        if recipe.publish.onnx:
            from finetune.hub import push_standard
            from finetune.modeling import load_errors

            try:
                pushed, _ = push_standard.push_standard(run, recipe.publish, trust_remote_code)
            except Exception as error:  # exporter, quantizer and runtime have kinds of their own
                done = "the run is finished and its model published, but not as ONNX"
                problems: tuple[str, ...] = (
                    f"{type(error).__name__}: {load_errors.first_line(error)}; "
                    f"push it again with: {push.command(run, recipe.publish)}",
                )
                if isinstance(error, InputError):
                    problems = error.problems
                return [f"publish.onnx: {done}: {problem}" for problem in problems]
            console.print_line(f"Published as ONNX: {pushed.url}", even_if_quiet=True)
    return []
