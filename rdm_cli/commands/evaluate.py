"""rdm evaluate: what bundles are worth, measured on a folder of images.

Each command reads its options and names what measures one bundle. :class:`_Frame` does what all share: it
checks the words before any work, opens the bundles, measures one after the other and shows the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rdm_cli import options as o
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.data.sinks.outputs import refuse_blocked
from rdm_cli.errors import UsageError
from rdm_cli.help_page import OPTIONS, App
from rdm_cli.option_groups import group, spread

if TYPE_CHECKING:
    from rdm_cli.evaluation.assembly import Plots
    from rdm_cli.evaluation.figures import Evaluation, Part
    from rdm_cli.evaluation.material import Material, Subject
    from rdm_cli.pipeline.pipeline import Pipeline

app = App(
    no_args_is_help=True,
    help="""Measure bundles on a folder of images, side by side.

Examples:
    rdm evaluate reconstruction avatars64-diffae avatars64-pdae faces/
    rdm evaluate generation my-bundle faces/ -o report/
""",
)

SHOWN_DIGITS = 12
USUAL_SCALES = "-0.3,0.15,0.3"
MOST_SAMPLES = 500  # where the user names no number

Predictor = Literal["lasso", "trees"]
"""The classifier that DCI looks into."""
NumLabelled = Annotated[
    int, typer.Option("-n", "--n", metavar="N", min=8, help="Use the first N labelled images of the folder.")
]


@group(OPTIONS)
class Report:
    """Where the results go besides the terminal, and the seed of what is random in them."""

    output: o.Report = None
    seed: o.Seed = 0


@group(OPTIONS)
class Shared:
    """What every evaluation asks for."""

    report: Report
    images: o.FittedImages
    machine: o.Machine
    voice: o.Voice


class _Frame:
    """One evaluation of the bundles and the folder that the user named.

    Raises UsageError for words that make no sense, and OccupiedError where the report ``name`` would take the
    place of a user's file.
    """

    def __init__(self, name: str, words: Sequence[str], shared: Shared) -> None:
        self.name, self.report, self.images, self.machine = name, shared.report, shared.images, shared.machine
        self.console = Console(as_json=shared.voice.as_json, quiet=shared.voice.quiet)
        self.bundles, self.folder = _bundles_then_folder(words)
        if self.report.output is not None:
            from rdm_cli.evaluation.report import refuse_other_files

            refuse_blocked(self.report.output)
            refuse_other_files(self.report.output, name)

    def open(self, bundle: str, **more: Any) -> Pipeline:
        """One of the bundles; ``more`` are other arguments of ``open_pipeline``."""
        return open_on(self.machine, bundle, self.images, self.console.remark, **more)

    def subjects(self, **more: Any) -> list[Subject]:
        """Every bundle, opened before any is measured, so that a wrong word is told at once."""
        from rdm_cli.evaluation.material import subjects

        return subjects(self.bundles, [self.open(bundle, **more) for bundle in self.bundles])

    def measure(
        self,
        lead: str,
        material: Material,
        subjects: Sequence[Subject],
        measure: Callable[..., Part],
        plots: Plots,
        *,
        work: Callable[[Subject], float] | None = None,
        notes: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """Measure every subject, and show what was found; ``settings`` are what holds for all figures.

        ``measure`` is given a subject, ``seed`` and ``advance``; ``work`` is how many images' worth a subject
        is (None: all of ``material`` once). Raises UsageError where nothing could be measured.
        """
        from rdm_cli.evaluation.assembly import assembled

        if material.passed_over:
            self.console.note(f"{material.folder}: {material.passed_over}")
        parts = []
        for subject in subjects:
            total = float(len(material)) if work is None else work(subject)
            with self.console.progress(f"measuring {subject.name}", total) as advance:
                parts.append(measure(subject, seed=self.report.seed, advance=advance))
        if not any(part.figures for part in parts):
            raise UsageError("; ".join(dict.fromkeys(note for part in parts for note in part.notes)))
        found = assembled(
            self.name,
            lead,
            material,
            subjects,
            parts,
            seed=self.report.seed,
            precision=subjects[0].pipeline.precision,
            plots=plots,
            notes=notes,
            **settings,
        )
        self._present(found)

    def _present(self, evaluation: Evaluation) -> None:
        """Write the files, print the figures, say what they rest on and what is missing."""
        from rdm_cli.evaluation.report import NO_PLOTS, comparison, provenance, record, save_json, save_report
        from rdm_cli.reports.plots import can_plot

        console = self.console
        # first the files: whoever closes the pipe early keeps them
        if self.report.output is not None:
            path = self.report.output / f"{evaluation.name}.json"
            save_json(evaluation, path)
            save_report(evaluation, path.with_suffix(".html"))
            if evaluation.plots and not can_plot():
                console.note(NO_PLOTS)
            console.note(str(path))
            console.note(str(path.with_suffix(".html")))
        for note in evaluation.notes:
            console.note(note)
        if console.as_json:
            for figure in evaluation.figures:
                console.emit("", **record(evaluation, figure))
            return
        shown = [figure for figure in evaluation.figures if not figure.detail]
        columns, rows, num_words = comparison(shown)
        settings = "; ".join(f"{key} {_short(key, value)}" for key, value in evaluation.settings.items())
        rests_on = [f"{name}: {text}" for name, text in provenance(shown, digits=SHOWN_DIGITS)]
        console.table(
            f"{evaluation.name}, with 95 % intervals",
            columns,
            rows,
            num_words=num_words,
            below=["", *rests_on, settings],
        )


def _bundles_then_folder(words: Sequence[str]) -> tuple[list[str], Path]:
    """One bundle or more, and the folder that was named last; raises UsageError, also for a bundle there."""
    from rdm_cli.bundles.places import names_bundle

    if len(words) < 2:
        raise UsageError("name one or more bundles, and then a folder of images")
    *bundles, folder = words
    if names_bundle(folder):
        raise UsageError(
            f"{folder}: this is a bundle, and the folder of images comes last",
            hint="rdm evaluate VERB BUNDLE... FOLDER",
        )
    return bundles, Path(folder)


def _numbers(option: str, text: str, kind: type[Any] = int) -> list[Any]:
    """``T,...`` as numbers, each once, in the user's order; raises UsageError, naming ``option``."""
    try:
        return list(dict.fromkeys(kind(word) for word in text.split(",")))
    except ValueError:
        raise UsageError(f"{option} {text}: numbers with commas between them are expected") from None


