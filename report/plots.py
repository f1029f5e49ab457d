"""The pictures of the page. Each has its numbers in a table beside it, and none tells anything by colour alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gates.ablation import Ablation
from gates.evidence import (
    CalibrationBin,
    ColumnResiduals,
    Confusion,
    Curve,
    DeviceEvidence,
    Estimate,
    Gap,
    Importance,
    ResidualBin,
    Residuals,
)
from report.page import Column, Epoch, Histogram, TopValues
from report.svg import INK, LINE, PAPER, SERIES, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from report.comparison import Point
    from report.tuning import Search

_WIDTH = 302.0
"""Points; on a phone one point is about one pixel, so that text stays as large as it is drawn."""
_POINTS_PER_INCH = 72.0
_FONT_POINTS = 10.0
_LETTER_POINTS = 6.1
_ROW_POINTS = 17.0
_LEGEND_POINTS = 17.0
_MOST_LETTERS = 22
_COORDINATE_POINTS = 50.0
_BEST_TRIALS = 3
_LONG = 1e6
_LINES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (8, 3)), (0, (3, 3)))
_MARKS = ("o", "s", "^", "D", "v", "P")
_STYLE: Mapping[Any, Any] = {
    "font.size": _FONT_POINTS,
    "axes.labelsize": _FONT_POINTS,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": _FONT_POINTS,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.0,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": _FONT_POINTS,
    "ytick.labelsize": _FONT_POINTS,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
}


@dataclass(frozen=True)
class Dot:
    """One row of a plot of dots: a name, a value, its interval if it has one; hollow if it was not judged."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    is_hollow: bool = False


