"""What an inspected job leaves on disk: a file for each batch, written when its pictures are saved; see `sdtui.inspected`.

Where memory split a batch, each part of it has a file. A job that goes on with what is recorded does not ask the network
about the steps that are, so its maps are of the steps after those, and `WordFacts.steps` says of how many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdtui.inspected import Inspected, SheetFacts, WordFacts, write_inspected
from sdtui.params import GenerationParams
from sdtui.protocol import JobInspected, Message, Submit
from sdtui.text import safe_text
from sdtui.words import words_of
from sdtui.worker.attention import AttentionMaps, Extent, cross_attentions
from sdtui.worker.conditioning import Tokens, tokenize
from sdtui.worker.models import LoadedModel
from sdtui.worker.probes import Probe

if TYPE_CHECKING:
    import numpy as np

_log: Final = logging.getLogger(__name__)
_VAE_SCALE: Final = 8
"""Of all U-Nets that say nothing else."""


class Inspection:
    """Keeps what is seen of one job; where nobody asked for that it does nothing."""

    def __init__(
        self, model: LoadedModel, submit: Submit, params: GenerationParams, probe: Probe, emit: Callable[[Message], None]
    ) -> None:
        self._model, self._submit, self._params, self._probe, self._emit = model, submit, params, probe, emit
        self._maps = AttentionMaps(probe.looked)
        self._tokens: Tokens | None = None
        self.trouble = self._why_no_maps() if submit.words else ""
        """Why there will be no maps of words; empty where there will be, or where nobody asked for them."""

    def _why_no_maps(self) -> str:
        pipe = self._model.pipe
        if not cross_attentions(pipe) or getattr(pipe, "tokenizer", None) is None:
            network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
            return f"no maps of words: {type(network or pipe).__name__} has no cross-attention to the prompt's tokens"
        return ""

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """While this lasts, the pipeline's networks are looked at; it must last longer than a job's remedies."""
        if not self._submit.words or self.trouble:
            yield
            return
        with self._maps.attached(pipe):
            yield

    def begin(self, pictures: int) -> None:
        """So many pictures are begun together, or begun anew."""
        if not self._submit.words or self.trouble:
            return
        pipe, params = self._model.pipe, self._params
        self._tokens = tokenize(pipe, params.prompt)
        scale = int(getattr(pipe, "vae_scale_factor", _VAE_SCALE))
        self._maps.begin(
            Extent(
                pictures=pictures,
                tokens=len(self._tokens.words),
                text_length=self._tokens.max_tokens,
                height=(params.height or 0) // scale,
                width=(params.width or 0) // scale,
            )
        )

    def keep(self, path: Path | None, batch_index: int, seeds: Sequence[int]) -> None:
        """The pictures are there: write what was seen while they were made, and tell it. Without a path there is no place.

        A disk that does not take it costs the file, never the job.
        """
        if self._submit.inspect == "off" and not self._submit.words:
            return
        sheets, arrays = self._sheets()
        words = self._words(arrays)
        if not arrays:
            return
        params = self._params
        facts = Inspected(
            job=self._submit.job,
            batch_index=batch_index,
            model=safe_text(self._model.info.model),
            prompt=safe_text(params.prompt, multiline=True),
            seeds=tuple(seeds),
            width_px=params.width or 0,
            height_px=params.height or 0,
            steps=params.num_inference_steps,
            sheets=sheets,
            words=words,
        )
        if path is None:
            _log.info("job %s: what was inspected is not kept: the job has no directory", facts.job)
            return
        try:
            write_inspected(path, facts, arrays)
        except OSError as error:
            _log.warning("job %s: what was inspected is not kept: %s", facts.job, error)
            return
        self._emit(
            JobInspected(
                job=facts.job,
                batch_index=batch_index,
                path=str(path),
                modules=len(sheets),
                words=len(words_of(words)) if words is not None else 0,
            )
        )

    def _sheets(self) -> tuple[tuple[SheetFacts, ...], dict[str, np.ndarray[Any, Any]]]:
        """What the probe kept of the modules' activations, and its arrays by their names in the file."""
        taken = self._probe.sheets.take()
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for index, (_, picture, histogram) in enumerate(taken):
            arrays[f"sheet/{index}"] = picture
            arrays[f"histogram/{index}"] = histogram
        return tuple(facts for facts, _, _ in taken), arrays

    def _words(self, arrays: dict[str, np.ndarray[Any, Any]]) -> WordFacts | None:
        """Take the batch's maps and put them into `arrays`; None where there are none."""
        sums, tokens = self._maps.take(), self._tokens
        if sums is None or tokens is None:
            return None
        arrays.update({f"words/{height}x{width}": maps for (height, width), maps in sums.maps.items()})
        return WordFacts(
            tokens=tuple(safe_text(token) for token in tokens.words),
            steps=sums.steps,
            resolutions=tuple(sums.maps),
            layers=sums.layers,
            heads=sums.heads,
        )
