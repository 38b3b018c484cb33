"""Measures what the course's networks are worth: `skinlib benchmark segmentation | classification | ablation | course`
and, with `inference_benchmark`, `inference`.

Ours beside the plain recipe (`plain`) and beside what learns nothing, on the same test images, with what each costs;
ours with each of its choices taken back alone; and the seconds of the course itself. Every network is trained by
`trial`, in a process of its own, from the train and the validation part; the test part is only scored.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
from sklearn.metrics import roc_auc_score

from skinlib import cnn, evaluation, inference_benchmark, network_report, plain, segmentation, trial, unet
from skinlib.dataset import FOLDS, LesionDataset, find_records, resize_images, resize_masks
from skinlib.evaluation import Measured, as_json
from skinlib.files import CourseError, digest, write_json, written_whole
from skinlib.network_report import PROJECT, check_clone
from skinlib.processes import run_python
from skinlib.progress import progress
from skinlib.training import open_model

NAMES = ("segmentation", "classification", "ablation", "course", "inference")
STAGES = trial.STAGES
# Pairs of data sets without an image number in common. Of one's own pictures ("folder") nobody knows.
STRANGERS = [{"synthetic", "isic2016"}, {"synthetic", "isic2018"}, {"synthetic", "ham10000"}]
STRANGERS += [{"ham10000", "isic2016"}, {"ham10000", "isic2018"}]
PLAIN = ("all", "first", "none")  # of the plain recipe, which takes long: every training, one of them, or none


class Options(NamedTuple):
    """What the command line asks for; the help texts in `__main__` say what each means."""

    name: str
    data_dir: Path | None = None
    out: Path = Path("runs/benchmark")
    seed: int = 0
    quick: bool = False
    dataset: str = "synthetic"
    fold: int = 0
    all_folds: bool = False
    seeds: int = 1
    seconds: tuple[int, ...] = ()
    variants: tuple[str, ...] | None = None  # None: as the course cuts; (): all ways
    plain: str = "all"
    stage: str | None = None
    epochs: int | None = None
    unet_epochs: int | None = None
    models: Path | None = None
    start: Path | None = None
    write: bool = False


# Which of the options only some benchmarks have, and which those are.
TRAINED = ("segmentation", "classification", "ablation")
GOES_WITH = {
    "dataset": TRAINED,
    "fold": TRAINED,
    "seeds": TRAINED,
    "epochs": TRAINED,
    "unet_epochs": ("classification",),
    "seconds": ("segmentation",),
    "variants": ("classification",),
    "all_folds": ("segmentation", "classification"),
    "plain": ("segmentation", "classification"),
    "stage": ("ablation",),
    "models": ("classification", "ablation"),
    "start": ("classification", "ablation"),
    "write": NAMES,
}


def check(options: Options) -> None:
    """Raise CourseError, before anything takes time, for options that do not go together."""
    for name, benchmarks in GOES_WITH.items():
        if getattr(options, name) != Options._field_defaults[name] and options.name not in benchmarks:
            option = name.replace("_", "-")
            raise CourseError(f"--{option} goes with the benchmarks {', '.join(benchmarks)}, not with {options.name}")
    if options.name not in NAMES:
        return
    lengths = [length for length in (options.epochs, options.unet_epochs) if length is not None]
    if min([options.seeds, *lengths, *options.seconds]) < 1:
        raise CourseError("--seeds, --epochs, --unet-epochs and --seconds are counted from 1")
    if options.stage not in (None, *STAGES):
        raise CourseError(f"there is no stage '{options.stage}'; there are: {', '.join(STAGES)}")
    if options.models and options.stage == "segmentation":
        raise CourseError("--models names the U-Net that cuts for the CNN: it goes with --stage classification")
    if options.plain not in PLAIN:
        raise CourseError(f"--plain can be {', '.join(PLAIN)}, not '{options.plain}'")
    if options.dataset == "synthetic" and (options.fold or options.all_folds):
        option = "--all-folds" if options.all_folds else "--fold"
        raise CourseError(f"{option} is for real data: of the embedded set, new pictures are painted to test on")
    if options.fold and options.all_folds:
        raise CourseError("--all-folds tests on every fold, so --fold has nothing to choose")
    for variant in options.variants or ():
        if variant not in segmentation.CROP_VARIANTS:
            raise CourseError(
                f"there is no variant '{variant}'; there are: {', '.join(map(repr, segmentation.CROP_VARIANTS))}"
            )
    if not 0 <= options.fold < FOLDS:
        raise CourseError(f"there is no fold {options.fold}: they are numbered 0 to {FOLDS - 1}")
    if options.models and not (options.models / unet.UNET_FILE).is_file():
        raise CourseError(f"there is no {unet.UNET_FILE} in {options.models}: --models is a run's folder, RUN/models")
    if options.start and options.stage == "segmentation":
        raise CourseError("--start names the CNN that ours starts from: it goes with --stage classification")
    if options.start and not (options.start / cnn.CNN_FILE).is_file():
        raise CourseError(f"there is no {cnn.CNN_FILE} in {options.start}: --start is a run's folder, RUN/models")
    if options.start and options.start.resolve() == (Path(options.out) / "models").resolve():
        raise CourseError(f"the CNN of --start would be written over: choose another --out than {options.out}")
    if options.write:
        if options.quick:
            raise CourseError("--write keeps what was measured, and the figures of --quick mean nothing")
        check_clone(PROJECT)
    if options.name in TRAINED and options.dataset != "synthetic":
        if options.data_dir is None:
            raise CourseError(f"{options.dataset} needs its folder: name it with --data-dir")
        needs_masks = options.name == "segmentation" or (options.name == "ablation" and options.stage != STAGES[1])
        find_records(options.dataset, options.data_dir, masks_needed=needs_masks)
    if options.name not in TRAINED and options.data_dir is not None:
        raise CourseError(f"the benchmark '{options.name}' runs on painted pictures: --data-dir is for the others")


def run(options: Options) -> list[str]:
    """Run one benchmark, keep its JSON and its figure under OUT (with --write in the repository too), and tell it."""
    result = measure(options)
    file = Path(options.out) / f"{network_report.stem(result)}.json"
    write_json(file, result)
    figure = network_report.draw(result, options.out)
    files = [file, *([figure] if figure else [])]
    if options.write:
        files += network_report.write(result, PROJECT)
    return [*network_report.as_text(result), "", f"kept in {', '.join(str(file) for file in files)}"]


def measure(options: Options) -> dict:
    """The figures of one benchmark, as its JSON file holds them and as `network_report` tells and draws them."""
    of_its_name = {
        "segmentation": segmentation_benchmark,
        "classification": classification_benchmark,
        "ablation": ablation,
        "course": course,
        "inference": lambda options: inference_benchmark.inference(options.quick),
    }[options.name]
    about = {
        "benchmark": options.name,
        "quick": options.quick,
        "dataset": options.dataset,
        "cores": os.cpu_count(),
        "seeds": list(_seeds(options)),
    }
    return about | of_its_name(options)


def _seeds(options: Options) -> range:
    return range(options.seed, options.seed + options.seeds)


# -- the data, and one method of it over all seeds -------------------------------------------------------------------


class Cut(NamedTuple):
    """The file of the masks by which all images are cut, the U-Net's, whose it is, and how long it was trained, if it
    was.
    """

    file: Path | None
    unet: Path | None
    by: str
    seconds: float | None


NOT_CUT = Cut(None, None, "nobody: whole images, since there are no masks to learn from", None)


class Bench(NamedTuple):
    """The data of one benchmark and how to train on them."""

    options: Options
    data: LesionDataset
    masks_needed: bool

    def trials(
        self,
        stage: str,
        recipe: dict | None,
        epochs: int,
        seeds: Sequence[int] | None = None,
        seconds: float | None = None,
        cuts: Sequence[Cut] | None = None,
        variant: str = segmentation.CROP_VARIANTS[0],
        models: Sequence[Path] | None = None,
    ) -> list[trial.Result]:
        """One `trial` per seed; of each, cuts: what cuts its images, models: what answers instead of a new network."""
        options, results = self.options, []
        for place, seed in enumerate(_seeds(options) if seeds is None else seeds):
            cut = cuts[place] if cuts else NOT_CUT
            start = options.start / cnn.CNN_FILE if options.start else cut.unet
            job = trial.Job(
                stage, recipe, seed, epochs, options.dataset, str(_data_dir(options)), options.fold, options.quick,
                self.masks_needed, seconds, str(models[place]) if models else None, cut.file and str(cut.file),
                str(start) if start and stage == STAGES[1] and recipe else None, variant,
            )  # fmt: skip
            results.append(trial.run(job, self.data, options.out, _masks_of(cut)))
        return results


def _masks_of(cut: Cut) -> np.ndarray | None:
    """Read anew each time, bool (n, s, s): those of all folds and seeds would fill a gigabyte."""
    if cut.file is None:
        return None
    with np.load(cut.file) as stored:
        return stored["masks"]


def _data_dir(options: Options) -> Path:
    return (options.data_dir or PROJECT / "data").resolve()


def _benches(options: Options, masks_needed: bool) -> list[Bench]:
    """One for --fold, or one for each of --all-folds."""
    numbers = range(FOLDS) if options.all_folds else (options.fold,)
    return [_bench(options._replace(fold=number), masks_needed) for number in numbers]


def _bench(options: Options, masks_needed: bool) -> Bench:
    if not masks_needed:
        # A set with masks is read as the segmentation reads it, so that both stages share their test images.
        masks_needed = options.dataset == "synthetic" or any(
            record.mask for record in find_records(options.dataset, options.data_dir, masks_needed=False)
        )
    data = trial.load(options.dataset, _data_dir(options), options.fold, options.quick, masks_needed)
    return Bench(options, data, masks_needed)


def _about(*folds: tuple[LesionDataset, np.ndarray]) -> dict:
    """Counts of images, and of the lesions to test on; folds: of each the data, and which images count, bool (n,).

    Several folds test one part of the images each, and have so many to learn from on average.
    """
    counted = [
        {part: int((data.parts[chosen] == part).sum()) for part in ("train", "validation", "test")}
        for data, chosen in folds
    ]
    images = {part: round(np.mean([counts[part] for counts in counted])) for part in ("train", "validation")}
    images["test"] = sum(counts["test"] for counts in counted)
    lesions = [len(set(data.groups[chosen & (data.parts == "test")])) for data, chosen in folds]
    return {"images": images, "test_lesions": sum(lesions)}


def mean_cost(results: Sequence[trial.Result]) -> dict:
    """What a training costs, on average."""
    costs = [result.cost for result in results]
    kept = any(result.kept for result in results)
    return {
        name: None if any(cost[name] is None for cost in costs) else float(np.mean([cost[name] for cost in costs]))
        for name in costs[0]
    } | {"kept": kept}


def _only_once(options: Options, recipe: dict | None, trainings: int) -> bool:
    """Whether --plain spares all but the first of so many trainings; recipe: None is the plain one."""
    return recipe is None and options.plain == "first" and trainings > 1


def _the_first(method: str, folds: Sequence[int], seeds: Sequence[int]) -> str:
    """A method's name where only the first of its trainings was made."""
    fold = f", fold {folds[0]}" if len(folds) > 1 else ""
    return f"{method}{fold}, seed {seeds[0]}"


