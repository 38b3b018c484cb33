"""Lesson 04: a small CNN that tells benign from malignant. An RGB crop of 180×180 in, two class probabilities out."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit

from skinlib.dataset import BENIGN, MALIGNANT
from skinlib.files import CourseError, digest
from skinlib.inference import answers
from skinlib.progress import progress
from skinlib.quiet import keras
from skinlib.training import BATCH_SIZE, Augment, Batches, augmentation, check_pictures, train
from skinlib.unet import RECIPE as UNET_RECIPE
from skinlib.unet import UNET_SIZE, down_and_up

layers, ops = keras.layers, keras.ops

CNN_SIZE = 180
CNN_FILE = "melanoma_cnn_model.keras"
DESCRIPTION = "description"  # the layer that has the U-Net inside
ANSWER = "benign_or_malignant"  # the last layer


class Recipe(NamedTuple):
    """Every choice behind the CNN, with a name, so that each can be taken back alone: `KNOBS`. Lesson 04."""

    start: bool = True  # from what another network has learned, such as the U-Net, not from random weights
    frozen: bool = True  # what the U-Net has learned stays as it is, and only what comes after it learns
    size: int = UNET_SIZE  # pixels to which a crop is shrunk for the U-Net inside
    versions: int = 8  # of each training crop, changed at random, of which a frozen U-Net is asked
    rate: float = 1e-3  # the step size at its peak: with few crops, a larger one makes the validation loss jump
    lesion_and_skin: bool = True  # patterns are counted inside the lesion and outside, not over the whole crop
    every_level: bool = True  # the answer rests on all levels, on the way down and up, not on the bottleneck alone
    dropout: float = 0.3  # of what the small layer says; of the numbers that it weighs, a third as much
    diagnoses: bool = False  # it learns the finer question, which diagnosis it is, and adds up their probabilities
    class_weights: bool = True  # both classes count the same in sum
    turns: bool = True  # training crops are turned and mirrored
    changes: float = 0.4  # how far they are shifted, zoomed and recoloured: little, since colours are a sign here
    cosine_schedule: bool = True  # the step size climbs and falls, or stays
    last_epoch: bool = True  # its weights are kept, not those of the epoch with the lowest validation loss
    intercept: bool = True  # after training, the validation part says where its answer changes sides
    muon: bool = True  # convolutions, where they learn, step with Muon, or with AdamW, as everything else does
    views: int = 4  # mirror images and turns of a crop over which its answer is averaged


RECIPE = Recipe()
# Where the U-Net inside learns too, it may step as far as in lesson 02. Smaller steps were not measured.
# Whether its last epoch is as good as its best, and what the intercept brings, was not measured either.
LEARNS_ON = {"frozen": False, "rate": 2e-3, "last_epoch": False, "intercept": False}
# Where all of it learns, one bit per crop is little to learn from, and a diagnosis tells more.
LEARNING = LEARNS_ON | {"diagnoses": True}
# What `skinlib benchmark ablation` takes back, one at a time; see `knobs_for`.
KNOBS = {
    "random weights to start with": LEARNS_ON | {"start": False},
    "the U-Net learns on": LEARNS_ON,
    "crops of 96 pixels": {"size": 96},
    "one version of each crop": {"versions": 1},
    "lesion and skin in one": {"lesion_and_skin": False},
    "the bottleneck alone": {"every_level": False},
    "no dropout": {"dropout": 0.0},
    "benign and malignant alone": {"diagnoses": False},
    "no class weights": {"class_weights": False},
    "no turned crops": {"turns": False},
    "no shift, zoom, recolouring": {"changes": 0.0},
    "bold shift, zoom, recolouring": {"changes": 1.0},
    "constant step size": {"cosine_schedule": False},
    "the best epoch by validation": {"last_epoch": False},
    "the intercept as trained": {"intercept": False},
    "AdamW alone": {"muon": False},
    "one view of each crop": {"views": 1},
}
# With so many crops to learn from, the U-Net's weights follow the labels. Where the border lies is not measured: on the
# embedded set and ISIC 2018, with some 1,400 at most, they stay, and on HAM10000, with 7,204, they learn on.
MANY_LABELS = 4000
LEAST_OF_A_DIAGNOSIS = 20  # training crops; one that is rarer is not told apart (chosen, not measured)


def recipe_for(crops: int, has_start: bool) -> Recipe:
    """The recipe for so many crops to learn from, and with or without a network to start from. Lesson 04."""
    frozen = has_start and bool(crops < MANY_LABELS)
    return RECIPE._replace(start=has_start, **({} if frozen else LEARNING))


def knobs_for(recipe: Recipe) -> dict[str, dict]:
    """The `KNOBS` that change something in a recipe: a U-Net that learns on cannot be told to learn on, nor can
    diagnoses be left out where nobody asks for them; while it stays frozen, there is no convolution that learns.
    """
    idle = "muon" if recipe.frozen else "versions"
    return {
        name: change
        for name, change in KNOBS.items()
        if recipe._replace(**change) != recipe and (idle not in change or "frozen" in change)
    }


def default_epochs(quick: bool, recipe: Recipe = RECIPE) -> int:
    """How long lesson 04 trains: where the U-Net stays as it is, an epoch of the small layer takes next to no time."""
    return 3 if quick else 40 if recipe.frozen else 14


def build_cnn(recipe: Recipe = RECIPE, told_apart: Sequence[int] = (BENIGN, MALIGNANT), looks: int = 1) -> keras.Model:
    """The network: (n, 180, 180, 3) RGB 0–255 to (n, 2) probabilities, benign and malignant. Lesson 04.

    It has the U-Net inside, which describes the crop by 1,440 numbers. Then a small layer that weighs them, between
    two rounds of dropout, and two classes.

    told_apart    the label of each diagnosis that it learns to tell apart, where there are more than the two: it gives
                  each a probability, and a last layer, which does not learn, adds up those of either label
    looks         how many pictures of one lesion it gets at once, one behind the other, (n, 180, 180, 3 · looks), such
                  as the crop and the whole image: each is described by its own 1,440 numbers
    """
    inputs = keras.Input((CNN_SIZE, CNN_SIZE, 3 * looks), name="crop")
    x = layers.Resizing(recipe.size, recipe.size, name="as_the_unet_sees_it")(inputs)
    describe = _description(recipe)
    x = describe(x) if looks == 1 else layers.Concatenate(name="looks")([describe(look) for look in _looks(x)])
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False, epsilon=1e-5, name="standardised")(x)
    x = layers.Dropout(recipe.dropout / 3, seed=0, name="dropout_numbers")(x)
    # Twice the numbers, half the width, so that the network stays below half a million weights.
    x = layers.Dense(64 // looks, activation="relu", name="weighed")(x)
    x = layers.Dropout(recipe.dropout, seed=1, name="dropout")(x)
    if len(told_apart) == 2:
        outputs = layers.Dense(2, activation="softmax", name=ANSWER)(x)
    else:
        diagnoses = layers.Dense(len(told_apart), activation="softmax", name="diagnosis")(x)
        sums = layers.Dense(2, use_bias=False, trainable=False, name=ANSWER)
        outputs = sums(diagnoses)
        sums.set_weights([_labels_of(told_apart)])
    return keras.Model(inputs, outputs, name="cnn")


def _looks(pictures: np.ndarray | keras.KerasTensor) -> list:
    """The pictures that lie one behind the other: (…, 3 · looks) to a list of (…, 3)."""
    return [pictures[..., start : start + 3] for start in range(0, pictures.shape[-1], 3)]


def _of_every_look(change: Augment) -> Augment:
    """Change each picture of a lesion by itself, which makes more different pairs than changing them alike."""

    def changed(pictures: np.ndarray, _: None, rng: np.random.Generator) -> tuple[np.ndarray, None]:
        looks = [change(np.ascontiguousarray(look), None, rng)[0] for look in _looks(pictures)]
        return np.concatenate(looks, axis=-1), None

    return changed


def _description(recipe: Recipe) -> keras.Model:
    """RGB 0–255 (n, size, size, 3) to (n, numbers): how much there is of every pattern, how unevenly, and where.

    Of every filter of every level of the U-Net, its mean, its standard deviation and its maximum inside the lesion, and
    mean and standard deviation outside; not Flatten, which would need millions of weights. What is inside, the U-Net
    says itself, pixel by pixel, as a probability.
    """
    pictures = keras.Input((recipe.size, recipe.size, 3), name="picture")
    levels, score = down_and_up(pictures, UNET_RECIPE)
    lesion = ops.cast(layers.Activation("sigmoid", name="lesion_probability")(score), "float32")
    bottleneck = len(UNET_RECIPE.filters) - 1
    numbers = []
    for level in levels if recipe.every_level else levels[bottleneck : bottleneck + 1]:
        level = ops.cast(level, "float32")  # half precision would round sums over a picture
        shrink = lesion.shape[1] // level.shape[1]
        inside = layers.AveragePooling2D(shrink)(lesion) if shrink > 1 else lesion
        if not recipe.lesion_and_skin:
            inside = ops.ones_like(inside)
        numbers += [*_mean_and_spread(level, inside), ops.max(level * inside, axis=(1, 2))]
        if recipe.lesion_and_skin:
            numbers += _mean_and_spread(level, 1 - inside)
    return keras.Model(pictures, layers.Concatenate(name="numbers")(numbers), name=DESCRIPTION)


def _mean_and_spread(level: keras.KerasTensor, share: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Mean and standard deviation of (n, h, w, filters) where a share (n, h, w, 1) of each pixel counts: (n, filters).

    Where nothing counts, both are next to 0.
    """
    places = level.shape[1] * level.shape[2]
    amount = ops.sum(share, axis=(1, 2), keepdims=True) + 0.01 * places
    mean = ops.sum(level * share, axis=(1, 2), keepdims=True) / amount
    variance = ops.sum(ops.square(level - mean) * share, axis=(1, 2), keepdims=True) / amount
    # Without the small number, the root would have no slope at 0.
    return [ops.squeeze(each, axis=(1, 2)) for each in (mean, ops.sqrt(variance + 1e-5))]


