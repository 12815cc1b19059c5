"""Counts tokens before a GPU is requested, with the tokenizer, template and rules of the training."""

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.preflight_report import TokenBucket, TokenStatistics
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.training import DEFAULT_EPOCHS
from finetune_trainer.data.examples import Example
from finetune_trainer.data.histogram import LengthHistogram
from finetune_trainer.data.problems import Fault, Findings
from finetune_trainer.data.row_sampler import LEVEL_CHARACTERS, RowSampler
from finetune_trainer.data.tokenization.tokenize import RowTokenizer, characters
from finetune_trainer.data.tokenization.tokens import TokenCounts, Tokenizer

_ROWS_A_BATCH = 256
_CHARACTERS_A_BATCH = 1 << 20


class TokenPass:
    """Takes the rows one by one and tokenises a sample of them, many at a time.

    Args:
        recipe: the recipe.
        tokenizer: the model's tokenizer with the chat template to use.
        findings: collects rows that cannot be tokenised.
        level_characters: see `data.sample`.

    Attributes:
        largest_id: the largest token id of the rows so far, after they were cut.
    """

    def __init__(
        self, recipe: Recipe, tokenizer: Tokenizer, findings: Findings, level_characters: int = LEVEL_CHARACTERS
    ) -> None:
        self._recipe = recipe
        self._length = recipe.dataset.max_length
        self._tokenizer, self._level = tokenizer, level_characters
        self._tokenize = RowTokenizer(tokenizer, recipe.dataset.loss)
        self._findings = findings
        self._sampler = RowSampler(level_characters)
        self._batch: list[tuple[Example, int]] = []
        self._batch_characters = 0
        self._rows = self._sampled = 0
        self.largest_id = 0
        self._histogram = LengthHistogram()
        self._counts = TokenCounts()
        self._error: TrainerError | None = None

    def another(self, findings: Findings) -> "TokenPass":
        """A pass over other rows with the same tokenizer."""
        return TokenPass(self._recipe, self._tokenizer, findings, self._level)

    def next_weight(self) -> int:
        """How many rows the next one stands for; 0 when it need not be built and taken."""
        self._rows += 1
        return self._sampler.next_weight() if self._error is None else 0

    def take(self, example: Example, weight: int) -> None:
        """Takes a row. What is wrong with it is said at the end."""
        size = characters(example)
        self._sampler.add(size)
        self._batch.append((example, weight))
        self._batch_characters += size
        if len(self._batch) == _ROWS_A_BATCH or self._batch_characters >= _CHARACTERS_A_BATCH:
            self._flush()

    def statistics(self) -> TokenStatistics:
        """What was counted. Of a sample, scaled to all rows.

        Raises:
            TrainerError: DATASET_INVALID, rows cannot be tokenised, or none has a token to train; MODEL_INVALID.
        """
        self._flush()
        if self._error is not None:
            raise self._error
        self._findings.raise_if_any()
        counts, histogram = self._counts, self._histogram
        if not counts.rows:
            raise TrainerError(
                FailureReason.DATASET_INVALID,
                f"no row has a token to train: all {counts.dropped:,} would be dropped "
                f"(dataset.maxLength is {self._length:,} tokens; turns of weight 0 are not trained)",
            )

        def scaled(count: int) -> int:
            return round(count * self._rows / histogram.rows)

        return TokenStatistics(
            rows=self._rows,
            sampled_rows=self._sampled,
            tokens=scaled(counts.tokens),
            trained_tokens=scaled(counts.trained_tokens),
            truncated=scaled(counts.truncated),
            dropped=scaled(counts.dropped),
            p50=histogram.percentile(50),
            p95=histogram.percentile(95),
            p99=histogram.percentile(99),
            longest=histogram.longest,
            steps=_steps(self._recipe, scaled(counts.rows)),
            max_length=self._length,
            histogram=[TokenBucket(up_to=end, rows=scaled(rows)) for end, rows in histogram.buckets(edge=self._length)],
        )

    def _flush(self) -> None:
        batch, self._batch, self._batch_characters = self._batch, [], 0
        try:
            rows = self._tokenize.batch([example for example, _ in batch])
        except TrainerError as error:  # it is about the model, so no further row will do
            self._error = error
            return
        for (example, weight), row in zip(batch, rows, strict=True):
            self._sampled += 1
            if isinstance(row, Fault):
                place = example.place
                self._findings.add(row, place.file, place.line, unit=place.unit)
            else:
                self._histogram.add(max(len(sequence.ids) for sequence in row.sequences), weight)
                for sequence in row.sequences:
                    self.largest_id = max(self.largest_id, *sequence.ids[: self._length])
                self._counts.take(row, self._length, weight)


def _steps(recipe: Recipe, rows: int) -> int:
    """Optimizer steps of the training: the last batch of an epoch may be smaller."""
    training = recipe.training
    if training.max_steps is not None:
        return training.max_steps
    validation = recipe.dataset.validation
    if validation is not None and validation.fraction is not None:
        rows -= max(1, int(float(validation.fraction) * rows))
    return -(-rows // training.batch_size) * (training.epochs or DEFAULT_EPOCHS)
