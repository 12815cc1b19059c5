"""Token statistics for people: a sentence, and a histogram for a terminal."""

from finetune_trainer.contract.preflight_report import TokenStatistics

_BAR = 40


def in_words(statistics: TokenStatistics) -> str:
    """The check's message."""
    parts = [
        f"{statistics.tokens:,} tokens an epoch, {statistics.steps:,} optimizer steps",
        (
            f"half of the rows up to {statistics.p50:,} tokens, 95 % up to {statistics.p95:,}, "
            f"the longest {statistics.longest:,}"
        ),
    ]
    if statistics.truncated:
        parts.append(
            f"{_rows(statistics.truncated)} ({_percent(statistics.truncated, statistics.rows)}) "
            f"longer than dataset.maxLength ({statistics.max_length:,}), to be cut"
        )
    if statistics.dropped:
        parts.append(f"{_rows(statistics.dropped)} without a token to train, to be left out")
    if statistics.sampled_rows < statistics.rows:
        parts.append(f"estimated from {statistics.sampled_rows:,} of {statistics.rows:,} rows")
    return "; ".join(parts)


def histogram(statistics: TokenStatistics) -> list[str]:
    """Lines of the terminal's histogram, the widest bar for the fullest bucket."""
    if not statistics.histogram:
        return []
    most = max(bucket.rows for bucket in statistics.histogram)
    ends = [f"{bucket.up_to:,}" for bucket in statistics.histogram]
    counts = [f"{bucket.rows:,}" for bucket in statistics.histogram]
    wide, wider = max(map(len, ends)), max(len("rows"), *map(len, counts))
    lines = [f"{'tokens to':>{wide + 7}}  {'rows':>{wider}}"]
    for bucket, end, count in zip(statistics.histogram, ends, counts, strict=True):
        # A bucket with rows is never without a bar.
        bar = "#" * (-(-bucket.rows * _BAR // most) if most else 0)
        cut = "  (cut)" if bucket.up_to > statistics.max_length and bucket.rows else ""
        lines.append(f"{end:>{wide + 7}}  {count:>{wider}}  {bar}{cut}".rstrip())
    return lines


def _rows(count: int) -> str:
    return f"{count:,} row" + ("s" if count != 1 else "")


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "less than 0.1 %" if share < 0.1 else f"{share:.1f} %"