def take(model: keras.Model, learned: keras.Model) -> None:
    """Put what another network has learned to see into the CNN. Raises CourseError if it is not of the course's shape.

    learned    the U-Net of lesson 02, or a CNN of lesson 04 that was trained on other pictures
    """
    inside = next((layer for layer in learned.layers if layer.name == DESCRIPTION), learned)
    try:
        for layer in model.get_layer(DESCRIPTION).layers:
            if layer.weights:
                layer.set_weights(inside.get_layer(layer.name).get_weights())
    except ValueError:
        raise CourseError(
            "this network does not fit into the CNN: train it anew with this version, into a run folder of its own"
        ) from None


def _shrunk(model: keras.Model, crops: np.ndarray) -> np.ndarray:
    """Crops as the U-Net inside sees them: uint8 (n, 180, 180, channels) to uint8 (n, size, size, channels)."""
    look = keras.Model(model.input, model.get_layer("as_the_unet_sees_it").output)
    found = np.empty((len(crops), *look.output_shape[1:]), np.uint8)
    for start in range(0, len(crops), 256):  # float32 takes four times the memory
        found[start : start + 256] = np.rint(answers(look, crops[start : start + 256]))
    return found


def _described(
    describe: keras.Model, pictures: np.ndarray, change: Augment | None, versions: int, seed: int
) -> np.ndarray:
    """What the description `describe` says of changed versions of each picture: float32 (n, versions, 1440).

    pictures    uint8 (n, size, size, 3), or several looks one behind the other, of which each has its own 1440; change:
                None if there is nothing to change, and one version is enough
    """
    versions = versions if change else 1
    found = np.empty((len(pictures), versions, pictures.shape[-1] // 3 * describe.output_shape[-1]), np.float32)
    chunks = [range(len(pictures))[start : start + 128] for start in range(0, len(pictures), 128)]
    steps = versions * len(chunks)
    for version, chunk in progress(product(range(versions), chunks), "describing the crops", steps, "batch"):
        seen = pictures[chunk]
        if change:
            generators = [np.random.default_rng([seed, version, i]) for i in chunk]
            seen = np.stack([change(picture, None, rng)[0] for picture, rng in zip(seen, generators, strict=True)])
        numbers = [answers(describe, np.ascontiguousarray(look)) for look in _looks(seen)]
        found[chunk, version] = np.concatenate(numbers, axis=-1)
    return found


def _one_version(versions: np.ndarray, _: None, rng: np.random.Generator) -> tuple[np.ndarray, None]:
    """An `Augment` of numbers: (versions, 1440) to one of them."""
    return versions[rng.integers(len(versions))], None


def _labels_of(told_apart: Sequence[int]) -> np.ndarray:
    """What turns probabilities of diagnoses into those of labels: float32 (diagnoses, 2), a 1 where one belongs."""
    return np.eye(2, dtype=np.float32)[list(told_apart)]


def to_tell_apart(table: pd.DataFrame, recipe: Recipe) -> tuple[tuple[int, ...], np.ndarray]:
    """What the network learns to tell apart: the label of each diagnosis, and which of them each crop has, int (n,).

    table    one row per crop with the columns part, label and, if anyone has told, diagnosis
    Where no diagnosis is named, or the recipe asks for none, they are the labels themselves. A diagnosis of which the
    train part has fewer than `LEAST_OF_A_DIAGNOSIS` crops counts as the most frequent one of its label.
    """
    labels = table["label"].to_numpy(dtype=int)
    if not recipe.diagnoses or "diagnosis" not in table:
        return (BENIGN, MALIGNANT), labels
    pairs = list(zip(labels.tolist(), table["diagnosis"].fillna("").astype(str), strict=True))
    counts = Counter(pair for pair, part in zip(pairs, table["part"], strict=True) if part == "train")
    known, instead = [], {}
    for label in (BENIGN, MALIGNANT):
        by_count = [pair for pair, _ in counts.most_common() if pair[0] == label] or [(label, "")]
        instead[label] = by_count[0]
        known += [by_count[0], *sorted(pair for pair in by_count[1:] if counts[pair] >= LEAST_OF_A_DIAGNOSIS)]
    number = {pair: place for place, pair in enumerate(known)}
    of_each = np.array([number.get(pair, number[instead[pair[0]]]) for pair in pairs])
    return tuple(label for label, _ in known), of_each


def diagnosis_loss(told_apart: Sequence[int]) -> tuple[Callable, Callable]:
    """Loss and accuracy where more is told apart than the labels: functions of the right diagnoses, int (n,), and of
    what the network gives each, float (n, diagnoses), to (n,).

    The loss is cross-entropy of the label, which is what counts, and beside it cross-entropy of the diagnosis, which
    tells more of each crop. The accuracy is of the label.
    """
    label, sums = np.array(told_apart, np.int32), _labels_of(told_apart)

    def of_labels(right, probabilities):
        return ops.take(label, ops.cast(ops.reshape(right, (-1,)), "int32")), ops.matmul(probabilities, sums)

    def loss(right, probabilities):
        coarse = keras.losses.sparse_categorical_crossentropy(*of_labels(right, probabilities))
        return coarse + keras.losses.sparse_categorical_crossentropy(ops.reshape(right, (-1,)), probabilities)

    def accuracy(right, probabilities):
        return keras.metrics.sparse_categorical_accuracy(*of_labels(right, probabilities))

    return loss, accuracy


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weight of each image, so that both classes count the same in sum: n / (2 · images of its class). Lesson 04.

    labels    int (n,), 0 or 1. With one class only, every weight is 1.
    """
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        return np.ones(len(labels), np.float32)
    return (len(labels) / (2 * counts))[labels].astype(np.float32)


def set_intercept(learner: keras.Model, inputs: np.ndarray, targets: np.ndarray, told_apart: Sequence[int]) -> float:
    """Move a trained network's answers as a whole, until it believes in both classes alike; returns by how much, in
    log-odds of "malignant". Lesson 04.

    Afterwards the malignant pictures of the validation part are called malignant, on average, with the probability with
    which the benign ones are called benign. A network that knows its training pictures better than new ones may err to
    one side with these. The ranking stays as it is, and a single number takes few pictures to find: recalibration "in
    the large". Where a class is missing, nothing is moved.

    learner    ends with the softmax of what is told apart; inputs: what it is asked of the validation part;
               targets: int (n,), the right place in told_apart
    """
    malignant = np.array(told_apart, np.float32)
    labels = malignant[targets].astype(int)
    if len(np.unique(labels)) < 2:
        return 0.0
    # Not by `answers`, which takes pictures: a learner behind a frozen U-Net is asked about numbers.
    said = [np.asarray(learner(inputs[start : start + 64].astype(np.float32))) for start in range(0, len(inputs), 64)]
    odds = logit(np.clip(np.concatenate(said).astype(np.float64) @ malignant, 1e-7, 1 - 1e-7))
    weights = class_weights(labels)
    # Clipped, no log-odds lie beyond 17: between -40 and 40, the sum is sure to change its sign.
    shift = brentq(lambda by: np.dot(weights, expit(odds + by) - labels), -40, 40)
    kernel, bias = learner.layers[-1].get_weights()
    learner.layers[-1].set_weights([kernel, bias + shift * malignant])
    return shift


def train_cnn(
    crops: np.ndarray,
    table: pd.DataFrame,
    epochs: int,
    seed: int,
    checkpoint: str | Path | None = None,
    recipe: Recipe = RECIPE,
    seconds: float | None = None,
    start: keras.Model | None = None,
) -> tuple[keras.Model, dict]:
    """Train on the train part, watch the validation part; returns the model and its history.

    Where the U-Net inside is frozen, the last epoch's weights are kept, and the validation part sets the intercept;
    otherwise it chooses the epoch.

    crops         uint8 RGB (n, 180, 180, 3), or several looks, see `build_cnn`
    table         one row per crop with the columns part and label, and diagnosis, if the recipe is to ask for it
    checkpoint    a file that lets a killed training go on; seconds: a limit, see `training.train`. A frozen U-Net is
                  asked before that: it is asked again after a kill, and its time is not counted
    start         the network of lesson 02, which this one has inside, or a CNN trained before on other pictures;
                  None: from random weights
    """
    parts = {part: (table["part"] == part).to_numpy() for part in ("train", "validation")}
    for chosen in parts.values():
        check_pictures(crops[chosen])
    told_apart, targets = to_tell_apart(table, recipe)
    looks = crops.shape[-1] // 3
    model, has_start = build_cnn(recipe, told_apart, looks), recipe.start and start is not None
    if has_start:
        take(model, start)
    made_from = {"seed": seed, "weights": digest(*model.get_weights())} | recipe._asdict()
    shrunk, describe, standardised = (
        model.get_layer(name) for name in ("as_the_unet_sees_it", DESCRIPTION, "standardised")
    )
    # Crops are shrunk once, not in every epoch: training starts behind that layer.
    inputs = {part: _shrunk(model, crops[chosen]) for part, chosen in parts.items()}
    change = augmentation(recipe.turns, recipe.changes)
    change = _of_every_look(change) if change and looks > 1 else change
    loss, accuracy = "sparse_categorical_crossentropy", "accuracy"
    learned = model.output
    if len(told_apart) > 2:
        loss, accuracy = diagnosis_loss(told_apart)
        learned = model.get_layer("diagnosis").output
    if recipe.frozen and has_start:
        # What the U-Net says of a crop will not change any more: it is asked once, and only the rest is trained.
        describe.trainable = standardised.trainable = False
        inputs["train"] = _described(describe, inputs["train"], change, recipe.versions, seed)
        inputs["validation"] = _described(describe, inputs["validation"], None, 1, seed)[:, 0]
        standardised.set_weights([inputs["train"].mean(axis=(0, 1)), inputs["train"].var(axis=(0, 1))])
        learner, change = keras.Model(standardised.input, learned), _one_version
    else:
        learner = keras.Model(shrunk.output, learned)
    batches = []
    for part, how in (("train", change), ("validation", None)):
        weights = class_weights(table.loc[parts[part], "label"].to_numpy()) if recipe.class_weights else None
        batches.append(Batches(inputs[part], targets[parts[part]], 2 * BATCH_SIZE, seed, how, weights))
    history = train(
        learner, *batches, epochs, loss, [accuracy], recipe.rate,
        what="training the CNN", checkpoint=checkpoint, seconds=seconds, cosine=recipe.cosine_schedule,
        muon=recipe.muon, last_epoch=recipe.last_epoch,
        made_from={"crops": digest(crops, *(batch.targets for batch in batches))} | made_from,
    )  # fmt: skip
    if recipe.intercept:
        set_intercept(learner, inputs["validation"], targets[parts["validation"]], told_apart)
    return model, history


def predict_labels(model: keras.Model, crops: np.ndarray, views: int = RECIPE.views) -> np.ndarray:
    """Probability of "malignant" per crop: uint8 RGB (n, 180, 180, 3), or several looks, to float64 (n,) in 0–1.

    views    how many mirror images and turns the mean is taken over, 1, 2, 4 or 8, since a lesion has no "up"
             (test-time augmentation, see `inference.answers`)
    """
    return answers(model, crops, views=views)[:, MALIGNANT].astype(np.float64)