def _joined(by_fold: Sequence[Sequence[trial.Result]]) -> tuple[list[np.ndarray], dict]:
    """Of every seed, what was found in all folds, one after another; and the mean cost of a training."""
    found = [np.concatenate([result.found for result in of_seed]) for of_seed in zip(*by_fold, strict=True)]
    return found, mean_cost([result for results in by_fold for result in results])


# -- segmentation ----------------------------------------------------------------------------------------------------


def segmentation_benchmark(options: Options) -> dict:
    """Otsu's threshold, the plain U-Net and ours, and with --seconds ours after less and more training.

    With --all-folds every image is tested once, by a network that has not met it.
    """
    benches = _benches(options, masks_needed=True)
    numbers = [bench.options.fold for bench in benches]
    tests = [bench.data.part("test") for bench in benches]
    images = np.concatenate([resize_images(test.images, unet.UNET_SIZE) for test in tests])
    start = time.perf_counter()
    otsu = np.stack([segmentation.otsu_mask(image) for image in images])
    rate = len(images) / (time.perf_counter() - start)
    rows = [_segmentation_row("Otsu's threshold", tests, [otsu], {"inference_images_per_s": rate})]
    epochs = options.epochs or unet.default_epochs(options.dataset, options.quick)
    planned = [("plain U-Net", None, plain.UNET_EPOCHS)] * (options.plain != "none")
    planned.append(("our U-Net", unet.RECIPE._asdict(), epochs))
    by_fold, cost = [], {}
    for method, recipe, length in planned:
        chosen, seeds = benches, _seeds(options)
        if _only_once(options, recipe, len(benches) * len(seeds)):
            chosen, seeds = benches[:1], seeds[:1]
            method = _the_first(method, numbers, seeds)
        by_fold = [bench.trials("segmentation", recipe, 1 if options.quick else length, seeds) for bench in chosen]
        found, cost = _joined(by_fold)
        rows.append(_segmentation_row(method, tests[: len(chosen)], found, cost))
    # The last that was planned is ours.
    _keep_models(options.out, by_fold[0][0].model)
    curve = []
    for budget in progress(sorted(options.seconds), "the curve", len(options.seconds), "budget"):
        # The schedule has to fit the budget: a step size that has not yet fallen is worth little.
        length = max(1, int(budget * cost["epochs"] / cost["training_s"]))
        result = _joined(
            [bench.trials("segmentation", unet.RECIPE._asdict(), length, seconds=budget) for bench in benches]
        )
        curve.append(_segmentation_row(f"our U-Net, {budget} s", tests, *result))
    everything = [(bench.data, np.ones(len(bench.data), bool)) for bench in benches]
    return _about(*everything) | {"folds": numbers, "rows": rows, "curve": curve}


