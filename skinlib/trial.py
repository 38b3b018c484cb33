"""One training in a process of its own: its answers to the test images, and what it cost. For `skinlib benchmark`.

A process of its own, so that its memory is its own and one training cannot warm the next one up. What it found is kept
under the identity of everything that it was made from: an interrupted benchmark goes on with what is still missing.

python -m skinlib.trial JOB FILE    (a `Job` as JSON, and the .npz to write)
"""

import dataclasses
import hashlib
import json
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from skinlib import __version__, cnn, plain, segmentation, synthetic, training, unet
from skinlib.dataset import LesionDataset, folds, from_synthetic, load_dataset, resize_images
from skinlib.devices import operations
from skinlib.files import CourseError, digest, written_whole
from skinlib.processes import peak_bytes, run_python
from skinlib.quiet import keras

STAGES = ("segmentation", "classification")
NEW_PICTURES, FIRST_NEW_LESION = 400, 3_000_000  # to test on, painted from lesions that the course never shows


class Job(NamedTuple):
    """What to train, and on what.

    stage       "segmentation" or "classification"
    recipe      the fields of `unet.Recipe` or `cnn.Recipe`; None: the plain recipe
    seconds     a limit on the training, or None
    model       a .keras file: answer with that model instead of training one
    masks       classification: an .npz with the masks by which all images are cut; None: whole images
    start       classification: the .keras file of the U-Net or CNN that ours starts from; None: from random weights
    variant     classification: one of `segmentation.CROP_VARIANTS`
    dataset, data_dir, fold, quick, masks_needed    the data, as in `load`
    """

    stage: str
    recipe: dict | None
    seed: int
    epochs: int
    dataset: str
    data_dir: str
    fold: int
    quick: bool
    masks_needed: bool = True
    seconds: float | None = None
    model: str | None = None
    masks: str | None = None
    start: str | None = None
    variant: str = "crop with margin"


class Result(NamedTuple):
    """What came of a job.

    found    bool (n, 128, 128) clean masks, or float (n,) probabilities of "malignant", of the n test images
    cost     parameters, macs (of one view), views, epochs, training_s, training_images_per_s,
             inference_images_per_s, peak_bytes (None where the system does not tell)
    model    the .keras file; kept: found from an earlier call, not trained now
    """

    found: np.ndarray
    cost: dict
    model: Path
    kept: bool


