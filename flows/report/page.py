"""The report of a comparison as one HTML file without any script (`flows.report.document`)."""

import statistics
from collections.abc import Callable, Iterable, Sequence

import yaml

from flows.comparison import DifferenceRow, JudgedRow
from flows.report.charts import Axis, Series, bars, interval_bar, line_chart, shares_bar, step_chart, swatch
from flows.report.contents import Contents
from flows.report.document import document, escaped
from tasks.comparing.answers import FIGURES, Figure, Said
from tasks.comparing.curves import Curves
from tasks.comparing.examples import Shown
from tasks.comparing.quality import QUALITIES
from tasks.comparing.scores import Scores
from tasks.comparing.statistics import Interval

BINS = 20
STEPS = {"student": "#0072b2", "sampling": "#e69f00", "discriminator": "#cc79a7", "validation": "#999999"}
OUTCOMES = {"wins": "#0072b2", "ties": "#c8c8c8", "losses": "#d55e00"}
_TITLES = dict[str, str]((figure, figure) for figure in FIGURES) | dict[str, str](QUALITIES.items())


def page(contents: Contents) -> str:
    """The whole report as an HTML document."""
    sections: list[tuple[str, Callable[[Contents], str]]] = [
        ("What may be said", _said),
        ("Variants", _variants),
        ("Differences", _differences),
        ("Rationales", _rationales),
        ("Chosen answers", _chosen),
        ("Preferred by a judge", _judged),
        ("Round by round", _rounds),
        ("More training questions", _shares),
        ("Training time", _time),
        ("The discriminator's scores", _scores),
        ("Examples", _examples),
        ("What was compared", _settings),
    ]
    made = [(heading, section(contents)) for heading, section in sections]
    body = "".join(f"<section><h2>{heading}</h2>{text}</section>" for heading, text in made if text)
    title = f"{contents.config.base}: {', '.join(contents.config.variants)}"
    return document(title, f"<h1>{escaped(title)}</h1>{_lead(contents)}{body}")


def _lead(contents: Contents) -> str:
    config, first = contents.config, contents.result.variants[0]
    others = [name for name in config.variants if name != config.baseline]
    folds = f", on each of {config.folds} folds" if config.folds else ""
    part = (
        f"the {first.questions:,} test questions"
        if config.part == "test"
        else f"{first.questions:,} validation questions, by which the round was chosen, too"
    )
    few, many = contents.trained_on
    equal = (
        " Each variant that takes longer than the baseline is compared with a baseline that was trained for as long."
        if config.equal == "time"
        else " All were trained for as many rounds as their settings say."
    )
    return (
        f"<p class='lead'>{_and(others)} {'is' if len(others) == 1 else 'are'} compared with the baseline "
        f"<b>{escaped(config.baseline)}</b> on {escaped(contents.dataset)}. Every variant was trained with "
        f"{_count(config.seeds, 'seed')}{folds} on the same questions ({few:,}{f' to {many:,}' if many > few else ''}) "
        f"and the same samples of a teacher. The student, of {contents.parameters:,} parameters, is that of the round "
        f"that was best on validation; it answered {part}.{equal}</p>"
    )


def _said(contents: Contents) -> str:
    several = len(contents.config.shares) > 1
    sentences = [
        (one.verdict, one.sentence + (f" ({_share(one.share)} of the questions)" if several else ""))
        for one in contents.result.differences
    ] + [(one.verdict, one.sentence) for one in contents.result.judged]
    told = "".join(f"<li class='{kind}'>{escaped(text)}</li>" for kind, text in sentences)
    return (
        f"<ul class='sayings'>{told}</ul><p class='note'>Differences are paired by question and seed; intervals are "
        "95 % ones over both. p-values are adjusted for all comparisons of a figure (Holm). “Cannot be told” "
        "does not mean “equal”.</p>"
    )


