"""The command line: `skinlib run`, `data`, `predict`, `benchmark`. TensorFlow is imported only by what needs it."""

import argparse
import errno
import sys
from pathlib import Path

from skinlib import __version__
from skinlib.files import CourseError


def build_parser() -> argparse.ArgumentParser:
    """All commands and options. No option may be shortened: a near miss is an error, not a guess."""
    parser = argparse.ArgumentParser(
        prog="skinlib",
        allow_abbrev=False,
        description="Skin-lesion analysis, a course in notebooks. For education; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"skinlib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", allow_abbrev=False, help="run the lessons headlessly")
    run.add_argument(
        "--dataset", default="synthetic", help="synthetic (default), isic2016, isic2018, ham10000 or folder"
    )
    run.add_argument("--data-dir", type=Path, help="where the real data set lies")
    run.add_argument("--out", type=Path, help="the run's folder (default: runs/DATASET)")
    run.add_argument("--only", nargs="+", metavar="NN", help="only these lessons, such as 02 03")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--quick", action="store_true", help="few images and epochs: does everything run?")
    run.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
        help="set a lesson's own parameter, such as epochs=20; may be given several times",
    )  # fmt: skip

    predict = commands.add_parser("predict", allow_abbrev=False, help="classify pictures with a run's models")
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    predict.add_argument("--models", type=Path, required=True, help="a run's models folder: RUN/models")
    predict.add_argument("--out", type=Path, required=True, help="where masks, pictures and the CSV go")

    data = commands.add_parser("data", allow_abbrev=False, help="fetch a real data set, or paint one, into a folder")
    data.add_argument(
        "name", metavar="NAME",
        help="isic2016 (840 MB, CC-0: a good first one), isic2018 (11.2 GB, CC-0), ham10000 (about 2.7 GB, CC BY-NC), "
        "or synthetic: the embedded data set, painted here and now",
    )  # fmt: skip
    data.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder, or one to go on with")
    data.add_argument("--limit", type=int, metavar="N", help="only so many images, the labels in the same shares")
    data.add_argument("--thumbnails", action="store_true", help="pictures of 256 pixels, some 20 kB each")
    data.add_argument("--size", type=int, metavar="PIXELS", help="synthetic: width of an image, 32–2048 (default: 192)")

    _add_benchmark(commands.add_parser("benchmark", allow_abbrev=False, help="measure what the course claims"))
    return parser


def _add_benchmark(benchmark: argparse.ArgumentParser) -> None:
    benchmark.add_argument(
        "name", metavar="NAME",
        help="segmentation, classification, ablation (our networks beside the plain recipe, and with each choice taken "
        "back alone), course (its seconds), generator, reading, leak or inference (some minutes each), or transfer "
        "(20 minutes)",
    )  # fmt: skip
    benchmark.add_argument(
        "--data-dir", type=Path,
        help="real data: what --dataset names, ISIC 2018 Task 1 for transfer and reading, HAM10000 for leak",
    )  # fmt: skip
    benchmark.add_argument("--out", type=Path, default=Path("runs/benchmark"), help="default: runs/benchmark")
    benchmark.add_argument("--seed", type=int, default=0)
    benchmark.add_argument("--quick", action="store_true", help="only to see it run: its figures mean nothing")
    benchmark.add_argument(
        "--write", action="store_true", help="also put table and figure into README.md and figures/ of this clone"
    )
    networks = benchmark.add_argument_group("segmentation, classification, ablation")
    networks.add_argument(
        "--dataset", default="synthetic", help="synthetic (default), isic2016, isic2018, ham10000 or folder"
    )
    networks.add_argument("--fold", type=int, default=0, help="which fifth of real data is the test part: 0 to 4")
    networks.add_argument(
        "--all-folds",
        action="store_true",
        help="segmentation, classification: test on each fifth in turn, so on every image",
    )
    networks.add_argument("--seeds", type=int, default=1, metavar="N", help="train each network N times")
    networks.add_argument("--epochs", type=int, metavar="N", help="of ours; ablation: of every arm")
    networks.add_argument(
        "--unet-epochs", type=int, metavar="N", help="classification: of the U-Net that cuts, where one is trained"
    )
    networks.add_argument(
        "--seconds", type=int, nargs="+", default=(), metavar="S", help="segmentation: ours after so much training too"
    )
    networks.add_argument(
        "--variants", nargs="*", metavar="NAME", help="classification: ways of cutting the images, all of them or these"
    )
    networks.add_argument(
        "--plain",
        default="all",
        help="segmentation, classification: the plain recipe too, all times (default), first, none",
    )
    networks.add_argument("--stage", help="ablation: segmentation or classification (default: both)")
    networks.add_argument(
        "--models", type=Path, help="classification, ablation: cut with the U-Net of this folder, and train none"
    )
    networks.add_argument(
        "--start", type=Path, help="classification, ablation: ours starts from the CNN of this folder, not the U-Net"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    try:
        return {"run": _run, "data": _data, "predict": _predict, "benchmark": _benchmark}[options.command](options)
    except CourseError as error:
        print(f"skinlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("skinlib: interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
        return 130
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space or choose another folder" if full else "may it be read and written by you?"
        print(f"skinlib: {error.strerror or error}{place}: {advice}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from skinlib import course

    course.run(
        dataset=options.dataset,
        data_dir=options.data_dir,
        out=options.out,
        only=options.only,
        seed=options.seed,
        quick=options.quick,
        extra=course.parse_parameters(options.parameter),
    )
    return 0


def _predict(options: argparse.Namespace) -> int:
    from skinlib import predict

    table = predict.predict_files(predict.find_images(options.images), options.models, options.out)
    failed = table[table["status"] == "error"]
    print(table[["image", "label", "confidence", "tag"]][table["status"] == "ok"].to_string(index=False))
    for _, row in failed.iterrows():
        print(f"skinlib: {row['message']}", file=sys.stderr)
    print(f"{len(table) - len(failed)} of {len(table)} pictures classified: see {options.out / predict.RESULTS_FILE}")
    print("For education; not a medical device.")
    return 1 if len(failed) else 0


def _data(options: argparse.Namespace) -> int:
    lines = _painted(options) if options.name == "synthetic" else _fetched(options)
    print("\n".join(lines))
    return 0


def _painted(options: argparse.Namespace) -> list[str]:
    if options.thumbnails:
        raise CourseError("--thumbnails is for real data; painted pictures have --size PIXELS")
    from skinlib import synthetic

    count = synthetic.DEFAULT_COUNT if options.limit is None else options.limit
    size = synthetic.DEFAULT_SIZE if options.size is None else options.size
    best = synthetic.export(options.to, count, size)
    figures = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in best.items() if value == value]
    return [
        f"{count} pictures of {size}×{size} pixels, masks, outlines and metadata.csv: see {options.to}",
        "best possible: " + (", ".join(figures) or "not defined"),
    ]


def _fetched(options: argparse.Namespace) -> list[str]:
    from skinlib import sources

    if options.name in sources.SOURCES and options.size is not None:
        raise CourseError("--size is for painted pictures; real ones come in full size, or with --thumbnails")
    return sources.fetch_dataset(options.name, options.to, options.limit, options.thumbnails)


def _benchmark(options: argparse.Namespace) -> int:
    from skinlib import benchmark

    asked = {name: value for name, value in vars(options).items() if name != "command"}
    variants = None if options.variants is None else tuple(options.variants)
    print(benchmark.run(benchmark.Options(**asked | {"seconds": tuple(options.seconds), "variants": variants})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