def _step_numbers(text: str) -> list[int]:
    """Numbers of sampling steps, the fewest first; raises UsageError."""
    found = sorted(_numbers("--steps", text))
    if found[0] < 1:
        raise UsageError(f"--steps {found[0]}: at least one step is needed")
    return found


def _short(key: str, value: object) -> str:
    return str(value)[:SHOWN_DIGITS] if key.endswith("sha256") else str(value)


@app.command("reconstruction")
@spread
def reconstruction(
    bundles_and_data: o.BundlesAndData,
    num: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=2, help="Use the first N images of the folder.")
    ] = 64,
    steps: o.StepsList = "10,20,50",
    inversion: Annotated[
        o.Inversion,
        typer.Option(
            "--inversion",
            help="How x_T is inferred, whatever the bundle's own way is.",
            rich_help_panel=o.SOLVER,
        ),
    ] = "ddim",
    lpips_weights: o.LPIPSWeights = None,
    *,
    shared: Shared,
) -> None:
    """Measure reconstructions: from z alone, and with inferred x_T, at several T.

    MSE, PSNR, SSIM and, where the images are large enough, MS-SSIM; ST-LPIPS where it is installed, and LPIPS
    where its weights are named.

    Examples:
        rdm evaluate reconstruction avatars64-diffae faces/
        rdm evaluate reconstruction a-bundle faces/ --inversion exact -o report/
    """
    frame = _Frame("reconstruction", bundles_and_data, shared)
    counts = _step_numbers(steps)
    from rdm_cli.evaluation import reconstruction as of
    from rdm_cli.evaluation.distances import open_distances
    from rdm_cli.evaluation.material import gather

    material, subjects = gather(frame.folder, num, frame.images.fit), frame.subjects()
    distances, missing = open_distances(lpips_weights or [])
    frame.measure(
        of.LEAD,
        material,
        subjects,
        partial(
            of.measure_reconstruction,
            material=material,
            steps=counts,
            inversion=inversion,
            distances=distances,
        ),
        of.reconstruction_plots,
        work=partial(of.reconstruction_work, material=material, steps=counts),
        notes=missing,
        inversion=inversion,
    )


