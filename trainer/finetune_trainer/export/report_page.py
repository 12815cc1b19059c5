"""report.html: the run on one page that needs nothing but itself.

It is opened from a disk, a bucket or a mail, and it shows untrusted rows and prompts. So `_text` escapes every text.
The page's policy allows no request and no script but its own (by hash). The charts are readable without the script.
"""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence

from finetune_trainer.contract.history import HistoryEntry, LossSummary
from finetune_trainer.contract.text import readable
from finetune_trainer.data.histogram import LengthBin
from finetune_trainer.export.chart import STYLE as CHART_STYLE
from finetune_trainer.export.chart import Series, bar_chart, line_chart, number
from finetune_trainer.export.facts import RunFacts, Sample

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#57606a;--line:#d0d7de;--paper:#fff;--box:#f6f8fa;--warn:#fff8c5}
@media screen and (prefers-color-scheme:dark){
:root{--ink:#f0f6fc;--soft:#9198a1;--line:#3d444d;--paper:#0d1117;--box:#151b23;--warn:#3a2d05}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1120px;margin:2rem auto;
padding:0 1rem;overflow-wrap:anywhere}
h1{margin:0}h2{font-size:1.1rem;margin:2rem 0 .6rem;border-bottom:1px solid var(--line)}
.soft{color:var(--soft)}.warning{background:var(--warn);border:1px solid var(--line);border-radius:6px;
padding:.5rem .8rem;margin:.5rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:.6rem;margin:1rem 0}
.tile{background:var(--box);border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem}
.tile b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:1rem}
figure{margin:0}svg.chart{width:100%;height:auto;touch-action:pan-y}
figcaption{min-height:1.5em;color:var(--soft);font-variant-numeric:tabular-nums;text-align:center}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid var(--line);padding:.25rem .6rem;text-align:left;
vertical-align:top}td:first-child{color:var(--soft);width:38%}
.answers{display:grid;grid-template-columns:1fr 1fr;gap:.6rem;margin-bottom:1.2rem}
.three{grid-template-columns:1fr 1fr 1fr}
.answers .prompt{grid-column:1/-1}
pre{background:var(--box);border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem;margin:.2rem 0;
white-space:pre-wrap;unicode-bidi:isolate;font:13px/1.45 ui-monospace,monospace}
@media print{body{margin:0;max-width:none;font-size:11px}figure,.answers,.tile,tr{break-inside:avoid}}
@media (max-width:560px){.charts,.answers{grid-template-columns:1fr}.answers .prompt{grid-column:1}}
"""

_SCRIPT = """
for (const svg of document.querySelectorAll('svg[data-chart]')) {
  const chart = JSON.parse(svg.dataset.chart), [low, high, start, end] = chart.axis;
  const cursor = svg.querySelector('.cursor'), caption = svg.parentElement.querySelector('figcaption');
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect();
    const x = low + ((event.clientX - box.left) * chart.width / box.width - start) / (end - start) * (high - low);
    const near = chart.series.map(line => [line.name, line.points.reduce((best, point) =>
      Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best)]);
    const at = near[0][1][0], place = start + (at - low) / (high - low) * (end - start);
    cursor.setAttribute('x1', place);
    cursor.setAttribute('x2', place);
    cursor.setAttribute('visibility', 'visible');
    caption.textContent = near.map(([name, [step, value]]) =>
      `${name} ${Number(value.toPrecision(5))} at ${chart.x} ${step}`).join(' · ');
  });
  svg.addEventListener('pointerleave', () => {
    cursor.setAttribute('visibility', 'hidden');
    caption.textContent = '';
  });
}
"""

_LINES = (
    ("Learning rate", "learning_rate"),
    ("Gradient norm", "grad_norm"),
    ("Tokens per second", "tokens_per_second"),
)

_PAIR_LINES = (("Reward margin", "reward_margin"), ("Reward accuracy", "reward_accuracy"))


def report_page(facts: RunFacts) -> str:
    """The page's HTML."""
    name = facts.recipe.job.name
    made, run = facts.created.isoformat(sep=" ", timespec="seconds"), _text(facts.fingerprint[:12])
    body = [
        f"<h1>{_text(name)}</h1>",
        f'<p class="soft">LoRA adapter for <b>{_text(facts.base_model)}</b>, made {made}, run {run}</p>',
        *(f'<p class="warning">{_text(warning)}</p>' for warning in facts.warnings),
        _tiles(facts),
        _charts(facts),
        _samples(facts.samples),
        _table("Settings", facts.settings),
        _table("Data", _data(facts)),
        _table("Time", {stage: duration(seconds) for stage, seconds in facts.stage_seconds.items()}),
        _table("Versions", {**facts.versions, "trained on": facts.device}),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_policy())}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{_text(name)}: training report</title><style>{_STYLE}{CHART_STYLE}</style></head>\n"
        f"<body>{chr(10).join(body)}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _text(text: str) -> str:
    """A text as HTML that shows it: markup and control characters are escaped. A tab becomes blanks."""
    return html.escape(readable(text.expandtabs(4)))


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"


