"""Whether a machine that has looked at the paintings takes what was painted for one of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from training.features import Pretrained
from training.losses import moments

CROP = 224
"""Side of what it looks at, in pixels."""

NO_PAINTING = "no painting"
"""The class of photographs, by a name that no style is likely to have: a style may well be a `photograph`."""

FEWEST = 3
"""Paintings of a style from which on its recall on unseen ones means anything."""

REGULARISATION = 1e-4
"""Inverse strength of the L2 penalty, strong since there are more features than crops: of 1e-4 to 0.1, what
takes most paintings that it has not seen for what they are, by a little."""


def random_crops(picture: Tensor, count: int, rng: torch.Generator) -> list[Tensor]:
    """`count` square crops of `picture` uint8 [3, h, w], of `CROP` pixels or its shorter side."""
    _, height, width = picture.shape
    side = min(CROP, height, width)
    crops = []
    for _ in range(count):
        top = int(torch.randint(height - side + 1, (), generator=rng))
        left = int(torch.randint(width - side + 1, (), generator=rng))
        crops.append(picture[:, top : top + side, left : left + side])
    return crops


class StyleClassifier:
    """Logistic regression over the mean and deviation of each channel of a frozen network.

    These statistics tell styles apart (Huang and Belongie 2017, arXiv 1703.06868); the network was never
    trained on what it looks at here.

    Args:
        network: gives the activations.
        crops: by class, of each picture of it, its crops, uint8 [3, h, w].
    """

    def __init__(self, network: Pretrained, crops: Mapping[str, Sequence[Sequence[Tensor]]]) -> None:
        self._network = network
        self.classes = list(crops)
        self._pictures = {name: len(pictures) for name, pictures in crops.items()}
        listed = [
            (crop, name, f"{name}/{number}")
            for name, pictures in crops.items()
            for number, picture in enumerate(pictures)
            for crop in picture
        ]
        self._statistics = self.statistics([crop for crop, _, _ in listed])
        self._names = np.array([name for _, name, _ in listed])
        self._groups = np.array([group for _, _, group in listed])
        self._model = _model().fit(self._statistics, self._names)

    def statistics(self, crops: Sequence[Tensor]) -> NDArray[np.float32]:
        """Means and deviations of all channels for each of `crops`, [n, 2 * channels]."""
        rows = []
        with torch.inference_mode():
            for crop in crops:
                features = self._network(crop[None].float() / 255)
                rows.append(torch.cat([moments(x).flatten() for x in features]))
        return torch.stack(rows).numpy()

    def report(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support by class on pictures it has not seen, with their means.

        Each picture is judged, with all of its crops, by a classifier that was trained without it. A class of
        one picture would then not be known at all, and is left out; where less than two are left, nothing can
        be said, and the report is empty.
        """
        known = [name for name in self.classes if self._pictures[name] > 1]
        if len(known) < 2:
            return {}
        judged = np.isin(self._names, known)
        statistics, names, groups = (x[judged] for x in (self._statistics, self._names, self._groups))
        folds = GroupKFold(min(5, len(set(groups))))
        taken = cross_val_predict(_model(), statistics, names, groups=groups, cv=folds)
        report: dict[str, Any] = classification_report(
            names, taken, labels=known, output_dict=True, zero_division=0
        )
        if "accuracy" in report:  # what scikit-learn calls the micro mean over all classes
            accuracy = report.pop("accuracy")
            mean = dict.fromkeys(("precision", "recall", "f1-score"), accuracy)
            report["micro avg"] = {**mean, "support": len(taken)}
        return {
            name: {measure.removesuffix("-score"): round(float(value), 3) for measure, value in row.items()}
            for name, row in report.items()
        }

    def judge(
        self, painted: Mapping[str, Sequence[Tensor]], raw: Sequence[Tensor]
    ) -> dict[str, dict[str, Any]]:
        """By style, the shares of crops that are taken for it.

        "painted" is of those painted in it, "photographs" of unpainted ones, and "unseen" of paintings that
        the classifier has not seen, None where the style has fewer than three. "taken_for" says what else
        those painted in it are taken for.

        Args:
            painted: crops by style.
            raw: crops of photographs that nobody has learned from.
        """
        report, photographs = self.report(), self._shares(raw)
        known = [name for name in report if self._pictures.get(name, 0) >= FEWEST]
        taken = {name: self._shares(crops) for name, crops in painted.items()}
        return {
            name: {
                "painted": shares[name],
                "photographs": photographs[name],
                "unseen": report[name]["recall"] if name in known else None,
                "taken_for": {other: share for other, share in shares.items() if share and other != name},
            }
            for name, shares in taken.items()
        }

    def _shares(self, crops: Sequence[Tensor]) -> dict[str, float]:
        """The share of `crops` that is taken for each class."""
        taken = self._model.predict(self.statistics(crops))
        return {name: round(float((taken == name).mean()), 3) for name in self.classes}


def _model() -> Any:
    regression = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000)
    return make_pipeline(StandardScaler(), regression)