def _segmentation_row(method: str, tests: Sequence[LesionDataset], found: list, cost: dict) -> dict:
    """Scores of one method; tests: the test part of each fold; found: of all of them, bool (n, 128, 128) per seed."""
    masks = np.concatenate([resize_masks(test.masks, unet.UNET_SIZE) for test in tests])
    groups = np.concatenate([test.groups for test in tests])
    scores = [evaluation.segmentation_scores(masks, one) for one in found]
    per_image = {name: np.mean([one[name] for one in scores], axis=0) for name in scores[0]}
    by_fold = {}
    if len(tests) > 1:
        ends = np.cumsum([len(test) for test in tests])[:-1]
        by_fold["by_fold"] = [round(float(part.mean()), 6) for part in np.split(per_image["dice"], ends)]
    return {
        "method": method,
        **as_json(evaluation.bootstrap(_means, groups, np.column_stack(list(per_image.values())))),
        "by_seed": {name: [round(float(one[name].mean()), 6) for one in scores] for name in scores[0]},
        **by_fold,
        **cost,
    }


def _means(scores: np.ndarray) -> dict[str, float]:
    return dict(zip(("dice", "jaccard", "thresholded_jaccard"), scores.mean(axis=0).tolist(), strict=True))


def _keep_models(out: Path, *networks: Path) -> None:
    """The first U-Net and CNN, with their records, where a run of the course has them: `skinlib predict --models
    OUT/models` finds them. A CNN that belonged to another U-Net does not stay.
    """
    folder = Path(out) / "models"
    for file in (folder / cnn.CNN_FILE, _record(folder / cnn.CNN_FILE)):
        file.unlink(missing_ok=True)
    for network, name in zip(networks, (unet.UNET_FILE, cnn.CNN_FILE), strict=False):
        for source, target in ((network, folder / name), (network.with_suffix(".json"), _record(folder / name))):
            if source.resolve() == target.resolve():
                continue
            if source.is_file():
                with written_whole(target) as unfinished:
                    shutil.copyfile(source, unfinished)
            else:  # a network without a record, which may not have another's
                target.unlink(missing_ok=True)


