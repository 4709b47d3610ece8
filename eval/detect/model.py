"""The rows of a finished comparison, from which tables, plots and sentences are made.

Fractions are 0..1, times milliseconds, and None stands where a number is undefined. Each row knows
its flat form, which is the one in metrics.json and the CSV files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from eval.report.parts import Effect, effect_of
from eval.report.tables import CONTROLS
from eval.rows.run import RowInput
from eval.scores.errors import ErrorKind
from eval.scores.means import FEW_BOXES, are_few
from eval.scores.score import Score
from eval.scores.timing import Timing, together
from eval.sets import ALL

__all__ = [
    "AnyRow",
    "Cell",
    "ChangeRow",
    "ClassRow",
    "Cost",
    "ErrorRow",
    "ImageChangeRow",
    "Row",
    "TableRow",
    "condition_title",
    "conditions",
    "find_row",
    "is_control",
    "part_of",
    "sort_rows",
]

Cell: TypeAlias = str | int | float | None
"""A value of a flat row."""

_INPUT_ORDER: tuple[RowInput, ...] = ("rainy", "derained", "clean", "derained_clean")


def is_control(derainer: str) -> bool:
    """Tell whether a name is that of a control, alone, in a union, or at the network's size."""
    return derainer.removeprefix("union-").removeprefix("network-") in CONTROLS


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a row of any table is about.

    Attributes:
        condition: Which images of the set: `all`, or the name of a condition.
        input: What was shown to the detector.
        derainer: Name of the derainer; empty where there is none.
    """

    condition: str
    input: RowInput
    derainer: str = ""

    @property
    def label(self) -> str:
        """Its name in tables: `rainy`, the derainer's name, `clean`, or `X on clean`."""
        if self.input == "derained":
            return self.derainer
        return f"{self.derainer} on clean" if self.input == "derained_clean" else self.input

    @property
    def is_control(self) -> bool:
        """Whether the derainer is a control (identity or median filter), also within a union.

        >>> Row(condition="all", input="derained", derainer="union-network-median").is_control
        True
        """
        return is_control(self.derainer)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an image of a row costs.

    Attributes:
        derain: The derainer's time; unknown where there is none.
        detect: The detector's: one median over all rows, as what it sees has one size in all of
            them. Twice that in a union.
        precision: In what the derainer computes; empty: unknown, or there is none.
    """

    derain: Timing = field(default_factory=Timing)
    detect: Timing = field(default_factory=Timing)
    precision: str = ""

    def of(self, derainer: str) -> Timing:
        """Return the time of an image, with the derainer before the detector if there is one."""
        return together([self.derain, self.detect] if derainer else [self.detect])

    def flat(self, derainer: str) -> dict[str, Cell]:
        """Return the cost as columns of metrics.json and metrics.csv."""
        total = self.of(derainer)
        return {
            "ms_derain_median": self.derain.ms,
            "ms_derain_p90": self.derain.high,
            "ms_derain_timed": self.derain.when,
            "ms_derain_images": self.derain.images,
            "ms_detect_median": self.detect.ms,
            "ms_detect_timed": self.detect.when,
            "ms_median": total.ms,
            "images_per_s": total.rate,
            "precision": self.precision,
        }


@dataclass(frozen=True, kw_only=True)
class TableRow(Row):
    """A row of metrics.json.

    Attributes:
        image_set: Name of the set.
        mean_ap: mAP, AP over IoU 0.50 to 0.95, mean over classes; `mean_ap50` and `mean_ap75` at
            one IoU, `mean_ap_small` and so on by size of the objects.
        mean_ar: Average recall at 100 detections.
        ap_by_boxes: AP weighted by each class's boxes.
        ap_common: Mean AP of the classes with at least `eval.scores.means.FEW_BOXES` boxes.
        change: mAP minus that of what the row is compared with: the rainy row, or the clean one
            for derained clean images. `change_ar`, `change_by_boxes` and `change_common` likewise.
        place_change: mAP when derained at the detector's resolution minus mAP of the same row
            derained at native size.
        control: Name of the control with the highest mAP on the rainy images.
        control_change: mAP of a derained row minus that of this control.
        rival: Name of the derainer with the highest mAP but for this one, controls left out.
        rival_change: mAP of a derained row minus that of this derainer.
        recovered: (derained - rainy) / (clean - rainy) of mAP.
        psnr, ssim: Means against the clean images, MATLAB convention; PSNR of equal images is
            infinite. `_official`: by the convention of the paper's code.
        tp, fp, fn: Detections found and false and objects missed, at a fixed confidence.
        precision, recall: Of these counts, 0..1.
        share_derained: Share of the images that the derainer's gate derained; None without a gate.
        cost: The medians that tables and reports show.
        ms_derain, ms_detect, ms_per_image: Mean time per image, the last of both together; frames
            of the cache count with their earlier times.
        images, boxes: Numbers of images and of objects.
    """

    image_set: str
    mean_ap: float | None = None
    mean_ap50: float | None = None
    mean_ap75: float | None = None
    mean_ap_small: float | None = None
    mean_ap_medium: float | None = None
    mean_ap_large: float | None = None
    mean_ar: float | None = None
    ap_by_boxes: float | None = None
    ap_common: float | None = None
    change: Score = field(default_factory=Score)
    change_ar: Score = field(default_factory=Score)
    change_by_boxes: Score = field(default_factory=Score)
    change_common: Score = field(default_factory=Score)
    place_change: Score = field(default_factory=Score)
    control: str = ""
    control_change: Score = field(default_factory=Score)
    rival: str = ""
    rival_change: Score = field(default_factory=Score)
    recovered: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    psnr_official: float | None = None
    ssim_official: float | None = None
    tp: int | None = None
    fp: int | None = None
    fn: int | None = None
    precision: float | None = None
    recall: float | None = None
    share_derained: float | None = None
    ms_derain: float | None = None
    ms_detect: float | None = None
    ms_per_image: float | None = None
    cost: Cost = field(default_factory=Cost)
    images: int = 0
    boxes: int = 0

    @property
    def is_small(self) -> bool:
        """Whether there are too few images or boxes to claim anything."""
        return are_few(self.images, self.boxes)

    @property
    def effect(self) -> Effect:
        """What the change of mAP says; `unclear` of too few images, whatever the interval."""
        return self.judged(self.change)

    def judged(self, change: Score) -> Effect:
        """Judge a change on the images of this row."""
        effect = effect_of(change)
        return "unclear" if self.is_small and effect != "undefined" else effect

    def flat(self) -> dict[str, Cell]:
        """Return the row as in metrics.json and metrics.csv."""
        return {
            "set": self.image_set,
            "condition": self.condition,
            "input": self.input,
            "derainer": self.derainer,
            "mAP": self.mean_ap,
            "mAP50": self.mean_ap50,
            "mAP75": self.mean_ap75,
            "mAP_small": self.mean_ap_small,
            "mAP_medium": self.mean_ap_medium,
            "mAP_large": self.mean_ap_large,
            "AR": self.mean_ar,
            "delta_mAP": self.change.value,
            "ci_low": self.change.low,
            "ci_high": self.change.high,
            **_with_ends("AR", self.change_ar),
            "AP_by_boxes": self.ap_by_boxes,
            **_with_ends("AP_by_boxes", self.change_by_boxes),
            "AP_common": self.ap_common,
            **_with_ends("AP_common", self.change_common),
            "delta_frame": self.place_change.value,
            "frame_ci_low": self.place_change.low,
            "frame_ci_high": self.place_change.high,
            "recovered": self.recovered,
            "psnr": self.psnr,
            "ssim": self.ssim,
            "psnr_official": self.psnr_official,
            "ssim_official": self.ssim_official,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "precision": self.precision,
            "recall": self.recall,
            "share_derained": self.share_derained,
            "ms_derain": self.ms_derain,
            "ms_detect": self.ms_detect,
            "ms_per_image": self.ms_per_image,
            "images": self.images,
            "boxes": self.boxes,
            "control": self.control,
            **_with_ends("control", self.control_change),
            "rival": self.rival,
            **_with_ends("rival", self.rival_change),
            **self.cost.flat(self.derainer),
        }


@dataclass(frozen=True, kw_only=True)
class ClassRow(Row):
    """A row of per_class.csv.

    Attributes:
        class_name: The class.
        boxes: Number of its objects.
        ap: AP over IoU 0.50 to 0.95; `ap50` at 0.50.
        change: `ap` minus that of what the row is compared with, as in `TableRow`.
    """

    class_name: str
    boxes: int
    ap: float | None = None
    ap50: float | None = None
    change: Score = field(default_factory=Score)

    @property
    def is_rare(self) -> bool:
        """Whether the class has so few boxes that its AP moves by chance."""
        return self.boxes < FEW_BOXES

    def flat(self) -> dict[str, Cell]:
        """Return the row as in per_class.csv."""
        return {
            "condition": self.condition,
            "input": self.input,
            "derainer": self.derainer,
            "class": self.class_name,
            "boxes": self.boxes,
            "AP": self.ap,
            "AP50": self.ap50,
            "delta_AP": self.change.value,
            "ci_low": self.change.low,
            "ci_high": self.change.high,
        }


@dataclass(frozen=True, kw_only=True)
class ErrorRow(Row):
    """A row of breakdown.csv; the fields are those of `eval.scores.errors.ErrorCount`."""

    class_name: str
    size: str
    kind: ErrorKind
    count: int
    ap50: float | None = None
    gain_ap50: float | None = None

    def flat(self) -> dict[str, Cell]:
        """Return the row as in breakdown.csv."""
        return {
            "input": self.input,
            "derainer": self.derainer,
            "condition": self.condition,
            "class": self.class_name,
            "size": self.size,
            "kind": self.kind,
            "count": self.count,
            "AP50": self.ap50,
            "delta_AP50": self.gain_ap50,
        }


@dataclass(frozen=True, kw_only=True)
class ChangeRow(Row):
    """A row of changes.csv; the fields are those of `eval.scores.changes.ChangeCount`."""

    class_name: str
    size: str
    found: int
    lost: int
    background_gained: int
    background_removed: int

    def flat(self) -> dict[str, Cell]:
        """Return the row as in changes.csv."""
        return {
            "input": self.input,
            "derainer": self.derainer,
            "condition": self.condition,
            "class": self.class_name,
            "size": self.size,
            "found": self.found,
            "lost": self.lost,
            "background_gained": self.background_gained,
            "background_removed": self.background_removed,
        }


@dataclass(frozen=True, kw_only=True)
class ImageChangeRow:
    """A row of image_changes.csv: what changed in one image.

    Attributes:
        input: What was shown to the detector.
        derainer: Name of the derainer.
        rank: From 1, the best improvement.
        image: The image's key in the set.
        gain: Objects found minus objects lost.
        found, lost, background_gained, background_removed: As in
            `eval.scores.changes.ImageChange`, counted.
        false: Change of the number of all false detections.
    """

    input: RowInput
    derainer: str
    rank: int
    image: str
    gain: int
    found: int
    lost: int
    background_gained: int
    background_removed: int
    false: int

    def flat(self) -> dict[str, Cell]:
        """Return the row as in image_changes.csv: the fields by their names, in their order."""
        return dict(vars(self))


AnyRow = TypeVar("AnyRow", bound=Row)


def _with_ends(name: str, change: Score) -> dict[str, Cell]:
    """Return a change of a number and the ends of its interval under their flat names."""
    return {
        f"delta_{name}": change.value,
        f"{name}_ci_low": change.low,
        f"{name}_ci_high": change.high,
    }


def conditions(rows: Iterable[Row]) -> list[str]:
    """Return the names of the conditions: `all` first, the others in the order of the rows."""
    names = dict.fromkeys(row.condition for row in rows)
    return sorted(names, key=lambda name: name != ALL)


def condition_title(name: str, part: str = "") -> str:
    """Return how reports call a condition; `part` is what stands for `all` of a part of a set."""
    return (part or "all images") if name == ALL else name


def part_of(images: int, total: int) -> str:
    """Say how many images of a set were measured, `12 of 200 images`; empty when all were."""
    return f"{images} of {total} images" if images < total else ""


def sort_rows(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Order rows for reading: by condition, then rainy, controls, derainers, clean, on clean."""
    order = {name: index for index, name in enumerate(conditions(rows))}
    return sorted(
        rows,
        key=lambda row: (
            order[row.condition],
            _INPUT_ORDER.index(row.input),
            not row.is_control,
        ),
    )


def find_row(
    rows: Iterable[AnyRow], condition: str, kind: RowInput, derainer: str = ""
) -> AnyRow | None:
    """Return the row of a condition, an input and a derainer, or None."""
    for row in rows:
        if (row.condition, row.input, row.derainer) == (condition, kind, derainer):
            return row
    return None