def _tiles(facts: RunFacts) -> str:
    loss, last = LossSummary.of(facts.history), facts.history[-1] if facts.history else None
    tiles = {
        "final loss": _shown(facts.metrics.get("loss")),
        "validation loss": _shown(facts.metrics.get("eval_loss", loss.last_eval_loss)),
        "without the adapter": _shown(facts.metrics.get("base_eval_loss")),
        "perplexity": _shown(facts.metrics.get("eval_perplexity")),
        "accuracy on validation pairs": _shown(facts.metrics.get("eval_reward_accuracy")),
        "margin on validation pairs": _shown(facts.metrics.get("eval_reward_margin")),
        "steps": _shown(facts.metrics.get("steps")),
        "tokens": _shown(facts.metrics.get("tokens")),
        "tokens per second": _shown(_mean_rate(facts)),
        "training": duration(last.seconds) if last and last.seconds is not None else None,
        "peak GPU memory": _gib(facts.peak_gpu_memory_bytes),
        "peak memory": _gib(facts.peak_memory_bytes),
        "rows": f"{facts.counts.rows:,}",
        "rows cut": f"{facts.counts.truncated:,}",
    }
    shown = [
        f'<div class="tile"><span class="soft">{name}</span><b>{value}</b></div>'
        for name, value in tiles.items()
        if value
    ]
    return f'<div class="tiles">{"".join(shown)}</div>'


def _charts(facts: RunFacts) -> str:
    charts = [loss_chart(facts.history)] if facts.history else []
    charts += [
        line_chart(title, series)
        for title, field in _PAIR_LINES
        if (series := _training_and_validation(facts.history, field))[0].points
    ]
    charts += [
        line_chart(title, [Series(name=title.lower(), points=points)])
        for title, field in _LINES
        if (points := _points(facts.history, field))
    ]
    charts.append(_lengths(facts.lengths))
    figures = [f"<figure>{chart}<figcaption></figcaption></figure>" for chart in charts]
    return f'<h2>Curves</h2><div class="charts">{"".join(figures)}</div>'


def loss_chart(history: Sequence[HistoryEntry]) -> str:
    """Training and validation loss over the steps."""
    unit = "of a pair" if _points(history, "reward_margin") else "nats per token"
    return line_chart(f"Loss ({unit})", _training_and_validation(history, "loss"))


def _training_and_validation(history: Sequence[HistoryEntry], field: str) -> list[Series]:
    return [
        Series(name="training", points=_points(history, field)),
        Series(name="validation", points=_points(history, f"eval_{field}")),
    ]


def _points(history: Sequence[HistoryEntry], field: str) -> list[tuple[float, float]]:
    return [(entry.step, value) for entry in history if (value := getattr(entry, field)) is not None]


def _lengths(bins: Sequence[LengthBin]) -> str:
    bars = [(f"{item.low}-{item.high}" if item.high > item.low else str(item.low), float(item.rows)) for item in bins]
    return bar_chart("Rows by length", bars, x_name="tokens of a row, after the cut")


def _samples(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    shown = [
        f'<div class="{_columns(item)}">'
        f'<div class="prompt"><span class="soft">prompt</span><pre>{_text(item.prompt)}</pre></div>'
        f'<div><span class="soft">base</span><pre>{_text(item.base)}</pre></div>'
        f'{_initial(item.initial)}<div><span class="soft">tuned</span><pre>{_text(item.tuned)}</pre></div></div>'
        for item in samples
    ]
    return f"<h2>Samples</h2>{''.join(shown)}"


def _columns(sample: Sample) -> str:
    return "answers" if sample.initial is None else "answers three"


def _initial(answer: str | None) -> str:
    if answer is None:
        return ""
    return f'<div><span class="soft">initial adapter</span><pre>{_text(answer)}</pre></div>'


def _data(facts: RunFacts) -> dict[str, str]:
    counts = facts.counts
    return {
        "rows trained": f"{counts.rows:,}",
        **({"rows kept out for validation": f"{counts.validation:,}"} if counts.validation else {}),
        **({"validation rows left out, trained too": f"{counts.trained_too:,}"} if counts.trained_too else {}),
        "rows cut at dataset.maxLength": f"{counts.truncated:,}",
        "rows left out": f"{counts.dropped:,}",
        "duplicate rows": f"{counts.duplicates:,}",
        "tokens": f"{counts.tokens:,}",
        "tokens that count in the loss": f"{counts.trained_tokens:,}",
        "longest row before the cut": f"{counts.longest:,} tokens",
        **{item.uri: f"{item.size:,} bytes, {item.sha256 or item.etag or 'no checksum'}" for item in facts.dataset},
    }


def _table(title: str, rows: Mapping[str, str]) -> str:
    cells = [f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in rows.items()]
    return f"<h2>{title}</h2><table>{''.join(cells)}</table>" if rows else ""


def _mean_rate(facts: RunFacts) -> float | None:
    """Tokens per second of the whole training."""
    last = facts.history[-1] if facts.history else None
    return last.tokens / last.seconds if last and last.tokens and last.seconds else None


def _shown(value: float | None) -> str | None:
    return None if value is None else number(value)


def _gib(count: int | None) -> str | None:
    return None if count is None else f"{count / 2**30:.2f} GiB"