def load(dataset: str, data_dir: str, fold: int, quick: bool, masks_needed: bool = True) -> LesionDataset:
    """The data of a benchmark: a real set in five `dataset.folds`; of the embedded one, what the course learns from.

    The embedded set's own test part stays closed, for lesson 05: pictures of new lesions are painted to test on.
    """
    data = load_dataset(dataset, data_dir, quick, masks_needed=masks_needed)
    if dataset != "synthetic":
        return folds(data, fold)
    made = synthetic.generate(NEW_PICTURES // 16 if quick else NEW_PICTURES, data.images.shape[1], FIRST_NEW_LESION)
    known, new = data.select(data.parts != "test"), from_synthetic(made)
    names = ("images", "masks", "labels", "image_ids", "groups", "has_mask")
    return dataclasses.replace(
        known,
        **{name: np.concatenate([getattr(known, name), getattr(new, name)]) for name in names},
        parts=np.concatenate([known.parts, np.full(len(new), "test")]),
        table=pd.concat([known.table, new.table], ignore_index=True),
        outlines={name: np.concatenate([known.outlines[name], new.outlines[name]]) for name in known.outlines},
    )


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulate operations for one picture, of all convolutions and dense layers; the rest is small.

    A layer that is used twice counts twice. Raises ValueError for another kind of operation with a kernel, which would
    otherwise be forgotten.
    """
    total = 0
    for operation in operations(model, 1):
        if operation.type == "MatMul":
            total += int(np.prod(operation.outputs[0].shape)) * operation.inputs[0].shape[-1]
        elif operation.type in ("Conv2D", "DepthwiseConv2dNative"):
            if operation.get_attr("data_format") != b"NHWC":
                raise ValueError(f"{operation.name}: channels have to come last")
            # At every position of the output, each weight of the kernel is used once.
            total += int(np.prod(operation.outputs[0].shape[:-1])) * int(np.prod(operation.inputs[1].shape))
        elif "Conv" in operation.type or "MatMul" in operation.type:
            raise ValueError(f"the operations of {operation.name} ({operation.type}) cannot be counted yet")
    return total


def run(job: Job, data: LesionDataset, out: str | Path, masks: np.ndarray | None = None) -> Result:
    """The job's result: read from out/trials/ if it is there, or trained now. Raises CourseError if that fails.

    data     what `load` gives for the job; masks: what job.masks holds. Both only tell whether a result is of them
    """
    made_from = identity(job, data, masks)
    key = hashlib.blake2b(json.dumps(made_from, sort_keys=True).encode(), digest_size=8).hexdigest()
    file = Path(out) / "trials" / f"{job.stage}-{key}.npz"
    stored = _read(file, made_from)
    if stored:
        return stored._replace(kept=True)
    in_a_process(job, file)
    stored = _read(file, made_from)
    if stored is None:
        raise CourseError("the data or the package changed while a network was trained: start again")
    return stored


def identity(job: Job, data: LesionDataset, masks: np.ndarray | None) -> dict:
    """Everything that a result depends on, as JSON holds it: recipe, seed, epochs, data, versions and code."""
    # The CNN has the U-Net inside.
    networks = ("plain.py",) if job.recipe is None else ("unet.py", "cnn.py")[: STAGES.index(job.stage) + 1]
    trains = ("training.py", "checkpoint.py", "devices.py", "distributed.py", "muon.py", "quiet.py")
    names = (*networks, *trains, "inference.py", "pixels.py", "segmentation.py", "trial.py")
    libraries = {name: version(name) for name in ("keras", "tensorflow", "numpy", "scipy")} | {"cv2": cv2.__version__}
    code = b"".join((Path(__file__).parent / name).read_bytes() for name in names)
    made_from = {
        **job._asdict(),
        "data_dir": None,  # the content counts, not where it lies
        "model": job.model and Path(job.model).name,
        "masks": None if masks is None else digest(masks),
        "start": job.start and digest(*training.open_model(job.start).get_weights()),
        "data": data.identity,
        "diagnoses": digest(data.table["diagnosis"].to_numpy(dtype=str)) if job.stage == STAGES[1] else None,
        "versions": {"skinlib": __version__} | libraries,
        "code": hashlib.blake2b(code, digest_size=8).hexdigest(),
    }
    return json.loads(json.dumps(made_from))


def _read(file: Path, made_from: dict) -> Result | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            record = json.loads(str(stored["record"]))
            found = stored["found"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    model = file.with_suffix(".keras")
    return Result(found, record["cost"], model, False) if record["made_from"] == made_from else None


def in_a_process(job: Job, file: Path) -> None:
    """Do the job in a new Python. Raises CourseError with the last thing that it said, if it fails."""
    arguments = ["-m", "skinlib.trial", json.dumps(job._asdict()), str(file)]
    run_python(arguments, f"training for the {job.stage} failed")


def do(job: Job, file: Path) -> None:
    """Train, answer for the test part, and write model and .npz. Runs in the process of its own."""
    data = load(job.dataset, job.data_dir, job.fold, job.quick, job.masks_needed)
    if job.masks is None:
        masks = None
    else:
        with np.load(job.masks) as stored:
            masks = stored["masks"]
    made_from = identity(job, data, masks)
    training.seed_everything(job.seed)
    model, found, cost = (_segmentation if job.stage == "segmentation" else _classification)(job, data, masks)
    if job.model is None:
        training.save_model(model, file.with_suffix(".keras"), made_from, {})
    # Written last: where it stands, the model stands beside it.
    with written_whole(file) as unfinished:
        np.savez_compressed(unfinished, found=found, record=json.dumps({"made_from": made_from, "cost": cost}))


def _segmentation(job: Job, data: LesionDataset, _: None) -> tuple[keras.Model, np.ndarray, dict]:
    known = data.select(data.parts != "test")  # what trains cannot see the test part, not even by mistake
    images = resize_images(data.part("test").images, unet.UNET_SIZE)
    given = (known, job.epochs, job.seed)
    if job.recipe is None:
        train, predict, views = partial(plain.train_unet, *given), plain.predict, 1
    else:
        recipe = unet.Recipe(**_as_tuples(job.recipe))
        train = partial(unet.train_unet, *given, recipe=recipe, seconds=job.seconds)
        predict, views = partial(unet.predict_masks, views=recipe.views), recipe.views
    model, probabilities, cost = _measured(job, train, predict, images, int((known.parts == "train").sum()))
    found = segmentation.masks_from_probabilities(probabilities, unet.UNET_SIZE)
    return model, found, cost | {"views": views}


def _classification(job: Job, data: LesionDataset, masks: np.ndarray | None) -> tuple[keras.Model, np.ndarray, dict]:
    # Where nothing was outlined, an empty mask asks for the whole image.
    masks = np.zeros(data.images.shape[:3], bool) if masks is None else masks
    crops, test = segmentation.crop_lesions(data.images, masks, job.variant), data.parts == "test"
    labelled = data.labels >= 0
    known = labelled & ~test
    table = data.table.loc[known, ["diagnosis"]].assign(part=data.parts[known], label=data.labels[known])
    given = (crops[known], table, job.epochs, job.seed)
    if job.recipe is None:
        train, predict, views = partial(plain.train_cnn, *given), plain.predict, 1
    else:
        recipe = cnn.Recipe(**_as_tuples(job.recipe))
        start = training.open_model(job.start) if job.start else None
        train = partial(cnn.train_cnn, *given, recipe=recipe, seconds=job.seconds, start=start)
        predict, views = partial(cnn.predict_labels, views=recipe.views), recipe.views
    model, found, cost = _measured(job, train, predict, crops[labelled & test], int((table["part"] == "train").sum()))
    return model, found, cost | {"views": views}


def _measured(
    job: Job, train: Callable, predict: Callable, images: np.ndarray, count: int
) -> tuple[keras.Model, np.ndarray, dict]:
    """Train (or open the model) and predict, with a clock and an eye on the memory."""
    start = time.perf_counter()
    model, history = train() if job.model is None else (training.open_model(job.model), {"loss": []})
    seconds, epochs, peak = time.perf_counter() - start, len(history["loss"]), peak_bytes()
    predict(model, images[:32])  # the first batch also pays for the start
    start = time.perf_counter()
    found = predict(model, images)
    cost = {
        "parameters": model.count_params(),
        "macs": count_macs(model),
        "epochs": epochs,
        "training_s": seconds if epochs else 0.0,
        "training_images_per_s": epochs * count / seconds,
        "inference_images_per_s": len(images) / (time.perf_counter() - start),
        "peak_bytes": peak,
    }
    return model, found, cost


def _as_tuples(recipe: dict) -> dict:
    """JSON knows no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}


if __name__ == "__main__":
    try:
        do(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]))
    except CourseError as error:
        sys.exit(str(error))