def _record(model: Path) -> Path:
    return model.with_suffix(".json")


# -- classification --------------------------------------------------------------------------------------------------


class Fold(NamedTuple):
    """One way to part the data, which of the images have a label, and what cuts them for each seed."""

    bench: Bench
    labelled: np.ndarray
    cuts: list[Cut]

    @property
    def tested(self) -> np.ndarray:
        return self.labelled & (self.bench.data.parts == "test")


def classification_benchmark(options: Options) -> dict:
    """Always "benign", the plain CNN and ours; with --variants ours on each way of cutting the images.

    With --all-folds every image is tested once, by a network that has not met it, after a U-Net that has not either,
    unless --models or --start name another.
    """
    benches = _benches(options, masks_needed=False)
    numbers = [bench.options.fold for bench in benches]
    labelled = [_labelled(bench.data) for bench in benches]  # before anything is trained
    epochs = options.unet_epochs or unet.default_epochs(options.dataset, options.quick)
    folds = [Fold(bench, known, _cuts(bench, epochs)) for bench, known in zip(benches, labelled, strict=True)]
    cut, labels, groups = folds[0].cuts[0], _tested(folds, "labels"), _tested(folds, "groups")
    variants = segmentation.CROP_VARIANTS[:1] if cut.file else ("whole image",)
    if options.variants is not None:
        if cut.file is None:
            raise CourseError(f"{options.dataset} has no masks here, and no U-Net to make them: name one with --models")
        variants = options.variants or segmentation.CROP_VARIANTS
    rows = [_classification_row('always "benign"', labels, [np.zeros(len(labels))], groups, {})]
    to_learn_from = int((folds[0].labelled & (folds[0].bench.data.parts == "train")).sum())
    recipe = cnn.recipe_for(to_learn_from, bool(cut.unet or options.start))
    epochs = options.epochs or cnn.default_epochs(options.quick, recipe)
    planned = [("plain CNN", None, plain.CNN_EPOCHS, variants[0])] * (options.plain != "none")
    planned += [
        ("our CNN" if len(variants) == 1 else f"our CNN, {variant}", recipe._asdict(), epochs, variant)
        for variant in variants
    ]
    for method, knobs, length, variant in progress(planned, "training", len(planned), "network"):
        chosen, seeds = folds, _seeds(options)
        if _only_once(options, knobs, len(folds) * len(seeds)):
            chosen, seeds = folds[:1], seeds[:1]
            method = _the_first(method, numbers, seeds)
        by_fold = [
            fold.bench.trials("classification", knobs, 1 if options.quick else length, seeds, None, fold.cuts, variant)
            for fold in chosen
        ]
        found, cost = _joined(by_fold)
        if knobs is not None and variant == segmentation.CROP_VARIANTS[0] and cut.unet:  # what the course cuts
            _keep_models(options.out, cut.unet, by_fold[0][0].model)
        row = _classification_row(method, _tested(chosen, "labels"), found, _tested(chosen, "groups"), cost)
        if len(chosen) > 1:
            row["by_fold"] = [_auroc(fold, results) for fold, results in zip(chosen, by_fold, strict=True)]
        rows.append(row)
    cut_s = None if cut.seconds is None else float(np.mean([one.seconds for fold in folds for one in fold.cuts]))
    return _about(*[(fold.bench.data, fold.labelled) for fold in folds]) | {
        "folds": numbers, "cut_by": cut.by, "cut_s": cut_s, "variants": list(variants), "start": _start(options, cut),
        "rows": rows,
    }  # fmt: skip


