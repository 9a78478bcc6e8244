"""A trained classifier as MLflow serves it. MLflow runs this file when it loads the model.

model = mlflow.pyfunc.load_model("models:/news/1")
model.predict(["Shares fell."])    # [{"label": "business", "score": 0.93}]
"""

from typing import Any

import mlflow

from finetune.inference.classifier import Classifier, Prediction


class DocumentModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow has no types here
    """Texts, or a data frame of the columns that the model was trained on → predictions."""

    def load_context(self, context: Any) -> None:
        """Called once, with the model folder among `context.artifacts`."""
        self.classify = Classifier(context.artifacts["model"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[Prediction]:
        """A prediction for each text or row, in their order."""
        if hasattr(model_input, "to_dict"):  # a data frame; a single column may have any name
            columns = self.classify.columns
            if len(model_input.columns) == 1 and len(columns) == 1:
                return self.classify(model_input.iloc[:, 0].tolist())
            return self.classify(model_input.to_dict(orient="records"))
        return self.classify(list(model_input))


mlflow.models.set_model(DocumentModel())