def _variants(contents: Contents) -> str:
    several = len(contents.config.shares) > 1
    head = ["variant", *(["share"] if several else []), *FIGURES, "seconds a training", "best round", "seeds"]
    rows = [
        [
            _name(contents, row.name), *([_share(row.share)] if several else []),
            *(_interval(row.figures.get(figure)) for figure in FIGURES),
            f"{row.seconds:,.0f}", f"{row.best_round:.1f}", str(row.seeds),
        ]
        for row in contents.result.variants
    ]  # fmt: skip
    return _table(head, rows) + (
        f"<p class='note'>Shares of the {_part(contents)} questions that were right, with their 95 % intervals. "
        "<i>Answers</i> are the direct answers, <i>explanations</i> the rationales whose own answer is right, "
        "<i>chosen</i> what is chosen between the two. Seconds are the median of the trainings, rounds are counted "
        "from 0.</p>"
    )


def _differences(contents: Contents) -> str:
    return _compared(contents, contents.result.differences)


def _compared(contents: Contents, found: list[DifferenceRow]) -> str:
    """A table of differences; nothing where there are none."""
    several, rows = len(contents.config.shares) > 1, []
    reach = max([0.01, *(abs(end) for one in found for end in (one.low, one.high))])
    for one in found:
        drawn = interval_bar(one.difference, one.low, one.high, reach, _style(contents, one.variant))
        rows.append(
            [
                escaped(_TITLES[one.figure]), _whole(f"{one.variant} − {one.against}"),
                *([_share(one.share)] if several else []),
                f"{100 * one.difference:+.1f} <small>{100 * one.low:+.1f} to {100 * one.high:+.1f}</small>",
                drawn, _p(one.p_value), _p(one.adjusted), _verdict(one),
            ]
        )  # fmt: skip
    head = ["figure", "compared", *(["share"] if several else []), "points", f"± {100 * reach:.1f} points", "p",
            "p, adjusted", "verdict"]  # fmt: skip
    return _table(head, rows, texts=2) if rows else ""


def _rationales(contents: Contents) -> str:
    rows = [row for row in contents.result.variants if row.quality]
    names = [name for name in QUALITIES if any(name in row.quality for row in rows)]
    if not names:
        return ""
    several = len(contents.config.shares) > 1
    head = ["variant", *(["share"] if several else []), *(QUALITIES[name] for name in names)]
    shown = [
        [_name(contents, row.name), *([_share(row.share)] if several else []),
         *(_interval(row.quality.get(name), percent=not name.startswith("score")) for name in names)]
        for row in rows
    ]  # fmt: skip
    scored = " Scores are the discriminator's, 0 to 1, of training questions that it was not trained on."
    return _table(head, shown) + (
        "<p class='note'>A step is a calculation with its result, such as 12 + 3 = 15."
        + (scored if any(name.startswith("score") for name in names) else "")
        + "</p>"
        + _compared(contents, contents.result.rationales)
    )


