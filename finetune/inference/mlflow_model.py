"""A trained classifier as MLflow serves it. MLflow runs this file when it loads the model.

model = mlflow.pyfunc.load_model("models:/news/1")
model.predict(["Shares fell."])    # [{"label": "business", "score": 0.93}]
"""

from typing import Any

import mlflow

from finetune.inference.classifier import Classifier
from finetune.inference.loaded_classifier import Prediction


class DocumentModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow has no types here
    """Texts, or a data frame of the columns that the model was trained on → predictions."""

    def load_context(self, context: Any) -> None:
        """Called once, with the model folder among `context.artifacts`."""
        self.classify = Classifier(context.artifacts["model"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[Prediction]:
        """A prediction for each text or row, in their order."""
        documents = model_input
        if hasattr(model_input, "to_dict"):  # a data frame; a single column may have any name
            is_column = len(model_input.columns) == len(self.classify.columns) == 1
            documents = model_input.iloc[:, 0] if is_column else model_input
            documents = documents.tolist() if is_column else documents.to_dict(orient="records")
        found: list[Prediction] = self.classify(list(documents))
        return found


mlflow.models.set_model(DocumentModel())