def _start(options: Options, cut: Cut) -> str:
    """What our CNN starts from, in words."""
    if not options.start:
        return "the same U-Net" if cut.unet else "random weights"
    return _told(options, "the CNN of --start", options.start / cnn.CNN_FILE)


def _told(options: Options, name: str, model: Path) -> str:
    """A network that was trained elsewhere, in words: on what, where its record says so, and a warning."""
    try:
        of = json.loads(_record(model).read_text(encoding="utf-8"))["made_from"]["dataset"]
        known = f"{name}, trained on {network_report.DATA_NAMES[of]}"
    except (OSError, ValueError, KeyError, TypeError):
        of, known = options.dataset, name
    return known if {of, options.dataset} in STRANGERS else f"{known}, which may have met the test images"


def _tested(folds: Sequence[Fold], name: str) -> np.ndarray:
    """Labels or groups of the test images of all folds, one fold after another."""
    return np.concatenate([getattr(fold.bench.data, name)[fold.tested] for fold in folds])


def _auroc(fold: Fold, results: Sequence[trial.Result]) -> float:
    """Of one fold, on average over seeds."""
    scores = [evaluation.classification_scores(fold.bench.data.labels[fold.tested], one.found) for one in results]
    return round(float(np.mean([score["auroc"] for score in scores])), 6)


