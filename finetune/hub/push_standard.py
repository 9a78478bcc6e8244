"""A run's model in the standard layout → a branch of its repository, compared with what arrived.

    pushed, rows = push_standard(run, recipe.publish, verify=True)

The layout names the encoder's own class, and the model beside it another one: one `config.json`
cannot do both. So the branch holds a whole repository of its own, which other libraries load with
`revision="onnx"`.
"""

import tempfile
from pathlib import Path

from finetune.config import schema
from finetune.hub import model_files, push
from finetune.inference import standard_card, standard_layout
from finetune.inference.classifier import Classifier
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import NO_DETECTOR

BRANCH = "onnx"
ROWS = 256  # documents that the export is checked on


def push_standard(
    run: Path,
    settings: schema.Publish,
    trust_remote_code: bool = False,
    verify: bool = False,
) -> tuple[push.Pushed, int]:
    """Export the model, and push the export; how many rows were verified.

    Args:
        settings: those of the model itself.
        verify: download what was pushed, and compare its logits.

    Raises:
        InputError: where it cannot be exported or pushed, or other logits come back.
    """
    folder = model_files.find_model_folder(run)
    classifier = Classifier(
        str(folder), engine="torch", precision="fp32", trust_remote_code=trust_remote_code
    )
    rows = standard_layout.sample_rows(str(run), classifier, ROWS)
    remedy = push.describe_remedy(run, folder, settings)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "standard"
        try:
            standard_layout.export_standard(classifier, str(folder), out, rows)
        except InputError as error:
            raise InputError(f"{problem}; {remedy}" for problem in error.problems) from None
        if classifier.reading.out_of_scope:
            print_wrapped(NO_DETECTOR, mark="  ! ")
        there = branch_settings(settings)
        card = standard_card.describe_use(out, str(there.repo_id), there.revision)
        (out / "README.md").write_text(card, "utf-8")
        pushed = push.push(out, there, remedy=remedy)
        return pushed, push.verify(out, there, pushed) if verify else 0


def branch_settings(settings: schema.Publish) -> schema.Publish:
    """Those of the branch that belongs to the model's own."""
    branch = BRANCH if settings.revision is None else f"{settings.revision}-{BRANCH}"
    return settings.model_copy(update={"revision": branch})
