"""Token statistics for people: a sentence, and a histogram for a terminal."""

from finetune_trainer.contract.preflight_report import TokenStatistics

_BAR = 40


def in_words(found: TokenStatistics) -> str:
    """The check's message."""
    parts = [
        f"{found.tokens:,} tokens an epoch, {found.steps:,} optimizer steps",
        f"half of the rows up to {found.p50:,} tokens, 95 % up to {found.p95:,}, the longest {found.longest:,}",
    ]
    if found.truncated:
        parts.append(
            f"{_rows(found.truncated)} ({_percent(found.truncated, found.rows)}) longer than dataset.maxLength "
            f"({found.max_length:,}), to be cut"
        )
    if found.dropped:
        parts.append(f"{_rows(found.dropped)} without a token to train, to be left out")
    if found.sampled_rows < found.rows:
        parts.append(f"estimated from {found.sampled_rows:,} of {found.rows:,} rows")
    return "; ".join(parts)


def histogram(found: TokenStatistics) -> list[str]:
    """Lines of the terminal's histogram, the widest bar for the fullest bucket."""
    if not found.histogram:
        return []
    most = max(bucket.rows for bucket in found.histogram)
    ends = [f"{bucket.up_to:,}" for bucket in found.histogram]
    counts = [f"{bucket.rows:,}" for bucket in found.histogram]
    wide, wider = max(map(len, ends)), max(len("rows"), *map(len, counts))
    lines = [f"{'tokens to':>{wide + 7}}  {'rows':>{wider}}"]
    for bucket, end, count in zip(found.histogram, ends, counts, strict=True):
        # A bucket with rows is never without a bar.
        bar = "#" * (-(-bucket.rows * _BAR // most) if most else 0)
        cut = "  (cut)" if bucket.up_to > found.max_length and bucket.rows else ""
        lines.append(f"{end:>{wide + 7}}  {count:>{wider}}  {bar}{cut}".rstrip())
    return lines


def _rows(count: int) -> str:
    return f"{count:,} row" + ("s" if count != 1 else "")


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "less than 0.1 %" if share < 0.1 else f"{share:.1f} %"