@app.command("generation")
@spread
def generation(
    bundles_and_data: o.BundlesAndData,
    num: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--n",
            metavar="N",
            min=1,
            help="Draw N samples, and compare them with the first N images of the folder.",
            show_default=f"all images, {MOST_SAMPLES} at the most",
        ),
    ] = None,
    steps: o.StepsList = "10,20,50",
    solver: o.SolverOption = None,
    inception_weights: o.InceptionWeights = None,
    *,
    shared: Shared,
) -> None:
    """Measure samples against images, at several T and from each prior that a bundle has.

    Fréchet and kernel distance on EffNet-Lite0's features (FID and KID with --inception-weights), precision,
    recall, density and coverage.

    Examples:
        rdm evaluate generation avatars64-diffae faces/ -n 500
        rdm evaluate generation a-bundle faces/ --steps 20 --solver unipc -o report/
    """
    frame = _Frame("generation", bundles_and_data, shared)
    counts = _step_numbers(steps)
    from rdm_cli.evaluation import generation as of
    from rdm_cli.evaluation.material import gather
    from rdm_cli.metrics.features import open_effnet_lite0
    from rdm_cli.metrics.inception import open_inception

    material = gather(frame.folder, num or MOST_SAMPLES, frame.images.fit)
    num = num or len(material)
    if min(num, len(material)) < of.LEAST:
        raise UsageError(f"{min(num, len(material))} images: a distance of distributions needs {of.LEAST}")
    extractor = open_effnet_lite0() if inception_weights is None else open_inception(inception_weights)
    reference = of.Reference(material=material, extractor=extractor)
    frame.measure(
        of.LEAD,
        material,
        frame.subjects(solver=solver),
        partial(of.measure_generation, reference=reference, num=num, steps=counts),
        of.generation_plots,
        work=partial(of.generation_work, num=num, steps=counts),
        num_samples=num,
        solver="the bundle's own" if solver is None else solver,
    )


@app.command("attributes")
@spread
def attributes(
    bundles_and_data: o.BundlesAndData,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    num: NumLabelled = 2000,
    *,
    shared: Shared,
) -> None:
    """Measure linear probes on z, a quarter of the images held out.

    AUROC, average precision and F1, beside the same probes on principal components of the pixels and on a
    network that never learned. Needs labels.

    Examples:
        rdm evaluate attributes avatars64-diffae faces/
        rdm evaluate attributes a-bundle b-bundle faces/ --attr smiling -o report/
    """
    frame = _Frame("attributes", bundles_and_data, shared)
    from rdm_cli.evaluation import attributes as of
    from rdm_cli.evaluation.material import gather_labelled

    purpose = "probing attributes"
    material = gather_labelled(frame.folder, num, frame.images.fit, table=labels, names=attr, purpose=purpose)
    measured = partial(of.measure_attributes, material=material)
    frame.measure(of.LEAD, material, frame.subjects(), measured, of.attributes_plots)


@app.command("disentanglement")
@spread
def disentanglement(
    bundles_and_data: o.BundlesAndData,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    num: NumLabelled = 2000,
    predictor: Annotated[
        Predictor, typer.Option("--predictor", help="What DCI fits; trees take minutes.")
    ] = "lasso",
    *,
    shared: Shared,
) -> None:
    """Measure DCI, MIG and TAD of z against labels, beside those of components of the pixels.

    Needs two labelled attributes or more.

    Examples:
        rdm evaluate disentanglement avatars64-diffae faces/
        rdm evaluate disentanglement a-bundle faces/ --predictor trees -o report/
    """
    frame = _Frame("disentanglement", bundles_and_data, shared)
    from rdm_cli.evaluation import disentanglement as of
    from rdm_cli.evaluation.material import gather_labelled

    purpose = "measuring disentanglement"
    material = gather_labelled(frame.folder, num, frame.images.fit, table=labels, names=attr, purpose=purpose)
    measured = partial(of.measure_disentanglement, material=material, predictor=predictor)
    frame.measure(of.LEAD, material, frame.subjects(), measured, of.disentanglement_plots)