def _chosen(contents: Contents) -> str:
    """Reliability, and what sampled rationales give; nothing where nobody chooses."""
    if not contents.chosen:
        return ""
    sure = [
        Series(name, _style(contents, name), [(x, *right) for x, right in several[0].bins])
        for name, several in contents.chosen.items()
    ]
    diagonal = Series("as often right as sure", len(contents.config.variants), [(0, 0, 0, 0), (1, 1, 1, 1)])
    x, y = Axis("confidence", percent=True, least=0.0, most=1.0), Axis("right", percent=True, least=0.0, most=1.0)
    charts = [f"<figure><h3>Reliability</h3>{line_chart('Reliability', [*sure, diagonal], x, y)}</figure>"]
    voting = [
        Series(
            name, _style(contents, name), [(one.samples, one.accuracy, one.accuracy, one.accuracy) for one in several]
        )
        for name, several in contents.chosen.items()
        if len(several) > 1
    ]
    if voting:
        x, y = Axis("sampled rationales a question", whole=True, least=0), Axis("chosen answers right", percent=True)
        title = "Accuracy against cost"
        charts.append(f"<figure><h3>{title}</h3>{line_chart(title, voting, x, y)}</figure>")
    risks = [
        Series(
            name, _style(contents, name),
            [(step / len(several[0].risks), *risk) for step, risk in enumerate(several[0].risks, start=1)],
        )
        for name, several in contents.chosen.items()
        if several[0].risks
    ]  # fmt: skip
    if risks:
        x, y = Axis("coverage: the surest of the questions", percent=True, least=0.0), Axis("wrong", percent=True)
        title = "Risk and coverage"
        charts.append(f"<figure><h3>{title}</h3>{line_chart(title, risks, x, y)}</figure>")
    everything = [one for several in contents.chosen.values() for one in several]
    measured = any(one.aurc is not None for one in everything)
    abstains = any(one.coverage for one in everything)
    rows = [
        [
            _name(contents, name), str(one.samples), _share(one.accuracy), _share(one.calibration_error),
            *(["-" if one.aurc is None else f"{one.aurc:.3f}"] if measured else []),
            *([_interval(one.coverage), _interval(one.risk)] if abstains else []),
        ]
        for name, several in contents.chosen.items()
        for one in several
    ]  # fmt: skip
    where = "test" if contents.config.part == "test" else "validation"
    head = ["variant", "sampled rationales", "right", "calibration error", *(["AURC"] if measured else []),
            *(["answered", "wrong of these"] if abstains else [])]  # fmt: skip
    table = _table(head, rows)
    note = (
        "<p class='note'>An answer is chosen among the direct one and those of the rationales, with a confidence. The "
        f"first chart has the answers to the {where} questions in tenths of confidence, for the fewest samples, with "
        "Wilson's intervals: on the diagonal a student is as often right as it is sure. The calibration error is the "
        "mean distance from it. "
        + (
            "A student that answered only its surest questions would be wrong as often as the risk-coverage curve says "
            "(bands: lowest to highest of the trainings); AURC is the area under it, the lower the better. "
            if risks
            else ""
        )
        + (
            "<i>Answered</i> and <i>wrong of these</i> are those of students that abstain (registry.risk), with "
            "Wilson's intervals."
            if abstains
            else ""
        )
        + "</p>"
    )
    return f"<div class='charts'>{''.join(charts)}</div>{table}{note}"


def _judged(contents: Contents) -> str:
    judged = contents.result.judged
    if not judged or contents.config.judge is None:
        return ""
    rows = [
        [
            _whole(f"{one.variant} − {one.against}"),
            shares_bar([(name, getattr(one, name), colour) for name, colour in OUTCOMES.items()]),
            f"{one.wins:,}", f"{one.ties:,}", f"{one.losses:,}", _interval((one.share, one.low, one.high)),
            _p(one.adjusted), _verdict(one),
        ]
        for one in judged
    ]  # fmt: skip
    legend = _legend((name, f"<i style='background:{colour}'></i>") for name, colour in OUTCOMES.items())
    head = ["compared", "", "wins", "ties", "losses", "wins of the decided", "p, adjusted", "verdict"]
    same, unread, refused = (sum(getattr(one, name) for one in judged) for name in ("same", "unread", "refused"))
    return legend + _table(head, rows) + (
        f"<p class='note'>{escaped(contents.config.judge.model)} was asked which of two rationales is better, in both "
        "orders; a preference counts only where both agree. The p-value is that of an exact sign test. Ties with equal "
        f"texts: {same:,}; without a verdict: {unread:,}. Refused questions, left out: {refused:,}.</p>"
    )  # fmt: skip


def _rounds(contents: Contents) -> str:
    def chart(title: str, label: str, values: Callable[[Curves], Sequence[Interval]], least: float | None) -> str:
        series = [
            Series(name, _style(contents, name), [(t, *point) for t, point in enumerate(values(curves))])
            for name, curves in contents.curves.items()
            if values(curves)
        ]
        if not series:
            return ""
        drawn = line_chart(title, series, Axis("round", whole=True), Axis(label, percent=True, least=least))
        return f"<figure><h3>{title}</h3>{drawn}</figure>"

    charts = [
        chart("Answers", "right, validation", lambda curves: curves.answers, None),
        chart("Explanations", "right, validation", lambda curves: curves.explanations, None),
        chart("Agreement with the teacher", "as its majority, validation", lambda curves: curves.agreement, None),
        chart("Repelled", "examples", lambda curves: curves.repelled, 0.0),
    ]
    return _variant_legend(contents) + f"<div class='charts'>{''.join(charts)}</div>" + (
        "<p class='note'>Means over the trainings; the bands reach from the lowest to the highest. <i>Repelled</i> is "
        "the share of the training examples with a negative that the loss pushes away: at 0 the contrast is idle. "
        "<i>Agreement</i> is the share of answers that are the teacher's majority, where it was asked the validation "
        "questions: where it rises and right answers do not, a student learns the teacher's mistakes.</p>"
    )  # fmt: skip