class Plots:
    """Draws for one page; numbers its figures so that their ids differ."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def distribution(self, column: Column) -> Markup:
        """How the values of a column are spread in each split."""
        if isinstance(column.distribution, TopValues):
            return self._top_values(column.name, column.distribution)
        assert column.distribution is not None, "the template asks for columns that have one"
        return self._histogram(column.name, column.distribution)

    def training(self, metric: str, epochs: Sequence[Epoch]) -> Markup:
        """A metric by epoch, on train and validation, with the chosen epoch."""
        with _figure(150, left=44, legend=True) as (figure, axes):
            for place, (name, label) in enumerate(((metric, "train"), (f"val_{metric}", "validation"))):
                points = {e.number: e.metrics[name] for e in epochs if name in e.metrics}
                if points:
                    axes.plot(
                        list(points),
                        list(points.values()),
                        color=SERIES[place],
                        ls=_LINES[place],
                        marker=_MARKS[place],
                        label=label,
                    )
            for epoch in epochs:
                if epoch.is_kept:
                    axes.axvline(epoch.number, color=INK, lw=1, ls=(0, (2, 2)), label="chosen")
            _few_ticks(axes.xaxis, 8, whole=True)
            axes.set(xlabel="epoch")
            _legend(figure)
            return self._inline(figure, f"{metric} by epoch on train and validation, the chosen epoch marked")

    def overlaid(self, metric: str, curves: Mapping[str, Sequence[Point]], axis: str) -> Markup:
        """A metric of several trainings, by name; a larger dot marks the epoch that each kept."""
        legend_rows = -(-len(curves) // 2)
        with _figure(170 + _LEGEND_POINTS * legend_rows, left=48, legend=legend_rows) as (figure, axes):
            for place, (name, points) in enumerate(curves.items()):
                # Six looks of six colours: beyond them a colour comes again with another line and mark.
                look = (place + place // len(SERIES)) % len(_LINES)
                axes.plot(
                    [point.place for point in points],
                    [point.value for point in points],
                    color=SERIES[place % len(SERIES)],
                    ls=_LINES[look],
                    marker=_MARKS[look],
                    ms=3.5,
                    label=name,
                )
                for point in points:
                    if point.is_kept:
                        axes.plot(
                            point.place,
                            point.value,
                            color=SERIES[place % len(SERIES)],
                            marker=_MARKS[look],
                            ms=8,
                        )
            _few_ticks(axes.xaxis, 5, whole=True)
            axes.set(xlabel=axis)
            _legend(figure, columns=2)
            return self._inline(figure, f"{metric} by {axis} of {_listed(curves)}, the kept epochs marked")

    def trials(self, search: Search) -> Markup:
        """Parallel coordinates, lying: an axis a row, a line a trial, the best trials thick and with marks."""
        coordinates = search.axes
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
        with _figure(30 + _COORDINATE_POINTS * len(coordinates), left=14, bottom=8, legend=True) as drawn:
            figure, axes = drawn
            for place, trial in enumerate(search.ranked):
                is_best = place < _BEST_TRIALS
                axes.plot(
                    [axis.places[place] for axis in coordinates],
                    range(len(coordinates)),
                    color=SERIES[place] if is_best else INK,
                    ls=_LINES[place] if is_best else "-",
                    marker=_MARKS[place] if is_best else None,
                    lw=1.9 if is_best else 0.7,
                    alpha=1.0 if is_best else 0.3,
                    label=f"trial {trial.name}" if is_best else None,
                    zorder=2 - place / 10 if is_best else 1,
                )
            for row, axis in enumerate(coordinates):
                axes.axhline(row, color=INK, lw=0.6, zorder=0)
                axes.text(0.5, row - 0.4, axis.name, ha="center", va="center", weight="bold", bbox=behind)
                for at, text in axis.marks:
                    align = _towards_middle(at)
                    axes.text(at, row + 0.22, _short(text), ha=align, va="center", size=8, bbox=behind)
            axes.set(xlim=(-0.03, 1.03), ylim=(len(coordinates) - 0.5, -0.7))
            axes.set_axis_off()
            _legend(figure)
            named = _listed(axis.name for axis in coordinates)
            label = f"{len(search.ranked)} trials as lines over {named}; the table has the numbers"
            return self._inline(figure, label)

    def estimates(self, metric: str, estimates: Sequence[Estimate]) -> Markup:
        """A metric of several models with intervals."""
        dots = [Dot(e.subject, e.value, e.low, e.high) for e in estimates]
        return self._dots(dots, metric, f"{metric} with interval: {_listed(d.name for d in dots)}")

    def slices(self, metric: str, estimates: Sequence[Estimate], on_all: Estimate | None) -> Markup:
        """A metric on slices with intervals; a line where it is on all rows."""
        dots = [Dot(e.slice, e.value, e.low, e.high, not e.is_judged) for e in estimates]
        label = f"{metric} with interval on {len(dots)} slices"
        return self._dots(dots, metric, label, None if on_all is None else on_all.value)

    def importance(self, importance: Sequence[Importance]) -> Markup:
        """What is lost when a column is shuffled."""
        dots = [Dot(entry.column, entry.loss, entry.low, entry.high) for entry in importance]
        label = f"loss when one column is shuffled; the largest: {_listed(d.name for d in dots[:3])}"
        return self._dots(dots, "loss when shuffled", label, 0.0, is_bar=True)

    def ablation(self, ablation: Ablation) -> Markup:
        """What the network loses when it is trained without features."""
        dots = [Dot(one.name, one.gain, one.low, one.high, not one.is_sure) for one in ablation.contributions]
        label = f"gain of {ablation.metric} with features; the largest: {_listed(d.name for d in dots[:3])}"
        return self._dots(dots, f"gain of {ablation.metric}", label, 0.0)

    def residuals(self, found: Residuals, column: ColumnResiduals) -> Markup:
        """Mean residuals of the bins of a column with intervals, beside those of the earlier split."""
        names = [one.name for one in column.bins]
        height = 38 + _LEGEND_POINTS + _ROW_POINTS * len(names)
        with _figure(height, _room_for(names), bottom=32, legend=True) as (figure, axes):
            axes.axvline(0.0, color=INK, lw=1, ls=(0, (2, 2)))
            earlier = {
                row: one.earlier.mean for row, one in enumerate(column.bins) if one.earlier is not None
            }
            if earlier:
                axes.plot(
                    list(earlier.values()),
                    list(earlier),
                    color=SERIES[1],
                    marker=_MARKS[2],
                    ls="none",
                    label=found.earlier_split,
                )
            self._bins(axes, column.bins, found.split)
            _name_rows(axes, names)
            _few_ticks(axes.xaxis, 4)
            axes.set_xlabel("residual")
            _legend(figure)
            return self._inline(figure, f"mean residual by {column.column} {column.answer}".strip())

    def _bins(self, axes: Axes, bins: Sequence[ResidualBin], label: str | None) -> None:
        """One row a bin; filled where it is away from zero."""
        for row, one in enumerate(bins):
            if one.residual.low is not None and one.residual.high is not None:
                axes.plot((one.residual.low, one.residual.high), (row, row), color=SERIES[0], lw=2)
            axes.plot(
                one.residual.mean,
                row,
                marker="o",
                color=SERIES[0],
                mfc=SERIES[0] if one.is_away else PAPER,
                ls="none",
                label=label if row == 0 else None,
            )

    def residuals_over_time(self, bins: Sequence[ResidualBin], time: str) -> Markup:
        """Mean residuals in the order of time with intervals, split by split."""
        with _figure(190, left=48, legend=True) as (figure, axes):
            axes.axhline(0.0, color=INK, lw=1, ls=(0, (2, 2)))
            for place, split in enumerate(dict.fromkeys(one.split for one in bins)):
                found = {x: one for x, one in enumerate(bins) if one.split == split}
                axes.plot(
                    list(found),
                    [one.residual.mean for one in found.values()],
                    color=SERIES[place],
                    ls=_LINES[place],
                    marker=_MARKS[place],
                    label=split,
                )
                ends = {x: (one.residual.low, one.residual.high) for x, one in found.items()}
                judged = {
                    x: (low, high) for x, (low, high) in ends.items() if low is not None and high is not None
                }
                axes.vlines(
                    list(judged),
                    [low for low, _ in judged.values()],
                    [high for _, high in judged.values()],
                    color=SERIES[place],
                    lw=1.5,
                )
            shown = range(0, len(bins), max(1, len(bins) // 3))
            axes.set_xticks(list(shown), [bins[x].name.partition(" to ")[0] for x in shown])
            _few_ticks(axes.yaxis, 5)
            axes.set(xlabel=time, ylabel="residual")
            _legend(figure)
            return self._inline(figure, f"mean residual by {time}")

    def gap(self, gap: Gap) -> Markup:
        """A metric by group."""
        dots = [Dot(name, value) for name, value in gap.by_group.items()]
        return self._dots(dots, gap.metric.replace("_", " "), f"{gap.metric} by group of {gap.column}")

    def roc(self, curves: Sequence[Curve]) -> Markup:
        """True against false positive rate."""
        return self._curves(curves, "false positive rate", "true positive rate", "ROC curve", chance=True)

    def precision_recall(self, curves: Sequence[Curve]) -> Markup:
        """Precision against recall."""
        return self._curves(curves, "recall", "precision", "precision by recall")

    def calibration(self, bins: Sequence[CalibrationBin], is_probability: bool) -> Markup:
        """What was predicted against what was."""
        with _figure(210, left=44) as (figure, axes):
            predicted, observed = ([getattr(b, name) for b in bins] for name in ("predicted", "observed"))
            ends = (min(predicted + observed), max(predicted + observed))
            axes.plot(ends, ends, color=INK, lw=1, ls=(0, (2, 2)))
            axes.plot(predicted, observed, color=SERIES[0], marker="o")
            axes.set(
                xlabel="predicted",
                ylabel="observed share" if is_probability else "mean of the truth",
            )
            return self._inline(figure, "predicted against observed; the dotted line is perfect calibration")

    def devices(self, found: DeviceEvidence) -> Markup:
        """Size of each device model against what its metric loses; those that no other beats in both are joined."""
        ordered = sorted(found.variants, key=lambda one: (one.bytes, one.drop))
        best = [
            one
            for place, one in enumerate(ordered)
            if all(one.drop < other.drop for other in ordered[:place])
        ]
        with _figure(230, left=68) as (figure, axes):
            axes.axhline(0, color=INK, lw=1, ls=(0, (2, 2)))
            axes.plot(
                [one.bytes / 1000 for one in best],
                [one.drop for one in best],
                color=SERIES[1],
                lw=1,
                drawstyle="steps-post",
            )
            for place, one in enumerate(ordered):
                at = one.bytes / 1000
                axes.plot((at, at), (one.low, one.high), color=SERIES[0], lw=1.5)
                axes.plot(
                    at,
                    one.drop,
                    marker="o",
                    color=SERIES[0],
                    mfc=SERIES[0] if one.is_blessed else PAPER,
                    ls="none",
                )
                # By number: names of neighbours would lie upon each other.
                axes.annotate(str(place + 1), (at, one.drop), (4, 4), textcoords="offset points")
            _few_ticks(axes.xaxis, 5)
            axes.set(xlabel="kilobytes", ylabel=f"{found.metric} lost")
            return self._inline(figure, f"size and loss of {found.metric} of {len(ordered)} device models")

    def cost(self, confusion: Sequence[Confusion], chosen: float | None) -> Markup:
        """The mean cost of a row by threshold."""
        with _figure(180, left=44, legend=chosen is not None) as (figure, axes):
            ordered = sorted(confusion, key=lambda entry: entry.threshold)
            axes.plot([c.threshold for c in ordered], [c.cost for c in ordered], color=SERIES[0])
            if chosen is not None:
                axes.axvline(chosen, color=INK, lw=1, ls=(0, (2, 2)), label=f"chosen: {chosen:.3g}")
                _legend(figure)
            axes.set(xlabel="threshold", ylabel="cost of a row")
            return self._inline(figure, "mean cost of a row by threshold, the chosen one marked")

    def _histogram(self, name: str, histogram: Histogram) -> Markup:
        with _figure(132, left=40, bottom=20, legend=True) as (figure, axes):
            for place, (split, shares) in enumerate(histogram.shares.items()):
                if place == 0:
                    axes.stairs(shares, histogram.edges, color=SERIES[0], alpha=0.25, fill=True)
                axes.stairs(
                    shares,
                    histogram.edges,
                    color=SERIES[place],
                    ls=_LINES[place],
                    lw=1.6,
                    baseline=None,
                    label=split,
                )
            axes.set_xlim(histogram.edges[0], histogram.edges[-1])
            axes.set_ylim(bottom=0)
            _percent_axis(axes.yaxis)
            # Long numbers, such as seconds since 1970, need more room.
            _few_ticks(
                axes.xaxis, 5 if max(map(abs, histogram.edges)) < _LONG else 2, whole=histogram.is_whole
            )
            axes.ticklabel_format(axis="x", style="plain", useOffset=False)
            _few_ticks(axes.yaxis, 4)
            _legend(figure)
            return self._inline(figure, f"share of values of {name} by range in {_listed(histogram.shares)}")

    def _top_values(self, name: str, top: TopValues) -> Markup:
        left = _room_for(top.values)
        with _figure(37 + _ROW_POINTS * len(top.values), left, bottom=20, legend=True) as (figure, axes):
            for place, (split, shares) in enumerate(top.shares.items()):
                axes.plot(
                    shares,
                    range(len(shares)),
                    color=SERIES[place],
                    ls="none",
                    marker=_MARKS[place],
                    label=split,
                    alpha=0.85,
                )
            _name_rows(axes, top.values)
            axes.set_xlim(left=0)
            _few_ticks(axes.xaxis, 4)
            _percent_axis(axes.xaxis)
            _legend(figure)
            return self._inline(
                figure, f"share of the most frequent values of {name} in {_listed(top.shares)}"
            )

    def _curves(self, curves: Sequence[Curve], x: str, y: str, label: str, chance: bool = False) -> Markup:
        legend_rows = -(-len(curves) // 2)
        with _figure(230 + _LEGEND_POINTS * legend_rows, left=40, legend=legend_rows) as (figure, axes):
            if chance:
                axes.plot((0, 1), (0, 1), color=INK, lw=1, ls=(0, (2, 2)))
            for place, curve in enumerate(curves):
                look = place % len(SERIES)
                axes.plot(curve.x, curve.y, color=SERIES[look], ls=_LINES[look], label=curve.subject)
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y)
            _legend(figure, columns=2)
            return self._inline(figure, f"{label} of {_listed(curve.subject for curve in curves)}")

    def _dots(
        self, dots: Sequence[Dot], axis: str, label: str, reference: float | None = None, is_bar: bool = False
    ) -> Markup:
        names = [dot.name for dot in dots]
        with _figure(38 + _ROW_POINTS * len(dots), _room_for(names), bottom=32) as (figure, axes):
            if reference is not None:
                axes.axvline(reference, color=INK, lw=1, ls=(0, (2, 2)))
            for place, dot in enumerate(dots):
                if is_bar:
                    axes.barh(place, dot.value, height=0.62, color=SERIES[0], alpha=0.45)
                if dot.low is not None and dot.high is not None:
                    axes.plot((dot.low, dot.high), (place, place), color=SERIES[0], lw=2)
                axes.plot(
                    dot.value,
                    place,
                    marker="o",
                    color=SERIES[0],
                    mfc=PAPER if dot.is_hollow else SERIES[0],
                    ls="none",
                )
            _name_rows(axes, names)
            _few_ticks(axes.xaxis, 4)
            axes.set_xlabel(axis)
            return self._inline(figure, label)

    def _inline(self, figure: Figure, label: str) -> Markup:
        return inline(figure, f"p{next(self._numbers)}", label)


@contextmanager
def _figure(
    height: float, left: float, bottom: float = 34.0, legend: bool | int = False
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the page's width in the page's style, sizes in points; `legend` are rows of it."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(_STYLE)):
        figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        top = 6.0 + _LEGEND_POINTS * int(legend)
        right = 14.0
        box = (
            left / _WIDTH,
            bottom / height,
            (_WIDTH - left - right) / _WIDTH,
            (height - bottom - top) / height,
        )
        axes = figure.add_axes(box)
        yield figure, axes


def _towards_middle(place: float) -> str:
    """How a text at a place, 0 to 1, is aligned to stay inside the picture."""
    return "left" if place < 0.05 else "right" if place > 0.95 else "center"


def _legend(figure: Figure, columns: int = 3) -> None:
    figure.legend(
        loc="upper left", ncols=columns, borderpad=0.1, borderaxespad=0.0, handlelength=1.8, columnspacing=1.2
    )


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """One row a name, the first on top."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _few_ticks(axis: Any, most: int, whole: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=whole))


def _percent_axis(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def _room_for(names: Sequence[str]) -> float:
    """Points that the longest name takes, at most as many as are left on."""
    return 12.0 + _LETTER_POINTS * max((len(_short(name)) for name in names), default=0)


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
