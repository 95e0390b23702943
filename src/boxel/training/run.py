"""Train a model: from annotations to a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxel.data.annotations import Annotations
from boxel.data.formats import recognize
from boxel.data.label_maps import has_pixel_labels
from boxel.evaluation import EvaluateConfig, evaluate
from boxel.models.pretrained import ONNX_FILE
from boxel.training.config import TrainConfig
from boxel.training.log import is_first_process, rank_zero_logger
from boxel.training.settings import Run, check_unused, is_finished, resolve_run
from boxel.training.small import announce_recipe, choose_recipe
from boxel.utils.errors import check_path, naming_extra
from boxel.utils.locks import lock_folder
from boxel.viz.report import write_training_report

if TYPE_CHECKING:
    from boxel.models.io import Model

logger = rank_zero_logger(__name__)


@naming_extra("boxel.train")
def train(
    method: str,
    data: Annotations | str | Path | Sequence[Annotations | str | Path],
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    val: Annotations | str | Path | None = None,
    val_images: str | Path | None = None,
    masks: Annotations | str | Path | None = None,
    config: TrainConfig | str | Path | Mapping[str, object] | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> Model | None:
    """Train a model from boxes, masks, or any mix of the two.

    Args:
        method: `boxinst`, `mask-rcnn`, `boxcaseg`, `fcrn`, `fcrn-instances` or `boxsup`.
        data: Annotations, a file or folder in any format of :func:`boxel.read`, or several, which are joined. Of
            splits, `train` is used. Instances with a mask are learned from it, others from their box.
        out: Folder of the run, for its settings, metrics, pictures, checkpoints and the model; `runs/METHOD` if None.
        images: Folder of the images if it is not beside the annotations; of several datasets, that of the first.
        val: Annotations to validate on (of a dataset with splits, `val`). If None, the split `val` of `data`; if there
            is none, the share `data.val_share` of the images is set aside.
        val_images: Folder of the images of `val` if they are neither beside it nor in `images`.
        masks: Annotations whose masks are added to `data` by annotation id.
        config: A recipe (a YAML file or its content) or a :class:`TrainConfig`. None: on a machine without a GPU the
            method's small recipe, unless `settings` choose a network; else the settings of its paper.
        init: Model folder, bundled model, detector of torchvision or backbone of timm to start from; None for that of
            the recipe. What does not fit stays new. Without `config`, the settings of the model are its own too.
        resume: Continue the run in `out`.
        **settings: Settings that override `config`, by their path (``epochs=12``, ``**{"model.tau": 0.2}``); those of
            `data` also by their names alone (``categories=["person"]``). Some methods take further inputs: `salient`
            for `boxcaseg`, images of single objects (a folder of `images` and `masks`, or any dataset with masks), and
            `semantic` for `fcrn-instances`, a run of `fcrn` or `boxsup`.

    Returns:
        The trained model in eval mode, or None if the run was interrupted; `resume` continues it.

    Raises:
        BoxelError: Data, settings or a file cannot be used.

    Examples:
        >>> model = boxel.train("boxinst", "boxes.json", images="images", epochs=12)  # doctest: +SKIP
        >>> model.predict("street.jpg").plot()  # doctest: +SKIP
    """
    small = choose_recipe(method, settings) if config is None else None
    run = resolve_run(method, config, init, out, settings, small)
    sources = _check_sources(data, val, masks)
    if not resume:
        check_unused(run.out)
    announce_recipe(small)
    from boxel.training.prepare import prepare_data

    prepared = prepare_data(run, sources, images, val, val_images, masks)
    from boxel.models.io import load_folder  # imported here, since PyTorch takes long to start
    from boxel.training.engine import build_model, fit, start_processes
    from boxel.training.fitting import fit_to_data
    from boxel.training.pseudo_masks import label_boxes
    from boxel.training.run_folder import finish_run, prepare_folder, write_record

    fit_to_data(run, prepared, resume)
    with lock_folder(run.out) if is_first_process() else nullcontext():  # the first process holds it for all
        if not resume:
            check_unused(run.out)  # again: another run may have ended while the data was read
        checkpoint = prepare_folder(run, prepared.classes, resume)
        if resume and is_finished(run.out):
            _add_missing(run, prepared.validation)
            return load_folder(run.out)
        processes = start_processes(run.settings)
        if processes.is_global_zero:
            given = {"data": data, "images": images, "val": val, "val_images": val_images, "masks": masks}
            write_record(run, {**given, "init": init or run.init, **run.inputs}, prepared, processes, resume)
        model = build_model(run, prepared.classes, resume)
        if not fit(run, label_boxes(run, prepared, processes), model, processes, checkpoint):
            return None
        if processes.is_global_zero:
            finish_run(run, model)
            _write_report(run, prepared.validation)
    return model.eval()


def _add_missing(run: Run, validation: Annotations | None) -> None:
    """Add the exported model and the report to a finished run that was stopped before it wrote them."""
    from boxel.exporting.onnx import export_beside

    logger.info("%s is finished already", run.out)
    if not is_first_process():
        return
    if run.method.kind == "box_to_mask" and not (run.out / ONNX_FILE).exists():
        export_beside(run.out)
    if not (run.out / "report.html").exists():
        _write_report(run, validation)


def _write_report(run: Run, validation: Annotations | None) -> None:
    """Write the report on a run into its folder, with an evaluation if there is something to compare with."""
    page, kind = run.out / "report.html", run.method.kind
    is_known = validation is not None
    if validation is not None and kind == "segmenter":
        is_known = bool(has_pixel_labels(validation).any())
    if validation is not None and kind == "box_to_mask":
        is_known = bool((validation.has_mask & ~validation.iscrowd).any())
    if validation is None or not is_known:
        write_training_report(run.out, page)
        return
    logger.info("predicting on the validation images for %s", page)
    config = EvaluateConfig(report=str(page), boundary=kind != "detector", device=run.settings.device)
    evaluate(run.out, validation, config=config)


def _check_sources(
    data: Annotations | str | Path | Sequence[Annotations | str | Path],
    *others: Annotations | str | Path | None,
) -> Sequence[Annotations | str | Path]:
    """Return the datasets to join; raise an error for a path without a dataset, before anything is read."""
    if isinstance(data, (str, Annotations)) or not isinstance(data, Sequence):
        if not isinstance(data, Annotations):
            check_path("data", data, "a path or Annotations")
        data = [data]
    for source in (*data, *others):
        if isinstance(source, (str, Path)):
            recognize(source)
    return data