def _shares(contents: Contents) -> str:
    if len(contents.config.shares) < 2:
        return ""
    charts = []
    for figure in FIGURES:
        by_name: dict[str, list[tuple[float, float, float, float]]] = {}
        for row in sorted(contents.result.variants, key=lambda row: row.share):
            if figure in row.figures:
                by_name.setdefault(row.name, []).append((row.share, *row.figures[figure]))
        series = [Series(name, _style(contents, name), points) for name, points in by_name.items()]
        if series:
            x, y = Axis("share of the training questions", percent=True, least=0.0), Axis("right", percent=True)
            title = f"{figure.capitalize()} by training questions"
            charts.append(f"<figure><h3>{title}</h3>{line_chart(title, series, x, y)}</figure>")
    return f"<div class='charts'>{''.join(charts)}</div><p class='note'>Bands are 95 % intervals.</p>"


def _time(contents: Contents) -> str:
    longest = max(curves.passed[-1][0] for curves in contents.curves.values())
    unit, divisor = ("minutes", 60.0) if longest >= 600 else ("seconds", 1.0)
    series = [
        Series(
            name, _style(contents, name),
            [(passed[0] / divisor, *right) for passed, right in zip(curves.passed, curves.answers, strict=True)],
        )
        for name, curves in contents.curves.items()
    ]  # fmt: skip
    x, y = Axis(f"{unit} of training", least=0.0), Axis("answers right, validation", percent=True)
    costs = [
        (name, [(step, curves.steps[step] / divisor, colour) for step, colour in STEPS.items() if step in curves.steps])
        for name, curves in contents.curves.items()
    ]
    legend = _legend((name, f"<i style='background:{colour}'></i>") for name, colour in STEPS.items())
    return (
        f"<div class='charts'><figure><h3>Answers against time</h3>{line_chart('Answers against time', series, x, y)}"
        f"</figure><figure><h3>Cost of a training</h3>{legend}{bars(costs, unit)}"
        "<figcaption>All rounds, mean over the trainings. <i>Student</i> is its training, <i>sampling</i> that of its "
        "own rationales, <i>validation</i> its evaluation in every round.</figcaption></figure></div>"
    )


def _scores(contents: Contents) -> str:
    charts = []
    for name, scores in contents.scores.items():
        series = []
        for style, kind in ((1, "right"), (2, "wrong")):
            values = [value for one in scores for found in getattr(one, kind).values() for value in found]
            if values:
                series.append(Series(f"{kind} rationales ({len(values):,})", style, _histogram(values)))
        if series:
            x, y = Axis("score", least=0.0, most=1.0), Axis("of the rationales", percent=True, least=0.0)
            charts.append(
                f"<figure><h3>{escaped(name)}</h3>{step_chart(f'Scores of {name}', series, x, y)}"
                f"<figcaption>{_surely(scores)}</figcaption></figure>"
            )
    if not charts:
        return ""
    legend = _legend(
        (f"{kind} rationales", swatch(style, marked=False)) for style, kind in ((1, "right"), (2, "wrong"))
    )
    return f"{legend}<div class='charts'>{''.join(charts)}</div>" + (
        "<p class='note'>Scores in the best rounds, of rationales to training questions that the discriminator was not "
        "trained on. A useful one scores right rationales higher.</p>"
    )


def _surely(scores: Sequence[Scores]) -> str:
    told = []
    for what, name in (("a minority sample", "auc_minority"), ("a rationale of the student's", "auc_student")):
        if values := [value for one in scores if (value := getattr(one, name)) is not None]:
            told.append(f"above {what} in {_share(statistics.fmean(values))}")
    return f"It ranks a positive {' and '.join(told)} of the pairs." if told else ""