def _labelled(data: LesionDataset) -> np.ndarray:
    """Where a label is known: bool (n,). Raises CourseError if a part lacks one of the classes."""
    for part in ("train", "test"):
        if not {0, 1} <= set(data.labels[data.parts == part]):
            raise CourseError(f"the {part} part needs images with either label, benign and malignant")
    return data.labels >= 0


def _cuts(bench: Bench, epochs: int) -> list[Cut]:
    """What cuts the images for each seed: --models, or our U-Net of that seed; without masks, nothing."""
    options, count = bench.options, len(_seeds(bench.options))
    if options.models:
        file = options.models / unet.UNET_FILE
        return [_cut(bench, file, _told(options, "the U-Net of --models", file), None)] * count
    if not bench.masks_needed:
        return [NOT_CUT] * count
    results = bench.trials("segmentation", unet.RECIPE._asdict(), 1 if options.quick else epochs)
    by = "our U-Net, trained with the same seed on the same train part"
    return [_cut(bench, result.model, by, result.cost["training_s"]) for result in results]


def _cut(bench: Bench, file: Path, by: str, seconds: float | None) -> Cut:
    """The cut by one U-Net: its masks of all images, in a file."""
    options = bench.options
    probabilities = unet.predict_masks(open_model(file), bench.data.images)
    masks = segmentation.masks_from_probabilities(probabilities, bench.data.images.shape[1])
    kept = Path(options.out) / "trials" / f"masks-{digest(masks)}.npz"
    with written_whole(kept) as unfinished:
        np.savez_compressed(unfinished, masks=masks)
    return Cut(kept, file, by, seconds)


def _classification_row(method: str, labels: np.ndarray, found: list, groups: np.ndarray, cost: dict) -> dict:
    """Scores of one method; found: a float (n,) per seed."""
    by_seed = [evaluation.classification_scores(labels, one) for one in found]
    measured = evaluation.bootstrap(_mean_scores, groups, labels, np.column_stack(found))
    return {
        "method": method,
        **as_json(measured),
        "by_seed": {name: [round(one[name], 6) for one in by_seed] for name in ("auroc", "balanced_accuracy")},
        **cost,
    }