@app.command("interpolation")
@spread
def interpolation(
    bundles_and_data: o.BundlesAndData,
    pairs: Annotated[
        int,
        typer.Option(
            "-n", "--n", metavar="N", min=1, help="Number of pairs: the first and second image, and so on."
        ),
    ] = 16,
    frames: Annotated[
        int,
        typer.Option(
            "--frames", metavar="N", min=3, help="Pictures from one image to the other, both ends included."
        ),
    ] = 9,
    epsilon: Annotated[
        float,
        typer.Option(
            "--epsilon",
            metavar="EPS",
            min=1e-6,
            max=0.5,
            help="The distance along the path at which PPL compares.",
        ),
    ] = 0.01,
    steps: o.EvaluationSteps = 20,
    lpips_weights: o.LPIPSWeights = None,
    *,
    shared: Shared,
) -> None:
    """Measure the ways between pairs of images: perceptual path length and smoothness.

    Through z and x_T, through z alone, through the noise of a plain DPM, and through pixels. The distance is
    LPIPS where its weights are named, else ST-LPIPS where it is installed, else the mean squared error.

    Examples:
        rdm evaluate interpolation avatars64-diffae faces/
        rdm evaluate interpolation a-bundle b-bundle faces/ -n 32 -o report/
    """
    frame = _Frame("interpolation", bundles_and_data, shared)
    from rdm_cli.evaluation import interpolation as of
    from rdm_cli.evaluation.distances import open_distances
    from rdm_cli.evaluation.material import gather

    material = gather(frame.folder, 2 * pairs, frame.images.fit)
    if len(material) < 2:
        raise UsageError(f"{frame.folder}: one image, and a way leads from one to another")
    subjects = frame.subjects()
    plan = of.WayPlan(num_frames=frames, epsilon=epsilon, steps=steps)
    distances, missing = open_distances(lpips_weights or [])
    frame.measure(
        of.LEAD,
        material,
        subjects,
        partial(of.measure_interpolation, material=material, plan=plan, distances=distances),
        of.interpolation_plots,
        work=partial(of.interpolation_work, material=material, plan=plan),
        notes=[*missing, *of.lacking(subjects)],
        steps=steps,
    )