def _histogram(values: Sequence[float]) -> list[tuple[float, float, float, float]]:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int(value * BINS))] += 1
    shares = [count / len(values) for count in counts] + [0.0]
    return [(place / BINS, share, share, share) for place, share in enumerate(shares)]


def _examples(contents: Contents) -> str:
    if not contents.examples:
        return ""
    told, shown = "".join(_example(contents, one) for one in contents.examples), len(contents.examples)
    return (
        f"<p class='note'>{_count(shown, 'question')}, those first on which the variants disagree: they "
        "are chosen for that, so they say nothing about how often each is right. Of each variant the first training is "
        f"shown.</p>{told}"
    )


def _example(contents: Contents, one: Shown) -> str:
    choices = "".join(f"<li>{escaped(choice)}</li>" for choice in one.choices)
    asked = f"<div class='said'>{escaped(one.question)}</div>" + (f"<ul>{choices}</ul>" if choices else "")
    rows = [("question", asked), ("right answer", _text(one.label)), ("teacher", _text(one.teacher, "none stored"))]
    marks = []
    for name, told in contents.told.items():
        right = {figure: told.right.get(figure, {}).get(one.example_id) for figure in FIGURES}
        rows.append((escaped(name), _what_was_said(told.said[one.example_id], right)))
        marks.append(f"{escaped(name)} {_mark(right['answers'])}")
    items = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows)
    question = " ".join(one.question.split())
    head = question if len(question) <= 110 else question[:109] + "…"
    return f"<details><summary>{escaped(head)}<br>{' · '.join(marks)}</summary><dl>{items}</dl></details>"


def _what_was_said(said: Said, right: dict[Figure, bool | None]) -> str:
    answer = f"<div>answer: {_text(said.answer, 'none')} {_mark(right['answers'])}</div>"
    if right["explanations"] is None:
        return answer
    return f"{answer}<div class='said'>{_text(said.rationale, 'no rationale')} {_mark(right['explanations'])}</div>"


def _settings(contents: Contents) -> str:
    config = contents.config.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return f"<details><summary>The configuration</summary><pre>{escaped(text)}</pre></details>"


# ---- pieces ----


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns are texts, the others figures. Cells are HTML."""
    kinds = [" class='text'" if place < texts else "" for place in range(len(head))]
    heads = "".join(f"<th scope='col'{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<li>{drawn} {escaped(name)}</li>" for name, drawn in entries)
    return f"<ul class='legend'>{items}</ul>"


def _variant_legend(contents: Contents) -> str:
    return _legend((name, swatch(_style(contents, name))) for name in contents.curves)


def _style(contents: Contents, name: str) -> int:
    """A variant's place, the baseline's first: it is black everywhere."""
    names = [contents.config.baseline, *(one for one in contents.curves if one != contents.config.baseline)]
    return names.index(name)


def _name(contents: Contents, name: str) -> str:
    return _whole(name, f"{swatch(_style(contents, name))} ")


def _whole(name: str, before: str = "") -> str:
    """A name that stays on one line unless it is long; `before` is HTML."""
    shown = before + escaped(name)
    return f"<span class='name'>{shown}</span>" if len(name) <= 36 else shown


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _interval(found: Interval | None, *, percent: bool = True) -> str:
    if found is None:
        return "–"
    mean, low, high = found
    if percent:
        return f"{100 * mean:.1f} % <small>{100 * low:.1f} – {100 * high:.1f}</small>"
    return f"{mean:.2f} <small>{low:.2f} – {high:.2f}</small>"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "&lt; 0.001"


def _verdict(one: DifferenceRow | JudgedRow) -> str:
    said = "cannot be told" if one.verdict == "same" else one.verdict
    return f"<span class='{one.verdict}'>{said}</span>"


def _mark(right: bool | None) -> str:
    if right is None:
        return ""
    return "<span class='mark yes'>✓ right</span>" if right else "<span class='mark no'>✗ wrong</span>"


def _text(text: str | None, instead: str = "–") -> str:
    return f"<i>{instead}</i>" if text is None else escaped(text)


def _part(contents: Contents) -> str:
    return escaped(contents.config.part)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _and(names: Sequence[str]) -> str:
    shown = [f"<b>{escaped(name)}</b>" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