def _mean_scores(labels: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """`classification_scores` on average over seeds, the columns of `found`."""
    by_seed = [evaluation.classification_scores(labels, column) for column in found.T]
    return {name: float(np.mean([scores[name] for scores in by_seed])) for name in by_seed[0]}


# -- ablation --------------------------------------------------------------------------------------------------------


def ablation(options: Options) -> dict:
    """Ours, and ours with each choice taken back alone: the same epochs, seeds and test images."""
    stages = (options.stage,) if options.stage else STAGES
    bench = _bench(options, masks_needed="segmentation" in stages)
    result: dict = {"folds": [options.fold], "stages": {}}
    labelled = _labelled(bench.data) if STAGES[1] in stages else None  # before anything is trained
    for stage in stages:
        # Half as long as in the lessons: there are many arms.
        unet_epochs = options.epochs or unet.default_epochs(options.dataset, options.quick) // 2
        if stage == "segmentation":
            recipe, knobs, cuts, chosen = unet.RECIPE, unet.KNOBS, None, np.ones(len(bench.data), bool)
            epochs = unet_epochs
        else:
            chosen, cuts = labelled, _cuts(bench, unet_epochs)
            to_learn_from = int((chosen & (bench.data.parts == "train")).sum())
            recipe = cnn.recipe_for(to_learn_from, bool(cuts[0].unet or options.start))
            knobs, epochs = cnn.knobs_for(recipe), options.epochs or cnn.default_epochs(options.quick, recipe) // 2
        epochs = 1 if options.quick else epochs
        is_test = chosen & (bench.data.parts == "test")
        groups = bench.data.groups[is_test]
        truth = bench.data.labels[is_test]
        if stage == "segmentation":
            truth = resize_masks(bench.data.masks[is_test], unet.UNET_SIZE)
        rows, full = [], []
        arms = {"full recipe": {}, **knobs}
        for name, change in progress(arms.items(), f"ablation, {stage}", len(arms), "arm"):
            # Who looks at fewer views has learned the same.
            models = [one.model for one in full] if set(change) == {"views"} else None
            results = bench.trials(stage, recipe._replace(**change)._asdict(), epochs, models=models, cuts=cuts)
            full = full or results
            found = [[one.found for one in arm] for arm in (full, results)]
            measured = paired(stage, truth, *found, groups)
            rows.append({"arm": name, **as_json(measured), **mean_cost(results)})
        result["stages"][stage] = _about((bench.data, chosen)) | {"epochs": epochs, "rows": rows}
        if stage == "classification":
            result["stages"][stage] |= {"cut_by": cuts[0].by, "start": _start(options, cuts[0])}
    return result


def paired(stage: str, truth: np.ndarray, full: list, arm: list, groups: np.ndarray) -> dict[str, Measured]:
    """An arm's scores, and by how much each differs from the full recipe's on the same images: "…_difference".

    truth        masks bool (n, 128, 128), or labels int (n,); full, arm: what was found, one array per seed
    Intervals are 95 %, by drawing lesions: a draw takes the same images of both, so that what makes some images hard
    for everyone falls out of the difference. Seeds are averaged.
    """
    if stage == "segmentation":
        score = [np.mean([evaluation.dice(truth, one) for one in found], axis=0) for found in (full, arm)]
        return evaluation.bootstrap(_dice_difference, groups, *score)
    return evaluation.bootstrap(_classification_difference, groups, truth, np.column_stack(full), np.column_stack(arm))


def _dice_difference(full: np.ndarray, arm: np.ndarray) -> dict[str, float]:
    return {"dice": float(arm.mean()), "dice_difference": float((arm - full).mean())}


def _classification_difference(labels: np.ndarray, full: np.ndarray, arm: np.ndarray) -> dict[str, float]:
    scores, others = ([_two_scores(labels, column) for column in found.T] for found in (arm, full))
    means, other_means = np.mean(scores, axis=0), np.mean(others, axis=0)
    names = ("auroc", "balanced_accuracy")
    differences = dict(zip((f"{name}_difference" for name in names), (means - other_means).tolist(), strict=True))
    return dict(zip(names, means.tolist(), strict=True)) | differences


def _two_scores(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """AUROC and balanced accuracy as in `classification_scores`, without the rest, which would take much longer."""
    if not 0 < labels.mean() < 1:
        return np.nan, np.nan
    called = probabilities >= 0.5
    recalls = [np.mean(called[labels == label] == label) for label in (0, 1)]
    return roc_auc_score(labels, probabilities), float(np.mean(recalls))


# -- course ----------------------------------------------------------------------------------------------------------

TRAINING_CELLS = {"02_unet": "train_unet(", "04_cnn": "train_cnn("}


def course(options: Options) -> dict:
    """Seconds of `skinlib run` by lesson, and of the two cells that train, from a run into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        arguments = ["-m", "skinlib", "run", "--out", str(out), "--seed", str(options.seed)]
        start = time.perf_counter()
        run_python([*arguments, *["--quick"] * options.quick], "the course did not run")
        seconds = time.perf_counter() - start
        return {"seconds": seconds} | course_seconds(out)


def course_seconds(run_dir: Path) -> dict:
    """Seconds by lesson, and of each lesson's cell that trains, as a run of the course has left them."""
    lessons = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))["seconds"]
    cells = {}
    for lesson, call in TRAINING_CELLS.items():
        notebook = nbformat.read(run_dir / "notebooks" / f"{lesson}.ipynb", as_version=4)
        trains = [cell for cell in notebook.cells if cell.cell_type == "code" and call in cell.source]
        cells[lesson] = sum(cell.metadata["papermill"]["duration"] for cell in trains)
    return {"lessons": lessons, "training_cells": cells}