@app.command("edit")
@spread
def edit(
    bundles_and_data: o.BundlesAndData,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    scales: Annotated[
        str | None,
        typer.Option(
            "--scales",
            metavar="S,...",
            help="Scales, as in rdm manipulate; 0 is always measured.",
            show_default=USUAL_SCALES,
        ),
    ] = None,
    truth: Annotated[
        int | None,
        typer.Option(
            "--truth",
            metavar="SEED",
            min=0,
            help="The images are avatars of SEED: set attributes, and compare with the true pictures.",
        ),
    ] = None,
    editor: Annotated[
        list[str] | None,
        typer.Option(
            "--editor",
            metavar="NAME",
            help="With --truth, what moves z, as in rdm manipulate; repeat it.",
            show_default="that of rdm manipulate",
        ),
    ] = None,
    sheets: Annotated[
        Path | None,
        typer.Option("--sheets", metavar="DIR", help="With --truth, write pictures of the worst edits here."),
    ] = None,
    judge_data: Annotated[
        Path | None,
        typer.Option(
            "--judge-data",
            metavar="FOLDER",
            help="Labelled images to train the judge on.",
            show_default="three quarters of the data",
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option("-n", "--n", metavar="N", min=2, help="Edit N images for each attribute and direction."),
    ] = 32,
    num_labelled: Annotated[
        int,
        typer.Option(
            "--labelled", metavar="N", min=8, help="Use the first N labelled images of each folder."
        ),
    ] = 4000,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            min=1,
            help="Steps to encode and decode in.",
            show_default="20; with --truth the bundle's own",
        ),
    ] = None,
    lpips_weights: o.LPIPSWeights = None,
    *,
    shared: Shared,
) -> None:
    """Measure edits along a bundle's attributes, judged by a classifier of images.

    Success, other verdicts that changed, perceptual distance, and change of the background, over a range of
    scales. Needs labels, to train the judge and to know what an image lacks.

    A judge alone flatters. With --truth the images are those of rdm data avatars, and what rdm manipulate
    NAME=yes|no makes of them is compared with the true pictures: PSNR inside and outside of what had to
    change, beside the unedited picture, a fixed scale, blended pixels and the best that the bundle could do.

    Examples:
        rdm evaluate edit avatars64-diffae faces/ --attr smiling
        rdm evaluate edit avatars64-diffae faces/ --truth 1 -n 100 -o report/
    """
    frame = _Frame("edit", bundles_and_data, shared)
    moves = _numbers("--scales", scales or USUAL_SCALES, float)
    if not any(moves) or not all(math.isfinite(scale) for scale in moves):
        raise UsageError(f"--scales {scales}: a scale is a number, and one of them at least is not 0")
    if truth is None and (editor or sheets is not None):
        raise UsageError("--editor and --sheets go with --truth")
    if truth is not None and (scales is not None or steps is not None):
        raise UsageError("--scales and --steps do not go with --truth, which edits as rdm manipulate does")
    from rdm_cli.evaluation.distances import open_distances
    from rdm_cli.evaluation.judging import court
    from rdm_cli.evaluation.material import gather_labelled

    gathered = partial(
        gather_labelled, num=num_labelled, fit=frame.images.fit, names=None, purpose="judging edits"
    )
    material = gathered(frame.folder, table=labels)
    learned = None if judge_data is None else gathered(judge_data, table=None)
    subjects = frame.subjects()
    sides = court(material, learned, seed=frame.report.seed)
    distances, missing = open_distances(lpips_weights or [])
    missing += learned.notes if learned is not None else ()
    judge: dict[str, Any] = {
        "judge_data_sha256": sides.learned.digest,
        "judge_num_images": len(sides.learned),
    }
    if truth is None:
        from rdm_cli.evaluation import edit as of

        plan = of.EditPlan(attributes=attr, scales=moves, num=num, steps=steps or 20)
        frame.measure(
            of.LEAD,
            material,
            subjects,
            partial(of.measure_edits, court=sides, plan=plan, distances=distances),
            of.edit_plots,
            work=partial(of.edit_work, court=sides, plan=plan),
            notes=missing,
            steps=plan.steps,
            **judge,
        )
        return
    from rdm_cli.evaluation import truth as true
    from rdm_cli.metrics.features import open_effnet_lite0
    from rdm_cli.pipeline.editing import DEFAULT_EDITOR

    avatars = true.avatars_of(sides.edited, truth)
    for subject in subjects:
        true.require_drawn(sides.edited, avatars, subject)
    try:
        extractor = open_effnet_lite0()
    except UsageError as error:
        extractor = None
        missing.append(f"KD is left out: {error}")
    chosen = true.TruthPlan(
        avatars=avatars, attributes=attr, editors=editor or [DEFAULT_EDITOR], num=num, sheets=sheets
    )
    frame.measure(
        true.LEAD,
        material,
        subjects,
        partial(true.measure_truth, court=sides, plan=chosen, distances=distances, extractor=extractor),
        true.truth_plots,
        work=partial(true.truth_work, plan=chosen),
        notes=missing,
        avatars_seed=truth,
        editors=", ".join(chosen.editors),
        **judge,
    )


@app.command("gap")
@spread
def gap(
    bundles_and_data: o.BundlesAndData,
    num: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=2, help="Use the first N images of the folder.")
    ] = 128,
    every: Annotated[
        int, typer.Option("--every", metavar="N", min=1, help="Measure every Nth timestep.")
    ] = 50,
    at: Annotated[
        str, typer.Option("--at", metavar="T,...", help="Timesteps that the report's pictures show.")
    ] = "400,500,600,700,800",
    *,
    shared: Shared,
) -> None:
    """Measure, at each t, how far the predicted posterior mean lies from the true one.

    PDAE's diagnosis (arXiv 2212.12990): a code should close the gap that a plain diffusion model leaves.
    Noise is normal, and the same for every bundle of one image size. Figures are means over the images,
    with 95 % intervals. The report's pictures show the x_0 that is seen in one x_t, without z and with it.

    Examples:
        rdm evaluate gap avatars64-diffae avatars64-pdae faces/
        rdm evaluate gap avatars128-lrdm faces/ -n 32 --every 100 -o gap/
    """
    frame = _Frame("gap", bundles_and_data, shared)
    shown_at = _numbers("--at", at)
    from rdm_cli.evaluation import gap as of
    from rdm_cli.evaluation.material import gather

    material = gather(frame.folder, num, frame.images.fit)
    if len(material) < 2:
        raise UsageError(f"{frame.folder}: one image has no interval", hint="name a folder of two or more")
    plan = of.GapPlan(every=every, shown_at=shown_at)
    frame.measure(
        of.LEAD,
        material,
        frame.subjects(),
        partial(of.measure_gap, material=material, plan=plan),
        of.gap_plots,
        work=partial(of.gap_work, material=material, plan=plan),
    )
