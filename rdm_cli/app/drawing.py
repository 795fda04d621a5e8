"""A sheet of drawn pictures: of what is wanted, or like a few of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from rdm_cli.app.studio import Drawing, Studio
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import UsageError
from rdm_cli.jobs.conditional import (
    accepted_draws,
    attribute_condition,
    few_shot_condition,
    in_words,
    knows_all,
)
from rdm_cli.jobs.loading import in_batches_for
from rdm_cli.jobs.pictures import PRIOR_BATCH, Draws

MOST_PICTURES = 48
MOST_EXAMPLES = 24
DRAWS_FOR_EACH = 100


@dataclass(frozen=True, kw_only=True)
class DrawnSheet:
    """Drawn ``pictures``, and what each is a draw of; the ``command`` that makes them, "" where none does."""

    pictures: Sequence[Image.Image]
    drawings: Sequence[Drawing]
    command: str
    remarks: Sequence[str] = ()


def drawn_sheet(
    studio: Studio, num: int, seed: int, wanted: Mapping[str, bool], like: Sequence[Drawing] = ()
) -> DrawnSheet:
    """``num`` draws of ``seed``: the first ones, those ``wanted``, or those like some others.

    Where the prior was not trained with the attributes, and of what is alike, draws are accepted or rejected.
    Raises UsageError for more than can be, and for attributes that there are not.
    """
    if not 1 <= num <= MOST_PICTURES or len(like) > MOST_EXAMPLES:
        raise UsageError(f"a sheet has 1 to {MOST_PICTURES} pictures, by up to {MOST_EXAMPLES} examples")
    pipeline, remarks = studio.pipeline, []
    told = wanted if wanted and not like and knows_all(pipeline, wanted) else {}
    draws, numbers = Draws(seed=seed, wanted=told or None), list(range(num))
    if like or (wanted and not told):
        if like:
            with TemporaryDirectory(prefix="rdm-app-") as made:
                codes = [studio.drawn(one) for one in like]
                Codes.concatenate(codes).save([Path(made) / f"{i}{CODE_SUFFIX}" for i in range(len(codes))])
                condition = few_shot_condition(pipeline, Path(made), unlike=None, unlabelled=None, seed=seed)
        else:
            condition = attribute_condition(pipeline, wanted)
        most = DRAWS_FOR_EACH * num
        found = accepted_draws(pipeline, condition, num, draws, max_draws=most, keep_best=True)
        numbers = found.numbers
        what = "like the chosen ones" if like else in_words(wanted)
        if found.num_accepted < num:
            remarks.append(f"{what}: {found.told}; the others are the nearest.")
    decoder, _ = in_batches_for(pipeline, num)
    drawer = replace(pipeline, batch_size=pipeline.size_of_batches(num, at_least=PRIOR_BATCH))
    codes_of_all = draws.codes(decoder, draws.z(drawer, numbers), numbers)
    x_0 = decoder.decode(codes_of_all, seed=seed, keys=numbers)
    words = [*studio.sampling(num, seed, wanted), "-o", f"samples-{seed}/"]
    return DrawnSheet(
        pictures=[to_pil(one) for one in x_0],
        drawings=[Drawing(seed=seed, number=number, wanted=told) for number in numbers],
        command="" if like else shlex.join(words),
        remarks=remarks,
    )
